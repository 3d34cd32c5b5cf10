"""Generalist as the released code does it (PKU-ML/Generalist at f0dc153), quirks included.

The released script cannot run as published; this is its evident intent. Read ``framework`` first.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.core.learner import LearnerConfig, default_learners
from benchmark.core.mesh import Mesh
from benchmark.core.method import Batch, Method, Mixture
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from generalist.framework import Generalist, GeneralistMethod
from generalist.mixing import MovingAverage
from generalist.presets import NATURAL, late_stage_decay


class GeneralistOfficial(Generalist):
    """Generalist-D as released: theta_g follows averages of averages and is handed back in bursts.

    The code of 2303.13813 (PKU-ML/Generalist at f0dc153), which differs from the paper's algorithm.
    Each learner k has its own average e_k <- a_s * e_k + (1 - a_s) * theta_k with
    a_s = min(0.999, (s + 1) / (s + 10)), and

        theta_g <- a_s * theta_g + (1 - a_s) * (beta * e_robust + (1 - beta) * e_natural),

    where beta is 1 until two thirds of training and falls linearly to 0.4 at the end (epochs 80
    and 120 of 120).

    Quirks of the code, each with its switch:

    * ``nested_average``: the average of averages above. False averages theta_k directly.
    * ``burst``: redistribution stands inside the batch loop under ``epoch % c == 0``, so in those
      epochs both learners are overwritten after *every batch* (a nearly frozen epoch).
      False hands back once, at the end of such an epoch.
    * ``shared_lr``: the robust learner's lr and schedule overwrite the natural learner's at every
      step (0.01 in the paper's ResNet-18 setting). False leaves the natural learner its own.
    * ``zero_means_one``: a beta of exactly 0 is read as 1. The code takes beta at the end of each
      epoch, so a schedule that ends at 0 is read as 1 during the whole last epoch. The default
      schedule ends at 0.4 and never meets this. False takes beta as it is.

    As in the code, momentum, averages and step counters survive redistribution, and buffers are
    averaged like weights. Departure: lr and beta move with every step here, with every epoch in the
    code. Not reproduced: its choice of the checkpoint on the test set, and its evaluation attacks,
    which run 10 steps whatever their name says. Learning rates come from the suite (the code: SGD
    0.01, weight decay 3.5e-3 robust and 5e-4 natural; eps 0.031, step 0.007).
    """

    learners: tuple[LearnerConfig, ...] = default_learners(
        NATURAL, {"name": "robust", "objective": "pgd-at"}
    )
    mixing: dict[str, Schedule] = Field(
        default_factory=lambda: {"robust": late_stage_decay(1.0, 0.4)}
    )
    average: MovingAverage = MovingAverage(decay=0.999)
    nested_average: bool = True
    burst: bool = True
    shared_lr: bool = True
    zero_means_one: bool = True

    @model_validator(mode="after")
    def _needs_robust(self) -> GeneralistOfficial:
        if [learner.name for learner in self.learners] != ["natural", "robust"]:
            raise ValueError("generalist-official has exactly two learners, natural and robust")
        if self.project_onto is not None:
            raise ValueError(
                "generalist-official mixes as the released code does; use project_onto with "
                "generalist-d"
            )
        return self

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        if self.shared_lr:
            natural, robust = self.learners
            optimizer = natural.optimizer.model_copy(update={"lr": robust.optimizer.lr})
            natural = natural.model_copy(
                update={"optimizer": optimizer, "schedule": robust.schedule}
            )
            return _OfficialMethod(self.model_copy(update={"learners": (natural, robust)}), setting)
        return _OfficialMethod(self, setting)


class _OfficialMethod(GeneralistMethod):
    recipe: GeneralistOfficial

    def __init__(self, recipe: GeneralistOfficial, setting: Setting) -> None:
        super().__init__(recipe, setting)
        # The code's unit is the epoch; with c given as a share of a short training, an "epoch" is
        # a fifth of c, as epochs are to its c = 5.
        self._epoch_steps = (
            setting.steps_per_epoch
            if recipe.every.epochs is not None
            else max(1, round(self._every / 5))
        )
        self._epoch_end = 0.0
        self.averages = {
            name: copy.deepcopy(learner.model).eval().requires_grad_(False)
            for name, learner in self.learners.items()
        }

    def _unused_steps(self) -> dict[str, int]:
        """None: the averages e_k, which redistribution spares, remember every step."""
        return dict.fromkeys(self.learners, 0)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """As of ``Generalist``."""
        epoch = self.steps // self._epoch_steps + 1
        self._epoch_end = min(1.0, epoch * self._epoch_steps / self._setting.total_steps)
        return super().update(batch, progress)

    def _ratios(self, progress: float) -> dict[str, float]:
        if self.recipe.zero_means_one and super()._ratios(self._epoch_end)["robust"] == 0:
            return {"natural": 0.0, "robust": 1.0}
        return super()._ratios(progress)

    def _mix(self, progress: float) -> None:
        if not self.recipe.nested_average:
            super()._mix(progress)
            return
        decay = self.recipe.average.at(self.steps, self._setting.total_steps)
        for name, learner in self.learners.items():
            if learner.here:
                self._average(self.averages[name], {name: learner.model}, {name: 1.0}, decay)
        axis = self._setting.mesh.learners
        self._average(self.global_learner, self.averages, self._ratios(progress), decay, axis)

    def _redistribution_is_due(self) -> bool:
        """During the whole of epochs t', t' + c, ...

        The code counts epochs from 1, so epoch t' is the one that ends t' epochs into training
        (75, 80, ..., 120 of 120: ten bursts, one at the end). The code asks for ``epoch % c == 0``,
        which is the same for a t' that is a multiple of c, as in its settings.
        """
        if not self.recipe.burst:
            return super()._redistribution_is_due()
        if not self._every:
            return False
        # steps counts the batch just done; epoch t' begins epoch_steps before t' is complete.
        since = self.steps - 1 - (self._warmup - self._epoch_steps)
        return since >= 0 and since % self._every < self._epoch_steps

    def mixture(self, progress: float, since: int) -> Mixture | None:
        """None for an average of averages, whose weights are others than those of equation (2)."""
        return None if self.recipe.nested_average else super().mixture(progress, since)

    def alone(self) -> dict[str, nn.Module]:
        """The learners' own averages; without the nested average they are not kept."""
        return dict(self.averages) if self.recipe.nested_average else super().alone()

    def share(self, mesh: Mesh) -> None:
        super().share(mesh)
        own = {k: v.state_dict() for k, v in self.averages.items() if self.learners[k].here}
        for name, state in mesh.union(own).items():
            self.averages[name].load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        averages = {name: model.state_dict() for name, model in self.averages.items()}
        return {**super().state_dict(), "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for name, model in self.averages.items():
            model.load_state_dict(state["averages"][name])
