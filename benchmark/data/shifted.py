"""Test sets with the classes of CIFAR-10 or ImageNet, but from another distribution.

They are read from the user's files below the data root; nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import ConfigError, DataError
from benchmark.core.registry import Registry
from benchmark.data.arrays import load_npz, read_npy
from benchmark.data.check import make_split
from benchmark.data.cifar import CIFAR10_CLASSES, SIZE
from benchmark.data.dataset import AnySplit, Split, StreamedSplit, fingerprint
from benchmark.data.decode import cached, decode_all, resize_square
from benchmark.data.folders import Listing, list_images

WNID = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000
STL10_SIZE = 96  # pixels
# Labels 1..10 of the binary files, in this order (Coates et al., 2011).
STL10_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
)  # fmt: skip
STL10_NAMES = {"car": "automobile"}  # CIFAR-10's names, where they differ


@dataclass(frozen=True)
class Shifted:
    """A shifted test set, prepared for a model that was trained on the base data set.

    Attributes:
        split: the images at the model's size; labels are indices into the model's classes.
        kept: int64 [k], ascending indices of those classes of the model that occur in the set, if
            it is scored over these only; the prediction is then
            ``kept[logits[:, kept].argmax(1)]``. None if it is scored over all classes.
        notes: remarks for the record.
        source: what was read from where, for people; no absolute path.
        fingerprint: as ``Dataset.fingerprint``, of this split.
    """

    split: AnySplit
    kept: Tensor | None
    notes: tuple[str, ...]
    source: str
    fingerprint: str


Found: TypeAlias = tuple[AnySplit, tuple[str, ...]]  # images and notes
# Reads what was found, for the model's classes and image size.
Read: TypeAlias = Callable[[Path, tuple[str, ...], int], Found]


@dataclass(frozen=True)
class ShiftedSet:
    """One test set, and where its files may be.

    Attributes:
        description: the set, its size and its source, in one line.
        base: the data set whose classes it has.
        folders: where it may be below the data root; the first that exists is read.
        file: the file that is looked for in ``folders``; empty if the folders themselves are the
            set.
        fetch: where to get it.
        images: number of images in the official set, as read here.
        classes: number of classes that occur.
        restricted: whether the logits are restricted to those classes.
        read: reads what was found.
    """

    description: str
    base: str
    folders: tuple[str, ...]
    file: str
    fetch: str
    images: int
    classes: int
    read: Read
    restricted: bool = False


def find_shifted(name: str, data_root: Path | str) -> Path | None:
    """The file or folder of a shifted test set below ``data_root``; None if there is none.

    Raises:
        ConfigError: unknown name.
    """
    entry = SHIFTED.get(name)
    for folder in entry.folders:
        path = Path(data_root) / folder / entry.file
        if path.is_file() if entry.file else path.is_dir():
            return path
    return None


def load_shifted(name: str, data_root: Path | str, classes: tuple[str, ...], size: int) -> Shifted:
    """Read and check one shifted test set.

    Args:
        classes: of the model: ``CIFAR10_CLASSES``, or the 1,000 wnids in order of name.
        size: side of the model's images in pixels. Sets of CIFAR classes are read into memory and
            resized to it; those of ImageNet are streamed at it.

    Raises:
        ConfigError: unknown name, or a set for models of another base data set.
        DataError: files are missing, damaged or incomplete, or labels are no classes.
    """
    entry = SHIFTED.get(name)
    _check_base(name, entry, classes)
    path = find_shifted(name, data_root)
    if path is None:
        places = "; ".join(f"{Path(folder) / entry.file}" for folder in entry.folders)
        raise DataError(
            f"{name} was not found. Looked below the data root for: {places}. Fetch it from "
            f"{entry.fetch} and put it there, or correct --data-root"
        )
    split, notes = entry.read(path, classes, size)
    occurring = split.labels.unique()
    if int(occurring[-1]) >= len(classes):
        raise DataError(
            f"{path.name}: label {int(occurring[-1])} is out of range 0..{len(classes) - 1}; "
            f"fetch the files again from {entry.fetch}"
        )
    if len(occurring) != entry.classes:
        raise DataError(
            f"{path.name} has images of {len(occurring)} classes, {name} has {entry.classes}; "
            f"unpack it again, whole, from {entry.fetch}"
        )
    if len(split) != entry.images:
        notes = (f"{len(split):,} of the official {entry.images:,} images", *notes)
    if isinstance(split, Split):
        split = Split(resize_square(split.images, size), split.labels)
    if entry.restricted:
        notes = (*notes, f"scored over its own {entry.classes} classes")
    known_by, rests_on = fingerprint((split,), classes)
    notes = (*notes, *rests_on)
    return Shifted(
        split=split,
        kept=occurring if entry.restricted else None,
        notes=notes,
        source=f"{entry.description}, read from {path.relative_to(data_root).as_posix()}",
        fingerprint=known_by,
    )


def _check_base(name: str, entry: ShiftedSet, classes: tuple[str, ...]) -> None:
    if entry.base == "cifar10":
        fits, wanted = classes == CIFAR10_CLASSES, "its ten classes in their usual order"
    else:
        fits = len(classes) == IMAGENET_CLASSES and list(classes) == sorted(classes)
        fits = fits and all(map(WNID.fullmatch, classes))
        wanted = f"its {IMAGENET_CLASSES:,} classes called by wnid, in order"
    if not fits:
        raise ConfigError(
            f"{name} is a test set for models of {entry.base} with {wanted}; this model has "
            f"{len(classes):,} classes, the first {classes[0]!r}. Remove that test set"
        )


# Arrays and binary files


def _read_pair(path: Path, classes: tuple[str, ...], size: int) -> Found:
    """``*_data.npy`` and ``*_labels.npy`` beside it."""
    beside = path.with_name(path.name.replace("_data", "_labels"))
    remedy = "fetch it again from github.com/modestyachts/CIFAR-10.1"
    images, labels = (read_npy(file, remedy) for file in (path, beside))
    return _of_cifar_size(path.name, images, labels), ()


def _read_cifar102(path: Path, classes: tuple[str, ...], size: int) -> Found:
    # The file also has arrays of text, which may be pickled; they must not be loaded.
    arrays = load_npz(path, ("images", "labels"))
    for key in ("images", "labels"):
        if key not in arrays:
            raise DataError(f"{path.name} has no array {key!r}; fetch it again")
    return _of_cifar_size(path.name, arrays["images"], arrays["labels"]), ()


def _of_cifar_size(where: str, images: np.ndarray, labels: np.ndarray) -> Split:
    if images.shape[1:] != (SIZE, SIZE, 3):
        raise DataError(
            f"{where}: images have shape {images.shape}; expected [n, {SIZE}, {SIZE}, 3]. Fetch "
            "the file again"
        )
    return make_split(where, images, labels)


def _read_stl10(path: Path, classes: tuple[str, ...], size: int) -> Found:
    pixels, labels = _bytes(path), _bytes(path.with_name("test_y.bin"))
    per_image = 3 * STL10_SIZE**2
    if len(pixels) % per_image or len(pixels) // per_image != len(labels):
        raise DataError(
            f"{path.name} has {len(pixels):,} bytes, which are not {len(labels):,} images of "
            f"{per_image:,} bytes as test_y.bin says; unpack stl10_binary.tar.gz again"
        )
    if len(labels) == 0 or labels.min() < 1 or labels.max() > len(STL10_CLASSES):
        raise DataError(
            f"test_y.bin must have labels 1..{len(STL10_CLASSES)}; unpack stl10_binary.tar.gz again"
        )
    places = {name: place for place, name in enumerate(classes)}
    mapped = [places.get(STL10_NAMES.get(name, name), -1) for name in STL10_CLASSES]
    here = np.array(mapped, dtype=np.int64)[labels.astype(int) - 1]
    # In the file an image is [channel, column, row].
    images = pixels.reshape(-1, 3, STL10_SIZE, STL10_SIZE).transpose(0, 3, 2, 1)
    split = make_split(path.name, images[here >= 0], here[here >= 0])
    notes = (
        f"without the {int((here < 0).sum()):,} monkeys, which are no class of CIFAR-10: "
        f"{len(split):,} images are left",
        "STL-10 has no frogs; the model may still answer frog",
        f"{STL10_SIZE}x{STL10_SIZE} pixels resized to {size}x{size}, bilinear, anti-aliased",
    )
    return split, notes


def _bytes(path: Path) -> np.ndarray:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(
            f"{path.parent.name}/{path.name} cannot be read ({error.strerror}); unpack "
            "stl10_binary.tar.gz again"
        ) from error


# Class folders


def _read_cinic10(path: Path, classes: tuple[str, ...], size: int) -> Found:
    listing = list_images(path, path.name)
    labels = _labels(listing, classes)
    sources = [path / file for file in listing.files]

    def compute() -> dict[str, np.ndarray]:
        return {"images": decode_all(sources, lambda i: f"{path.name}/{listing.files[i]}")}

    split = _of_cifar_size("CINIC-10", cached(sources, compute)["images"], labels)
    names = [source.name for source in sources]
    own = sum(name.startswith("cifar") for name in names)
    trained = sum(name.startswith("cifar") and "-train-" in name for name in names)
    notes = (
        f"{own:,} images are CIFAR-10's own, {trained:,} of them from its training set; the other "
        f"{len(names) - own:,} are from ImageNet",
    )
    return split, notes


def _read_folders(path: Path, folders: tuple[str, ...], size: int) -> Found:
    """Class folders with the names ``folders``, in order of the model's classes."""
    listing = list_images(path, path.name)
    labels = torch.from_numpy(_labels(listing, folders))
    return StreamedSplit(path, listing.files, labels, size), (f"streamed at {size} pixels",)


