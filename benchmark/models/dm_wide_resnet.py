"""Wide residual networks in the form of DeepMind's code (2010.03593), which most entries of
RobustBench that train on generated images have.

Submodules are named as in RobustBench's ``architectures/dm_wide_resnet.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.models.activation import ACTIVATIONS, ActivationName
from benchmark.models.architecture import Architecture, ArchitectureOptions, Call, input_channels
from benchmark.models.normalization import Normalized
from benchmark.models.resnet import conv, pooled

# Momentum of BatchNorm's running averages, as in the training codes of 2010.03593 and 2302.04638.
_MOMENTUM = 0.01


class DMBlock(nn.Module):
    """BN-activation-conv-BN-activation-conv, added to the input; a projection starts after the
    first activation. A convolution of stride 2 pads only below and on the right."""

    def __init__(self, in_channels: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.batchnorm_0 = nn.BatchNorm2d(in_channels, momentum=_MOMENTUM)
        self.conv_0 = nn.Conv2d(in_channels, channels, 3, stride=stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(channels, momentum=_MOMENTUM)
        self.conv_1 = conv(channels, channels)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = conv(in_channels, channels, kernel=1, stride=stride)
        # left, right, top, bottom: TensorFlow's SAME padding for images with sides of even length
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.batchnorm_0(x))
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.conv_0(F.pad(out, self.padding))
        return self.conv_1(self.act(self.batchnorm_1(out))) + x


class DMBlockGroup(nn.Module):
    """``count`` blocks; the first has the stride."""

    def __init__(
        self, count: int, in_channels: int, channels: int, stride: int, activation: str
    ) -> None:
        super().__init__()
        self.block = nn.Sequential()
        for index in range(count):
            first = index == 0
            self.block.append(
                DMBlock(
                    in_channels if first else channels, channels, stride if first else 1, activation
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class DMWideResNet(Normalized):
    """WRN with three groups of ``blocks`` blocks and ``16 * widen`` to ``64 * widen`` channels; the
    depth counts 6 * blocks + 4 layers.

    The function is that of RobustBench's ``DMWideResNet`` on images whose sides are multiples of 4,
    and its checkpoints load strictly. Their normalisation is not in them: it is part of the class
    there (of CIFAR-10 unless said), and ``model.normalization`` here.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: int,
        widen: int = 10,
        activation: ActivationName = "swish",
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_normalization(mean, std)
        self.act = ACTIVATIONS[activation]
        self.init_conv = conv(in_channels, 16)
        self.layer = nn.Sequential()
        channels = 16
        for group in range(3):
            wider = 16 * widen * 2**group
            stride = 2 if group > 0 else 1
            self.layer.append(DMBlockGroup(blocks, channels, wider, stride, activation))
            channels = wider
        self.batchnorm = nn.BatchNorm2d(channels, momentum=_MOMENTUM)
        self.logits = nn.Linear(channels, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        """Normal with variance 2 / fan-out for convolutions, zero bias for the classifier."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [0, 1] to logits [n, num_classes]."""
        x = self.layer(self.init_conv(self.normalize(x)))
        return self.logits(pooled(self.act(self.batchnorm(x))))


class DMWideResNetOptions(ArchitectureOptions):
    """Options of ``dm-wrn-28-10`` and ``dm-wrn-70-16``.

    Attributes:
        activation: ``swish`` (SiLU), as all published ones have, or ``relu``.
    """

    activation: ActivationName = "swish"


def _dm(blocks: int, widen: int) -> Callable[..., Call]:
    def call(num_classes: int, *, image_size: int, channels: int, **options: Any) -> Call:
        form: dict[str, Any] = {"blocks": blocks, "widen": widen, **options}
        form |= input_channels(channels)
        return partial(DMWideResNet, num_classes, **form)

    return call


DM_WRN_28_10 = Architecture(
    "WideResNet-28-10 in DeepMind's form with Swish (RobustBench's DMWideResNet), 36.48 M",
    _dm(4, 10),
    options=DMWideResNetOptions,
    usual={"activation": "swish"},
)
DM_WRN_70_16 = Architecture(
    "WideResNet-70-16 in DeepMind's form with Swish (RobustBench's DMWideResNet), 266.80 M",
    _dm(11, 16),
    options=DMWideResNetOptions,
    usual={"activation": "swish"},
)
