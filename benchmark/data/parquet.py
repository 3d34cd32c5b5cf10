"""Parquet files of encoded images, as the Hugging Face Hub lays them out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.arrays import locate
from benchmark.data.check import check_labels, make_split
from benchmark.data.classes import Named, agreed
from benchmark.data.decode import (
    Decoding,
    DeepImageError,
    Remarks,
    cached,
    decode_all,
    find_white,
)
from benchmark.data.layout import PARTS, find_parts, foreign_format, is_hidden, part_of
from benchmark.data.raw import Raw
from benchmark.data.source import DatasetConfig, Source

IMAGE_COLUMNS = ("img", "image", "images", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "class", "target")


@dataclass(frozen=True)
class Rows:
    """One split: decoded images uint8 [n, h, w, c] and labels as the files have them.

    Attributes:
        labels: int64 [n]; indices into ``names`` if there are names.
        names: the classes in order of their labels, if the files name them.
        said: whether the files hold labels as text; ``names`` are then sorted, since the files give
            them no order.
        notes: remarks on the images.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] | None
    said: bool
    notes: tuple[str, ...]


def read_parquet(config: DatasetConfig, data_root: Path) -> Raw:
    """Parquet files at ``config.path``: a folder with the files of each split.

    Raises:
        DataError: no Parquet files, some files missing, no column of images or labels, damaged
            images.
    """
    folder = locate(config.path or "", data_root)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {config.path!r} below the data root or at that path; correct "
            "path or --data-root"
        )
    below = sorted(e for e in folder.iterdir() if e.is_dir() and not is_hidden(e.name))
    places = [folder, folder / "data", *(e for e in below if e.name != "data")]
    found = [(place, shards) for place in places if (shards := find_shards(place))]
    # The Hub has one folder per configuration of a data set. Inside each place, find_shards looks
    # into train/ and test/ too.
    if len(found) > 1:
        names = ", ".join(place.name for place, _ in found)
        raise DataError(
            f"{folder.name} has parquet files in several places ({names}); set path to one of them"
        )
    if not found:
        raise DataError(
            f"{folder.name} has no files such as train-00000-of-00001.parquet, train.parquet or "
            f"train/0000.parquet" + (f"; {hint}" if (hint := foreign_format(folder)) else "")
        )
    shards = found[0][1]
    if "test" not in shards:
        if "val" not in shards:
            raise DataError(f"{folder.name} has parquet files of the train split alone; add a test "
                            "split")  # fmt: skip
        shards["test"] = shards.pop("val")
    rows = read_rows(shards, config, IMAGE_COLUMNS, LABEL_COLUMNS)
    named = {part: _named(part, split) for part, split in rows.items()}
    order = config.class_order
    stated = next(iter(rows.values())).names
    if order == "name" and stated is not None and not any(split.said for split in rows.values()):
        order = stated
    words = {part: f"the {part} split" for part in rows}
    classes, labels = agreed(named, order, words)
    splits = {
        part: make_split(f"{part} split", split.images, labels[part], channels=config.channels)
        for part, split in rows.items()
    }
    count = sum(map(len, shards.values()))
    counts = ", ".join(f"{len(splits[part]):,} {part}" for part in PARTS if part in splits)
    return Raw(
        train=splits.get("train"),
        val=splits.get("val"),
        test=splits["test"],
        classes=classes,
        source=f"Hugging Face parquet, {count} files ({counts} images)",
        notes=tuple(dict.fromkeys(note for split in rows.values() for note in split.notes)),
    )


def _named(part: str, split: Rows) -> Named:
    if split.names is None:
        return Named.of([str(label) for label in split.labels.tolist()])
    if len(split.labels) and int(split.labels.max()) >= len(split.names):
        raise DataError(
            f"{part} split: label {int(split.labels.max())} is out of range, since the files name "
            f"{len(split.names)} classes"
        )
    return Named.of([split.names[label] for label in split.labels.tolist()])


def find_shards(folder: Path) -> dict[str, list[Path]]:
    """The files of each split in ``folder``, in one of the Hub's forms; empty if none is there.

    ``train-00000-of-00002.parquet``, ``train.parquet``, or ``train/0000.parquet`` of the branch of
    converted data sets.

    Raises:
        DataError: some files of a split are missing, or exist twice or in two forms.
    """
    if not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.glob("*.parquet")) if not is_hidden(path.name)]
    prefix = {path: re.split(r"[-.]", path.name)[0] for path in files}
    loose = find_parts(set(prefix.values()), folder.name)
    below = find_parts(
        (
            e.name
            for e in folder.iterdir()
            if part_of(e.name) and e.is_dir() and any(e.glob("*.parquet"))
        ),
        folder.name,
    )
    shards: dict[str, list[Path]] = {}
    for part in PARTS:
        here = [path for path in files if prefix[path] == loose.get(part)]
        there = sorted((folder / below[part]).glob("*.parquet")) if part in below else []
        if here and there:
            raise DataError(
                f"{folder.name} has the {part} split twice: {here[0].name} and "
                f"{below[part]}/{there[0].name}; move one away"
            )
        if here or there:
            shards[part] = here or there
            _check_complete(part, shards[part])
    return shards


