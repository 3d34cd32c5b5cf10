"""Validation at the door: arrays of any source become splits here, or an error says why not."""

from __future__ import annotations

import numpy as np
import torch

from benchmark.core.errors import DataError
from benchmark.data.dataset import AnySplit, Split


def make_split(where: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """Arrays to a ``Split``.

    Args:
        where: names the arrays in messages ("train split of cells.npz").
        images: [n, h, w] or [n, h, w, 1 or 3]; uint8, other integers in 0..255, or floats in
            [0, 1] or [0, 255].
        labels: integers [n] or [n, 1].

    Raises:
        DataError: wrong shape, type or range, NaN or infinity, an empty split.
    """
    labels = check_labels(where, labels)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected [n, h, w], [n, h, w, 1] or "
            "[n, h, w, 3]"
        )
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images but {len(labels)} labels")
    if len(images) == 0:
        raise DataError(f"{where} is empty")
    if min(images.shape[1:3]) < 4:
        raise DataError(f"{where}: images of {images.shape[1]}x{images.shape[2]} are too small")
    images = _to_uint8(where, images)
    if images.ndim == 3:
        images = images[..., None]
    # copy: an array of an npz may be read-only or of another byte order
    tensor = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))
    tensor = tensor.expand(-1, 3, -1, -1).contiguous()
    return Split(tensor, torch.from_numpy(labels))


def check_labels(where: str, labels: np.ndarray) -> np.ndarray:
    """Labels as int64 [n]. Raises DataError: not integers, several per image, negative."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{where}: labels have shape {labels.shape}; expected one label per image, [n] or "
            "[n, 1] (multi-label sets are not supported)"
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {labels.dtype}; expected integers 0, 1, 2, ...")
    if len(labels) and labels.min() < 0:
        raise DataError(f"{where}: label {labels.min()} is negative; number classes from 0")
    return labels.astype(np.int64)


def _to_uint8(where: str, images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iuf":
        raise DataError(f"{where}: images are {images.dtype}; expected uint8 or floats")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        bad = int((~np.isfinite(images)).reshape(len(images), -1).any(axis=1).sum())
        raise DataError(f"{where}: {bad} images contain NaN or infinity; repair or drop them")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        raise DataError(
            f"{where}: pixels lie in [{low:g}, {high:g}]; expected [0, 1] or [0, 255] "
            "(undo the normalisation)"
        )
    if images.dtype.kind == "f" and high <= 1:
        images = images * 255
    return np.round(images).astype(np.uint8)


def check_classes(train: AnySplit, others: dict[str, AnySplit], classes: tuple[str, ...]) -> None:
    """Check that labels are classes and that no split has a class that training lacks.

    Raises:
        DataError: fewer than two classes, a label out of range, different classes between splits.
    """
    if len(classes) < 2:
        raise DataError(f"found {len(classes)} class; classification needs at least 2")
    known = set(train.labels.unique().tolist())
    for name, split in {"train": train, **others}.items():
        labels = set(split.labels.unique().tolist())
        wrong = sorted(label for label in labels if not 0 <= label < len(classes))
        if wrong:
            raise DataError(f"{name} split: label {wrong[0]} is out of range 0..{len(classes) - 1}")
        unseen = sorted(labels - known)
        if unseen:
            raise DataError(
                f"{name} split has class {classes[unseen[0]]!r}, which the train split lacks; "
                "the splits must have the same classes"
            )
    if len(known) < 2:
        raise DataError("the train split has images of only 1 class; at least 2 are needed")


def check_same_size(splits: dict[str, Split]) -> None:
    """Check that all images are squares of one size. Raises DataError."""
    shapes = {name: tuple(split.images.shape[-2:]) for name, split in splits.items()}
    first = shapes["train"]
    for name, shape in shapes.items():
        if shape[0] != shape[1]:
            raise DataError(
                f"{name} split: images are {shape[0]}x{shape[1]} pixels, not square; set size to "
                "resize them"
            )
        if shape != first:
            raise DataError(
                f"train images are {first[0]}x{first[1]} pixels but {name} images are "
                f"{shape[0]}x{shape[1]}; set size to resize them"
            )
