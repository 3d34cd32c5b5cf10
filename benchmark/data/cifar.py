"""CIFAR-10 and CIFAR-100 in the file layouts in which they are distributed."""

from __future__ import annotations

import hashlib
import re
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.check import make_split
from benchmark.data.dataset import Split
from benchmark.data.folders import read_class_folders
from benchmark.data.layout import find_parts, foreign_format, is_hidden
from benchmark.data.parquet import Rows, find_shards, read_rows
from benchmark.data.raw import Raw
from benchmark.data.source import Board, DatasetConfig, PublishedSizes, Source

TRAIN_IMAGES, TEST_IMAGES, SIZE = 50_000, 10_000, 32

# fmt: off
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
    "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)
# fmt: on


@dataclass(frozen=True)
class Variant:
    """What differs between CIFAR-10 and CIFAR-100.

    Attributes:
        first_test_image: SHA-256 of the first image of the official test set, uint8 [3, 32, 32];
            "" if it is not known here.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    batches: str
    label_columns: tuple[str, ...]
    hub_folder: str
    first_test_image: str = ""

    def torchvision(self) -> Any:
        """torchvision's class."""
        from torchvision import datasets  # noqa: PLC0415 - start-up time

        return datasets.CIFAR10 if self.name == "cifar10" else datasets.CIFAR100


_TEN = Variant(
    "cifar10",
    "CIFAR-10",
    CIFAR10_CLASSES,
    "cifar-10-batches-py",
    ("label",),
    "plain_text",
    first_test_image="73eefb0106f2b7a2660668be6875682f6aa9c20820633725642b0cc87dc59198",
)
_HUNDRED = Variant(
    "cifar100",
    "CIFAR-100",
    CIFAR100_CLASSES,
    "cifar-100-python",
    ("fine_label", "label"),
    "cifar100",
)


def _read(variant: Variant, config: DatasetConfig, data_root: Path) -> Raw:
    """The first layout that is found: torchvision batches, Parquet, class folders.

    Raises:
        DataError: none is there and ``config.download`` is off, or the one found is damaged.
    """
    own = data_root / variant.name
    for folder in (data_root, own):
        if (folder / variant.batches).is_dir():
            return _checked(variant, _read_batches(variant, folder, config, download=False))
    for folder in (own, own / "data", own / variant.hub_folder, own / "default", data_root):
        shards = find_shards(folder)
        if shards:
            return _checked(variant, _read_parquet(variant, shards, config))
    if own.is_dir() and find_parts((e.name for e in own.iterdir() if e.is_dir()), own.name):
        return _checked(variant, _read_folders(variant, own, config))
    if config.download:
        return _checked(variant, _read_batches(variant, data_root, config, download=True))
    looked = (
        f"{variant.batches}/ (torchvision)",
        f"{variant.name}/{{train,test}}-*.parquet, {variant.name}/{{train,test}}.parquet or "
        f"{variant.name}/{{train,test}}/*.parquet (Hugging Face), in {variant.name}/"
        f"{variant.hub_folder}/ and the data root too",
        f"{variant.name}/{{train,test}}/<class>/*.png (class folders)",
    )
    hint = foreign_format(own) if own.is_dir() else ""
    raise DataError(
        f"{variant.title} was not found. Looked below the data root {data_root}"
        f"{'' if data_root.is_dir() else ', which does not exist,'} for: {'; '.join(looked)}. "
        + (f"There is {variant.name}/, but {hint}. " if hint else "")
        + "Give the folder that holds one of them with --data-root, or fetch it with torchvision: "
        "--set dataset.download=true"
    )


def _checked(variant: Variant, raw: Raw) -> Raw:
    """Check sizes; add a note if official images are missing or the test set is another one."""
    notes = list(raw.notes)
    for part, split, full in (
        ("training", raw.train, TRAIN_IMAGES),
        ("test", raw.test, TEST_IMAGES),
    ):
        if split is None:
            continue
        if not isinstance(split, Split) or tuple(split.images.shape[2:]) != (SIZE, SIZE):
            raise DataError(f"{variant.title} images must have 32x32 pixels; {part} has others")
        if part == "test" and not _has(split, variant.first_test_image):
            notes.append(
                f"the {len(split):,} test images are not the official test set, whose first image "
                "is not among them"
            )
        elif len(split) != full:
            notes.append(f"{len(split):,} of the official {full:,} {part} images")
    return Raw(raw.train, raw.val, raw.test, variant.classes, raw.source, tuple(notes))


def _has(split: Split, digest: str) -> bool:
    """Whether one of the images has this SHA-256; True if the digest is not known."""
    if not digest:
        return True
    images = split.images.numpy()
    return any(hashlib.sha256(image.tobytes()).hexdigest() == digest for image in images)


