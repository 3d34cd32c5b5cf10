"""Helper-based adversarial training (Rade & Moosavi-Dezfooli, ICLR 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.core.crafting import crafting
from benchmark.core.learner import LearnerConfig, default_learners
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting


class HAT(Recipe):
    """HAT: E[ CE(f(x), y) + beta * KL(p(x) : p(x')) + gamma * CE(f(x + h * (x' - x)), y_h) ].

    "Reducing excessive margin to achieve a better accuracy vs. robustness trade-off" (ICLR 2022,
    openreview Azh9QBQ4tR7) and its code: x' is the TRADES example; the helper example is h times as
    far from x, is not clipped, and has the label y_h = argmax of a *naturally* trained network at
    x'.

    Departure: the helper network is trained at the same time, with one natural step per batch, so
    its labels are poor in the first steps; the code loads a network that was trained before. The
    losses are compared with their formula (tests/baselines), not with runs of the code.

    Attributes:
        learners: the helper, then the robust network, whose objective is the first two terms
            (TRADES with beta 2.5 in the code).
        h: length of the helper perturbation in units of x' - x; 2 in the code.
        gamma: weight of the helper term; 0.5 in the code.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of HAT, ResNet-18; its one-cycle rule moves the momentum too, ours does not",
        optimizer=OptimizerConfig(lr=0.21, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(points=((0, 0.04), (0.25, 1), (1, 4e-6)), interpolation="cosine"),
        epochs=50,
        batch_size=128,
    )

    learners: tuple[LearnerConfig, LearnerConfig] = default_learners(
        {"name": "helper", "objective": "natural"},
        {"name": "robust", "objective": {"name": "trades", "beta": 2.5}},
    )
    h: float = Field(default=2.0, ge=0)
    gamma: float = Field(default=0.5, ge=0)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _HAT(self, setting)


class _HAT(Method):
    def __init__(self, recipe: HAT, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners(recipe.learners, setting)
        self._helper, self._robust = self.learners.values()

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        natural = self._helper.step(x, y, progress)
        x_adv = self._robust.craft(x, y, step)
        with crafting(self._helper.model) as helper, torch.no_grad():
            labels = helper(x_adv).argmax(1)
        further = x + self.recipe.h * (x_adv - x)
        model = self._robust.model

        def loss() -> Tensor:
            with self._setting.autocast():
                trades = self._robust.objective.loss(model, x, x_adv, y, step)
                return trades + self.recipe.gamma * F.cross_entropy(model(further), labels)

        robust = self._robust.descend(loss, step)
        return {f"loss/{self._helper.config.name}": natural,
                f"loss/{self._robust.config.name}": robust}  # fmt: skip

    @property
    def passes(self) -> float:
        return super().passes + 1  # the helper example

    def deployed(self) -> nn.Module:
        return self._robust.model
