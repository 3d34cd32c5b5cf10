"""The contract of a data set: what a user can configure, how it is read, and what is known about it
before it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry
from benchmark.data.decode import Decoding
from benchmark.data.raw import Raw


@dataclass(frozen=True)
class PublishedSizes:
    """The sizes of a published data set, whose images are the same for everybody.

    Attributes:
        train, test: numbers of images.
        classes: number of classes.
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
        images: number of test images that every figure is measured on.
        size: side of the images in pixels; None if each model may have its own.
        eps: radii that it accepts, in pixel units; under l_2, 128/255 is accepted for 0.5.
        chosen: whether its images are a published selection from the test set.
        preprocessing: RobustBench's name for how images are resized and cropped; empty for its
            default.
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
        read: called with the configuration and the data root; returns all images, before the
            validation split is made and limits are applied. Raises DataError: nothing found, or
            damaged files. Put slow imports inside this function.
        takes_path: whether it is read from ``DatasetConfig.path``; other data sets refuse a path.
        takes_class_order: whether it uses ``DatasetConfig.class_order``; other data sets refuse
            it.
        takes_test_list: whether it uses ``DatasetConfig.test_list``; other data sets refuse it.
        size: default of ``DatasetConfig.size``.
        sizes: the sizes that it can have; empty if it can have any.
        flip: default of ``DatasetConfig.flip``. False if a mirrored image may belong to another
            class.
        crops: default of ``DatasetConfig.crop`` by size, where it is not 4.
        published: its published sizes; None if its images depend on the user's files.
        statistics: published mean and standard deviation per channel, of pixels in [0, 1], that
            public networks expect. None: those of the training images are used.
        radii: the usual radii by norm (``linf``, ``l2``, ``l1``), where they differ from those of
            CIFAR-10.
        boards: leaderboards by threat model (``linf``, ``l2``, ``corruptions``).
        corrupted: folder of published corrupted test images below the data root, in the form of
            CIFAR-10-C.
    """

    description: str
    read: Callable[[DatasetConfig, Path], Raw]
    takes_path: bool = False
    takes_class_order: bool = False
    takes_test_list: bool = False
    size: int | None = None
    sizes: tuple[int, ...] = ()
    flip: bool = True
    crops: Mapping[int, int] = field(default_factory=dict)
    published: PublishedSizes | None = None
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    radii: Mapping[str, str] = field(default_factory=dict)
    boards: Mapping[str, Board] = field(default_factory=dict)
    corrupted: str | None = None


DATASETS: Registry[Source] = Registry("dataset", "generalist_bench.datasets", Source)


def _source(name: str) -> Source:
    """Raises ValueError: the name is unknown, or the package cannot be imported."""
    try:
        return DATASETS.get(name)
    except ConfigError as error:
        raise ValueError(str(error)) from error


class ExtraConfig(Config):
    """Extra training images, such as generated ones, that fill a share of every batch.

    Every batch holds floor(``share`` * batch size) extra images, drawn with replacement; the rest
    are images of the data set. Both kinds are cropped and flipped in the same way, and mixed within
    the batch. As in the code of 2302.04638, an epoch has as many steps as without extra images, all
    its batches are full, and images of the data set are drawn without replacement: with a share of
    0.7, one epoch uses 30 % of them and the next epoch draws anew. Normalisation, validation, test
    images and the re-estimation of BatchNorm statistics use images of the data set only.

    Attributes:
        path: of an .npz file with ``image``, uint8 [n, s, s, 3], and ``label``, [n], stored without
            compression; absolute, or relative to the data root (else to the working directory).
        share: of each batch; 0.7 in 2302.04638.
    """

    path: str
    share: float = Field(default=0.7, gt=0, lt=1)


class DatasetConfig(Config):
    """A data set, its validation split, its limits and its augmentation.

    Attributes:
        name: a name of ``DATASETS``, as ``list datasets`` prints them.
        path: for data sets of your own files (``folder``, ``npz``, ``parquet``): absolute, or
            relative to the data root (else to the working directory). The other data sets are found
            by name below the data root.
        size: side of the square images in pixels; None keeps that of the files. Default: the data
            set's own (digits 16, imagenet 224), else None.
        val_fraction: share of the training images held out for validation, stratified.
        val_size: the same as a number of images; replaces ``val_fraction``.
        split_seed: seed of the validation split and of ``train_limit``. The test set does not
            depend on it.
        train_limit: number of training images, a stratified subset of those left after the
            validation split.
        test_limit: the first n test images.
        test_list: which test images are used, and their order: a text file with one image on each
            line, relative to the test folder (``<class>/<file>``); or ``robustbench``, the 5,000
            ImageNet validation images of its leaderboard, a list in the package robustbench.
        limit: cap on train, validation and test alike, for smoke tests.
        crop: zero padding in pixels of the random crop; 0 turns it off. Default 4, unless the data
            set has its own default (digits of 16 pixels: 2, the same share of the side as 4 of 32).
        flip: random horizontal flip. Default True, unless the data set has its own default (digits
            and npz: False).
        download: let torchvision download CIFAR if no copy is found.
        class_order: which label each class has. For class folders and labels that are names:
            ``name`` (sorted as text, as in torchvision's ImageFolder: 0, 10, 5), ``numeric``
            (0, 5, 10), or the list of all names in order. For labels that are numbers: the list of
            the names of 0, 1, 2, ... Default: ``name``.
        channels: 3, or 1 for networks that take grey images.
        background: the colour behind transparent pixels of image files: ``white``, ``black``, or
            ``drop`` to ignore transparency, as torchvision's ImageFolder does.
        white: the pixel value of white (1, 255, 4095, 65535, ...) in arrays, and in image files
            with more than 8 bits per pixel. Default: it is inferred from the images.
        imbalance: makes the training split long-tailed: class c of C keeps a share of
            imbalance^(-c / (C - 1)) of what the first class keeps (1901.05555), chosen by
            ``split_seed``. The validation split is made before this step, and ``train_limit`` is
            applied after it. 10, 50 and 100 are usual.
        without: leave out the training image of this number, counted from 0 after all limits. The
            next image of its class takes its place, a second time, so that batches hold the same
            images otherwise, in the same order, and two runs differ in one image (``theory``).
        extra: further training images, see ``ExtraConfig``.

    Raises:
        ValueError: unknown name, ``path`` missing or not allowed, impossible size.
    """

    name: str = "cifar10"
    path: str | None = None
    size: int | None = Field(default=None, ge=8, le=1024)
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    val_size: int | None = Field(default=None, ge=1)
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    train_limit: int | None = Field(default=None, ge=2)
    test_limit: int | None = Field(default=None, ge=1)
    test_list: str | None = None
    limit: int | None = Field(default=None, ge=2)
    crop: int = Field(default=4, ge=0)
    flip: bool = True
    download: bool = False
    class_order: Literal["name", "numeric"] | tuple[str, ...] = "name"
    channels: Literal[1, 3] = 3
    background: Literal["white", "black", "drop"] = "white"
    white: float | None = Field(default=None, gt=0)
    imbalance: float | None = Field(default=None, gt=1)
    without: int | None = Field(default=None, ge=0)
    extra: ExtraConfig | None = None

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later options that are off, so that hashes of earlier records stay the same."""
        data = default(self)
        later = ("class_order", "channels", "background", "white", "imbalance", "without", "extra")
        for name in (*later, "test_list"):
            if getattr(self, name) == type(self).model_fields[name].default:
                data.pop(name, None)
        return data

    @property
    def decoding(self) -> Decoding:
        """How image files are decoded."""
        return Decoding(self.channels, self.background, self.white)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        name = data.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str) or name not in DATASETS:
            return data
        source = _source(name)
        size = source.size if data.get("size") is None else data["size"]
        crop = source.crops.get(size) if isinstance(size, int) else None
        values = {"size": source.size, "flip": source.flip, "crop": crop}
        defaults = {key: value for key, value in values.items() if value is not None}
        # null in YAML means "the default" too
        given = {
            key: value
            for key, value in data.items()
            if value is not None or key not in ("size", "flip", "crop")
        }
        return {**defaults, **given}

    @field_validator("class_order", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Turn names that YAML reads as numbers back into text."""
        if not isinstance(value, list | tuple):
            return value
        names = tuple(
            str(name) if isinstance(name, int) and not isinstance(name, bool) else name
            for name in value
        )
        if len(set(names)) < len(names):
            raise ValueError("a class is named twice")
        if len(names) < 2:
            raise ValueError("name at least two classes")
        return names

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        _source(name)
        return name

    @model_validator(mode="after")
    def _check(self) -> DatasetConfig:
        source = _source(self.name)
        if source.takes_path and not self.path:
            raise ValueError(f"dataset {self.name!r} needs a path, such as --set dataset.path=PATH")
        if self.path and not source.takes_path:
            takers = " and ".join(DATASETS.where(lambda other: other.takes_path))
            raise ValueError(
                f"path is only for {takers}; {self.name} is looked for below the data root "
                "(--data-root)"
            )
        if self.class_order != "name" and not source.takes_class_order:
            takers = ", ".join(DATASETS.where(lambda other: other.takes_class_order))
            raise ValueError(f"class_order is only for {takers}; {self.name} has its own")
        if self.test_list is not None and not source.takes_test_list:
            takers = " and ".join(DATASETS.where(lambda other: other.takes_test_list))
            raise ValueError(f"test_list is only for {takers}; for others set test_limit")
        if source.sizes and self.size not in source.sizes:
            known = " or ".join(map(str, source.sizes))
            raise ValueError(f"size = {self.size}: {self.name} comes in {known} pixels")
        if self.size is not None and self.crop >= self.size:
            raise ValueError(f"crop = {self.crop} must be smaller than size = {self.size}")
        return self
