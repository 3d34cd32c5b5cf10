"""Networks that others trained, kept as references for the evaluation."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core.errors import ConfigError
from benchmark.models.architecture import Architecture, Call
from benchmark.models.normalization import Normalized

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2471, 0.2435, 0.2616)


class _Block(nn.Module):
    """Two 3x3 convolutions with bias and a shortcut; no BatchNorm."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet2B(Normalized):
    """ResNet-2B of the verification competition VNN-COMP 2021 (2109.00498), for 32x32 images.

    Trained against l_inf at 2/255. Published on CIFAR-10: clean 69.25 %; PGD 62.24 % at 1/255 and
    54.82 % at 2/255; certified 57.16 % and 26.88 %.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        # The checkpoint has no such keys: its normalisation was part of the data loader.
        self.set_normalization(CIFAR10_MEAN, CIFAR10_STD, persistent=False)
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(8, 16, stride=2), _Block(16, 16, stride=1))
        self.linear1 = nn.Linear(16 * 8 * 8, 100)
        self.linear2 = nn.Linear(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, 32, 32] in [0, 1] to logits [n, num_classes]."""
        x = self.layer1(F.relu(self.conv1(self.normalize(x))))
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def resnet2b(num_classes: int = 10) -> ResNet2B:
    """ResNet-2B without its weights; load them with ``benchmark.models.loading``."""
    return ResNet2B(num_classes)


def _resnet2b(num_classes: int, *, image_size: int, channels: int, mean: None, std: None) -> Call:
    if image_size != 32:
        raise ConfigError(f"resnet2b takes 32x32 images, not {image_size}x{image_size}")
    return partial(ResNet2B, num_classes)


RESNET2B = Architecture(
    "external reference ResNet-2B (VNN-COMP 2021), 0.11 M",
    _resnet2b,
    normalizes_itself=True,
    only_colour=True,
)
