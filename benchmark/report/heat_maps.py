"""Tables to be read by colour: methods against norms, and against classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmark.records.study import SuiteRecord, is_estimate, nested
from benchmark.report.metric_roles import is_union, title
from benchmark.report.study_model import Column, HeatMap, Table
from benchmark.report.texts import NORMS, percent

# Above so many classes the lowest and the highest alone are shown.
SHOWN = 20


def _heat(
    key: str, title: str, frame: pd.DataFrame, columns: Sequence[str], **more: Any
) -> HeatMap:
    rows = tuple(
        (str(name), tuple(None if pd.isna(v) else float(v) for v in row))
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    )
    return HeatMap(key, title, tuple(columns), rows, **more)


# --- norms ----------------------------------------------------------------------------------------


def across_norms(suite: SuiteRecord, table: Table) -> HeatMap | None:
    """Robust accuracy under attacks in several norms; None where there is one norm only."""
    # the weaker attack on a reference attack's images too: the row is read across
    norms = {c.key: norm for c in table.columns if (norm := _norm(suite, _measured(c)))}
    shown = [c for c in table.columns if c.key in norms or is_union(suite, c.key)]
    if len(set(norms.values())) < 2:
        return None
    return _heat(
        "norms",
        "Across norms",
        _means(table, shown),
        [column.title for column in shown],
        caption="Robust accuracy (%), mean over seeds. " + _highest(table, shown),
        notes=tuple(_ball(suite, _measured(c), norms.get(c.key)) for c in shown),
    )


def _highest(table: Table, columns: Sequence[Column]) -> str:
    """Which method each column of the map is led by."""
    led: dict[str, list[str]] = {}
    for column in columns:
        known = {r.method: i.value for r in table.rows if (i := r.summaries[column.key].interval)}
        top = percent(max(known.values()))
        first = " and ".join(method for method, value in known.items() if percent(value) == top)
        led.setdefault(first, []).append(column.title)
    if len(led) == 1:
        return f"{next(iter(led))} has the highest in every column."
    return f"Highest: {'; '.join(f'{name} in {_listed(of)}' for name, of in led.items())}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _means(table: Table, columns: Sequence[Column]) -> pd.DataFrame:
    """The figures of some columns, by method; not a number where one is missing."""
    frame = pd.DataFrame(
        [
            [None if (i := row.summaries[c.key].interval) is None else i.value for c in columns]
            for row in table.rows
        ],
        index=[row.method for row in table.rows],
    )
    return frame.astype(float)


def transfer(suite: SuiteRecord, table: Table) -> HeatMap | None:
    """Accuracy on images crafted on other networks; None where there is one source or none."""
    shown = [c for c in table.columns if nested(suite.entry(c.key), "detail", "source_weights")]
    if len(shown) < 2:
        return None
    return _heat(
        "transfer",
        "Transfer",
        _means(table, shown),
        [column.title for column in shown],
        caption="Accuracy (%) of the row's network on images crafted on the column's, mean over "
        "seeds.",
    )


def _measured(column: Column) -> str:
    """The metric whose figure stands in a column."""
    return column.on_images_of[0] if column.on_images_of else column.key


def _norm(suite: SuiteRecord, metric: str) -> str | None:
    """The norm of an attack on the test images; None for another metric."""
    if suite.entry(metric).get("role") != "attack":
        return None
    for cell in suite.cells:
        detail = nested(cell.metrics, metric, "detail") or {}
        norm = nested(detail, "threat", "norm") or detail.get("norm")
        if norm:
            return str(norm)
    return None


def _ball(suite: SuiteRecord, metric: str, norm: str | None) -> str:
    """ "ℓ∞ 8/255"; different radii are all given."""
    details = [nested(c.metrics, metric, "detail") or {} for c in suite.cells]
    eps = dict.fromkeys(
        str(e) for d in details if (e := nested(d, "threat", "eps") or d.get("eps"))
    )
    return f"{NORMS.get(norm, norm)} {' or '.join(eps)}" if norm else ""


# --- classes --------------------------------------------------------------------------------------


def by_class(suite: SuiteRecord) -> tuple[HeatMap, ...]:
    """Accuracy class by class, a heat map per metric."""
    names = class_names(suite)
    found = []
    for metric in class_metrics(suite):
        means, counts = class_means(suite, metric)
        if means.empty:
            continue
        shown, cut = lowest_and_highest(means)
        labels = [names[int(i)] if int(i) < len(names) else str(i) for i in shown.columns]
        n = counts[list(shown.columns)]
        caption = f"{title(suite, metric)} accuracy (%) by class, mean over seeds; " + (
            f"{n.min():,} images per class."
            if n.min() == n.max()
            else f"{n.min():,} to {n.max():,} images per class."
        )
        if n.min() < 100:
            caption += " So few images tell classes apart only roughly."
        if cut:
            caption += f" Of {len(means.columns)} classes the ten lowest and the ten highest."
        found.append(_heat(metric, title(suite, metric), shown, labels, caption=caption))
    return tuple(found)


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


def lowest_and_highest(means: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The columns to show, and whether the middle was left out: many classes fill no page."""
    if len(means.columns) <= SHOWN:
        return means, False
    order = means.mean().sort_values(kind="stable").index
    return means[[*order[: SHOWN // 2], *order[-(SHOWN // 2) :]]], True
