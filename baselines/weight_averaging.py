"""Averages of one network's weights over training: EMA (SEAT, 2203.09678) and SWA (1803.05407)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.core.averaging import floating_state, move_towards, reestimate_batchnorm
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Mixture, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting


class _Averaged(Recipe):
    """One learner, of which an average is deployed. ``objective: NAME`` is short for a learner with
    this objective.

    Attributes:
        default_objective: the objective if none is given.
    """

    family = "weight averaging"
    default_objective: ClassVar[Any] = "pgd-at"

    learner: LearnerConfig = default_learner("pgd-at", "pgd-at")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "learner" in data:
            return data
        keys = set(LearnerConfig.model_fields) - {"name"}
        learner = {"name": "learner", "objective": cls.default_objective}
        learner |= {key: value for key, value in data.items() if key in keys}
        return {key: value for key, value in data.items() if key not in keys} | {"learner": learner}


class AveragedMethod(Method):
    """One learner and an average of its weights, which is deployed once there is one.

    Attributes:
        average: a copy of the network, in eval mode, for a subclass to fill.
        steps: optimiser steps so far, for a subclass to count.
    """

    def __init__(self, learner: LearnerConfig, setting: Setting) -> None:
        self._setting = setting
        self.learners = build_learners((learner,), setting)
        (self._learner,) = self.learners.values()
        self.average = copy.deepcopy(self._learner.model).eval().requires_grad_(False)
        self.steps = 0

    @property
    def begun(self) -> bool:
        """Whether there is an average; until then the learner itself is deployed."""
        return True

    def selectable(self, progress: float) -> bool:
        """True once there is an average."""
        return self.begun

    def deployed(self) -> nn.Module:
        return self.average if self.begun else self._learner.model

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "average": self.average.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"])
        self.steps = int(state["steps"])


class _Following(AveragedMethod):
    """The average is updated after every step."""

    @property
    def accumulates(self) -> bool:
        return type(self)._step is _Following._step

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = self._step(batch, progress)
        self._follow(self.steps)
        self.steps += 1
        return losses

    def _step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One step of the learner; see ``Method.update``."""
        return super().update(batch, progress)

    def _follow(self, step: int) -> None:
        """Add the weights after optimiser step ``step`` (counted from 0) to the average."""
        raise NotImplementedError


class EMA(_Averaged):
    """EMA / SEAT: theta_a <- a_s * theta_a + (1 - a_s) * theta, a_s = min(decay, (s+1) / (s+10)).

    Exponential moving average of the weights over all steps s, with BatchNorm statistics averaged
    in the same way; it is deployed instead of theta (self-ensemble adversarial training,
    2203.09678, and its code). It equals Generalist with one learner and without redistribution. It
    can wrap any objective: ``{name: ema, objective: trades}``.

    Departures: none known; the average is compared with its recursion (tests/baselines). SEAT's own
    recipe is lr 0.01, weight decay 3.5e-3 on ResNet-18.

    Attributes:
        learner: the network that is trained; default PGD-AT.
        decay: largest a_s; 0.999 in the code.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2203.09678 (SEAT), ResNet-18",
        optimizer=OptimizerConfig(lr=0.01, momentum=0.9, weight_decay=3.5e-3),
        schedule=Schedule(points=((0, 1), (1 / 3, 1), (2 / 3, 0.1), (1, 0.01))),
        epochs=120,
        batch_size=128,
    )

    decay: float = Field(default=0.999, ge=0, lt=1)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _EMA(self, setting)


class _EMA(_Following):
    def __init__(self, recipe: EMA, setting: Setting) -> None:
        super().__init__(recipe.learner, setting)
        self._decay = recipe.decay

    def _decay_at(self, step: int) -> float:
        return min(self._decay, (step + 1) / (step + 10))

    def mixture(self, progress: float, since: int) -> Mixture | None:
        """The one learner, averaged over time."""
        decays = map(self._decay_at, range(since, self.steps))
        return Mixture(dict.fromkeys(self.learners, 1.0), math.prod(decays))

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        decay = self._decay_at(step)
        source = floating_state(self._learner.model)
        move_towards(floating_state(self.average), [source], [1.0], decay)


class SWA(_Averaged):
    """SWA: theta_a <- (n * theta_a + theta) / (n + 1) after every epoch, once learning has settled.

    Stochastic weight averaging (Izmailov et al., 1803.05407; for adversarial training 2010.01279):
    the plain mean of the weights at the ends of the epochs from ``since`` on. BatchNorm statistics
    are re-estimated on clean training images before the mean is used. Until ``since``, the trained
    network itself is deployed. SWA can wrap any objective: ``{name: swa, objective: trades}``.

    Departures: the code of 2010.01279 crafts in train mode (``objective: {name: pgd-at, batchnorm:
    train}``), and adds knowledge distillation, which is ``kd-swa`` here. The average is compared
    with a plain one (tests/baselines).

    Attributes:
        learner: the network that is trained; default PGD-AT.
        since: start, in epochs or as a share of training; epoch 55 of 200 in the code of
            2010.01279.
        every: time from one averaged network to the next; one epoch in the source.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2010.01279",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (50 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=None,
    )

    since: Duration = Duration(share=55 / 200)
    every: Duration = Duration(epochs=1)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return SWAMethod(self, setting)


class SWAMethod(_Following):
    """The state of SWA in training."""

    def __init__(self, recipe: SWA, setting: Setting) -> None:
        super().__init__(recipe.learner, setting)
        length = setting.total_steps, setting.steps_per_epoch
        self._since = recipe.since.steps(*length)
        self._every = max(1, recipe.every.steps(*length))

    def _averaged(self, steps: int) -> int:
        """How many networks are in the average after so many steps."""
        first = max(self._every, -(-self._since // self._every) * self._every)
        return 0 if steps < first else (steps - first) // self._every + 1

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        count = self._averaged(step + 1)
        if count > self._averaged(step):
            source = floating_state(self._learner.model)
            move_towards(floating_state(self.average), [source], [1.0], 1 - 1 / count)

    @property
    def begun(self) -> bool:
        return bool(self._averaged(self.steps))

    def deployed(self) -> nn.Module:
        if self.begun:
            reestimate_batchnorm(self.average, self._setting.calibration())
        return super().deployed()