def _read_numbers(path: Path, classes: tuple[str, ...], size: int) -> Found:
    """Class folders whose names are numbers: the index of the class in the sorted wnids."""
    return _read_folders(path, tuple(str(label) for label in range(len(classes))), size)


def _labels(listing: Listing, folders: tuple[str, ...]) -> np.ndarray:
    """For each image, the index of its folder in ``folders``, int64 [n].

    Raises:
        DataError: a folder that is not in ``folders``.
    """
    places = {folder: place for place, folder in enumerate(folders)}
    unknown = [name for name in listing.classes if name not in places]
    if unknown:
        raise DataError(
            f"{listing.root.name} has a folder {unknown[0]!r}, which is no class; expected folders "
            f"such as {folders[0]!r}: move away what does not belong, or unpack the set again"
        )
    return np.array([places[name] for name in listing.classes], dtype=np.int64)[listing.labels]


def _cifar101(version: str, images: int) -> ShiftedSet:
    return ShiftedSet(
        f"CIFAR-10.1 {version}: {images:,} new images from Tiny Images (1806.00451, 1902.10811)",
        base="cifar10",
        folders=("", *(f"{name}{below}" for name in ("cifar10.1", "CIFAR-10.1", "cifar-10.1")
                       for below in ("", "/datasets"))),
        file=f"cifar10.1_{version}_data.npy",
        fetch="github.com/modestyachts/CIFAR-10.1 (datasets/)",
        images=images,
        classes=10,
        read=_read_pair,
    )  # fmt: skip


