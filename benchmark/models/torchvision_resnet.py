"""torchvision's ResNets as architectures. Importing torchvision takes a second, so
``models.imagenet``, which needs it, is imported only when a network is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmark.models.architecture import Architecture, Call


def _call(network: str) -> Callable[..., Call]:
    def call(num_classes: int, *, image_size: int, channels: int, mean: Any, std: Any) -> Call:
        # Start-up time: torchvision takes a second, and every listing of models imports this file.
        from benchmark.models.imagenet import torchvision_resnet  # noqa: PLC0415

        return partial(torchvision_resnet, network, num_classes, mean=mean, std=std)

    return call


RESNET18 = Architecture(
    "torchvision ResNet-18 for ImageNet, 11.69 M", _call("resnet18"), only_colour=True
)
RESNET50 = Architecture(
    "torchvision ResNet-50 for ImageNet, 25.56 M", _call("resnet50"), only_colour=True
)
