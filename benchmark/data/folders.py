"""Class folders: {train,val}/<class>/<image>, read into memory if small, else streamed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.core.errors import DataError
from benchmark.data.arrays import locate
from benchmark.data.check import make_split
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import AnySplit, FileNames, Split, StreamedSplit
from benchmark.data.decode import decode_all, open_image
from benchmark.data.raw import Raw

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
MEMORY_SIZE = 64  # pixels
MEMORY_IMAGES = 60_000
STREAMED_SIZE = 224


@dataclass(frozen=True)
class Listing:
    """Image files of one split, relative to ``root``, with int64 labels [n]."""

    root: Path
    files: FileNames
    labels: np.ndarray
    classes: tuple[str, ...]


def read_imagenet(config: DatasetConfig, data_root: Path) -> Raw:
    """ImageNet below ``data_root/imagenet`` or directly in ``data_root``."""
    for folder in (data_root / "imagenet", data_root):
        if (folder / "train").is_dir():
            return read_class_folders(folder, config)
    raise DataError(
        "ImageNet was not found: looked for imagenet/train/<class>/* and train/<class>/* below "
        "the data root; unpack your copy so and give its parent folder with --data-root"
    )


def read_folder(config: DatasetConfig, data_root: Path) -> Raw:
    """Class folders at ``config.path``."""
    folder = locate(config.path or "", data_root)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {config.path!r} below the data root or at that path; correct "
            "path or --data-root"
        )
    return read_class_folders(folder, config)


def read_class_folders(folder: Path, config: DatasetConfig) -> Raw:
    """train/, val/ and test/ below ``folder``; with only one of val/ and test/ it is the test set.

    Up to 60,000 images of at most 64 pixels (``config.size``, else that of the first image) go
    into memory; others are streamed.

    Raises:
        DataError: missing or empty folders, different classes, images of different sizes.
    """
    parts = [part for part in ("train", "val", "test") if (folder / part).is_dir()]
    if "train" not in parts or len(parts) < 2:
        raise DataError(
            f"{folder.name} has no {'train' if 'train' not in parts else 'val'} folder; expected "
            "{train,val}/<class>/<image>, where val is the test set"
        )
    listings = {part: list_images(folder / part, part) for part in parts}
    classes = listings["train"].classes
    for part, listing in listings.items():
        odd = sorted(set(listing.classes) ^ set(classes))
        if odd:
            where = "only in " + (part if odd[0] in listing.classes else "train")
            raise DataError(
                f"train and {part} have different classes: {odd[0]!r} is {where}; the splits "
                "must have the same class folders"
            )
    count = sum(len(listing.files) for listing in listings.values())
    size = config.size or _first_size(listings["train"])
    in_memory = count <= MEMORY_IMAGES and size <= MEMORY_SIZE
    splits: dict[str, AnySplit] = {
        part: _decoded(listing, part, config.size)
        if in_memory
        else StreamedSplit(
            listing.root,
            listing.files,
            torch.from_numpy(listing.labels),
            config.size or STREAMED_SIZE,
        )
        for part, listing in listings.items()
    }
    test = "test" if "test" in splits else "val"
    how = "read into memory" if in_memory else f"streamed at {config.size or STREAMED_SIZE} pixels"
    return Raw(
        train=splits["train"],
        val=splits["val"] if test == "test" and "val" in splits else None,
        test=splits[test],
        classes=classes,
        source=f"class folders {', '.join(parts)} ({count:,} images), {how}",
        notes=(f"test: the {test} folder, classes in turn",)
        + (() if in_memory else ("augmentation: random resized crop and flip",)),
    )


def list_images(root: Path, part: str) -> Listing:
    """The images below ``root``, classes in order of name (of number, if all are numbers).

    Training images come class by class. Other splits take one image of each class in turn, so
    that their first n images are balanced; no seed is involved.

    Raises:
        DataError: no class folder, or a class folder without an image.
    """
    entries = [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    names = [entry.name for entry in entries if entry.is_dir()]
    if not names:
        loose = f"{len(entries):,} files but no" if entries else "no"
        raise DataError(f"{part} has {loose} class folders; sort the images into {part}/<class>/")
    names.sort(key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None)
    counts = array("q")

    def class_by_class() -> Iterator[str]:
        for name in names:
            files = _images_in(root, name)
            if not files:
                raise DataError(f"{part}/{name} holds no image; remove the folder or fill it")
            counts.append(len(files))
            yield from files

    found = FileNames(class_by_class())
    labels = np.repeat(np.arange(len(names)), counts)
    if part != "train":
        ranks = np.concatenate([np.arange(count) for count in counts])
        order = np.lexsort((labels, ranks))
        found, labels = FileNames(found.at(order)), labels[order]
    return Listing(root, found, labels, tuple(names))


def _images_in(root: Path, name: str) -> list[str]:
    """The images of one class in order, relative to ``root``."""
    # Tiny-ImageNet keeps its images one level lower, in <class>/images
    return sorted(
        Path(os.path.relpath(os.path.join(base, file), root)).as_posix()
        for base, _, inside in os.walk(root / name)
        for file in inside
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    )


def _first_size(listing: Listing) -> int:
    return max(open_image(listing.root / listing.files[0]).size)


def _decoded(listing: Listing, part: str, size: int | None) -> Split:
    sources = [listing.root / file for file in listing.files]
    images = decode_all(sources, lambda i: f"{part}/{listing.files[i]}", size)
    return make_split(f"{part} split", images, listing.labels)