def _read_batches(variant: Variant, root: Path, config: DatasetConfig, *, download: bool) -> Raw:
    """torchvision's pickled batches; it checks their MD5 sums before anything is unpickled."""
    splits = []
    for train in (True, False):
        try:
            data = variant.torchvision()(str(root), train=train, download=download)
        except RuntimeError as error:
            raise DataError(
                f"{variant.batches} is incomplete or damaged (an MD5 sum is wrong); delete it and "
                "fetch it again, with download set or from cs.toronto.edu/~kriz/cifar.html"
            ) from error
        except (urllib.error.URLError, OSError) as error:
            raise DataError(
                f"{variant.title} could not be downloaded ({error}); fetch it on another machine "
                "and give its folder with --data-root"
            ) from error
        part = "train" if train else "test"
        labels = np.array(data.targets)
        splits.append(make_split(f"{part} split", data.data, labels, channels=config.channels))
    return Raw(splits[0], None, splits[1], variant.classes, "torchvision batches, MD5-checked")


def _read_folders(variant: Variant, folder: Path, config: DatasetConfig) -> Raw:
    """Class folders, under any of the usual names of the classes. Raises DataError: other ones."""
    parts = find_parts((e.name for e in folder.iterdir() if e.is_dir()), folder.name)
    first = folder / next(iter(parts.values()))
    present = [e.name for e in first.iterdir() if e.is_dir() and not is_hidden(e.name)]
    names = class_names(present, variant.classes, f"{folder.name}/{first.name}")
    ordered = config.model_copy(update={"size": None, "class_order": variant.classes})
    return read_class_folders(folder, ordered, names)


# Names in torchvision's tutorial, fastai's copy, STL-10 and elsewhere.
ALIASES = {"plane": "airplane", "aeroplane": "airplane", "car": "automobile", "auto": "automobile"}


def class_names(present: Sequence[str], classes: tuple[str, ...], where: str) -> dict[str, str]:
    """The official class of each folder: by name, alias, or number (0, 1, 2, ...).

    Upper and lower case are the same, and so are spaces, hyphens and ``_``.

    Raises:
        DataError: a folder that is none of ``classes``, two folders of one class, or a class
            without a folder.
    """
    numbers = bool(present) and all(name.isdecimal() for name in present)
    found: dict[str, str] = {}
    for name in sorted(present):
        word = re.sub(r"[ -]", "_", name.casefold())
        if numbers and int(name) < len(classes):
            word = classes[int(name)]
        elif word not in classes:
            word = ALIASES.get(word, word)
        if word not in classes:
            raise DataError(
                f"{where} has a class folder {name!r}, which is none of the {len(classes)} classes "
                f"({', '.join(classes[:3])}, ...); rename it, or use dataset 'folder' for a set "
                "of your own"
            )
        if word in found.values():
            twice = next(folder for folder, official in found.items() if official == word)
            raise DataError(f"{where} has both {twice!r} and {name!r}, which are one class")
        found[name] = word
    if len(found) != len(classes):
        lacking = next(name for name in classes if name not in found.values())
        raise DataError(
            f"{where} has {len(found)} class folders of {len(classes)}: {lacking!r} is missing. "
            "For a set of your own use dataset 'folder'"
        )
    return found


def _read_parquet(variant: Variant, shards: dict[str, list[Path]], config: DatasetConfig) -> Raw:
    if "test" not in shards:
        raise DataError(
            "there are parquet files of the train split but none named test-*.parquet beside "
            "them; fetch them too"
        )
    shards = {part: shards[part] for part in ("train", "test") if part in shards}
    plain = config.model_copy(update={"size": None})
    rows = read_rows(shards, plain, ("img", "image"), variant.label_columns)
    splits = {
        part: make_split(
            f"{part} split", split.images, _official(variant, part, split), channels=config.channels
        )
        for part, split in rows.items()
    }
    counts = ", ".join(f"{len(splits[part]):,} {part}" for part in splits)
    return Raw(
        splits.get("train"),
        None,
        splits["test"],
        variant.classes,
        f"Hugging Face parquet, {sum(map(len, shards.values()))} files ({counts} images)",
    )


def _official(variant: Variant, part: str, split: Rows) -> np.ndarray:
    """Labels int64 [n] in the official numbering, by the names of the classes if there are any."""
    if split.names is None or (len(split.labels) and split.labels.max() >= len(split.names)):
        return split.labels
    names = class_names(split.names, variant.classes, f"the {part} split")
    places = [variant.classes.index(names[name]) for name in split.names]
    return np.array(places, dtype=np.int64)[split.labels]


_FORMS = "torchvision batches, Hugging Face parquet or class folders"

CIFAR10 = Source(
    f"CIFAR-10: {_FORMS}",
    partial(_read, _TEN),
    published=PublishedSizes(TRAIN_IMAGES, TEST_IMAGES, len(CIFAR10_CLASSES), SIZE),
    boards={
        "linf": Board(TEST_IMAGES, SIZE, ("8/255",)),
        "l2": Board(TEST_IMAGES, SIZE, ("0.5", "128/255")),
        "corruptions": Board(TEST_IMAGES, SIZE),
    },
    corrupted="CIFAR-10-C",
)
CIFAR100 = Source(
    f"CIFAR-100: {_FORMS}",
    partial(_read, _HUNDRED),
    published=PublishedSizes(TRAIN_IMAGES, TEST_IMAGES, len(CIFAR100_CLASSES), SIZE),
    boards={
        "linf": Board(TEST_IMAGES, SIZE, ("8/255",)),
        "corruptions": Board(TEST_IMAGES, SIZE),
    },
    corrupted="CIFAR-100-C",
)
