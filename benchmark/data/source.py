"""The contract of a data set: how it is read, and what is known of it before it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.core.registry import Registry

if TYPE_CHECKING:
    from benchmark.data.config import DatasetConfig
    from benchmark.data.raw import Raw


@dataclass(frozen=True)
class Published:
    """The published form of a data set whose images are always the same.

    Attributes:
        train, test: numbers of images.
        classes: their number.
        size: side of the square images in pixels.
    """

    train: int
    test: int
    classes: int
    size: int


@dataclass(frozen=True)
class Board:
    """A leaderboard of RobustBench (1.1.1; 2010.09670).

    Attributes:
        images: of the test set, that every figure is measured on.
        size: side of the images in pixels; None if a model may have its own.
        eps: radii that it takes, in pixel units; 128/255 goes under l_2 for 0.5.
        chosen: its images are a published choice from the test set.
        preprocessing: RobustBench's name for how images are cut; empty for its default.
    """

    images: int
    size: int | None
    eps: tuple[str, ...] = ()
    chosen: bool = False
    preprocessing: str = ""


@dataclass(frozen=True)
class Source:
    """One data set. Its entry point (group ``generalist_bench.datasets``) gives it its name.

    Attributes:
        description: the line that ``list datasets`` prints.
        read: called with the configuration and the data root; gives all images, before the
            validation split is carved and limits apply. Raises DataError: nothing found, or
            damaged files. Imports that take long belong inside it.
        takes_path: it is read from ``DatasetConfig.path``, which is refused elsewhere.
        takes_class_order: it heeds ``DatasetConfig.class_order``, which is refused elsewhere.
        size: default of ``DatasetConfig.size``.
        sizes: the sizes that it can have; empty if any.
        flip: default of ``DatasetConfig.flip``. False where a mirrored image may change class.
        crops: default of ``DatasetConfig.crop`` by size, where it is not 4.
        published: its published form; None if its images depend on the user's files.
        statistics: published mean and standard deviation per channel, of pixels in [0, 1], that
            public networks expect. None: those of the training images.
        radii: the usual radii by norm (``linf``, ``l2``, ``l1``), where they are not those of
            CIFAR-10.
        boards: leaderboards by threat model (``linf``, ``l2``, ``corruptions``).
        corrupted: folder of published corrupted test images below the data root, in the form of
            CIFAR-10-C.
    """

    description: str
    read: Callable[[DatasetConfig, Path], Raw]
    takes_path: bool = False
    takes_class_order: bool = False
    size: int | None = None
    sizes: tuple[int, ...] = ()
    flip: bool = True
    crops: Mapping[int, int] = field(default_factory=dict)
    published: Published | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    radii: Mapping[str, str] = field(default_factory=dict)
    boards: Mapping[str, Board] = field(default_factory=dict)
    corrupted: str | None = None


DATASETS: Registry[Source] = Registry("dataset", "generalist_bench.datasets", Source)
