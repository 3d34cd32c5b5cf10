"""A learner: model + objective + optimiser + schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, model_validator
from torch import Tensor, nn

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.objective import ObjectiveRef, Step
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting


class OptimizerConfig(Config):
    """An optimiser; the learning rate is multiplied by the learner's schedule.

    Attributes:
        name: sgd, adam or adamw.
        lr: peak learning rate.
        momentum, nesterov: sgd only.
        weight_decay: applied to every parameter, as the field's reference codes do.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.1, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _check(self) -> OptimizerConfig:
        if self.nesterov and self.name == "sgd" and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over all trainable parameters of ``model``."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                nesterov=self.nesterov,
                foreach=True,
            )
        cls = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return cls(parameters, lr=self.lr, weight_decay=self.weight_decay, foreach=True)


# Peak until a third, a tenth at two thirds, a hundredth at the end: the schedule of SEAT and of
# the Generalist code (epochs 0, 40, 80, 120).
DEFAULT_SCHEDULE = Schedule.model_validate([(0, 1), ("1/3", 1), ("2/3", 0.1), (1, 0.01)])


class LearnerConfig(Config):
    """One base learner. ``optimizer`` and ``schedule`` default to the suite's, so that methods are
    compared under one recipe unless a method says otherwise; keys left out of a partial
    ``optimizer`` come from the suite's too.

    Attributes:
        name: what mixing ratios and metrics call it.
        objective: a name, or a mapping of name and hyper-parameters.
        optimizer, schedule: see above. The schedule is a factor of the optimiser's lr.
        grad_clip: largest l_2 norm of the gradient; None for no clipping.
    """

    name: str
    objective: ObjectiveRef
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = DEFAULT_SCHEDULE
    grad_clip: float | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _suite_defaults(cls, data: Any, info: ValidationInfo) -> Any:
        defaults = (info.context or {}).get("learner")
        if not defaults or not isinstance(data, Mapping):
            return data
        merged = {**defaults, **data}
        own = data.get("optimizer")
        if isinstance(own, Mapping) and isinstance(defaults.get("optimizer"), Mapping):
            default = defaults["optimizer"].get("name", "sgd")
            same = own.get("name", default) == default
            # Adam must not inherit a learning rate that was chosen for SGD.
            merged["optimizer"] = {**defaults["optimizer"], **own} if same else own
        return merged


class Learner:
    """The state of one base learner in training."""

    def __init__(self, config: LearnerConfig, setting: Setting, model: nn.Module | None = None):
        self.config = config
        self.objective = config.objective
        self.model = model if model is not None else setting.new_model()
        self.model.train()
        self.optimizer = config.optimizer.build(self.model)
        self._setting = setting
        self._view = setting.crafting_view(self.model, self.objective.batchnorm)

    @property
    def passes(self) -> float:
        """Gradient passes per image and step."""
        return self.objective.passes

    def step(self, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """One optimiser step on a batch (x [n, c, h, w] in [0, 1], y [n]); the loss, detached."""
        step = Step(progress, self._setting.generator)
        factor = self.config.schedule(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * factor
        with self._view as crafted_on:
            x_adv = self.objective.perturb(crafted_on, x, y, step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self._setting.autocast():
            loss = self.objective.loss(self.model, x, x_adv, y, step)
        loss.backward()
        if self.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimiser state."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def learner_names(configs: tuple[LearnerConfig, ...]) -> list[str]:
    """The names of ``configs``. Raises ConfigError if there is none or two are equal."""
    names = [config.name for config in configs]
    if not names:
        raise ConfigError("a method needs at least one learner")
    if len(set(names)) < len(names):
        raise ConfigError(f"learner names must differ, got {names}")
    return names
