"""TRADES as it is trained with generated images (Wang et al., 2302.04638)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.crafting import BatchNormMode
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class TRADESGenerated(AttackObjective):
    """TRADES of the codes that train with generated images: smoothed labels, a uniform start.

    E[ CE(f(x), y_s) + beta * KL(p(x) : p(x')) ], y_s = (1 - s) * onehot(y) + s / K for K classes;
    x' maximises KL(p(x) : p(x')) from a uniform start in the ball, on a network that normalises by
    the statistics of the batch and does not update its running averages. This is the code of
    2302.04638 (DM-Improves-AT, trades.py and train-wa.py), which is based on codes for 2103.01946
    and 2010.03593. The generated images come from ``dataset.extra``, and the authors deploy an
    average: ``{name: ema, objective: trades-generated, decay: 0.995}``.

    Departures: the authors' optimiser has no weight decay on BatchNorm's weights and biases; its
    momentum falls from 0.95 to 0.85 while the learning rate rises, and rises again while that falls
    (the default of torch's OneCycleLR); their learning rate changes once per epoch. Under l_2 they
    start at x + 0.001 * N(0, I) and use a step size of eps / 5. Loss and attack are compared with
    their formulas (tests/baselines).

    Attributes:
        beta: weight of the divergence; 5 in the authors' tables.
        label_smoothing: s; 0.1 in the authors' tables.
        threat: training threat model; the authors' is eps 8/255, step 2/255, 10 steps.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2302.04638 (README.md, parser.py, train.py: cosinew), WRN-28-10, Swish",
        optimizer=OptimizerConfig(lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True),
        # OneCycleLR(pct_start=0.025, total_steps=400), one step per epoch: from 1/25 of the peak
        # to the peak at step 9, then to 1e-4 / 25 of it at step 399
        schedule=Schedule(
            points=((0, 1 / 25), (9 / 400, 1), (399 / 400, 1e-4 / 25)), interpolation="cosine"
        ),
        epochs=400,
        batch_size=512,
    )

    batchnorm: BatchNormMode = "batch"
    beta: float = 5.0
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD on KL(p(x) : p(x_adv)) from a uniform start."""
        return pgd(model, x, y, self.threat, loss="kl", start="uniform", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x), y_s) + beta * KL(p(x) : p(x_adv)) / n."""
        logits = model(x)
        divergence = F.kl_div(model(x_adv).log_softmax(1), logits.softmax(1), reduction="batchmean")
        return (
            F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
            + self.beta * divergence
        )

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
