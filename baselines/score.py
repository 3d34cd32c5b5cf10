"""SCORE: squared distances instead of divergences (Pang et al., 2202.10103)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.crafting import BatchNormMode
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.search import Knob


class SCORE(AttackObjective):
    """SCORE: E[ ||p(x) - e_y||^2 + beta * ||p(x') - p(x)||^2 ], e_y the one-hot label.

    Pang et al., 2202.10103, section 5, and its code ("TRADES (LSE)"): TRADES with the squared l_2
    distance between probabilities, which obeys a triangle inequality up to a factor, instead of
    cross-entropy and KL divergence. The attack maximises ||p(x') - p(x)||^2 with p(x) fixed, from a
    uniform start, in train mode but without updating BatchNorm's running averages; gradient flows
    through both probabilities of the loss.

    The code has a second form, for training without generated data (PreAct ResNet-18, 110 epochs):
    ``{beta: 6, clip: 0.3, start: gaussian, batchnorm: eval}`` with a learning rate of 0.05, a tenth
    of it from epoch 100 and a hundredth from epoch 105 on, weight decay 5e-4. It lowers the loss of
    each image by an amount that ``clip`` defines, at most to 0.

    Departures: the first form draws 70 % of each batch from generated images, deploys a moving
    average with decay 0.995 (``ema``), has no weight decay on BatchNorm, a BatchNorm momentum of
    0.01, and Swish activations; its one-cycle rule changes the optimiser's momentum too. Here the
    suite decides all of this. Loss and attack are compared with their formulas (tests/baselines).

    Attributes:
        beta: weight of the second distance; 4 in the commands of the code, 3 in its checkpoints.
        clip: probability c of the wrong classes that is not penalised: the loss of an image is
            lowered by the squared distance of a prediction that gives c to the wrong classes in
            equal parts.
        start: the start of the attack, ``uniform`` or ``gaussian`` (x + 0.001 * N(0, I), as in
            TRADES).
        threat: training threat model; 8/255 with 10 steps of 2/255 in the code.
    """

    family = "adversarial training"
    search = (Knob("beta", 0.5, 12, log=True),)
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2202.10103, WRN-28-10 with Swish and generated data",
        optimizer=OptimizerConfig(lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True),
        schedule=Schedule(points=((0, 0.04), (0.025, 1), (1, 4e-6)), interpolation="cosine"),
        epochs=400,
        batch_size=512,
    )

    beta: float = Field(default=4.0, ge=0)
    clip: float = Field(default=0.0, ge=0, le=1)
    start: Literal["uniform", "gaussian"] = "uniform"
    batchnorm: BatchNormMode = "batch"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD on ||p(x') - p(x)||^2."""
        return pgd(
            model, x, y, self.threat, loss="squared", start=self.start, generator=step.generator
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mean over images of the two distances, clipped."""
        p = model(x).softmax(1)
        q = model(x_adv).softmax(1)
        right = F.one_hot(y, p.shape[1]).to(p)
        distances = (p - right).square().sum(1) + self.beta * (q - p).square().sum(1)
        free = self.clip**2 * (1 + 1 / (p.shape[1] - 1))
        return F.relu(distances - free).mean()

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
