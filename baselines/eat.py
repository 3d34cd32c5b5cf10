"""Extreme-norm adversarial training (Croce & Hein, 2105.12508)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks.apgd import apgd
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat


class EAT(Recipe):
    """E-AT: E[ CE(f(x + d_k), y) ], k drawn per batch with P(k) proportional to 1 - acc_k.

    Croce & Hein, 2105.12508, section 4: training on the extreme norms, l_inf and l_1, covers those
    between. acc_k is the accuracy on the training examples of norm k so far (never reset; even odds
    until both norms were met). d_k comes from APGD with few steps, crafted in eval mode.

    Departures: the source has softplus activations and no weight decay on BatchNorm and biases when
    it trains from scratch; the architecture and the optimiser are the suite's here.

    Cost: the mean over norms (the mixture moves with training).

    Attributes:
        learner: the network; its objective is not used.
        threats: the extreme norms; 8/255 and 12 with 10 steps in the source.
    """

    learner: LearnerConfig = default_learner("e-at", "natural")
    threats: tuple[Threat, Threat] = ("linf", "l1")  # type: ignore[assignment]

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
            x_adv = apgd(view, x, y, self.recipe.threats[k])
        model = self._learner.model
        tally = torch.tensor([0.0, len(y)], device=x.device)  # right, seen

        def loss() -> Tensor:
            with self._setting.autocast():
                logits = model(x_adv)
                tally[0] = (logits.argmax(1) == y).sum()
                return F.cross_entropy(logits, y)

        value = self._learner.descend(loss, step)
        step.data.add_up_([tally])
        right, seen = tally.tolist()
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
