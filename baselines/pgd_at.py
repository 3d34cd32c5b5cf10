"""PGD adversarial training (Madry et al., 1706.06083; Rice et al., 2002.11569)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class PGDAT(AttackObjective):
    """PGD adversarial training: min_theta E[ max_{||d|| <= eps} CE(f(x + d), y) ].

    Madry et al., 1706.06083; recipe of Rice et al., 2002.11569. The inner maximum is approximated
    by PGD on the cross-entropy from a uniform random start; only the adversarial images are trained
    on.

    Departures: images are crafted in eval mode, as in the codes of Generalist, TRADES and SEAT;
    those of Madry et al. and Rice et al. craft in train mode (``batchnorm: train``). The optimiser
    is the suite's. All methods that wrap ``pgd-at`` (awp, ema, swa, ensembles, Generalist) craft in
    the same way, so that they differ only in what they add. Loss and attack are compared with plain
    loops (tests/baselines, tests/core).

    Attributes:
        threat: training threat model; a name ("linf", "l2", "l1") means the suite's of that name.
        batchnorm: "eval"; "train" is the mode of the codes of Madry et al. and Rice et al.; "batch"
            normalises as "train" does, but does not update the running statistics.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2002.11569 (robust_overfitting), PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The last PGD iterate."""
        return pgd(model, x, y, self.threat, loss="ce", start="uniform", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)
