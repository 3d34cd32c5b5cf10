"""Natural training with augmentation: further sub-tasks for Generalist, and baselines by
themselves."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks.spatial import warp
from benchmark.core.draws import normal_like, uniform_like
from benchmark.core.objective import Objective, Step


def uniform(generator: torch.Generator | None, like: Tensor) -> Tensor:
    """A 0-d tensor from U(0, 1) on the device of ``like``. It is not read, since that would wait
    for the device."""
    return torch.empty((), device=like.device, dtype=like.dtype).uniform_(generator=generator)


def partners(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random permutation of the batch."""
    return torch.randperm(len(x), device=x.device, generator=generator)


def mixup_loss(model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
    """l * CE(f(z), y) + (1 - l) * CE(f(z), y'), z = l * x + (1 - l) * x', l ~ U(0, 1) = Beta(1, 1).

    One l for the batch; (x', y') is the batch permuted (Zhang et al., 1710.09412).
    """
    share, other = uniform(step.generator, x), partners(x, step.generator)
    logits = model(share * x + (1 - share) * x[other])
    return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


class _Natural(Objective):
    """Base of objectives on clean images with some augmentation; nothing is crafted."""

    family = "data augmentation"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The clean images."""
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)

    @property
    def crafting_passes(self) -> float:
        """None."""
        return 0


class Mixup(_Natural):
    """Mixup: E[ l * CE(f(z), y) + (1 - l) * CE(f(z), y') ], z = l * x + (1 - l) * x'.

    Zhang et al., 1710.09412, with l ~ Beta(1, 1), one l per batch and (x', y') the permuted batch,
    as in its code. Departures: none known; the loss is compared with its formula (tests/baselines).
    """

    @property
    def cuttable(self) -> bool:
        """No: each image is mixed with another of the batch."""
        return False

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """See the class."""
        return mixup_loss(model, x, y, step)


class CutMix(_Natural):
    """CutMix: E[ l * CE(f(z), y) + (1 - l) * CE(f(z), y') ], z is x with a box cut out of x'.

    Yun et al., 1905.04899, and its code: l ~ Beta(1, 1), the box has sides sqrt(1 - l) of the
    image's and a uniform centre, is cut off at the border, and l becomes the share of x that is
    left. There is one box per batch, and no box in half of the batches, as in the recipe for CIFAR.

    Departures: none known; the loss and the box are compared with plain loops (tests/baselines).

    Attributes:
        probability: share of the batches that are mixed: 0.5 for CIFAR, 1 for ImageNet in the code.
    """

    probability: float = Field(default=0.5, ge=0, le=1)

    @property
    def cuttable(self) -> bool:
        """No: each image is mixed with another of the batch."""
        return False

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """See the class."""
        height, width = x.shape[2:]
        mixed = uniform(step.generator, x) < self.probability
        draws = [uniform(step.generator, x) for _ in range(3)]
        half = (1 - draws[0]).sqrt() / 2
        rows = torch.arange(height, device=x.device)
        columns = torch.arange(width, device=x.device)
        # floor of the centre and of the sides, as in the code
        centre_y, centre_x = (draws[1] * height).floor(), (draws[2] * width).floor()
        tall, wide = (2 * half * height).floor() // 2, (2 * half * width).floor() // 2
        in_rows = (rows >= centre_y - tall) & (rows < centre_y + tall)
        in_columns = (columns >= centre_x - wide) & (columns < centre_x + wide)
        box = in_rows[:, None] & in_columns[None, :] & mixed
        other = partners(x, step.generator)
        logits = model(torch.where(box, x[other], x))
        share = 1 - box.to(x.dtype).mean()
        return share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[other])


class GaussianNoise(_Natural):
    """Noise augmentation: E[ CE(f(clip(x + sigma * N(0, I))), y) ].

    The sub-task of one common corruption (Gaussian noise, 1903.12261). Rusak et al. (2001.06057)
    train on it.

    Departures: one sigma for all images; no comparison with their code was made.

    Attributes:
        sigma: standard deviation in pixel units; images are clipped to [0, 1].
    """

    sigma: float = Field(default=0.08, ge=0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The images with noise."""
        return (x + self.sigma * normal_like(x, step.generator)).clamp_(0, 1)


class Rotation(_Natural):
    """Rotation augmentation: E[ CE(f(R_a x), y) ], a ~ U(-degrees, degrees) for each image.

    The sub-task of small rotations (1712.02779 attacks with up to 30 degrees). Interpolation is
    bilinear, with zeros outside of the image. This is our own, from no published code.

    Attributes:
        degrees: largest angle.
    """

    degrees: float = Field(default=30.0, ge=0, le=180)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The rotated images."""
        angle = uniform_like(x.new_empty(len(x)), step.generator, -1, 1)
        return warp(x, angle * math.radians(self.degrees))
