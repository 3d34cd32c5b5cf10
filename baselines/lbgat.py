"""Learnable boundary guided adversarial training (Cui et al., 2011.11164)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.learner import (
    LearnerConfig,
    default_learners,
    descend_together,
)
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat


class LBGAT(Recipe):
    """LBGAT: E[ MSE(f(x'), g(x)) + CE(g(x), y) + beta * KL(p_f(x) : p_f(x')) ].

    Cui et al., 2011.11164, equation 4: a natural network g is trained *together* with the robust
    network f, whose logits at x' follow those of g at x; gradient flows through both sides of the
    squared error (a mean over batch and classes). x' is the TRADES example of f. f is deployed.

    Departure: the code has one optimiser for both networks; here each network has its own, which is
    equivalent if their settings are the same. The loss is compared with its formula
    (tests/baselines), not with runs of the code.

    Attributes:
        beta: weight of the divergence: 0 or 6 in the paper's tables. With 0 the clean images still
            pass through f, as in the code, and so update its BatchNorm statistics.
        threat: training threat model; the code uses eps 0.031, step 0.007, 10 steps.
        learners: g, then f; their objectives are not used.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2011.11164",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(
            points=((0, 0.2), (1 / 100, 1), (75 / 100, 0.1), (90 / 100, 0.01)), interpolation="step"
        ),
        epochs=100,
        batch_size=None,
    )

    beta: float = Field(default=6.0, ge=0)
    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite
    learners: tuple[LearnerConfig, LearnerConfig] = default_learners(
        {"name": "natural", "objective": "natural"}, {"name": "robust", "objective": "natural"}
    )

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _LBGAT(self, setting)


class _LBGAT(Method):
    def __init__(self, recipe: LBGAT, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners(recipe.learners, setting)
        self._natural, self._robust = self.learners.values()

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        f, g = self._robust.model, self._natural.model
        with self._robust.view as view:
            x_adv = pgd(
                view, x, y, self.recipe.threat, loss="kl", start="gaussian",
                generator=step.generator,
            )  # fmt: skip
        terms: dict[str, Tensor] = {}

        def loss() -> Tensor:
            with self._setting.autocast():
                adversarial, clean, guide = f(x_adv), f(x), g(x)
                divergence = F.kl_div(
                    adversarial.log_softmax(1), clean.softmax(1), reduction="batchmean"
                )
                terms["natural"] = F.cross_entropy(guide, y)
                terms["robust"] = F.mse_loss(adversarial, guide) + self.recipe.beta * divergence
                return terms["natural"] + terms["robust"]

        descend_together([self._natural, self._robust], loss, step)
        natural, robust = self.learners
        return {
            f"loss/{natural}": terms["natural"].detach(),
            f"loss/{robust}": terms["robust"].detach(),
        }

    @property
    def passes(self) -> float:
        return self.recipe.threat.steps + 3

    def deployed(self) -> nn.Module:
        return self._robust.model
