"""The memory layout of networks that are trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Number of float32 values in the widest vectors of a CPU (AVX-512).
_VECTOR = 16


def lay_out(network: nn.Module) -> nn.Module:
    """``network`` in channels_last layout, which is faster; but in contiguous layout if it is on a
    CPU and has a layer whose training crashes in channels_last.

    oneDNN writes beyond its memory when it computes the *weight* gradient of a strided 1x1
    convolution whose input has fewer channels than a vector of the CPU holds numbers. This was seen
    with torch 2.14.1, for less than 8 channels with AVX2 and for 8 with AVX-512. The process then
    ends with a segmentation fault, or continues with a damaged heap. Such networks get contiguous
    weights and make their images contiguous. Passes with frozen weights (attacks, evaluation,
    folded views) do not have the problem.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
    if not (on_cpu and any(_is_dangerous(layer) for layer in network.modules())):
        return network.to(memory_format=torch.channels_last)
    network.register_forward_pre_hook(_contiguous)
    return network.to(memory_format=torch.contiguous_format)


def _is_dangerous(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.Conv2d)
        and layer.in_channels // layer.groups < _VECTOR
        and tuple(layer.kernel_size) == (1, 1)
        and any(step > 1 for step in layer.stride)
    )


def _contiguous(network: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    # clone, not .contiguous(): an image with one channel counts as contiguous in both layouts, so
    # .contiguous() would keep its strides, which a convolution may read as channels_last.
    return tuple(
        value.clone(memory_format=torch.contiguous_format)
        if isinstance(value, torch.Tensor)
        else value
        for value in arguments
    )