SHIFTED: Registry[ShiftedSet] = Registry("shifted test set")
SHIFTED.register("cifar10.1", _cifar101("v6", 2000))
SHIFTED.register("cifar10.1-v4", _cifar101("v4", 2021))
SHIFTED.register(
    "cifar10.2",
    ShiftedSet(
        "CIFAR-10.2: 2,000 further images from Tiny Images (Lu et al., Harder or different?, ICML "
        "2020 workshop)",
        base="cifar10",
        folders=("", "cifar10.2", "CIFAR-10.2", "cifar-10.2"),
        file="cifar102_test.npz",
        fetch="github.com/modestyachts/cifar-10.2 (save images and labels of a pickled .npy anew "
        "with numpy.savez)",
        images=2000,
        classes=10,
        read=_read_cifar102,
    ),
)
SHIFTED.register(
    "cinic10",
    ShiftedSet(
        "CINIC-10: 70,000 images of ImageNet and 20,000 of CIFAR-10 at 32 pixels (1810.03505)",
        base="cifar10",
        folders=("cinic10/test", "CINIC-10/test", "cinic-10/test"),
        file="",
        fetch="datashare.ed.ac.uk/handle/10283/3192",
        images=90_000,
        classes=10,
        read=_read_cinic10,
    ),
)
SHIFTED.register(
    "stl10",
    ShiftedSet(
        "STL-10: test images of nine CIFAR-10 classes from ImageNet (Coates et al., AISTATS 2011)",
        base="cifar10",
        folders=(
            "",
            "stl10_binary",
            "stl10/stl10_binary",
            "stl10",
            "STL-10/stl10_binary",
            "STL-10",
        ),
        file="test_X.bin",
        fetch="ai.stanford.edu/~acoates/stl10",
        images=7200,
        classes=9,
        read=_read_stl10,
    ),
)
SHIFTED.register(
    "imagenet-a",
    ShiftedSet(
        "ImageNet-A: 7,500 natural images that a ResNet-50 gets wrong, 200 classes (1907.07174)",
        base="imagenet",
        folders=("imagenet-a", "imagenet-adversarial/imagenet-a", "ImageNet-A"),
        file="",
        fetch="github.com/hendrycks/natural-adv-examples",
        images=7500,
        classes=200,
        read=_read_folders,
        restricted=True,
    ),
)
SHIFTED.register(
    "imagenet-r",
    ShiftedSet(
        "ImageNet-R: 30,000 renditions (art, toys, sketches), 200 classes (2006.16241)",
        base="imagenet",
        folders=("imagenet-r", "imagenet-rendition/imagenet-r", "ImageNet-R"),
        file="",
        fetch="github.com/hendrycks/imagenet-r",
        images=30_000,
        classes=200,
        read=_read_folders,
        restricted=True,
    ),
)
SHIFTED.register(
    "imagenet-v2",
    ShiftedSet(
        "ImageNet-V2, matched frequency: 10,000 new images (1902.10811)",
        base="imagenet",
        # the unpacked archive first: its parent may have the name of the set
        folders=(
            "imagenetv2-matched-frequency-format-val",
            "imagenetv2/imagenetv2-matched-frequency-format-val",
            "imagenet-v2/imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency",
            "imagenetv2",
            "imagenet-v2",
        ),
        file="",
        fetch="github.com/modestyachts/ImageNetV2",
        images=10_000,
        classes=IMAGENET_CLASSES,
        read=_read_numbers,
    ),
)
SHIFTED.register(
    "imagenet-sketch",
    ShiftedSet(
        "ImageNet-Sketch: 50,889 black and white sketches (1905.13549)",
        base="imagenet",
        folders=(
            "sketch",
            "imagenet-sketch/sketch",
            "imagenet-sketch/images",
            "imagenet-sketch",
            "ImageNet-Sketch/sketch",
            "ImageNet-Sketch",
        ),
        file="",
        fetch="github.com/HaohanWang/ImageNet-Sketch",
        images=50_889,
        classes=IMAGENET_CLASSES,
        read=_read_folders,
    ),
)
