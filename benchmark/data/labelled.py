"""Tables that name the label of each image file: CSV, TSV, JSON lines, Tiny-ImageNet's text."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DataError
from benchmark.data.decode import counted, printable
from benchmark.data.layout import PARTS, find_parts, is_hidden, part_of

ENDINGS = (".csv", ".tsv", ".jsonl")
_ANNOTATIONS = "_annotations.txt"  # Tiny-ImageNet's: file, wnid and a box in each line, no header
_FILE_COLUMNS = (
    "file_name", "filename", "file", "image", "image_id", "img", "image_name", "image_path",
    "img_path", "path", "filepath", "file_path", "id", "name",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "y", "class_id", "label_id",
                  "class_name", "breed", "species", "diagnosis")  # fmt: skip
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold")


@dataclass(frozen=True)
class LabelTable:
    """Rows of a labels file: image files, labels, and splits if given, all as written there."""

    path: Path
    files: list[str]
    labels: list[str]
    splits: list[str] | None


def find_table(folder: Path, entry: str) -> Path | None:
    """The labels file of the split in ``folder/entry``: inside this folder, or beside it.

    Raises:
        DataError: several files could be the one.
    """
    inside = _tables_in(folder / entry)
    named = [path for path in inside if path.stem.casefold() in ("metadata", "labels")]
    words = (entry, f"{entry}labels", f"labels{entry}", f"{entry}annotations")
    beside = [
        path
        for path in _tables_in(folder)
        if re.sub(r"[-_ ]", "", path.stem.casefold()) in tuple(word.casefold() for word in words)
    ]
    for found in (named or inside, beside):
        if len(found) > 1:
            raise DataError(
                f"{folder.name} has several files that could hold the labels of {entry}: "
                f"{', '.join(path.name for path in found)}; leave one"
            )
        if found:
            return found[0]
    return None


def whole_tables(folder: Path) -> dict[str, Path]:
    """Labels files in ``folder`` for images anywhere below it, by split; ``all`` is the key of a
    single file for all splits.

    Raises:
        DataError: several files, and none named after a split.
    """
    tables = _tables_in(folder)
    by_part = find_parts((path.stem for path in tables), folder.name)
    if by_part:
        stems = {path.stem: path for path in tables}
        return {part: stems[stem] for part, stem in by_part.items()}
    named = [path for path in tables if path.stem.casefold() in ("metadata", "labels")]
    tables = named or tables
    if len(tables) > 1:
        raise DataError(
            f"{folder.name} has several tables ({', '.join(path.name for path in tables)}); name "
            "those with labels train.csv and test.csv, or leave one with a column 'split'"
        )
    return {"all": tables[0]} if tables else {}


def _tables_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.is_file()
        and not is_hidden(path.name)
        and (path.suffix.lower() in ENDINGS or path.name.endswith(_ANNOTATIONS))
        and "submission" not in path.name.casefold()  # Kaggle's example of an answer
    )


def read_table(path: Path) -> LabelTable:
    """The rows of a labels file.

    The file has a header with a column for image files (``filename``, ``image_id``, ...) and one
    for labels (``label``, ``class``, ...); of two columns the first is for files.

    Raises:
        DataError: no such columns, no rows, rows without a label, or no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as UTF-8 text ({error})") from error
    if path.name.endswith(_ANNOTATIONS):
        rows = [line.split("\t") for line in text.splitlines() if line.strip()]
        if any(len(row) < 2 for row in rows):
            raise DataError(f"{path.name}: expected file and class in each line, parted by a tab")
        return _checked(path, [row[0] for row in rows], [row[1] for row in rows], None)
    header, rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _rows(path, text)
    lower = [name.strip().casefold() for name in header]
    split = _column(lower, _SPLIT_COLUMNS)
    rest = [place for place in range(len(header)) if place != split]
    file, label = _column(lower, _FILE_COLUMNS), _column(lower, _LABEL_COLUMNS)
    if len(rest) == 2 and (file is None or label is None or file == label):
        file, label = rest
    if file is None or label is None:
        missing = "image files" if file is None else "labels"
        raise DataError(
            f"{path.name} has no column for {missing} (it has: {', '.join(header)}); name the "
            "columns 'filename' and 'label', one class per image"
        )
    short = next((i for i, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if short is not None:
        raise DataError(f"{path.name}, line {short}: expected {len(header)} values as in line 1")
    return _checked(
        path,
        [row[file].strip() for row in rows],
        [row[label].strip() for row in rows],
        None if split is None else [row[split].strip() for row in rows],
    )


def _rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    first = text.partition("\n")[0]
    marks = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    try:
        rows = [row for row in csv.reader(text.splitlines(), delimiter=marks) if row]
    except csv.Error as error:
        raise DataError(f"{path.name} is no table of comma-separated values ({error})") from error
    if len(rows) < 2:
        raise DataError(f"{path.name} has no rows below a header such as filename,label")
    return rows[0], rows[1:]


def _json_rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path.name} is no file of JSON lines ({error})") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path.name}: expected one JSON object per line")
    header = list(rows[0])
    plain = (str, int)
    for number, row in enumerate(rows, 1):
        if list(row) != header or not all(isinstance(row[key], plain) for key in header):
            raise DataError(
                f"{path.name}, line {number}: expected the keys of line 1, each with a text or a "
                "whole number"
            )
    return header, [[str(row[key]) for key in header] for row in rows]


