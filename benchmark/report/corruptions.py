"""Common corruptions one by one, and the mean corruption error against a user's reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report.metric_roles import clean_metric_of, corruption_metrics, title
from benchmark.report.notes import reliability_lines
from benchmark.report.study_model import CorruptionTable
from benchmark.report.summary import shared_accuracy
from benchmark.report.undertrained import undertrained_lines

if TYPE_CHECKING:
    from benchmark.report.corruption_error import Reference


def corruption_tables(
    suite: SuiteRecord, undertrained: Mapping[str, str], reference: Path | None = None
) -> tuple[CorruptionTable, ...]:
    """A table for each metric whose records hold accuracies corruption by corruption.

    Args:
        undertrained: method to reason, for methods from which no conclusion is drawn.
        reference: CSV of a reference network's errors, see ``corruption_error``.

    Raises:
        DataError: the reference file cannot be used, or a run lacks a severity that it has.
    """
    means = {metric: corruption_means(suite, metric) for metric in corruption_metrics(suite)}
    return tuple(
        _table(suite, metric, frame, undertrained, reference)
        for metric, frame in means.items()
        if len(frame)
    )


def corruption_means(suite: SuiteRecord, metric: str) -> pd.DataFrame:
    """Accuracy by corruption (rows) and method (columns), over severities and seeds."""
    columns: dict[str, pd.Series] = {}
    for method in suite.methods:
        per_seed = []
        for cell in suite.evaluated(method, metric):
            found = nested(cell.metrics, metric, "detail", "per_corruption") or {}
            per_seed.append(
                pd.Series({k: float(np.mean(v)) for k, v in found.items()}, dtype=float)
            )
        if per_seed and any(len(s) for s in per_seed):
            columns[method] = pd.concat(per_seed, axis=1).mean(axis=1)
    return pd.DataFrame(columns)


def _table(
    suite: SuiteRecord,
    metric: str,
    means: pd.DataFrame,
    undertrained: Mapping[str, str],
    reference: Path | None,
) -> CorruptionTable:
    methods = tuple(map(str, means.columns))
    cells = [cell for method in methods for cell in suite.evaluated(method, metric)]
    images = sorted({int(cell.metrics[metric]["n"]) for cell in cells})
    details = [cell.metrics[metric]["detail"] for cell in cells]
    sources = dict.fromkeys(str(d["source"]) for d in details if d.get("source"))
    notes = [
        f"Accuracy (%), mean over severities and seeds, n = {' or '.join(map(str, images))}"
        + (f"; corrupted images {' and '.join(sources)}." if sources else ".")
    ]
    errors: tuple[tuple[str, tuple[float, ...]], ...] = ()
    # The reference's errors are on images that were not attacked.
    if reference is not None and not any(d.get("threat") for d in details):
        errors = _error_rows(suite, metric, methods, reference)
        notes.append(
            f"mCE (1903.12261, section 4.3): error relative to the reference network in "
            f"{reference.name}, in per cent; lower is better."
            + (
                " Its errors should be on images that were corrupted in the same way."
                if "generated" in sources
                else ""
            )
        )
    return CorruptionTable(
        metric=metric,
        title=title(suite, metric),
        methods=methods,
        rows=tuple(
            (str(name), tuple(map(float, row)))
            for name, row in zip(means.index, means.to_numpy(), strict=True)
        ),
        mean=tuple(map(float, means.mean())),
        errors=errors,
        notes=(*notes, *reliability_lines(suite), *undertrained_lines(undertrained)),
    )


def _error_rows(
    suite: SuiteRecord, metric: str, methods: tuple[str, ...], path: Path
) -> tuple[tuple[str, tuple[float, ...]], ...]:
    # Start-up time: it imports torch, which other reports do without.
    from benchmark.report import corruption_error  # noqa: PLC0415

    reference = corruption_error.read_reference(path)

    def row(
        name: str, error: Callable[[CellRecord, Reference], float]
    ) -> tuple[str, tuple[float, ...]]:
        return name, tuple(
            float(np.mean([error(cell, reference) for cell in suite.evaluated(method, metric)]))
            for method in methods
        )

    rows = [
        row("mCE", lambda c, r: corruption_error.mean_corruption_error(_errors(c, metric), r)),
    ]
    cells = [cell for method in methods for cell in suite.evaluated(method, metric)]
    # on the images that were corrupted, which may be fewer than the clean ones
    if reference.clean is not None and all(_clean_error(c, metric) is not None for c in cells):
        rows.append(
            row(
                "relative mCE",
                lambda c, r: corruption_error.relative_mce(
                    _errors(c, metric), _clean_error(c, metric) or 0.0, r
                ),
            )
        )
    return tuple(rows)


def _errors(cell: CellRecord, metric: str) -> dict[str, dict[int, float]]:
    detail = cell.metrics[metric]["detail"]
    return {
        name: {level: 1 - value for level, value in zip(detail["severities"], values, strict=True)}
        for name, values in detail["per_corruption"].items()
    }


def _clean_error(cell: CellRecord, metric: str) -> float | None:
    """On the images of ``metric``; None if it cannot be told."""
    found = shared_accuracy(cell, clean_metric_of(cell), metric)
    return None if found is None else 1 - found[0]
