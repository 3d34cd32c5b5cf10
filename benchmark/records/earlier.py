"""Figures that were replaced by others, measured with other settings, weights, code or images.

No measured figure is deleted. ``earlier/KEY.json`` and ``KEY.parquet`` in a run's folder hold a
figure, what it was measured on, and the outcome for every image. If a figure with the same key is
asked for again, it is taken from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_frame
from benchmark.records.files import RunFiles
from benchmark.records.outcomes import read_outcomes
from benchmark.records.schema import Superseded, read_record, write_record


@dataclass(frozen=True)
class Kept:
    """One figure.

    Attributes:
        name: of the metric.
        entry: its entry in ``evaluation.json``.
        dataset: the record's description of the images on which it was measured.
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
    path = _record(directory, str(kept.entry["key"]))
    write_frame(path.with_suffix(".parquet"), kept.frame)
    content = {
        "name": kept.name,
        "entry": dict(kept.entry),
        "dataset": dict(kept.dataset),
        "functions": dict(kept.functions),
    }
    write_record(path, Superseded, content)


def examples(directory: Path, key: str) -> Path:
    """Where the adversarial examples of a figure are, if they were kept."""
    return _record(directory, key).with_suffix(".pt")


def find(directory: Path, key: str) -> Kept | None:
    """The figure under ``key``; None if there is none, or if its files are damaged."""
    path = _record(directory, key)
    try:
        found = _read(path)
        entry = found["entry"]
        frame = read_outcomes(path.with_suffix(".parquet"), {found["name"]: entry})
    except BenchmarkError:
        return None
    if entry["key"] != key:
        return None
    return Kept(found["name"], entry, found["dataset"], found["functions"], frame.reset_index())


def listed(directory: Path) -> list[dict[str, Any]]:
    """The figures in the store of ``directory``, without outcomes, in order of metric. It ignores
    damaged files."""
    found = []
    for path in sorted(RunFiles(directory).earlier.glob("*.json")):
        try:
            found.append(_read(path))
        except BenchmarkError:
            continue
    return sorted(found, key=lambda kept: str(kept["name"]))


def _record(directory: Path, key: str) -> Path:
    return RunFiles(directory).earlier / f"{key}.json"


def _read(path: Path) -> dict[str, Any]:
    return read_record(path, Superseded, "delete it")
