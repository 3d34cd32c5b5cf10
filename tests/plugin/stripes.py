"""Stripes in three directions under noise: a data set in a package of its own."""

from pathlib import Path

import torch
from torch import Tensor

from benchmark.data.dataset import Split
from benchmark.data.raw import Raw
from benchmark.data.source import DatasetConfig, Source

CLASSES = ("horizontal", "vertical", "diagonal")


def draw(n: int, size: int, channels: int, generator: torch.Generator) -> Split:
    """``n`` images uint8 [n, channels, size, size], the classes in turn."""
    labels = torch.arange(n) % len(CLASSES)
    row, column = torch.arange(size).view(-1, 1), torch.arange(size).view(1, -1)
    directions = (row.expand(size, size), column.expand(size, size), row + column)
    shifts = torch.randint(4, (n,), generator=generator)
    stripes: Tensor = torch.stack(
        [(directions[k] + s) // 2 % 2 for k, s in zip(labels, shifts, strict=True)]
    )
    noise = torch.randint(96, (n, channels, size, size), generator=generator)
    return Split((stripes[:, None] * 159 + noise).to(torch.uint8), labels)


def read_stripes(config: DatasetConfig, data_root: Path) -> Raw:
    """600 training images and 90 test images, which depend on no seed."""
    size = config.size or 8
    generator = torch.Generator().manual_seed(0)
    return Raw(
        train=draw(600, size, config.channels, generator),
        val=None,
        test=draw(90, size, config.channels, generator),
        classes=CLASSES,
        source=f"generated stripes of {size}x{size} pixels",
    )


# no flip: a mirrored diagonal is another pattern
STRIPES = Source(
    "stripes in three directions under noise, generated; needs no files",
    read_stripes,
    size=8,
    flip=False,
    crops={8: 1},
)
