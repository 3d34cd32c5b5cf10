"""Generalist: base learners on their own sub-tasks, mixed into one global learner."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.core.averaging import (
    copy_state,
    floating_state,
    move_towards,
    projected,
    reestimate_batchnorm,
)
from benchmark.core.learner import LearnerConfig, learner_names
from benchmark.core.mesh import NO_PEERS, Axis
from benchmark.core.method import Batch, Method, Mixture, Recipe, build_learners
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting
from generalist.distances import distances, farthest
from generalist.mixing import (
    MovingAverage,
    check_ratios,
    constant_steps,
    first_mixed,
    ratios,
)
from generalist.skipping import leaves_nothing, overwritten_steps

# With fewer steps than this between redistributions, base learners hardly differ.
_FEW_STEPS = 3


class Generalist(Recipe):
    """Generalist with any number of base learners (2303.13813, algorithm 1; 2510.13361).

    At every step s, with progress p, each base learner k takes an optimiser step on its own loss,

        theta_k <- step_k(theta_k, grad L_k),                                              (1)

    and the global learner follows their mixture,

        theta_g <- a_s * theta_g + (1 - a_s) * sum_k gamma_k(p) * theta_k;                 (2)

    after a warm-up of t' epochs, every c epochs, it is redistributed,

        theta_k <- theta_g for all k.                                                      (3)

    Only theta_g is deployed.

    Departures: none known from the published algorithm. We do not know the papers' breakpoints of
    the mixing ratio; the presets use those of the released code. The other peculiarities of that
    code are in ``generalist.official``.

    Attributes:
        learners: base learners, each with its own objective, optimiser, learning rate, weight decay
            and schedule.
        mixing: gamma_k by learner name, as functions of progress; the others share the rest.
        average: the decay a of (2).
        warmup: t', in epochs or as a share of training.
        every: c, in epochs or as a share of training, at least one step; 0 never redistributes. In
            a very short training, a share may be one or two steps, so that the learners hardly
            differ (a warning says so).
        batchnorm: BatchNorm statistics of the global learner: "average" them like weights, "copy"
            those of the learner with the largest ratio, or "reestimate" them on clean training
            images before deployment.
        optimizer_state: momentum and other optimiser state at redistribution: "keep" or "reset".
        skip_unused: skip the first steps of a learner whose ratio is 0 until a redistribution
            overwrites it, if everything else stays bit-identical: see ``generalist.skipping``.
        project_onto: a learner's name: mix by gradient projection (RAMP, 2402.06827, section 4.3)
            instead of by the weighted mean in (2). Let o be the named learner, theta_0 the weights
            at the last redistribution (or at the start), and D_k the change of learner k since
            then. Then, tensor by tensor, the mixture is theta_0 + gamma_o D_o
            + sum_k gamma_k max(cos(D_k, D_o), 0) D_k over the other learners k. So a change that
            points against that of learner o is ignored. ``ramp`` itself mixes once per epoch and
            has no moving average, which is ``average: {decay: 0, warmup: false}`` here.
    """

    family = "Generalist"

    unrecorded: ClassVar[Mapping[str, Any]] = {
        **Recipe.unrecorded,
        "skip_unused": True,
        "project_onto": None,
    }

    learners: tuple[LearnerConfig, ...]
    mixing: dict[str, Schedule] = Field(default_factory=dict)
    average: MovingAverage = MovingAverage(horizon=0.02)
    warmup: Duration = Duration(share=75 / 120)
    every: Duration = Duration(share=5 / 120)
    batchnorm: Literal["average", "copy", "reestimate"] = "average"
    optimizer_state: Literal["keep", "reset"] = "keep"
    skip_unused: bool = True
    project_onto: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Generalist:
        names = learner_names(self.learners)
        check_ratios(self.mixing, names)
        if self.project_onto not in (None, *names):
            raise ValueError(
                f"project_onto names {self.project_onto!r}, but the learners are {list(names)}"
            )
        other = next((learner.name for learner in self.learners if learner.model), None)
        if other:
            raise ValueError(
                f"learner {other!r} has its own architecture, so its weights cannot be averaged "
                "with the others; use generalist-distill"
            )
        return self

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return GeneralistMethod(self, setting)


class GeneralistMethod(Method):
    """The state of a Generalist in training; the equations are those of ``Generalist``."""

    def __init__(self, recipe: Generalist, setting: Setting) -> None:
        self.recipe = recipe
        self._setting = setting
        # A projection compares learners with each other, so each process must have all of them.
        self.independent_learners = recipe.project_onto is None
        self.learners = build_learners(recipe.learners, setting)
        self.global_learner = copy.deepcopy(next(iter(self.learners.values())).model).eval()
        self.global_learner.requires_grad_(False)
        self._optimizer_start = {
            name: copy.deepcopy(learner.optimizer.state_dict())
            for name, learner in self.learners.items()
        }
        self.steps = 0
        # The weights of all learners at the last redistribution, from which a projection measures
        # changes.
        self._start: list[Tensor] = []
        self._begin_anew()
        # Distances just before the redistribution, if the last step had one; else None.
        self._parted: dict[str, Tensor] | None = None
        # Distance between learners just before the last redistribution that ended a whole cycle.
        self._apart_before = torch.zeros(())
        self._warmup = recipe.warmup.steps(setting.total_steps, setting.steps_per_epoch)
        every = recipe.every.steps(setting.total_steps, setting.steps_per_epoch)
        positive = bool(recipe.every.epochs or recipe.every.share)
        self._every = max(1, every) if positive else 0
        self._constant = constant_steps(recipe.mixing.values(), setting.total_steps)
        # For each learner: after how many steps its weights are first used, and how many steps are
        # skipped.
        self._unused = self._unused_steps()
        reset, copied = recipe.optimizer_state == "reset", recipe.batchnorm == "copy"
        self._skipped = {
            name: steps if recipe.skip_unused and leaves_nothing(
                self.learners[name], optimizer_reset=reset, buffers_copied=copied
            ) else 0
            for name, steps in self._unused.items()
        }  # fmt: skip
        _warn(recipe, self._warmup, self._every, setting.total_steps)

    @property
    def accumulates(self) -> bool:
        return True

    def _unused_steps(self) -> dict[str, int]:
        """For each learner, how many of its first steps have no effect on the global learner's
        weights: its ratio is 0 in all of them, and the redistribution after them overwrites it."""
        last = overwritten_steps(self._constant, self._warmup, self._every)
        return {
            name: 0 if gamma or name == self.recipe.project_onto else last
            for name, gamma in self._ratios(0.0).items()
        }

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Equations (1), (2) and, when due, (3)."""
        x, y = batch
        losses = {
            f"loss/{name}": learner.step(x, y, progress)
            for name, learner in self.learners.items()
            if learner.here and self.steps >= self._skipped[name]
        }
        self._mix(progress)
        self.steps += 1
        self._parted = None
        if self._redistribution_is_due():
            self._parted = self._distances()
            if self.steps > self._warmup:  # distances from the warm-up do not count
                self._apart_before = self._apart()
            self._redistribute()
        return losses

    @property
    def passes(self) -> float:
        """Gradient passes per image and step, a mean over training: see ``passes_at``."""
        total = self._setting.total_steps
        skipped = sum(
            learner.passes * min(self._skipped[name], total)
            for name, learner in self.learners.items()
        )
        return super().passes - skipped / total

    def passes_at(self, step: int) -> float:
        return sum(
            learner.passes for name, learner in self.learners.items() if step >= self._skipped[name]
        )

    @cached_property
    def _mixed_from(self) -> int:
        return first_mixed(self._ratios, self._setting.total_steps, self._constant)

    def selectable(self, progress: float) -> bool:
        """True once every learner with a ratio above 0 at any time has been mixed in. Before that,
        the global learner is that of another method (for Generalist-D, the moving average of
        adversarial training)."""
        return progress >= self._mixed_from / self._setting.total_steps

    def _mix(self, progress: float) -> None:
        """Equation (2)."""
        gamma = self._ratios(progress)
        decay = self.recipe.average.at(self.steps, self._setting.total_steps)
        models = {name: learner.model for name, learner in self.learners.items()}
        self._average(self.global_learner, models, gamma, decay, self._setting.mesh.learners)

    def _average(
        self,
        target: nn.Module,
        models: Mapping[str, nn.Module],
        gamma: Mapping[str, float],
        decay: float,
        axis: Axis = NO_PEERS,
    ) -> None:
        """One step of the moving average, with BatchNorm statistics by the recipe's rule. Each
        process on ``axis`` adds the ``models`` of the learners that it trains."""
        here = [name for name in models if axis.size == 1 or self.learners[name].here]
        states = [self._averaged_state(models[name]) for name in here]
        shares = [gamma[name] for name in here]
        if self.recipe.project_onto is not None:
            onto = here.index(self.recipe.project_onto)
            states, shares = [projected(self._start, states, shares, onto)], [1.0]
        move_towards(self._averaged_state(target), states, shares, decay, axis)
        if self.recipe.batchnorm == "copy":
            leader = max(gamma, key=lambda name: gamma[name])
            for mine, theirs in zip(target.buffers(), models[leader].buffers(), strict=True):
                mine.copy_(theirs) if leader in here else mine.zero_()
            axis.sum_(list(target.buffers()))

    def _averaged_state(self, model: nn.Module) -> list[Tensor]:
        """The tensors of a network that are averaged; buffers only if the recipe averages them."""
        return floating_state(model, self.recipe.batchnorm == "average")

    def _redistribution_is_due(self) -> bool:
        """True after t', t' + c, t' + 2c, ... steps (after c, 2c, ... without a warm-up)."""
        since = self.steps - self._warmup
        return bool(self._every) and self.steps > 0 and since >= 0 and since % self._every == 0

    def _redistribute(self) -> None:
        """Equation (3). Buffers are copied too, so that each learner equals the global learner."""
        if self.recipe.batchnorm == "reestimate":
            self._reestimate()
        source = floating_state(self.global_learner)
        for name, learner in self.learners.items():
            copy_state(floating_state(learner.model), source)
            if self.recipe.optimizer_state == "reset":
                learner.optimizer.load_state_dict(self._optimizer_start[name])
        self._begin_anew()

    def _begin_anew(self) -> None:
        if self.recipe.project_onto is not None:
            self._start = [t.clone() for t in self._averaged_state(self.global_learner)]

    def _reestimate(self) -> None:
        reestimate_batchnorm(self.global_learner, self._setting.calibration())

    def deployed(self) -> nn.Module:
        """The global learner."""
        if self.recipe.batchnorm == "reestimate":
            self._reestimate()
        return self.global_learner

    def mixture(self, progress: float, since: int) -> Mixture | None:
        """By equation (2); None where a projection takes the place of the weighted mean."""
        if self.recipe.project_onto is not None:
            return None
        average, total = self.recipe.average, self._setting.total_steps
        decays = (average.at(step, total) for step in range(since, self.steps))
        return Mixture(self._ratios(progress), math.prod(decays))

    def _ratios(self, progress: float) -> dict[str, float]:
        return ratios(self.recipe.mixing, list(self.learners), progress)

    def diagnostics(self, progress: float) -> dict[str, float]:
        """Learning rates, mixing ratios, and the l_2 distance of each learner from the global
        learner, once its weights are used (if equation (3) was just applied, the distance before).

        ``apart``, from the first whole cycle of redistribution on: the l_2 distance of a learner
        from the mean of the others (with two learners, from each other), the largest over learners,
        divided by the norm of the global learner's weights. It is the larger of the value now and
        the value just before the last redistribution."""
        values = super().diagnostics(progress)
        away = self._parted or self._distances()
        for name, gamma in self._ratios(progress).items():
            values[f"mix/{name}"] = gamma
            if self.steps > self._unused[name]:
                values[f"distance/{name}"] = float(away[name])
        cycle = self._warmup + self._every if self._every else 1
        if len(self.learners) > 1 and self.steps >= cycle:
            values["apart"] = max(float(self._apart_before), float(self._apart()))
        return values

    def _weights(self) -> list[Tensor]:
        return floating_state(self.global_learner, buffers=False)

    def _apart(self) -> Tensor:
        return farthest(self.learners, self._weights(), self._setting.mesh.learners)

    def _distances(self) -> dict[str, Tensor]:
        return distances(self.learners, self._weights(), self._setting.mesh.learners)

    def state_dict(self) -> dict[str, Any]:
        """Learners, global learner and step count."""
        return {
            **super().state_dict(),
            "global": self.global_learner.state_dict(),
            "steps": self.steps,
            "start": self._start,
            "apart": self._apart_before,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.global_learner.load_state_dict(state["global"])
        if self._start:
            copy_state(self._start, [tensor.to(self._start[0].device) for tensor in state["start"]])
        self.steps = int(state["steps"])
        self._apart_before = state["apart"]


def _warn(recipe: Generalist, warmup: int, every: int, total_steps: int) -> None:
    """Warn of settings with which learners and global learner hardly interact."""
    text = ""
    if not every or total_steps == 1:  # a single step: it is not built for training
        return
    if warmup > total_steps:
        text = (
            f"the warm-up of {warmup} steps is longer than training ({total_steps}), so there is "
            "no redistribution: lower `warmup`, or give it as a share such as 62.5%"
        )
    elif recipe.every.share and every < _FEW_STEPS:
        text = (
            f"with {every} steps from one redistribution to the next, learners hardly differ from "
            "each other: train longer, or raise `every`"
        )
    if text:
        warnings.warn(text, stacklevel=5)
