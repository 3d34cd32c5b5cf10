"""Interpolated adversarial training (Lamb et al., 1906.06784)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from baselines.augmentation import mixup_loss
from benchmark.attacks import pgd
from benchmark.core.crafting import BatchNormMode
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class IAT(AttackObjective):
    """IAT: E[ (mixup(x, y) + mixup(x', y)) / 2 ], x' the last PGD iterate.

    Lamb et al., 1906.06784, algorithm 1: the mixup losses of clean and of adversarial images, each
    with its own coefficient from Beta(1, 1) and its own permutation; adversarial images are crafted
    first and mixed afterwards. Images are crafted in train mode, so the attack updates BatchNorm's
    running statistics, as in the reimplementation ndb796/Pytorch-Adversarial-Training-CIFAR (we
    know of no official PyTorch code).

    Departures: none known from that code; the loss is compared with its formula (tests/baselines).

    Attributes:
        threat: training threat model; the code uses PGD-7, eps 0.0314, step 0.00784.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    family = "joint objectives"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="the reimplementation ndb796/Pytorch-Adversarial-Training-CIFAR, ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )
    batchnorm: BatchNormMode = "train"

    @property
    def cuttable(self) -> bool:
        """No: each image is mixed with another of the batch."""
        return False

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD on the cross-entropy from a uniform random start."""
        return pgd(model, x, y, self.threat, loss="ce", start="uniform", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mean of the two mixup losses."""
        return torch.stack([mixup_loss(model, images, y, step) for images in (x, x_adv)]).mean()

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
