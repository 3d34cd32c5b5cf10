"""Extreme-norm adversarial training (Croce & Hein, 2105.12508)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.multi_norm import LinfAndL1
from benchmark.attacks.apgd import TRAINING_DENSITY, apgd
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.setting import Setting


class EAT(Recipe):
    """E-AT: E[ CE(f(x + d_k), y) ], k drawn per batch with P(k) proportional to 1 - acc_k.

    Croce & Hein, 2105.12508, section 4, and its code (fra31/robust-finetuning): training on the
    extreme norms, l_inf and l_1, covers the norms between them. d_k is the iterate of APGD with the
    largest loss, crafted in eval mode. acc_k is the share of the training images attacked under
    norm k so far that were classified correctly at every iterate of the attack (it is never reset;
    the norms have equal probability until both have been drawn).

    Departures: the source has softplus activations, no weight decay on BatchNorm and biases when it
    trains from scratch, and its own schedules; the architecture and the optimiser are the suite's
    here. APGD is compared with plain loops and with AutoAttack's (tests/attacks).

    Cost: the mean over norms (the probabilities change during training).

    Attributes:
        learner: the network; its objective is not used.
        threats: the extreme norms, 8/255 and 12 with 10 steps in the source; step sizes are not
            used. ``authors`` means the values of the source.
        density: share of the coordinates that the first l_1 step moves; 0.05 in the training code,
            0.2 in its evaluation.
    """

    family = "multi-norm"

    learner: LearnerConfig = default_learner("e-at", "natural")
    threats: LinfAndL1 = ("linf", "l1")  # type: ignore[assignment]
    density: float = Field(default=TRAINING_DENSITY, gt=0, le=1)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _EAT(self, setting)


class _EAT(Method):
    def __init__(self, recipe: EAT, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners((recipe.learner,), setting)
        (self._learner,) = self.learners.values()
        self.correct = [0.0, 0.0]
        self.seen = [0, 0]

    def first_share(self) -> float:
        """The probability of the first norm."""
        if not all(self.seen):
            return 0.5
        errors = [1 - right / seen for right, seen in zip(self.correct, self.seen, strict=True)]
        return errors[0] / sum(errors) if sum(errors) else 0.5

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        drawn = torch.rand((), generator=step.generator, device=x.device)
        k = 0 if float(drawn) < self.first_share() else 1
        with self._learner.view as view:
            x_adv, resisted = apgd(view, x, y, self.recipe.threats[k], density=self.recipe.density)
        model = self._learner.model

        def loss() -> Tensor:
            with self._setting.autocast():
                return F.cross_entropy(model(x_adv), y)

        value = self._learner.descend(loss, step)
        counts = torch.stack([resisted.sum(), torch.ones_like(y).sum()]).float()
        right, seen = step.total(counts).tolist()
        self.correct[k] += right
        self.seen[k] += int(seen)
        return {f"loss/{self._learner.config.name}": value}

    @property
    def passes(self) -> float:
        return sum(threat.steps for threat in self.recipe.threats) / 2 + 1

    def diagnostics(self, progress: float) -> dict[str, float]:
        return {**super().diagnostics(progress), "share/first-norm": self.first_share()}

    def deployed(self) -> nn.Module:
        return self._learner.model

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "correct": self.correct, "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.correct = [float(value) for value in state["correct"]]
        self.seen = [int(value) for value in state["seen"]]
