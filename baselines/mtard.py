"""Multi-teacher adversarial robustness distillation (Zhao et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat
from benchmark.core.weights import TrainedNetwork


class MTARD(Recipe):
    """MTARD: E[ (1 - w) L_r + w L_n ], L_r = KL(p_r(x') : p(x')) / K, L_n = KL(p_n(x) : p(x)) / K.

    Zhao et al. (ECCV 2022), section 3, and its code: a robust network r is the teacher on
    adversarial images, a natural network n on clean images, both frozen; K is the number of
    classes; no labels are used. The weight depends on the losses relative to those of the first
    batch, l_r and l_n,

        w <- w - rate (w - l_n / (l_n + l_r)), w = 1/2 at first,

    so that the teacher whose loss has fallen less gets more weight. x' maximises the cross-entropy
    of f from x + 0.001 * N(0, I), in eval mode. ``rate`` falls with the learning rate. 1e-5 is
    added to the teachers' probabilities within the logarithm, as in the code, which affects only w.

    Departures: the default teachers are the rows ``natural`` and ``pgd-at`` of the same suite, of
    its architecture; the code has WideResNets, the robust one trained by TRADES. The step is
    compared with its formula (tests/baselines).

    Cost: does not include the training of the teachers.

    Attributes:
        natural, robust: n and r.
        rate: rate of change of the weight, times the learner's schedule; 0.025 in the code.
        threat: training threat model; 8/255 with 10 steps of 2/255 in the code.
        learner: f; its objective is not used.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of MTARD, ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(
            points=((0, 1), (215 / 300, 0.1), (260 / 300, 0.01), (285 / 300, 0.001)),
            interpolation="step",
        ),
        epochs=300,
        batch_size=128,
    )

    natural: TrainedNetwork = TrainedNetwork(method="natural")
    robust: TrainedNetwork = TrainedNetwork(method="pgd-at")
    rate: float = Field(default=0.025, ge=0, le=1)
    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite
    learner: LearnerConfig = default_learner("mtard", "natural")

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _MTARD(self, setting)


def distance(logits: Tensor, taught: Tensor) -> Tensor:
    """L of ``MTARD``, a mean over the batch, from logits [n, K] of the network and of a teacher."""
    p = taught.softmax(1)
    return (p * ((p + 1e-5).log() - logits.log_softmax(1))).mean()


class _MTARD(Method):
    forward_passes = 2

    def __init__(self, recipe: MTARD, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners((recipe.learner,), setting)
        (self._learner,) = self.learners.values()
        self._natural = setting.trained(recipe.natural)
        self._robust = setting.trained(recipe.robust)
        like = next(self._learner.model.parameters()).detach()
        # w, and L_r and L_n of the first batch: tensors, since reading a number waits for a device.
        self.weight = like.new_tensor(0.5)
        self.first = like.new_full((2,), torch.nan)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        with self._learner.view as view:
            x_adv = pgd(
                view, x, y, self.recipe.threat, start="gaussian", generator=step.generator
            )  # fmt: skip
        with torch.no_grad(), self._setting.autocast():
            of_robust, of_natural = self._robust(x_adv), self._natural(x)
        rate = self.recipe.rate * self._learner.config.schedule(progress)
        after: dict[str, Tensor] = {}

        def loss() -> Tensor:
            with self._setting.autocast():
                robust = distance(self._learner.model(x_adv), of_robust)
                natural = distance(self._learner.model(x), of_natural)
            # The losses of the whole batch, if several processes share it.
            present = step.total(step.data.share * torch.stack([robust, natural]).detach())
            first = torch.where(self.first.isnan(), present, self.first)
            relative = present / first
            weight = self.weight - rate * (self.weight - relative[1] / relative.sum())
            after["first"], after["weight"] = first, weight
            return (1 - weight) * robust + weight * natural

        value = self._learner.descend(loss, step)
        self.first, self.weight = after["first"], after["weight"]
        return {f"loss/{self._learner.config.name}": value}

    @property
    def passes(self) -> float:
        return self.recipe.threat.steps + 2

    def deployed(self) -> nn.Module:
        return self._learner.model

    def diagnostics(self, progress: float) -> dict[str, float]:
        return {**super().diagnostics(progress), "weight/natural": float(self.weight)}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weight": self.weight, "first": self.first}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.weight = state["weight"].to(self.weight)
        self.first = state["first"].to(self.first)
