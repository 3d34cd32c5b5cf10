"""Generalist: base learners on their own sub-tasks, mixed into one global learner."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.core.averaging import (
    copy_state,
    floating_state,
    move_towards,
    reestimate_batchnorm,
)
from benchmark.core.learner import Learner, LearnerConfig, learner_names
from benchmark.core.mesh import NO_PEERS, Axis
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting
from generalist.mixing import (
    MovingAverage,
    check_ratios,
    constant_steps,
    first_mixed,
    ratios,
)

# Redistribution more often than this leaves base learners no time of their own.
_FEW_STEPS = 3
# Parts of the names of modules that draw random numbers in train mode.
_DRAWING = ("drop", "stochastic", "noise", "rrelu", "fractional")


class Generalist(Recipe):
    """Generalist with any number of base learners (2303.13813, algorithm 1; 2510.13361).

    At every step s, with progress p, each base learner k takes an optimiser step on its own loss,

        theta_k <- step_k(theta_k, grad L_k),                                              (1)

    and the global learner follows their mixture,

        theta_g <- a_s * theta_g + (1 - a_s) * sum_k gamma_k(p) * theta_k;                 (2)

    after a warm-up of t' epochs, every c epochs, it is handed back,

        theta_k <- theta_g for all k.                                                      (3)

    Only theta_g is deployed.

    Departures: none known from the algorithm as described. The papers' breakpoints of the mixing
    ratio are not known to us; the presets take those of the released code, whose other quirks are
    in ``generalist.official``.

    Attributes:
        learners: base learners, each with its own objective, optimiser, learning rate, weight decay
            and schedule.
        mixing: gamma_k by learner name, as functions of progress; the others share the rest.
        average: the decay a of (2).
        warmup: t', in epochs or as a share of training.
        every: c, in epochs or as a share of training, at least a step; 0 never redistributes. In a
            very short training a share is a step or two, and the learners hardly part (a warning
            says so).
        batchnorm: BatchNorm statistics of the global learner: "average" them like weights, "copy"
            those of the learner with the largest ratio, or "reestimate" them on clean training
            images before deployment.
        optimizer_state: momentum and the like at redistribution: "keep" or "reset".
        skip_unused: leave out the first steps of a learner whose ratio is 0 until a redistribution
            overwrites it, where that changes nothing else by a bit: see ``_exactly_skipped``.
    """

    family = "Generalist"

    unrecorded: ClassVar[Mapping[str, Any]] = {**Recipe.unrecorded, "skip_unused": True}

    learners: tuple[LearnerConfig, ...]
    mixing: dict[str, Schedule] = Field(default_factory=dict)
    average: MovingAverage = MovingAverage(horizon=0.02)
    warmup: Duration = Duration(share=75 / 120)
    every: Duration = Duration(share=5 / 120)
    batchnorm: Literal["average", "copy", "reestimate"] = "average"
    optimizer_state: Literal["keep", "reset"] = "keep"
    skip_unused: bool = True

    @model_validator(mode="after")
    def _check(self) -> Generalist:
        check_ratios(self.mixing, learner_names(self.learners))
        other = next((learner.name for learner in self.learners if learner.model), None)
        if other:
            raise ValueError(
                f"learner {other!r} has an architecture of its own, so its weights cannot be "
                "averaged; use generalist-distill"
            )
        return self

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return GeneralistMethod(self, setting)


class GeneralistMethod(Method):
    """The state of a Generalist in training; the equations are those of ``Generalist``."""

    independent_learners = True

    def __init__(self, recipe: Generalist, setting: Setting) -> None:
        self.recipe = recipe
        self._setting = setting
        self.learners = build_learners(recipe.learners, setting)
        self.global_learner = copy.deepcopy(next(iter(self.learners.values())).model).eval()
        self.global_learner.requires_grad_(False)
        self._optimizer_start = {
            name: copy.deepcopy(learner.optimizer.state_dict())
            for name, learner in self.learners.items()
        }
        self.steps = 0
        # Distances just before a redistribution in the last step; else None.
        self._parted: dict[str, Tensor] | None = None
        self._warmup = recipe.warmup.steps(setting.total_steps, setting.steps_per_epoch)
        every = recipe.every.steps(setting.total_steps, setting.steps_per_epoch)
        positive = bool(recipe.every.epochs or recipe.every.share)
        self._every = max(1, every) if positive else 0
        self._constant = constant_steps(recipe.mixing.values(), setting.total_steps)
        # By learner: after how many steps its weights first count, and how many are left out.
        self._unused = self._unused_steps()
        self._skipped = {
            name: steps if recipe.skip_unused and self._exactly_skipped(learner) else 0
            for (name, learner), steps in zip(
                self.learners.items(), self._unused.values(), strict=True
            )
        }
        self._warn(setting.total_steps)

    def _unused_steps(self) -> dict[str, int]:
        """By learner, how many of its first steps leave no trace in the global learner's weights:
        its ratio is 0 in all of them, and the redistribution after the last overwrites it."""
        last = 0
        if self._every and self._constant >= max(1, self._warmup):
            since = self._constant - self._warmup
            last = self._warmup + since // self._every * self._every
        return {name: 0 if gamma else last for name, gamma in self._ratios(0.0).items()}

    def _exactly_skipped(self, learner: Learner) -> bool:
        """Whether everything else stays the same, bit by bit, if a learner rests until its weights
        are overwritten.

        A redistribution overwrites parameters and floating-point buffers, and nothing else. So it
        must not leave behind: the optimiser's state (momentum, unless reset or not there at all);
        the position of random draws (of the objective, or of dropout and the like, which all
        learners draw from one source); a count of batches that is used (BatchNorm without a fixed
        momentum) or handed on (``batchnorm: copy``); any other integer state of the network. Order
        and augmentation of images and the learning rate depend on the step alone. Draws that a
        network makes outside a module are not seen here.
        """
        optimizer = learner.config.optimizer
        stateless = optimizer.name == "sgd" and not optimizer.momentum
        return (
            (stateless or self.recipe.optimizer_state == "reset")
            and self.recipe.batchnorm != "copy"
            and not learner.objective.draws
            and all(map(_overwritten, learner.model.modules()))
        )

    def _warn(self, total_steps: int) -> None:
        """Point out settings under which learners and global learner hardly interact."""
        every, text = self.recipe.every, ""
        if not self._every or total_steps == 1:  # a single step: built for its form only
            return
        if self._warmup > total_steps:
            text = (
                f"the warm-up of {self._warmup} steps outlasts training ({total_steps}), so that "
                "nothing is redistributed: lower `warmup`, or give it as a share such as 62.5%"
            )
        elif every.share and self._every < _FEW_STEPS:
            text = (
                f"{self._every} steps from one redistribution to the next are too few for learners "
                "to part from each other: train longer, or raise `every`"
            )
        if text:
            warnings.warn(text, stacklevel=4)

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
        """Once every learner that is ever mixed in has been: before, the global learner is another
        method's (for Generalist-D, the moving average of adversarial training)."""
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
        """One step of the moving average, BatchNorm statistics by the recipe's rule; of ``models``,
        each process on ``axis`` adds those of its own learners."""
        here = [name for name in models if axis.size == 1 or self.learners[name].here]
        averaged = self.recipe.batchnorm == "average"
        move_towards(
            floating_state(target, averaged),
            [floating_state(models[name], averaged) for name in here],
            [gamma[name] for name in here],
            decay,
            axis,
        )
        if self.recipe.batchnorm == "copy":
            leader = max(gamma, key=lambda name: gamma[name])
            for mine, theirs in zip(target.buffers(), models[leader].buffers(), strict=True):
                mine.copy_(theirs) if leader in here else mine.zero_()
            axis.sum_(list(target.buffers()))

    def _redistribution_is_due(self) -> bool:
        """At t', t' + c, t' + 2c, ... steps (at c, 2c, ... without a warm-up)."""
        since = self.steps - self._warmup
        return bool(self._every) and self.steps > 0 and since >= 0 and since % self._every == 0

    def _redistribute(self) -> None:
        """Equation (3). Buffers go along, so that each learner equals the global learner."""
        if self.recipe.batchnorm == "reestimate":
            self._reestimate()
        source = floating_state(self.global_learner)
        for name, learner in self.learners.items():
            copy_state(floating_state(learner.model), source)
            if self.recipe.optimizer_state == "reset":
                learner.optimizer.load_state_dict(self._optimizer_start[name])

    def _reestimate(self) -> None:
        reestimate_batchnorm(self.global_learner, self._setting.calibration())

    def deployed(self) -> nn.Module:
        """The global learner."""
        if self.recipe.batchnorm == "reestimate":
            self._reestimate()
        return self.global_learner

    def _ratios(self, progress: float) -> dict[str, float]:
        return ratios(self.recipe.mixing, list(self.learners), progress)

    def diagnostics(self, progress: float) -> dict[str, float]:
        """Learning rates, mixing ratios, and the l_2 distance of each learner from the global
        one (before equation (3) if it was just applied), once its weights count."""
        values = super().diagnostics(progress)
        distances = self._parted or self._distances()
        for name, gamma in self._ratios(progress).items():
            values[f"mix/{name}"] = gamma
            if self.steps > self._unused[name]:
                values[f"distance/{name}"] = float(distances[name])
        return values

    @torch.no_grad()
    def _distances(self) -> dict[str, Tensor]:
        centre = floating_state(self.global_learner, buffers=False)
        distances = {name: centre[0].new_zeros(()) for name in self.learners}
        for name, learner in self.learners.items():
            if learner.here:
                own = floating_state(learner.model, buffers=False)
                norms = torch._foreach_norm(torch._foreach_sub(own, centre))
                distances[name] = torch.stack(norms).norm()
        self._setting.mesh.learners.sum_(list(distances.values()))
        return distances

    def state_dict(self) -> dict[str, Any]:
        """Learners, global learner and step count."""
        return {
            **super().state_dict(),
            "global": self.global_learner.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        super().load_state_dict(state)
        self.global_learner.load_state_dict(state["global"])
        self.steps = int(state["steps"])


def _overwritten(module: nn.Module) -> bool:
    """Whether a redistribution overwrites all that a module's passes in train mode change."""
    if any(word in type(module).__name__.lower() for word in _DRAWING):
        return False
    counted = isinstance(module, _BatchNorm) and module.momentum is not None
    return all(
        buffer.is_floating_point() or (counted and name == "num_batches_tracked")
        for name, buffer in module.named_buffers(recurse=False)
    )
