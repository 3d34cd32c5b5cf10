"""Images that are given in Python: tensors and arrays, torch's data sets, Hugging Face's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.core.errors import DataError
from benchmark.core.progress import Progress
from benchmark.data.check import check_labels
from benchmark.data.dataset import Split
from benchmark.data.raw import Raw
from benchmark.data.source import DatasetConfig, Source

IMAGE_KEYS = ("image", "img", "images", "x", "pixel_values")
LABEL_KEYS = ("label", "labels", "y", "target", "fine_label")
# How far float32 may be from a multiple of 1/255, in units of 1/255; a generous bound.
_ON_GRID = 1e-3


def split_of(
    data: Any, labels: Any = None, *, where: str = "x", progress: Progress | None = None
) -> tuple[Split, tuple[str, ...]]:
    """Images and labels as a ``Split``, and the names of the classes as far as ``data`` knows them.

    Images whose values are all multiples of 1/255 are kept as uint8, so that they equal the same
    images read from a file. Other images stay float32; no value is rounded.

    Args:
        data: with ``labels``, images [n, c, h, w] as a tensor or an array, uint8 or floats in
            [0, 1]. Without, a pair of both; or a data set with ``__len__`` and ``__getitem__``,
            whose items are (image, label) or mappings (``image`` and ``label``); an image is a
            tensor [c, h, w], an array or a PIL image.
        where: what messages call the images.

    Raises:
        DataError: images that are not square, of several sizes, outside of [0, 1] or not finite;
            labels that are no whole numbers; an object of another kind.
    """
    names: tuple[str, ...] = ()
    if labels is None and isinstance(data, tuple | list) and len(data) == 2:
        data, labels = data
    if labels is None:
        images, labels, names = _read(data, where, progress or Progress(quiet=True))
    else:
        images = _pixels(_tensor(data, where), where)
    found = torch.from_numpy(check_labels(where, _tensor(labels, where).cpu().numpy()))
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        hint = "; write x.permute(0, 3, 1, 2)" if images.ndim == 4 else ""
        raise DataError(
            f"{where} has the shape {list(images.shape)}; expected images [n, 3, h, w], or "
            f"[n, 1, h, w] of grey ones{hint}"
        )
    if images.shape[2] != images.shape[3]:
        raise DataError(
            f"{where}: images are {images.shape[2]}x{images.shape[3]} pixels; only square ones can "
            "be used, so resize or crop them"
        )
    if len(images) != len(found):
        raise DataError(f"{where}: {len(images)} images but {len(found)} labels")
    if not len(images):
        raise DataError(f"{where} holds no image")
    return Split(images.contiguous(), found), names


def in_8_bits(split: Split) -> Split:
    """``split`` with images rounded to 8 bits, as training needs them."""
    if split.images.dtype == torch.uint8:
        return split
    return Split((255 * split.images).round().to(torch.uint8), split.labels)


def given_source(
    train: Split | None, test: Split, classes: tuple[str, ...], where: str
) -> tuple[str, Source]:
    """A data set of these images that ``DATASETS`` can hold for a while, and its name, which
    contains a hash of the images."""
    digest = hashlib.sha256("\n".join(classes).encode())
    for split in (train, test):
        if split is not None:
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.numpy().data)
            digest.update(split.labels.numpy().data)

    def read(config: DatasetConfig, data_root: Path) -> Raw:
        return Raw(train, None, test, classes, where)

    size = test.image_size
    source = Source(where, read, flip=False, crops={size: 0} if size < 32 else {})
    return f"memory-{digest.hexdigest()[:10]}", source


def _tensor(value: Any, where: str) -> Tensor:
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{where} is a {type(value).__name__}, not a tensor, an array or a data set"
        ) from error


def _pixels(images: Tensor, where: str) -> Tensor:
    """uint8, or float32 where 8 bits cannot hold the values; on the CPU."""
    images = images.cpu()
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise DataError(f"{where}: images are {images.dtype}; expected uint8 or floats in [0, 1]")
    if not images.numel():
        return images.float()
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{where}: images contain NaN or infinity")
    if low < -1e-6 or high > 1 + 1e-6:
        advice = (
            "divide them by 255"
            if low >= 0
            else "do not normalise the data: put the normalisation into the network, since eps is "
            "in units of pixels"
        )
        raise DataError(
            f"{where}: pixels go from {low:.3g} to {high:.3g}, and must lie in [0, 1]; {advice}"
        )
    images = images.float().clamp(0, 1)
    levels = 255 * images
    rounded = levels.round()
    return rounded.to(torch.uint8) if (levels - rounded).abs().max() < _ON_GRID else images


def _read(data: Any, where: str, progress: Progress) -> tuple[Tensor, Any, tuple[str, ...]]:
    """Images, labels and names of classes of a data set, item by item."""
    sized = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if not sized or isinstance(data, Tensor | np.ndarray | str):
        hint = "give its .dataset" if hasattr(data, "dataset") else "give (x, y), or x and y"
        raise DataError(
            f"{where} is a {type(data).__name__}, which is no pair of images and labels and no "
            f"data set with a length and items; {hint}"
        )
    image_key, label_key, names = _columns(data)
    images: list[Tensor] = []
    labels: list[int] = []
    with progress.task(f"reading {where}", len(data)) as task:
        for index in range(len(data)):
            image, label = _pair(data[index], image_key, label_key, where)
            images.append(_pixels(_channels_first(image, where), where))
            labels.append(label)
            task.advance()
            if images[-1].shape != images[0].shape:
                raise DataError(
                    f"{where}: image 0 has the shape {list(images[0].shape)} and image {index} "
                    f"{list(images[-1].shape)}; bring them to one size in the data set's transform"
                )
    if not images:
        raise DataError(f"{where} holds no image")
    if any(image.dtype != torch.uint8 for image in images):
        images = [im / 255 if im.dtype == torch.uint8 else im for im in images]
    return torch.stack(images), np.asarray(labels), names


def _columns(data: Any) -> tuple[str | None, str | None, tuple[str, ...]]:
    """The columns of images and labels that a Hugging Face data set declares, and the names of its
    classes. For any other data set: no columns, and the names in ``classes``, as in torchvision."""
    features = getattr(data, "features", None)
    if not isinstance(features, Mapping):
        classes = getattr(data, "classes", ())
        named = isinstance(classes, Sequence) and not isinstance(classes, str)
        return None, None, tuple(map(str, classes)) if named else ()
    kinds = {name: type(feature).__name__ for name, feature in features.items()}
    image = next((name for name, kind in kinds.items() if kind == "Image"), None)
    label = next((name for name, kind in kinds.items() if kind == "ClassLabel"), None)
    return image, label, tuple(features[label].names) if label else ()


def _pair(item: Any, image: str | None, label: str | None, where: str) -> tuple[Any, int]:
    if isinstance(item, Mapping):
        keys = [str(key) for key in item]
        image = image or next((key for key in IMAGE_KEYS if key in item), None)
        label = label or next((key for key in LABEL_KEYS if key in item), None)
        if image is None or label is None:
            raise DataError(
                f"{where}: items have the keys {', '.join(keys)}; rename the columns to image and "
                "label"
            )
        item = item[image], item[label]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise DataError(f"{where}: an item is a {type(item).__name__}, not (image, label)")
    try:
        return item[0], int(item[1])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{where}: a label is {item[1]!r}; expected a whole number 0, 1, 2, ..."
        ) from error


def _channels_first(image: Any, where: str) -> Tensor:
    """[c, h, w] of a tensor [c, h, w] or [h, w], an array [h, w, c] or [h, w], or a PIL image."""
    if isinstance(image, Image.Image):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    last = isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[-1] in (1, 3)
    found = _tensor(np.array(image) if isinstance(image, np.ndarray) else image, where)
    if last:
        found = found.permute(2, 0, 1)
    return found[None] if found.ndim == 2 else found
