"""What an evaluation leaves: ``evaluation.json`` and the outcome of every image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame
from benchmark.records.keys import contradiction
from benchmark.records.schema import Evaluation, read_shaped


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an ``evaluation.json``.

    Raises:
        BenchmarkError: missing or damaged.
    """
    remedy = "delete it to evaluate again"
    record = read_shaped(path, Evaluation, remedy)
    try:
        entries = record["metrics"].values()
        wanted = {"key", "model", "function", "data", "n", "correct", "mean", "detail", "settings"}
        wanted |= {"kind", "title", "description", "role", "form", "outcomes", "higher_is_better"}
        right = all(wanted <= entry.keys() for entry in entries)
        right = right and bool(record["dataset"]["fingerprint"])
    except (KeyError, TypeError):
        right = False
    if not right:
        raise BenchmarkError(f"{path} is damaged; {remedy}")
    return record


def read_outcomes(
    table: Path, empty: pd.DataFrame | None, metrics: Mapping[str, Any]
) -> pd.DataFrame:
    """The outcomes on record: the images of ``empty`` (any if None), and a column for each of
    ``metrics``.

    Raises:
        BenchmarkError: damaged.
    """
    try:
        outcomes = read_frame(table).set_index("index")
        for name in outcomes.columns.drop("label"):
            outcomes[name] = outcomes[name].astype("boolean")
        reason = ""
        if empty is not None:
            same = np.array_equal(outcomes.index, empty.index)
            same = same and np.array_equal(outcomes["label"], empty["label"])
            reason = "" if same else "it lists other images"
        for name, entry in metrics.items():
            if entry["outcomes"] == "test" and not columns_of(outcomes, name):
                reason = f"no column {name!r}"
        reason = reason or contradiction(metrics, outcomes)
    # pyarrow has errors of its own for every way in which a file can be damaged
    except Exception as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise BenchmarkError(f"{table} is damaged ({reason}); delete it to evaluate again")
    return outcomes


def own_outcomes(directory: Path, metric: str) -> Path:
    """The table of a metric that was measured on other images than the test split's."""
    return directory / f"outcomes-{metric.replace('/', '_')}.parquet"


def columns_of(outcomes: pd.DataFrame, metric: str) -> list[str]:
    names = [str(name) for name in outcomes]
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]


def unions_of(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """The unions that were computed from the metric ``name``."""
    return [union for union, entry in metrics.items() if name in (entry["detail"].get("of") or [])]


def set_columns(
    outcomes: pd.DataFrame, metric: str, indices: Tensor, columns: dict[str, Tensor]
) -> None:
    """Replace the columns of ``metric``; images that were not attacked are null."""
    for stale in columns_of(outcomes, metric):
        del outcomes[stale]
    rows = indices.numpy()
    for name, outcome in columns.items():
        if not isinstance(outcome, Tensor):  # of all images, with nulls of its own
            outcomes[name] = outcome
            continue
        column = pd.array([pd.NA] * len(outcomes), dtype="boolean")
        column[rows] = outcome.cpu().numpy()
        outcomes[name] = column