def _check_complete(part: str, files: Sequence[Path]) -> None:
    numbered = [re.search(r"(\d+)(?:-of-(\d+))?", path.stem) for path in files]
    alone = numbered[0] is None or (numbered[0][2] is None and not files[0].stem.isdecimal())
    if len(files) == 1 and alone:
        return
    if any(number is None for number in numbered):
        raise DataError(
            f"the {part} split has {len(files)} parquet files without numbers, the first "
            f"{files[0].name} and {files[1].name}; leave one, or number them 0000, 0001, ..."
        )
    totals = {int(number[2]) for number in numbered if number and number[2]}
    total = max(totals, default=len(files))
    seen: dict[int, Path] = {}
    for path, number in zip(files, numbered, strict=True):
        place = int(number[1]) if number else 0
        if place in seen:
            raise DataError(
                f"{seen[place].name} and {path.name} are both parquet file {place} of the {part} "
                "split; remove the copy"
            )
        seen[place] = path
    if len(totals) > 1 or len(files) != total or sorted(seen) != list(range(total)):
        whole = max(total, *(place + 1 for place in seen))
        raise DataError(
            f"found {len(files)} of {whole} parquet files of the {part} split; fetch the missing "
            "ones"
        )


def read_rows(
    shards: Mapping[str, Sequence[Path]],
    config: DatasetConfig,
    image_columns: tuple[str, ...],
    label_columns: tuple[str, ...],
) -> dict[str, Rows]:
    """Decode the splits that ``find_shards`` found.

    Raises:
        DataError: damaged files, no such columns, cells that hold no image or no label.
    """
    columns = (image_columns, label_columns)
    try:
        return {
            part: _rows(part, files, config.size, config.decoding, columns)
            for part, files in shards.items()
        }
    except DeepImageError:
        encoded = [
            cell for part, files in shards.items() for cell in _cells(part, files, *columns)[0]
        ]
        white = find_white(encoded, lambda index: f"image {index}")
        decoding = Decoding(config.channels, config.background, white)
        return {
            part: _rows(part, files, config.size, decoding, columns)
            for part, files in shards.items()
        }


def _rows(
    part: str,
    files: Sequence[Path],
    size: int | None,
    decoding: Decoding,
    columns: tuple[tuple[str, ...], tuple[str, ...]],
) -> Rows:
    def compute() -> dict[str, np.ndarray]:
        encoded, labels, names = _cells(part, files, *columns)
        remarks = Remarks()
        images = decode_all(
            encoded, lambda i: f"image {i} of the {part} split", size, decoding, remarks
        )
        notes = [f"{part}: {line}" for line in remarks.lines(decoding)]
        if decoding.white is not None:
            notes.append(f"white is {decoding.white:g} (dataset.white changes it)")
        return {
            "images": images,
            "labels": labels,
            "names": np.array(names or [], dtype=np.str_),
            "notes": np.array(notes, dtype=np.str_),
        }

    found = cached(files, compute, size, decoding, *columns)
    labels, names = found["labels"], tuple(found["names"].tolist()) or None
    said = labels.dtype.kind == "U"
    if said:
        named = Named.of(labels.tolist())
        labels, names = named.labels, named.names
    return Rows(found["images"], check_labels(f"{part} split", labels), names, said,
                tuple(found["notes"].tolist()))  # fmt: skip


def _cells(
    part: str, files: Sequence[Path], image_columns: tuple[str, ...], label_columns: tuple[str, ...]
) -> tuple[list[bytes], np.ndarray, tuple[str, ...] | None]:
    """Encoded images, labels (integers or texts), and the classes that the schema names."""
    # Start-up time: a suite's configuration imports this file, and needs no pyarrow.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    encoded: list[bytes] = []
    labels: list[Any] = []
    kinds: set[str] = set()
    names: tuple[str, ...] | None = None
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file.name} is damaged ({error}); fetch it again") from error
        column = _column(table.column_names, image_columns, file, "image")
        label = _column(table.column_names, label_columns, file, "label")
        for row, cell in enumerate(table[column].to_pylist()):
            data = cell.get("bytes") if isinstance(cell, dict) else cell
            if not isinstance(data, bytes):
                raise DataError(
                    f"{file.name}, row {row}: column {column!r} holds no image bytes; export the "
                    "data set with its images embedded"
                )
            encoded.append(data)
        kind = table.schema.field(label).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (pa.types.is_integer(kind) or texts) or table[label].null_count:
            raise DataError(
                f"{file.name}: column {label!r} must hold integers or texts without gaps"
            )
        kinds.add("texts" if texts else "integers")
        labels += table[label].to_pylist()
        here = _class_names(table.schema.metadata, label)
        if names is not None and here is not None and here != names:
            raise DataError(f"{file.name} names other classes than {files[0].name}; fetch it again")
        names = here or names
    if not encoded:
        raise DataError(f"the {part} split is empty: {files[0].name} has no rows")
    if len(kinds) > 1:
        raise DataError(f"the {part} split has integers for labels in one file, texts in another")
    if kinds == {"texts"}:
        return encoded, np.array(labels, dtype=np.str_), None
    low, high = min(labels), max(labels)  # Python's integers: uint64 may not fit int64
    kind = np.uint64 if low >= 0 and high > np.iinfo(np.int64).max else np.int64
    return encoded, np.array(labels, dtype=kind), names


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """The names of a ``ClassLabel`` that Hugging Face datasets writes into the schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    sound = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if sound else None


def _column(present: Sequence[str], wanted: tuple[str, ...], file: Path, what: str) -> str:
    for name in wanted:
        if name in present:
            return name
    raise DataError(
        f"{file.name} has no {what} column {' or '.join(map(repr, wanted))} (it has: "
        f"{', '.join(present)})"
    )


PARQUET = Source(
    "Hugging Face parquet of images and labels at path",
    read_parquet,
    takes_path=True,
    takes_class_order=True,
)
