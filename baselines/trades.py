"""TRADES (Zhang et al., 1901.08573)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.search import Knob


class TRADES(AttackObjective):
    """TRADES: min_theta E[ CE(f(x), y) + beta * max_{||d|| <= eps} KL(p(x) : p(x + d)) ].

    Section 4.1 of 1901.08573 and its code: the attack maximises the KL divergence from
    x + 0.001 * N(0, I), not from a uniform start; the divergence is summed over classes and
    averaged over the *batch* (``batchmean``; ``mean`` would divide it by the number of classes),
    and its clean target is not detached, so gradient flows through both arguments.

    Departures: the code runs the clean images twice through the network, once for each term; we run
    them once and use the logits for both terms (as semisup-adv does), so BatchNorm sees the clean
    batch once per step. Under l_2 the code runs SGD on the perturbation; we make steps of PGD.
    Length and optimiser are the suite's: the code trains for 76 epochs with weight decay 2e-4 and a
    learning rate of 0.1, a tenth of it from epoch 75 on (its further drops, at 90 and 100, come
    after the end). Loss and attack are compared with their formulas (tests/baselines).

    Attributes:
        beta: weight of the divergence; 6 in the paper's tables.
        threat: training threat model; the paper uses eps 0.031, step 0.007, 10 steps.
    """

    family = "adversarial training"
    search = (Knob("beta", 0.5, 12, log=True),)
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 1901.08573, WRN-34-10; it ends before its drops at epochs 90 and 100",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(points=((0, 1), (74 / 76, 0.1)), interpolation="step"),
        epochs=76,
        batch_size=128,
    )

    beta: float = 6.0

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD on KL(p(x) : p(x_adv)) from a small Gaussian start."""
        return pgd(model, x, y, self.threat, loss="kl", start="gaussian", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x), y) + beta * KL(p(x) : p(x_adv)) / n."""
        logits = model(x)
        divergence = F.kl_div(model(x_adv).log_softmax(1), logits.softmax(1), reduction="batchmean")
        return F.cross_entropy(logits, y) + self.beta * divergence

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
