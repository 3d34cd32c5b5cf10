"""Figures that others took the place of: measured with other settings, weights, code or images.

Nothing that was measured is deleted. ``earlier/KEY.json`` and ``KEY.parquet`` in a run's folder
hold a figure with what it was measured on, and its outcome on every image; asked for again under
the same key, it is taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame, write_frame, write_json
from benchmark.records.keys import contradiction
from benchmark.records.schema import Superseded, read_shaped

FOLDER = "earlier"


@dataclass(frozen=True)
class Kept:
    """One figure.

    Attributes:
        name: of the metric.
        entry: as it stood in ``evaluation.json``.
        dataset: the record's, of the images that it was measured on.
        functions: the probe that ``entry`` refers to, by its name.
        frame: ``index``, ``label`` and the metric's columns.
    """

    name: str
    entry: Mapping[str, Any]
    dataset: Mapping[str, Any]
    functions: Mapping[str, Any]
    frame: pd.DataFrame


def keep(directory: Path, kept: Kept) -> None:
    """Write a figure into the store of the run ``directory``."""
    stem = directory / FOLDER / str(kept.entry["key"])
    write_frame(stem.with_suffix(".parquet"), kept.frame)
    content = {
        "name": kept.name,
        "entry": dict(kept.entry),
        "dataset": dict(kept.dataset),
        "functions": dict(kept.functions),
    }
    write_json(stem.with_suffix(".json"), content)


def examples(directory: Path, key: str) -> Path:
    """Where the adversarial examples of a figure are, if they were kept."""
    return directory / FOLDER / f"{key}.pt"


def find(directory: Path, key: str) -> Kept | None:
    """The figure under ``key``; None if there is none, or if its files are damaged."""
    path = directory / FOLDER / f"{key}.json"
    if not path.exists():
        return None
    try:
        found = read_shaped(path, Superseded, "delete it")
        frame = read_frame(path.with_suffix(".parquet"))
        for name in frame.columns.drop(["index", "label"]):
            frame[name] = frame[name].astype("boolean")
        whole = found["entry"]["key"] == key and not contradiction(
            {found["name"]: found["entry"]}, frame
        )
    # pyarrow has errors of its own for every way in which a file can be damaged
    except Exception:
        return None
    if not whole:
        return None
    return Kept(found["name"], found["entry"], found["dataset"], found["functions"], frame)


def listed(directory: Path) -> list[dict[str, Any]]:
    """What the store of ``directory`` holds, without outcomes, in order of metric; damaged files
    are left out."""
    found = []
    for path in sorted((directory / FOLDER).glob("*.json")):
        try:
            found.append(read_shaped(path, Superseded, "delete it"))
        except BenchmarkError:
            continue
    return sorted(found, key=lambda kept: str(kept["name"]))
