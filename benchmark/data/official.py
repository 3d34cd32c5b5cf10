"""Data sets by their published sizes alone, for plans made where the images are not."""

from __future__ import annotations

from typing import NamedTuple

import torch

from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset, Split
from benchmark.data.sources import lowest


class _Size(NamedTuple):
    train: int
    test: int
    classes: int
    side: int


_SIZES = {
    "cifar10": _Size(50_000, 10_000, 10, 32),
    "cifar100": _Size(50_000, 10_000, 100, 32),
    "imagenet": _Size(1_281_167, 50_000, 1000, 224),
}


class _Empty(Dataset):
    """Its images have sizes and no pixels, so their statistics are any."""

    @property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return IMAGENET_MEAN[: self.channels], IMAGENET_STD[: self.channels]


def official(config: DatasetConfig) -> Dataset | None:
    """The data set that ``config`` makes of the published one; None if that has no fixed size.

    Splits are as ``sources.load`` would make them, on the device ``meta``.
    """
    if config.name not in _SIZES:
        return None
    size = _SIZES[config.name]
    held_out = config.val_size or max(1, round(config.val_fraction * size.train))

    def split(count: int, *limits: int | None) -> Split:
        side = config.size or size.side
        n = lowest(count, config.limit, *limits) or 0
        images = torch.empty(n, config.channels, side, side, dtype=torch.uint8, device="meta")
        return Split(images, torch.empty(n, dtype=torch.int64, device="meta"))

    return _Empty(
        name=config.name,
        train=split(size.train - held_out, config.train_limit),
        val=split(held_out),
        test=split(size.test, config.test_limit),
        classes=tuple(map(str, range(size.classes))),
        fingerprint="",
        source="published sizes",
    )
