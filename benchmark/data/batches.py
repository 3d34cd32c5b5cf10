"""What loaders share: the bounds of batches, and random draws that depend on a key alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import ConfigError, DataError

Batch = tuple[Tensor, Tensor]
IndexedBatch = tuple[Tensor, Tensor, Tensor]


def seed_of(*key: int) -> int:
    """A hash of ``key``, so that the generators of neighbouring keys are unrelated."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


def generator(*key: int) -> torch.Generator:
    """A CPU generator for ``key``, see ``seed_of``."""
    return torch.Generator().manual_seed(seed_of(*key))


# Pinned memory stays with the process, so a whole split is copied in the ordinary way.
_PINNED_BYTES = 1 << 26


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. A small tensor is copied to CUDA from pinned memory, so that the
    caller does not wait for the copy; the device runs it before any work that uses the tensor."""
    if device.type != "cuda" or tensor.is_cuda or tensor.nbytes > _PINNED_BYTES:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of each training batch; a last batch of one image is dropped.

    BatchNorm cannot train on a single image.

    Raises:
        ConfigError: batch size below 2.
        DataError: fewer than 2 images.
    """
    if batch_size < 2:
        raise ConfigError(f"batch_size = {batch_size}: BatchNorm needs at least 2")
    if count < 2:
        raise DataError(f"training needs at least 2 images but the split has {count}")
    starts = range(0, count, batch_size)
    bounds = [(start, min(start + batch_size, count)) for start in starts]
    return bounds if bounds[-1][1] - bounds[-1][0] > 1 else bounds[:-1]


def full_bounds(count: int, batch_size: int, share: float) -> tuple[list[tuple[int, int]], int]:
    """(start, stop) of each batch of an epoch when a ``share`` of every batch is drawn from extra
    images, and how many images of a batch come from the data set.

    There are as many batches as ``count`` images of the data set would make, and all are full. A
    batch size above ``count`` (in smoke tests) is lowered to ``count``.

    Raises:
        ConfigError: batch size below 2, or a share that is less than one image of a batch.
        DataError: fewer than 2 images.
    """
    batch_bounds(count, batch_size)
    size = min(batch_size, count)
    extra = math.floor(size * share + 1e-9)  # 100 * 0.29 must not become 28 by rounding
    if extra == 0:
        raise ConfigError(
            f"dataset.extra.share = {share:g} is less than one image of a batch of {size}; raise "
            "it, or train.batch_size"
        )
    starts = range(0, math.ceil(count / size) * size, size)
    return [(start, start + size) for start in starts], size - extra


def draw_shifts(
    random: torch.Generator, count: int, crop: int, flip: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Crop offsets (top, left) in 0..2*crop and flips of ``count`` images, each [b]."""
    shifts = torch.randint(2 * crop + 1, (2, count), generator=random)
    flips = torch.rand(count, generator=random) < (0.5 if flip else 0.0)
    return shifts[0], shifts[1], flips
