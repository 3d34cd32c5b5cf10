"""CIFAR-10 and CIFAR-100 in any of the layouts they are handed around in."""

from __future__ import annotations

import re
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.check import make_split
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Split
from benchmark.data.decode import cached, decode_all
from benchmark.data.folders import read_class_folders
from benchmark.data.raw import Raw

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
    """What differs between CIFAR-10 and CIFAR-100."""

    name: str
    title: str
    classes: tuple[str, ...]
    batches: str
    label_columns: tuple[str, ...]
    hub_folder: str

    def torchvision(self) -> Any:
        """torchvision's class; imported late because it is slow to import."""
        from torchvision import datasets

        return datasets.CIFAR10 if self.name == "cifar10" else datasets.CIFAR100


CIFAR10 = Variant(
    "cifar10", "CIFAR-10", CIFAR10_CLASSES, "cifar-10-batches-py", ("label",), "plain_text"
)
CIFAR100 = Variant(
    "cifar100",
    "CIFAR-100",
    CIFAR100_CLASSES,
    "cifar-100-python",
    ("fine_label", "label"),
    "cifar100",
)


def read_cifar10(config: DatasetConfig, data_root: Path) -> Raw:
    """CIFAR-10 below ``data_root``."""
    return _read(CIFAR10, config, data_root)


def read_cifar100(config: DatasetConfig, data_root: Path) -> Raw:
    """CIFAR-100 (fine labels) below ``data_root``."""
    return _read(CIFAR100, config, data_root)


def _read(variant: Variant, config: DatasetConfig, data_root: Path) -> Raw:
    """The first layout that is there: torchvision batches, parquet, class folders.

    Raises:
        DataError: none is there and ``config.download`` is off, or the one found is damaged.
    """
    own = data_root / variant.name
    for folder in (data_root, own):
        if (folder / variant.batches).is_dir():
            return _checked(variant, _read_batches(variant, folder, download=False))
    for folder in (own, own / "data", own / variant.hub_folder, data_root):
        if any(folder.glob("train-*.parquet")):
            return _checked(variant, _read_parquet(variant, folder))
    if (own / "train").is_dir():
        return _checked(variant, _read_folders(variant, own, config))
    if config.download:
        return _checked(variant, _read_batches(variant, data_root, download=True))
    looked = (
        f"{variant.batches}/ (torchvision)",
        f"{variant.name}/{{train,test}}-*.parquet or {{train,test}}-*.parquet (Hugging Face)",
        f"{variant.name}/{{train,test}}/<class>/*.png (class folders)",
    )
    raise DataError(
        f"{variant.title} was not found. Looked below the data root for: {'; '.join(looked)}. "
        "Give the folder that holds one of them with --data-root, or set download to fetch it "
        "with torchvision"
    )


def _checked(variant: Variant, raw: Raw) -> Raw:
    """Check sizes and add a note where images of the official set are missing."""
    notes = list(raw.notes)
    for part, split, full in (
        ("training", raw.train, TRAIN_IMAGES),
        ("test", raw.test, TEST_IMAGES),
    ):
        if not isinstance(split, Split) or tuple(split.images.shape[2:]) != (SIZE, SIZE):
            raise DataError(f"{variant.title} images must have 32x32 pixels; {part} has others")
        if len(split) != full:
            notes.append(f"{len(split):,} of the official {full:,} {part} images")
    return Raw(raw.train, raw.val, raw.test, variant.classes, raw.source, tuple(notes))


def _read_batches(variant: Variant, root: Path, download: bool) -> Raw:
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
        splits.append(make_split(f"{part} split", data.data, np.array(data.targets)))
    return Raw(splits[0], None, splits[1], variant.classes, "torchvision batches, MD5-checked")


def _read_folders(variant: Variant, folder: Path, config: DatasetConfig) -> Raw:
    raw = read_class_folders(folder, config.model_copy(update={"size": None}))
    if len(raw.classes) != len(variant.classes):
        raise DataError(
            f"{variant.name}/train has {len(raw.classes)} class folders; {variant.title} has "
            f"{len(variant.classes)}. For a set of your own use dataset 'folder'"
        )
    return raw


def _read_parquet(variant: Variant, folder: Path) -> Raw:
    shards = {part: _shards(folder, part) for part in ("train", "test")}
    splits = {}
    for part, files in shards.items():
        # default arguments: the closure must not see the next round's values
        def compute(part: str = part, files: list[Path] = files) -> dict[str, np.ndarray]:
            return _decode_shards(variant, part, files)

        arrays = cached(files, compute)
        splits[part] = make_split(f"{part} split", arrays["images"], arrays["labels"])
    counts = ", ".join(f"{len(splits[part]):,} {part}" for part in splits)
    return Raw(
        splits["train"],
        None,
        splits["test"],
        variant.classes,
        f"Hugging Face parquet, {sum(map(len, shards.values()))} files ({counts} images)",
    )


def _shards(folder: Path, part: str) -> list[Path]:
    """All files of a split. Raises DataError: none, or fewer than ``-of-N`` in a name says."""
    files = sorted(folder.glob(f"{part}-*.parquet"))
    if not files:
        raise DataError(
            f"there are parquet files of the train split but none named {part}-*.parquet beside "
            "them; fetch them too"
        )
    total = re.search(r"-of-(\d+)", files[0].name)
    if total and int(total[1]) != len(files):
        raise DataError(
            f"found {len(files)} of {int(total[1])} parquet files of the {part} split; fetch the "
            "missing ones"
        )
    return files


def _decode_shards(variant: Variant, part: str, files: list[Path]) -> dict[str, np.ndarray]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    encoded: list[bytes] = []
    labels: list[int] = []
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.name} is damaged ({error}); fetch it again") from error
        column = _column(table.column_names, ("img", "image"), file, "image")
        label = _column(table.column_names, variant.label_columns, file, "label")
        for row, cell in enumerate(table[column].to_pylist()):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise DataError(
                    f"{file.name}, row {row}: column {column!r} holds no image bytes; export the "
                    "data set with its images embedded"
                )
            encoded.append(data)
        if not pa.types.is_integer(table.schema.field(label).type) or table[label].null_count:
            raise DataError(f"{file.name}: column {label!r} must hold integers without gaps")
        labels += table[label].to_pylist()
    if not encoded:
        raise DataError(f"the {part} split is empty: {files[0].name} has no rows")
    images = decode_all(encoded, lambda i: f"image {i} of the {part} split")
    return {"images": images, "labels": np.array(labels, dtype=np.int64)}


def _column(present: list[str], wanted: tuple[str, ...], file: Path, what: str) -> str:
    for name in wanted:
        if name in present:
            return name
    raise DataError(
        f"{file.name} has no {what} column {' or '.join(map(repr, wanted))} (it has: "
        f"{', '.join(present)})"
    )