def _column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _checked(
    path: Path, files: list[str], labels: list[str], splits: list[str] | None
) -> LabelTable:
    if not files:
        raise DataError(f"{path.name} names no image; write one row per image")
    empty = [
        i for i, (file, label) in enumerate(zip(files, labels, strict=True)) if not (file and label)
    ]
    if empty:
        raise DataError(
            f"{path.name}: {len(empty):,} rows have no file or no label, the first is row "
            f"{empty[0] + 1}; complete or remove them"
        )
    # a column of whole numbers that had gaps is written as 3.0 by pandas
    if all(re.fullmatch(r"-?\d+\.0+", label) for label in labels):
        labels = [label.partition(".")[0] for label in labels]
    return LabelTable(path, files, labels, splits)


def by_split(table: LabelTable) -> dict[str, list[int]] | None:
    """The rows of each split, of a table that covers all splits. The split is named by a column,
    or by the first folder in each file's path; None if neither does.

    Raises:
        DataError: a word in the column is no split.
    """
    if table.splits is not None:
        words = table.splits
        odd = next((word for word in words if part_of(word) is None), None)
        if odd is not None:
            raise DataError(f"{table.path.name}: split {odd!r} is unknown; use train, val and test")
    else:
        words = [file.replace("\\", "/").partition("/")[0] for file in table.files]
        if any(part_of(word) is None for word in words):
            return None
    rows: dict[str, list[int]] = {}
    for row, word in enumerate(words):
        rows.setdefault(str(part_of(word)), []).append(row)
    return {part: rows[part] for part in PARTS if part in rows}


def find_files(
    table: LabelTable, rows: Sequence[int], present: Sequence[str], entry: str = ""
) -> list[str]:
    """The path of each row's image among ``present``, which are relative to one folder.

    A row may give the path, the path below the data set (``entry/a.png``), the name alone, or any
    of these without its ending.

    Raises:
        DataError: files that are missing, rows that fit several files, files with two rows.
    """
    exact = set(present)
    loose: dict[str, list[str]] = {}
    for path in present:
        name = path.rpartition("/")[2]
        stem = os.path.splitext(path)[0]
        for key in {name, stem, os.path.splitext(name)[0]} - {path}:
            loose.setdefault(key, []).append(path)
    found, missing = [], []
    for row in rows:
        said = table.files[row].replace("\\", "/").removeprefix("./")
        below = said.removeprefix(f"{entry}/") if entry else said
        if below in exact:
            found.append(below)
            continue
        fits = loose.get(below) or loose.get(below.rpartition("/")[2], [])
        if len(fits) > 1:
            raise DataError(
                f"{table.path.name}: {said!r} could be {printable(fits[0])} or "
                f"{printable(fits[1])}; write the path"
            )
        if fits:
            found.append(fits[0])
        else:
            missing.append(said)
    if missing:
        raise DataError(
            f"{table.path.name} names {counted(missing, 'file', 'files')} that "
            f"{'is' if len(missing) == 1 else 'are'} not there; correct the paths or remove the "
            "rows"
        )
    seen: set[str] = set()
    twice = next((path for path in found if path in seen or seen.add(path)), None)  # type: ignore[func-returns-value]
    if twice is not None:
        raise DataError(
            f"{table.path.name} has several rows for {printable(twice)}; leave one label per image"
        )
    return found
