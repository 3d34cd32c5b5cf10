"""Data sets without pixels, made from their published sizes, to plan a suite without its images."""

from __future__ import annotations

import torch

from benchmark.data.dataset import Dataset, Split
from benchmark.data.source import DATASETS, DatasetConfig
from benchmark.data.sources import lowest
from benchmark.data.splits import long_tail


def official(config: DatasetConfig) -> Dataset | None:
    """The data set that ``config`` describes, in its published form; None if it has no fixed form.

    Splits have the sizes that ``sources.load`` would give them, and their tensors are on the device
    ``meta``, without values.
    """
    size = DATASETS.get(config.name).published
    if size is None:
        return None
    held_out = config.val_size or max(1, round(config.val_fraction * size.train))
    kept = size.train - held_out
    if config.imbalance is not None:
        kept = sum(long_tail([kept // size.classes] * size.classes, config.imbalance))

    def split(count: int, *limits: int | None) -> Split:
        side = config.size or size.size
        n = lowest(count, config.limit, *limits) or 0
        images = torch.empty(n, config.channels, side, side, dtype=torch.uint8, device="meta")
        return Split(images, torch.empty(n, dtype=torch.int64, device="meta"))

    return Dataset(
        name=config.name,
        train=split(kept, config.train_limit),
        val=split(held_out),
        test=split(size.test, config.test_limit),
        classes=tuple(map(str, range(size.classes))),
        fingerprint="",
        source="published sizes",
        # there are no pixels to compute them from, and a plan does not depend on them
        statistics=((0.5,) * config.channels, (0.5,) * config.channels),
    )
