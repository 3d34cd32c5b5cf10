"""ResNets for small images: post-activation (1512.03385) and pre-activation (1603.05027).

Submodules are named as in RobustBench's ``architectures/resnet.py``, so that checkpoints can be
exchanged. Global average pooling replaces its fixed 4x4 pooling: the result is equal at 32x32
pixels, and other image sizes work too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.models.activation import (
    ACTIVATIONS,
    USUAL,
    ActivationName,
    ActivationOptions,
    activation_argument,
    of_any_size,
)
from benchmark.models.architecture import (
    Architecture,
    Call,
    first_convolution,
    input_channels,
)
from benchmark.models.normalization import Normalized


def conv(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image size at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=False
    )


def pooled(x: Tensor) -> Tensor:
    """Average over pixels: [n, c, h, w] to [n, c]."""
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the (projected) input, then ReLU.

    Another activation can replace ReLU.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.conv1 = conv(in_channels, channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                conv(in_channels, channels, kernel=1, stride=stride), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(self.conv1(x)))
        return self.act(self.bn2(self.conv2(out)) + self.shortcut(x))


class PreActBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv, added to the (projected) input.

    Args:
        activated_shortcut: whether a projection shortcut starts after the first BN-ReLU, as in the
            paper, or before it. Identity shortcuts always carry the raw input.
        activation: used in place of ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        activated_shortcut: bool,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.activated_shortcut = activated_shortcut
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, channels, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(conv(in_channels, channels, kernel=1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(out if self.activated_shortcut else x)
        return self.conv2(self.act(self.bn2(self.conv1(out)))) + x


class ResNet(Normalized):
    """Post-activation ResNet of basic blocks; stage i has ``width * 2^i`` channels.

    Args:
        width: channels of the stem and of the first stage.
        blocks: number of blocks per stage; every stage but the first halves the image.
        stem_stride: stride of the 3x3 stem.
        activation: in place of ReLU.
        in_channels: channels of the images; 1 for grey.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_stride: int = 1,
        activation: ActivationName = "relu",
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_normalization(mean, std)
        self.act = ACTIVATIONS[activation]
        self.conv1 = conv(in_channels, width, stride=stem_stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = len(blocks)
        in_channels = width
        for stage, count in enumerate(blocks):
            channels = width * 2**stage
            layer = nn.Sequential()
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layer.append(BasicBlock(in_channels, channels, stride, activation))
                in_channels = channels
            self.add_module(f"layer{stage + 1}", layer)
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [0, 1] to logits [n, num_classes]."""
        x = self.act(self.bn1(self.conv1(self.normalize(x))))
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.linear(pooled(x))


class PreActResNet(Normalized):
    """Pre-activation ResNet-18.

    Args:
        paper_form: activated projection shortcuts and BN-ReLU before pooling, as in the paper
            and in robust_overfitting (2002.11569), AWP (2004.05884) and E-AT (2105.12508);
            RobustBench's ``PreActResNet(PreActBlockV2, ..., bn_before_fc=True)``. Otherwise raw
            shortcuts and no last BN, as in Fast AT (2001.03994); its ``PreActResNet18()``.
        activation: in place of ReLU.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        paper_form: bool = True,
        activation: ActivationName = "relu",
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.set_normalization(mean, std)
        self.act = ACTIVATIONS[activation]
        self.conv1 = conv(in_channels, 64)
        in_channels = 64
        for stage, channels in enumerate((64, 128, 256, 512)):
            layer = nn.Sequential()
            for index in range(2):
                stride = 2 if stage > 0 and index == 0 else 1
                layer.append(PreActBlock(in_channels, channels, stride, paper_form, activation))
                in_channels = channels
            self.add_module(f"layer{stage + 1}", layer)
        self.bn = nn.BatchNorm2d(in_channels) if paper_form else None
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 3, h, w] in [0, 1] to logits [n, num_classes]."""
        x = self.conv1(self.normalize(x))
        for stage in range(4):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        if self.bn is not None:
            x = self.act(self.bn(x))
        return self.linear(pooled(x))


class SmallResNetOptions(ActivationOptions):
    """Options of ``small-resnet``, in addition to the activation.

    Attributes:
        width: channels of the first stage; 16 unless given.
        stem_stride: stride of the first convolution. Default: 2 from 32x32 pixels on, 1 below.
    """

    width: int | None = Field(default=None, ge=1)
    stem_stride: Literal[1, 2] | None = None


def _small_resnet(
    num_classes: int,
    *,
    image_size: int,
    channels: int,
    width: int | None,
    stem_stride: int | None,
    activation: str,
    **normalization: Any,
) -> Call:
    form: dict[str, Any] = {
        "width": width or 16,
        "blocks": (1, 1, 1),
        "stem_stride": stem_stride or (2 if image_size >= 32 else 1),
        **input_channels(channels),
        **activation_argument(activation),
    }
    return partial(ResNet, num_classes, **form, **normalization)


def _width(state: Mapping[str, Tensor]) -> dict[str, int]:
    stem = first_convolution(state)
    return {} if stem is None else {"width": stem.shape[0]}


RESNET18 = of_any_size("ResNet-18, CIFAR form, 11.17 M", ResNet)
RESNET18_W16 = of_any_size("ResNet-18 of width 16, 0.70 M", ResNet, width=16)
SMALL_RESNET = Architecture(
    "ResNet-8: 3 stages of 1 block, width 16 unless given, 0.08 M",
    _small_resnet,
    options=SmallResNetOptions,
    told_by=_width,
    usual=USUAL,
)
PREACTRESNET18 = of_any_size("pre-activation ResNet-18, last BN, 11.17 M", PreActResNet)
PREACTRESNET18_FASTAT = of_any_size(
    "pre-activation ResNet-18 of Fast AT, no last BN, 11.17 M", PreActResNet, paper_form=False
)
