"""Accuracy class by class, from the outcomes of the images."""

from __future__ import annotations

import pandas as pd

from benchmark.records.study import SuiteRecord, is_estimate, nested

# Above so many classes the ends alone are shown.
SHOWN = 20


def class_metrics(suite: SuiteRecord) -> list[str]:
    """Metrics with one outcome per image; without estimates, whose outcomes are those of a sample
    of survivors, and of a larger share of the images that are not robust."""
    return [
        metric
        for metric in suite.metrics()
        if any(c.outcomes is not None and metric in c.outcomes for c in suite.cells)
        and not any(is_estimate(c, metric) for c in suite.cells)
    ]


def class_means(suite: SuiteRecord, metric: str) -> tuple[pd.DataFrame, pd.Series]:
    """Accuracy by method (rows) and class (columns), mean over seeds; and images per class.

    Where the attacked images of runs differ in number, the fewest are given.
    """
    rows: dict[str, pd.Series] = {}
    counts: list[pd.Series] = []
    for method in suite.methods:
        per_seed = []
        for cell in suite.evaluated(method, metric):
            if cell.outcomes is None or metric not in cell.outcomes:
                continue
            groups = cell.outcomes[["label", metric]].dropna().groupby("label")[metric]
            per_seed.append(groups.mean().astype(float))
            counts.append(groups.size())
        if per_seed:
            rows[method] = pd.concat(per_seed, axis=1).mean(axis=1)
    if not rows:
        return pd.DataFrame(), pd.Series(dtype=int)
    return pd.DataFrame(rows).sort_index().T, pd.concat(counts, axis=1).min(axis=1).sort_index()


def class_names(suite: SuiteRecord) -> list[str]:
    """Names by label; empty if no record has them."""
    found = (nested(cell.evaluation, "dataset", "classes") for cell in suite.cells)
    return [str(name) for name in next((names for names in found if names), [])]


def ends(means: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The columns to show, and whether the middle was left out: many classes fill no page."""
    if len(means.columns) <= SHOWN:
        return means, False
    order = means.mean().sort_values(kind="stable").index
    return means[[*order[: SHOWN // 2], *order[-(SHOWN // 2) :]]], True
