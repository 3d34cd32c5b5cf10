"""Common corruptions one by one, and the mean corruption error against a user's reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report import training
from benchmark.report.tables import (
    flagged,
    heading,
    limit_line,
    markdown_table,
    percent,
    reliability_lines,
    shared_accuracy,
)

if TYPE_CHECKING:
    from benchmark.report.corruption_error import Reference


def corruption_means(suite: SuiteRecord) -> pd.DataFrame:
    """Accuracy by corruption (rows) and method (columns), over severities and seeds."""
    columns: dict[str, pd.Series] = {}
    for method in suite.methods:
        per_seed = []
        for cell in suite.evaluated(method, "corruptions"):
            found = nested(cell.metrics, "corruptions", "detail", "per_corruption") or {}
            per_seed.append(
                pd.Series({k: float(np.mean(v)) for k, v in found.items()}, dtype=float)
            )
        if per_seed and any(len(s) for s in per_seed):
            columns[method] = pd.concat(per_seed, axis=1).mean(axis=1)
    return pd.DataFrame(columns)


def markdown_text(suite: SuiteRecord, reference: Path | None = None) -> str:
    """corruptions.md: accuracy by corruption and method; "" if no run was measured on them.

    Args:
        reference: CSV of a reference network's errors, see ``evaluation.corruption_error``.

    Raises:
        DataError: the reference file cannot be used, or a run lacks a severity that it has.
    """
    means = corruption_means(suite)
    if means.empty:
        return ""
    methods = [str(name) for name in means.columns]
    rows = [
        [str(name).replace("_", " "), *(percent(value) for value in row)]
        for name, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    rows.append(["mean", *(percent(value) for value in means.mean())])
    cells = [cell for method in methods for cell in suite.evaluated(method, "corruptions")]
    images = sorted({int(cell.metrics["corruptions"]["n"]) for cell in cells})
    sources = dict.fromkeys(str(cell.metrics["corruptions"]["detail"]["source"]) for cell in cells)
    notes = [
        f"Accuracy (%), mean over severities and seeds, n = {' or '.join(map(str, images))}; "
        f"corrupted images {' and '.join(sources)}."
    ]
    if reference is not None:
        rows += _error_rows(suite, methods, reference)
        notes.append(
            f"mCE (1903.12261, section 4.3): error relative to the network of {reference.name}, in "
            "per cent; lower is better."
            + (
                " Its errors should be on images corrupted likewise."
                if "generated" in sources
                else ""
            )
        )
    parts = [f"# Corruptions. {heading(suite)}\n"]
    if suite.limit is not None:
        parts.append(f"> **{limit_line(suite)}**\n")
    parts.append(markdown_table(["Corruption", *(flagged(suite, name) for name in methods)], rows))
    notes += [*reliability_lines(suite), *training.undertrained_lines(suite)]
    return "\n".join([*parts, *(f"- {note}" for note in notes)]) + "\n"


def _error_rows(suite: SuiteRecord, methods: list[str], path: Path) -> list[list[str]]:
    # Start-up time: it imports torch, which other reports do without.
    from benchmark.report import corruption_error  # noqa: PLC0415

    reference = corruption_error.read_reference(path)

    def row(name: str, error: Callable[[CellRecord, Reference], float]) -> list[str]:
        means = [
            np.mean([error(cell, reference) for cell in suite.evaluated(method, "corruptions")])
            for method in methods
        ]
        return [name, *(percent(float(mean)) for mean in means)]

    rows = [row("mCE", lambda c, r: corruption_error.mean_corruption_error(_errors(c), r))]
    cells = [cell for method in methods for cell in suite.evaluated(method, "corruptions")]
    # on the images that were corrupted, which may be fewer than the clean ones
    clean = all(shared_accuracy(cell, "clean", "corruptions") is not None for cell in cells)
    if reference.clean is not None and clean:
        rows.append(
            row(
                "relative mCE",
                lambda c, r: corruption_error.relative_mce(_errors(c), _clean_error(c), r),
            )
        )
    return rows


def _errors(cell: CellRecord) -> dict[str, dict[int, float]]:
    detail = cell.metrics["corruptions"]["detail"]
    return {
        name: {level: 1 - value for level, value in zip(detail["severities"], values, strict=True)}
        for name, values in detail["per_corruption"].items()
    }


def _clean_error(cell: CellRecord) -> float:
    found = shared_accuracy(cell, "clean", "corruptions")
    assert found is not None
    return 1 - found[0]
