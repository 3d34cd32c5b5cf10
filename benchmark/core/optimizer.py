"""How a learner is optimised: the optimiser, its schedule, and the settings of methods' authors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from benchmark.core.config import Config
from benchmark.core.schedule import Schedule


class OptimizerConfig(Config):
    """An optimiser; the learning rate is multiplied by the learner's schedule.

    Attributes:
        name: sgd, adam or adamw.
        lr: peak learning rate.
        momentum, nesterov: sgd only.
        weight_decay: applied to every parameter, as in the usual codes of adversarial training.
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


# The peak until one third of training, a tenth of it at two thirds, a hundredth at the end, linear
# in between: the schedule of SEAT and of the Generalist code (epochs 0, 40, 80, 120).
DEFAULT_SCHEDULE = Schedule.model_validate([(0, 1), ("1/3", 1), ("2/3", 0.1), (1, 0.01)])


@dataclass(frozen=True)
class AuthorsRecipe:
    """How the authors of a method train it. A suite's entry asks for it by ``recipe: authors``.

    The class of the method holds it as ``authors``. A subclass is another method and does not
    inherit it.

    Attributes:
        source: where the numbers are from, and for which network.
        optimizer, schedule, grad_clip: used instead of the suite's, for every learner that does not
            set its own. The schedule is in fractions of the authors' training.
        epochs, batch_size: those of the authors, for information; training uses those of the suite.
            None: not known.
    """

    source: str
    optimizer: OptimizerConfig
    schedule: Schedule
    epochs: int
    batch_size: int | None
    grad_clip: float | None = None

    def __str__(self) -> str:
        """One line, for lists of methods."""
        optimizer = self.optimizer.model_dump()
        if self.optimizer.name != "sgd":  # the others have neither
            del optimizer["momentum"], optimizer["nesterov"]
        settings = ", ".join(
            f"{key} {value:g}" for key, value in optimizer.items() if key != "name"
        )
        points = ", ".join(f"{value:g} at {100 * p:.3g} %" for p, value in self.schedule.points)
        clip = f"; gradients clipped at {self.grad_clip:g}" if self.grad_clip else ""
        batch = f", batch {self.batch_size}" if self.batch_size else ""
        return (
            f"{self.optimizer.name} ({settings}); lr times {points} of training "
            f"({self.schedule.interpolation}){clip}. The authors train for {self.epochs} epochs"
            f"{batch}. Source: {self.source}"
        )
