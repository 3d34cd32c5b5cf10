"""MART: misclassification aware adversarial training (Wang et al., ICLR 2020)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.search import Knob


class MART(AttackObjective):
    """MART: E[ BCE(p(x'), y) + beta * KL(p(x) : p(x')) * (1 - p_y(x)) ].

    BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k) is the boosted cross-entropy. Equation 11 of
    "Improving adversarial robustness requires revisiting misclassified examples" (ICLR 2020,
    openreview rklOg6EFwS) with the constants of its code: 1.0001 and 1e-12 inside the logarithm of
    the margin term, 1e-12 inside the logarithm of KL, 1.0000001 in the weight. x' is the last PGD
    iterate on the cross-entropy from x + 0.001 * N(0, I), crafted in eval mode; gradient flows
    through p(x) both in KL and in the weight.

    Departures: none known; the loss is compared with its formula (tests/baselines).

    Attributes:
        beta: weight of the divergence; 5 for ResNet-18, 6 for WRN-34-10 in the code.
        threat: training threat model; the code uses eps 0.031, step 0.007, 10 steps.
    """

    family = "adversarial training"
    search = (Knob("beta", 0.5, 12, log=True),)
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of MART, ResNet-18",
        optimizer=OptimizerConfig(lr=0.01, momentum=0.9, weight_decay=3.5e-3),
        schedule=Schedule(
            points=((0, 1), (74 / 120, 0.1), (89 / 120, 0.01), (99 / 120, 0.001)),
            interpolation="step",
        ),
        epochs=120,
        batch_size=128,
    )

    beta: float = 5.0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD on the cross-entropy from a small Gaussian start."""
        return pgd(model, x, y, self.threat, loss="ce", start="gaussian", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """Boosted cross-entropy and weighted divergence, both means over the batch."""
        p = model(x).softmax(1)
        logits = model(x_adv)
        q = logits.softmax(1)
        strongest = q.scatter(1, y[:, None], -torch.inf).argmax(1)
        margin = F.nll_loss((1.0001 - q + 1e-12).log(), strongest)
        divergence = F.kl_div((q + 1e-12).log(), p, reduction="none").sum(1)
        weight = 1.0000001 - p.gather(1, y[:, None]).squeeze(1)
        return F.cross_entropy(logits, y) + margin + self.beta * (divergence * weight).mean()

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
