"""A learner: model + objective + optimiser + schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from torch import Tensor, nn

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.mesh import DataAxis
from benchmark.core.objective import ObjectiveRef, Step
from benchmark.core.optimizer import DEFAULT_SCHEDULE, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.weights import Weights


class LearnerConfig(Config):
    """One base learner. ``optimizer`` and ``schedule`` default to the suite's, so that methods are
    compared under one recipe unless a method sets its own. Keys that a partial ``optimizer`` does
    not set come from the suite's optimiser too.

    Attributes:
        name: the name of the learner in mixing ratios and metrics.
        objective: a name, or a mapping with the name and hyper-parameters.
        optimizer, schedule: see above. The schedule is a factor of the optimiser's lr.
        grad_clip: largest l_2 norm of the gradient; None for no clipping.
        init: number of the initial weights; learners with the same number start from the same
            weights.
        init_from: trained weights to start from, instead of initial weights.
        model: the learner's own architecture, as under a suite's ``model``; None for the suite's.
    """

    name: str
    objective: ObjectiveRef
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = DEFAULT_SCHEDULE
    grad_clip: float | None = Field(default=None, gt=0)
    init: int = Field(default=0, ge=0)
    init_from: Weights | None = None
    model: dict[str, Any] | None = None

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later options that are off, so that hashes of earlier records stay the same."""
        data = default(self)
        off = {"init": 0, "init_from": None, "model": None}
        return {key: value for key, value in data.items() if off.get(key, ...) != value}

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


def default_learner(name: str, objective: str | dict[str, Any]) -> Any:
    """The default of a recipe's field. Like a given value, it is validated and completed with the
    suite's defaults."""
    return Field(default_factory=lambda: {"name": name, "objective": objective})


def default_learners(*configs: dict[str, Any]) -> Any:
    """As ``default_learner``, for a field with several learners."""
    return Field(default_factory=lambda: configs)


