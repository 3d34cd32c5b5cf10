"""Checks of the arrays that a source has read: they become splits, or an error says why not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from benchmark.core.errors import DataError
from benchmark.data.dataset import AnySplit, Split
from benchmark.data.white import extremes_of, to_grey, to_uint8, white_of

# ImageNet-21K has 21,841 classes. A label above this bound cannot be meant as a class: it may be -1
# that was stored in an unsigned type, for example.
MOST_CLASSES = 100_000


def make_split(
    where: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    channels: int = 3,
    white: float | None = None,
) -> Split:
    """Turn arrays into a ``Split``.

    Args:
        where: what messages call the arrays ("train split of cells.npz").
        images: [n, h, w] or [n, h, w, 1 or 3]; integers or floats, see ``white.white_of``.
        labels: integers [n] or [n, 1].
        channels: 3 (a grey image is repeated three times) or 1 (colour becomes luma, see
            ``white.to_grey``).
        white: the pixel value of white; None infers it from the images.

    Raises:
        DataError: wrong shape, type or range, NaN or infinity, an empty split.
    """
    images = check_images(where, images)
    labels = check_labels(where, labels)
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images but {len(labels)} labels")
    if white is None:
        white = white_of({where: extremes_of(where, images)})
    images = to_uint8(images, white)
    if channels == 1 and images.shape[3] == 3:
        images = to_grey(images)
    # copy: an array of an npz may be read-only or of another byte order
    tensor = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))
    return Split(tensor.expand(-1, channels, -1, -1).contiguous(), torch.from_numpy(labels))


def check_images(where: str, images: np.ndarray) -> np.ndarray:
    """Images as [n, h, w, 1 or 3], of unchanged type. Raises DataError: wrong shape, no images."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected channels last: save "
            "images.transpose(0, 2, 3, 1)"
        )
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected [n, h, w], [n, h, w, 1] or "
            "[n, h, w, 3]"
        )
    if len(images) == 0:
        raise DataError(f"{where} is empty")
    if min(images.shape[1:3]) < 4:
        raise DataError(f"{where}: images of {images.shape[1]}x{images.shape[2]} are too small")
    return images if images.ndim == 4 else images[..., None]


def check_labels(where: str, labels: np.ndarray) -> np.ndarray:
    """Labels as int64 [n].

    Raises:
        DataError: labels that are not integers, several labels per image, negative labels, or
            labels too high to be classes.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        one_hot = labels.ndim == 2 and labels.dtype.kind in "biuf"
        one_hot = one_hot and bool((labels.astype(float).sum(1) == 1).all())
        raise DataError(
            f"{where}: labels have shape {labels.shape}; expected one label per image, [n] or "
            "[n, 1] "
            + ("(save labels.argmax(1))" if one_hot else "(multi-label sets are not supported)")
        )
    if labels.dtype.kind not in "iu":
        hint = (
            " (save each name's index in the sorted list of names)"
            if labels.dtype.kind in "US"
            else ""
        )
        raise DataError(f"{where}: labels are {labels.dtype}; expected integers 0, 1, 2, ...{hint}")
    if len(labels) and labels.min() < 0:
        raise DataError(f"{where}: label {labels.min()} is negative; number classes from 0")
    if len(labels) and int(labels.max()) >= MOST_CLASSES:
        highest = int(labels.max())
        negative = np.iinfo(labels.dtype).max - highest + 1
        hint = f" (is it -{negative}, stored without a sign?)" if negative < MOST_CLASSES else ""
        raise DataError(
            f"{where}: the highest label is {highest}{hint}, but there are {len(labels)} images; "
            "number classes 0, 1, 2, ... and leave out images without a label"
        )
    return labels.astype(np.int64)


def check_gaps(where: str, labels: np.ndarray) -> int:
    """The number of classes in training labels int64 [n], where each of 0, 1, 2, ... must occur.

    Raises:
        DataError: some class below the highest label never occurs.
    """
    present = np.unique(labels)  # not np.bincount: a damaged label may be huge
    if len(present) <= int(present[-1]):
        gap = int(np.flatnonzero(present != np.arange(len(present)))[0])
        few = f", of {len(labels)} images," if present[-1] >= len(labels) else ""
        raise DataError(
            f"{where}: labels{few} go up to {present[-1]} but {gap} never occurs; number the "
            "classes 0, 1, 2, ... without gaps, or name all of them in dataset.class_order"
        )
    return len(present)


def check_classes(
    train: AnySplit | None, others: Mapping[str, AnySplit], classes: tuple[str, ...]
) -> None:
    """Check that every label is a class, and that no split has a class without training images.

    Raises:
        DataError: fewer than two classes, a label out of range, different classes between splits.
    """
    if len(classes) < 2:
        raise DataError(f"found {len(classes)} class; classification needs at least 2")
    splits = {} if train is None else {"train": train}
    known = None if train is None else set(train.labels.unique().tolist())
    for name, split in {**splits, **others}.items():
        labels = set(split.labels.unique().tolist())
        wrong = sorted(label for label in labels if not 0 <= label < len(classes))
        if wrong:
            raise DataError(f"{name} split: label {wrong[0]} is out of range 0..{len(classes) - 1}")
        unseen = [] if known is None else sorted(labels - known)
        if unseen:
            raise DataError(
                f"{name} split has class {classes[unseen[0]]!r}, which the train split lacks; "
                "the splits must have the same classes"
            )
    if known is not None and len(known) < 2:
        raise DataError("the train split has images of only 1 class; at least 2 are needed")


def check_same_size(splits: Mapping[str, Split]) -> None:
    """Check that all images are squares of one size. Raises DataError."""
    shapes = {name: tuple(split.images.shape[-2:]) for name, split in splits.items()}
    reference, first = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if shape[0] != shape[1]:
            raise DataError(
                f"{name} split: images are {shape[0]}x{shape[1]} pixels, not square; set size to "
                "resize them"
            )
        if shape != first:
            raise DataError(
                f"{reference} images are {first[0]}x{first[1]} pixels but {name} images are "
                f"{shape[0]}x{shape[1]}; set size to resize them"
            )
