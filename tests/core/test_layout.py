"""Layouts in which torch survives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.attacks.folding import FoldedView
from benchmark.core.layout import lay_out
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model


def network(width: int, channels: int = 3) -> nn.Module:
    config = ModelConfig(name="small-resnet", width=width)
    return build_model(config, num_classes=10, image_size=16, channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [4, 8, 15, 16])
def test_narrow_strided_layers_never_meet_channels_last_in_training(
    width: int, channels: int
) -> None:
    """Protects: the weight gradient of a strided 1x1 convolution of fewer channels than a vector
    has numbers is a segmentation fault or a damaged heap in channels_last layout (on AVX2 this test
    dies without the rule, at width 4)."""
    net = lay_out(network(width, channels))
    seen: list[bool] = []

    def look(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        (x,) = arguments
        seen.append(x.is_contiguous() and layer.weight.is_contiguous())  # type: ignore[operator]

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            layer.register_forward_pre_hook(look)
    x = torch.rand(6, channels, 16, 16).contiguous(memory_format=torch.channels_last)
    net.train()(x).sum().backward()
    narrow = [width < 16, 2 * width < 16]
    assert len(seen) == 2
    assert all(contiguous for contiguous, thin in zip(seen, narrow, strict=True) if thin)
    if width == 16:
        assert not any(seen)


def test_a_view_for_crafting_keeps_its_fast_layout() -> None:
    net = lay_out(network(8)).eval()
    view = FoldedView(net)
    x: Tensor = torch.rand(4, 3, 16, 16)
    assert view.folds == 9
    assert view.agrees(x)
