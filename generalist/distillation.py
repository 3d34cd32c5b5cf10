"""Generalist with base learners of different architectures (our extension: open question 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.core.crafting import crafting
from benchmark.core.learner import (
    Learner,
    LearnerConfig,
    default_learner,
    default_learners,
    learner_names,
)
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from generalist.mixing import check_ratios, constant_steps, first_mixed, ratios
from generalist.presets import LINF, NATURAL, late_stage_decay


class GeneralistDistill(Recipe):
    """Heterogeneous Generalist: theta_g minimises sum_k gamma_k * E[ KL(p_k(x_k) : p_g(x_k)) ].

    This is not in the papers, which leave base learners of different architectures as an open
    question (2510.13361, open question 2). Their weights cannot be averaged, so the global learner
    learns from them by distillation. At every step, each base learner k steps on its own loss and
    images x_k; then the global learner steps towards the predictions p_k of the base learners (in
    eval mode, on the same images), weighted by the mixing ratios. There is no redistribution. Only
    theta_g is deployed; it has the suite's architecture.

    Attributes:
        learners: base learners; ``model`` gives one of them its own architecture.
        mixing: gamma_k by learner name, as functions of progress; the others share the rest.
        student: optimiser and schedule of the global learner; its objective is not used.
    """

    family = "Generalist"

    learners: tuple[LearnerConfig, ...] = default_learners(NATURAL, LINF)
    mixing: dict[str, Schedule] = Field(
        default_factory=lambda: {"linf": late_stage_decay(1.0, 0.4)}
    )
    student: LearnerConfig = default_learner("global", "natural")

    @model_validator(mode="after")
    def _check(self) -> GeneralistDistill:
        names = learner_names((*self.learners, self.student))
        check_ratios(self.mixing, names[:-1])
        return self

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _Distillation(self, setting)


class _Distillation(Method):
    def __init__(self, recipe: GeneralistDistill, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self._base = build_learners(recipe.learners, setting)
        self._student = Learner(recipe.student, setting)
        self.learners = {**self._base, recipe.student.name: self._student}

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        gamma = self._gamma(progress)
        losses: dict[str, Tensor] = {}
        lessons: list[tuple[float, Tensor, Tensor]] = []
        for name, learner in self._base.items():
            x_k, losses[f"loss/{name}"] = learner.step_on(x, y, step)
            with crafting(learner.model) as teacher, torch.no_grad():
                lessons.append((gamma[name], x_k, teacher(x_k).softmax(1)))

        def loss() -> Tensor:
            total = torch.zeros((), device=x.device)
            with self._setting.autocast():
                for share, x_k, target in lessons:
                    taken = self._student.model(x_k).log_softmax(1)
                    total = total + share * F.kl_div(taken, target, reduction="batchmean")
            return total

        losses[f"loss/{self.recipe.student.name}"] = self._student.descend(loss, step)
        return losses

    @property
    def passes(self) -> float:
        return sum(learner.passes for learner in self._base.values()) + len(self._base)

    def selectable(self, progress: float) -> bool:
        """True once every base learner with a ratio above 0 at any time has been used."""
        total, mixing = self._setting.total_steps, self.recipe.mixing
        constant = constant_steps(mixing.values(), total)
        return progress >= first_mixed(self._gamma, total, constant) / total

    def _gamma(self, progress: float) -> dict[str, float]:
        return ratios(self.recipe.mixing, list(self._base), progress)

    def deployed(self) -> nn.Module:
        return self._student.model

    def diagnostics(self, progress: float) -> dict[str, float]:
        mixed = self._gamma(progress)
        return {**super().diagnostics(progress), **{f"mix/{k}": v for k, v in mixed.items()}}