class Learner:
    """The state of one base learner in training.

    Attributes:
        view: context manager that yields the model on which images are crafted.
        here: whether this process trains it; several processes may divide the learners.
    """

    here = True

    def __init__(self, config: LearnerConfig, setting: Setting, model: nn.Module | None = None):
        self.config = config
        self.objective = config.objective
        if model is None:
            model = setting.new_model(config.init, config.model)
            if config.init_from:
                setting.load(model, config.init_from)
        self.model = model
        self.model.train()
        self.optimizer = config.optimizer.build(self.model)
        self._setting = setting
        self.view = setting.crafting_view(self.model, self.objective.batchnorm)

    @property
    def passes(self) -> float:
        """Gradient passes per image and step."""
        return self.objective.passes

    def step(self, x: Tensor, y: Tensor, progress: float) -> Tensor:
        """One optimiser step on a batch (x [n, c, h, w] in [0, 1], y [n]). Returns the loss,
        detached."""
        return self.step_on(x, y, self._setting.step(progress))[1]

    def step_on(self, x: Tensor, y: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """As ``step``; also returns the images that were trained on.

        If the setting has ``accumulate``, the batch passes through the network in so many turns
        (micro-batches), and their gradients of the mean loss are added up: the same step with less
        memory. BatchNorm in train mode is the exception: each turn has its own statistics, and
        updates the running averages.
        """
        if len(step.data.turns(step.accumulate)) > 1:
            return self._step_in_turns(x, y, step)
        x_adv = self.craft(x, y, step)

        def loss() -> Tensor:
            with self._setting.autocast():
                return self.objective.loss(self.model, x, x_adv, y, step)

        return x_adv, self.descend(loss, step)

    def _step_in_turns(self, x: Tensor, y: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        crafted: dict[int, Tensor] = {}

        def craft(rows: slice) -> Tensor:
            crafted[rows.start] = self.objective.perturb(on, x[rows], y[rows], step)
            # k training images for each image have the shape [k * n]: first the n first ones, then
            # the n second ones, and so on.
            return crafted[rows.start].unflatten(0, (-1, len(y[rows])))

        def loss() -> Tensor:
            mean = _AddedUp([p for p in self.model.parameters() if p.requires_grad])

            def add(rows: slice) -> None:
                labels = y[rows]
                with self._setting.autocast():
                    value = self.objective.loss(
                        self.model, x[rows], crafted[rows.start], labels, step
                    )
                mean.add(value * (len(labels) / len(y)))

            step.in_turns(add)
            return mean.loss()

        with self.view as on:
            x_adv = torch.cat(step.in_turns(craft), 1).flatten(0, 1)
        return x_adv, self.descend(loss, step)

    def craft(self, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The objective's training images, crafted on this learner."""
        with self.view as crafted_on:
            return self.objective.perturb(crafted_on, x, y, step)

    def descend(self, loss: Callable[[], Tensor], step: Step) -> Tensor:
        """One optimiser step on ``loss``, which is called with the model in train mode. Returns its
        value."""
        with self.objective.displaced(self.model.train(), loss, step):
            return descend_together([self], loss, step)

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimiser state."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            KeyError, RuntimeError, ValueError: the state is of another model or optimiser.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        # torch checks the shapes of weights, but not those of the optimiser's state
        for weight, kept in self.optimizer.state.items():
            for name, value in kept.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != weight.shape:
                    raise ValueError(f"{name} is {list(value.shape)}, not {list(weight.shape)}")


class _AddedUp:
    """A loss and its gradients to ``weights``, summed over turns, so that no graph is kept."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = weights
        self._values: list[Tensor] = []
        self._gradients: list[Tensor | None] = [None] * len(weights)

    def add(self, value: Tensor) -> None:
        """Add a term of the loss."""
        own = torch.autograd.grad(value, self._weights, allow_unused=True)
        for n, gradient in enumerate(own):
            known = self._gradients[n]
            if gradient is not None:
                self._gradients[n] = gradient if known is None else known + gradient
        self._values.append(value.detach())

    def loss(self) -> Tensor:
        """The sum, which can be given to ``backward`` and ``torch.autograd.grad`` like any loss."""
        value = torch.stack(self._values).sum()
        loss: Tensor = _Known.apply(value, self._gradients, *self._weights)
        return loss


class _Known(torch.autograd.Function):
    """A value whose gradients are computed already."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *weights: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor | None, ...]:
        factor = factors[0]
        return None, None, *(None if g is None else g * factor for g in ctx.gradients)


def descend_together(learners: Sequence[Learner], loss: Callable[[], Tensor], step: Step) -> Tensor:
    """One step of several learners' optimisers on a loss that depends on all of them."""
    for learner in learners:
        learner.model.train()
        factor = learner.config.schedule(step.progress)
        for group in learner.optimizer.param_groups:
            group["lr"] = learner.config.optimizer.lr * factor
    value = loss()
    for learner in learners:
        learner.optimizer.zero_grad(set_to_none=True)
    if step.data.cut:
        (value * step.data.share).backward()
        _add_up(learners, step.data)
    else:
        value.backward()
    for learner in learners:
        if learner.config.grad_clip is not None:
            nn.utils.clip_grad_norm_(learner.model.parameters(), learner.config.grad_clip)
        learner.optimizer.step()
    return value.detach()


@torch.no_grad()
def _add_up(learners: Sequence[Learner], data: DataAxis) -> None:
    """Sum the gradients of the parts of a batch over all processes, and keep BatchNorm's running
    averages equal in all of them."""
    parameters = [p for learner in learners for p in learner.model.parameters()]
    data.sum_([parameter.grad for parameter in parameters if parameter.grad is not None])
    if data.statistics == "per-rank":
        buffers = [b for item in learners for b in item.model.buffers() if b.is_floating_point()]
        torch._foreach_div_(buffers, data.size)
        data.sum_(buffers)


def learner_names(configs: tuple[LearnerConfig, ...]) -> list[str]:
    """The names of ``configs``. Raises ConfigError if there is none or two are equal."""
    names = [config.name for config in configs]
    if not names:
        raise ConfigError("a method needs at least one learner")
    if len(set(names)) < len(names):
        raise ConfigError(f"learner names must differ, got {names}")
    return names
