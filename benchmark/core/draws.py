"""Random draws per image that do not depend on how many processes share a batch.

When processes train together, each has a part of every batch. Their generators are in the same
state. In every process, ``normal_like`` and the other functions draw numbers for the whole batch,
then return the rows of that process's images. So an objective can be written as if there were one
process, and it gets the numbers that one process would draw.

A single draw for the whole batch, such as a coefficient or an index, can be made with torch's own
functions: since the generators are in the same state, every process gets the same value.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.core.mesh import DataAxis


class WholeBatchGenerator(torch.Generator):
    """A generator that knows which part of the current batch this process has.

    Attributes:
        data: the processes that share every batch.
    """

    data: DataAxis


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from N(0, 1).

    Args:
        x: [n, ...], one row per image; the draws have its shape, dtype, device and memory layout.
        generator: the generator of the step; None for torch's global generator.
    """
    return _rows_of_whole(x, generator, lambda whole: whole.normal_(generator=generator))


def uniform_like(x: Tensor, generator: torch.Generator | None, low: float, high: float) -> Tensor:
    """As ``normal_like``, from U(``low``, ``high``)."""
    return _rows_of_whole(
        x, generator, lambda whole: whole.uniform_(low, high, generator=generator)
    )


def exponential_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """As ``normal_like``, from the exponential distribution of mean 1."""
    return _rows_of_whole(x, generator, lambda whole: whole.exponential_(generator=generator))


def _rows_of_whole(
    x: Tensor, generator: torch.Generator | None, fill: Callable[[Tensor], Tensor]
) -> Tensor:
    """A tensor for the whole batch, filled by ``fill``; of it, the rows of the images in ``x``."""
    if not (isinstance(generator, WholeBatchGenerator) and generator.data.cut):
        return fill(torch.empty_like(x))
    data = generator.data
    whole = x.new_empty((data.total, *x.shape[1:]))
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        # Numbers are drawn in the order of memory, so the layout decides which number a pixel gets.
        whole = whole.contiguous(memory_format=torch.channels_last)
    return fill(whole)[data.start : data.stop]
