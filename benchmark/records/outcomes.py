"""The outcome of every image: ``outcomes.parquet``, and how its columns belong to metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame

if TYPE_CHECKING:
    from torch import Tensor


def read_outcomes(path: Path, metrics: Mapping[str, Any]) -> pd.DataFrame:
    """A row per image, by its index: ``label``, and nullable booleans for each of ``metrics``.

    Args:
        metrics: entries of the record beside the table, by name.

    Raises:
        BenchmarkError: missing, damaged, or the figures of ``metrics`` are not those of the images.
    """
    if not path.exists():
        raise BenchmarkError(f"{path} is missing; evaluate again")
    try:
        outcomes = read_frame(path).set_index("index")
        for name in outcomes.columns.drop("label"):
            outcomes[name] = outcomes[name].astype("boolean")
        reason = "an image is listed twice" if outcomes.index.has_duplicates else ""
        for name, entry in metrics.items():
            if entry["outcomes"] == "test" and not columns_of(outcomes, name):
                reason = f"no column {name!r}"
        reason = reason or _contradiction(metrics, outcomes)
    # pyarrow raises exceptions of several classes for a damaged file
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if reason:
        raise BenchmarkError(f"{path} is damaged ({reason}); delete it to evaluate again")
    return outcomes


def _contradiction(metrics: Mapping[str, Any], outcomes: pd.DataFrame) -> str:
    """A message on the first figure of ``metrics`` that differs from its column of ``outcomes``; ""
    if there is none.

    Means over several outcomes per image, and estimates, have no count and are not checked.
    """
    for name, entry in metrics.items():
        if entry["correct"] is None or name not in outcomes:
            continue
        column = outcomes[name].dropna()
        found, said = (len(column), int(column.sum())), (entry["n"], entry["correct"])
        if found != said or abs(entry["mean"] - said[1] / said[0]) > 1e-6:
            return (
                f"{name} is {found[1]} of {found[0]} by image, {said[1]} of {said[0]} "
                f"({entry['mean']:.6g}) on record"
            )
    return ""


def columns_of(outcomes: pd.DataFrame, metric: str) -> list[str]:
    """The column of a metric, or those of its parts (corruptions by name and severity)."""
    names = [str(name) for name in outcomes]
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]


def computed_from(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """The metrics that were computed from ``name``, and those that were computed from them."""
    found = [name]
    for other, entry in metrics.items():  # parts stand before what is computed from them
        if set(found) & set(entry["detail"].get("of") or []):
            found.append(other)
    return found[1:]


def set_columns(
    outcomes: pd.DataFrame, metric: str, indices: Tensor, columns: Mapping[str, Any]
) -> None:
    """Replace the columns of ``metric``; images that were not attacked are null.

    Args:
        indices: of the attacked images, int64 [m].
        columns: by name a bool tensor [m], or a pandas array over all images.
    """
    for stale in columns_of(outcomes, metric):
        del outcomes[stale]
    rows = indices.numpy()
    for name, outcome in columns.items():
        if isinstance(outcome, pd.api.extensions.ExtensionArray):  # with nulls of its own
            outcomes[name] = outcome
            continue
        column = pd.array([pd.NA] * len(outcomes), dtype="boolean")
        column[rows] = outcome.cpu().numpy()
        outcomes[name] = column
