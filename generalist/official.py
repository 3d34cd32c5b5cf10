"""Generalist as in the released code (PKU-ML/Generalist at f0dc153), with its peculiarities.

The released script does not run as published; this is what it evidently means to do. Read
``framework`` first.
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
    """Generalist-D as released: theta_g averages averages and is redistributed in bursts.

    The code of 2303.13813 (PKU-ML/Generalist at f0dc153), which differs from the paper's algorithm.
    Each learner k has its own average e_k <- a_s * e_k + (1 - a_s) * theta_k with
    a_s = min(0.999, (s + 1) / (s + 10)), and

        theta_g <- a_s * theta_g + (1 - a_s) * (beta * e_robust + (1 - beta) * e_natural),

    where beta is 1 until two thirds of training and falls linearly to 0.4 at the end (epochs 80
    and 120 of 120).

    Peculiarities of the code, each with a switch:

    * ``nested_average``: the average of averages above. False averages theta_k directly.
    * ``burst``: redistribution is inside the batch loop, under ``epoch % c == 0``, so in those
      epochs both learners are overwritten after *every batch* (a nearly frozen epoch).
      False redistributes once, at the end of such an epoch.
    * ``shared_lr``: the robust learner's lr and schedule overwrite the natural learner's at every
      step (0.01 in the paper's ResNet-18 setting). With False, the natural learner keeps its own.
    * ``zero_means_one``: a beta of exactly 0 is read as 1. The code takes beta at the end of each
      epoch, so a schedule that ends at 0 is read as 1 during the whole last epoch. This does not
      occur with the default schedule, which ends at 0.4. False uses a beta of 0 unchanged.

    As in the code, momentum, averages and step counters are kept at redistribution, and buffers are
    averaged like weights. Departure: lr and beta change with every step here, with every epoch in
    the code. Not reproduced: the code's choice of the checkpoint on the test set, and its
    evaluation attacks, which run 10 steps even if their names say otherwise. Learning rates come
    from the suite (the code: SGD 0.01, weight decay 3.5e-3 robust and 5e-4 natural; eps 0.031,
    step 0.007).
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
        # The code counts in epochs. If c is a share of a short training, an "epoch" is a fifth of
        # c here, since the code has c = 5 epochs.
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
        """No steps: redistribution does not overwrite the averages e_k, which depend on every
        step."""
        return dict.fromkeys(self.learners, 0)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """As in ``Generalist``."""
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
        """True during the whole of epochs t', t' + c, ...

        The code counts epochs from 1, so epoch t' is the one that ends t' epochs into training
        (75, 80, ..., 120 of 120: ten bursts, one at the end). The code tests ``epoch % c == 0``,
        which is the same if t' is a multiple of c, as in its settings.
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
        """The learners' own averages; without the nested average there are none."""
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
