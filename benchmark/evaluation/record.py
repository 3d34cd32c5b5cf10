"""What an evaluation leaves: ``evaluation.json`` and the outcome of every image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame
from benchmark.evaluation.keys import contradiction
from benchmark.evaluation.shape import Evaluation, read_shaped
from benchmark.suites.metrics import UnionMetric


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an ``evaluation.json``.

    Raises:
        BenchmarkError: missing or damaged.
    """
    remedy = "delete it to evaluate again"
    record = read_shaped(path, Evaluation, remedy)
    try:
        entries = record["metrics"].values()
        wanted = {"key", "model", "function", "data", "n", "correct", "mean", "detail"}
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
            # a shifted test set has a table of its own
            if entry.get("kind") != "shift" and not columns_of(outcomes, name):
                reason = f"no column {name!r}"
        reason = reason or contradiction(metrics, outcomes)
    # pyarrow has errors of its own for every way in which a file can be damaged
    except Exception as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise BenchmarkError(f"{table} is damaged ({reason}); delete it to evaluate again")
    return outcomes


def columns_of(outcomes: pd.DataFrame, metric: str) -> list[str]:
    names = [str(name) for name in outcomes]
    return [name for name in names if name == metric or name.startswith(f"{metric}/")]


def union_images(metric: UnionMetric, outcomes: pd.DataFrame) -> Tensor:
    """The images that every part of the union was measured on.

    Raises:
        BenchmarkError: a part is not measured yet, or they share no image.
    """
    missing = [name for name in metric.of if name not in outcomes]
    if missing:
        raise BenchmarkError(
            f"{metric.name} is computed from {missing[0]}, which is not measured yet; measure it "
            f"first (--metric {missing[0]})"
        )
    shared = outcomes[list(metric.of)].notna().all(axis=1).to_numpy()
    if not shared.any():
        raise BenchmarkError(f"{metric.name}: {', '.join(metric.of)} have no image in common")
    return torch.from_numpy(np.flatnonzero(shared))


def broken_only_by(
    metric: UnionMetric, outcomes: pd.DataFrame, indices: Tensor
) -> tuple[Tensor, dict[str, int]]:
    """Which of the images every part of the union leaves right, bool [len(indices)], and by part
    how many images it alone breaks."""
    parts = outcomes[list(metric.of)].iloc[indices.numpy()].astype(bool)
    robust = torch.tensor(parts.all(axis=1).to_numpy())
    alone = {
        name: int((~parts[name] & parts.drop(columns=name).all(axis=1)).sum()) for name in metric.of
    }
    return robust, alone


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
