"""How figures are written in all renderers, and sentences that several renderers use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from benchmark.report.study_model import Cost, Findings, SeedCurve, Study, Summary

NOTHING = "No cell has been evaluated yet."
LINE_TITLE = "Generalist against the trade-off line"
LINE_HEAD = (
    "Perpendicular distance from the line in "
    "percentage points, positive = better, with its 95 % interval, and p adjusted by Holm's method "
    "over these tests."
)
FRONTS_TITLE = "Fronts of Generalist against those of other methods"
FRONTS_HEAD = (
    "Hypervolumes are areas in squared percentage points, with 95 % intervals; p is adjusted by "
    "Holm's method. All distances are in fronts.md."
)
NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


def line_heading(found: Findings) -> tuple[str, str]:
    """What stands above the sentences of ``Findings.line``, and how to read them."""
    return (FRONTS_TITLE, FRONTS_HEAD) if found.fronts else (LINE_TITLE, LINE_HEAD)


def percent(value: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100 * value:.1f}"


def images(counts: Iterable[int]) -> str:
    """ "n = 1,000", or every number there is; zeros left out."""
    found = sorted({n for n in counts if n})
    return f"n = {' or '.join(f'{n:,}' for n in found)}" if found else ""


def seeds_text(counts: Iterable[int]) -> str:
    """ "1 seed", "3 seeds" or "1 or 3 seeds"."""
    found = sorted(set(counts))
    return f"{' or '.join(map(str, found))} seed{'' if found == [1] else 's'}"


def mixing_seeds(found: Mapping[str, Mapping[str, SeedCurve]]) -> str:
    """Of how many seeds the curves of a method's mix are."""
    return seeds_text(len(curve.seeds) for curves in found.values() for curve in curves.values())


def ball_text(norm: str, eps: str) -> str:
    """ "ℓ∞, eps 8/255"."""
    return f"{NORMS.get(norm, norm)}, eps {eps}"


def attacks_text(study: Study, metrics: Iterable[str]) -> str:
    """ "ℓ∞, eps 8/255", of a union "AutoAttack ℓ∞, eps 8/255; AutoAttack ℓ2, eps 128/255"; "" where
    no metric has a ball."""
    columns = {column.key: column for column in study.table.columns}
    parts = {one.key: [key for key, _ in one.parts] for one in study.unions}
    found = []
    for metric in metrics:
        for key in parts.get(metric, [metric]):
            column = columns[key]
            if column.ball:
                attack = column.title.removesuffix(f" {column.ball[0]}") + " "
                found.append((attack if metric in parts else "") + ball_text(*column.ball))
    return "; ".join(dict.fromkeys(found))


def score_text(summary: Summary, plus_minus: str = "±") -> str:
    """ "26.3 ± 0.2", "22.0 (1 of 3 seeds)" or "missing"."""
    if summary.interval is None:
        return "missing"
    sd = "" if summary.sd is None else f" {plus_minus} {percent(summary.sd)}"
    partial = f" ({summary.partial})" if summary.partial else ""
    return percent(summary.interval.value) + sd + partial


def interval_text(summary: Summary) -> str:
    """ "[24.1, 28.6]", of an estimate "[24.1, 28.6]; [25.8, 27.0]", or "missing"."""
    shown = [i for i in (summary.interval, summary.these) if i is not None]
    ends = [f"[{percent(i.low)}, {percent(i.high)}]" for i in shown if not math.isnan(i.low)]
    return "; ".join(ends) or ("none" if shown else "missing")


def cost_text(cost: Cost, method: str) -> str:
    """ "11.0", or "n/a"."""
    value = cost.values[method]
    return "n/a" if value is None else f"{value:.{cost.digits}f}"


# Titles of curves, by their key in the model.
VALIDATION_TITLES = {
    "val_clean": "Validation clean (%)",
    "val_pgd": "Validation PGD (%)",
    "gap_pgd": "Training less validation PGD (points)",
}
MIXING_TITLES = {"mix": "Weight in the mix", "distance": "L2 distance from global"}
