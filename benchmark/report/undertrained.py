"""Whether runs were trained long enough for conclusions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report.metric_roles import clean_metric_of
from benchmark.report.study_model import UNDERTRAINED

# Clean accuracy less than this part of the way from chance to 100 % is near chance.
NEAR_CHANCE = 0.1
# A validation accuracy that rose by so much (a fraction), and by so many standard errors, over the
# last quarter of training was still improving at the end.
RISE, ERRORS = 0.02, 2.0
VALIDATED = {"val_clean": "clean", "val_pgd": "PGD"}


def undertrained(cells: Sequence[CellRecord]) -> str:
    """Why conclusions from the runs of one method are withheld; "" if nothing is known against
    them.

    Near chance: the clean test accuracy a of a run on K classes has
    (a - 1/K) / (1 - 1/K) < 0.1, which is 19 % for ten classes.
    Still improving: over the runs, validation accuracy at the end is above that at three quarters
    of training by 2 points or more and by two standard errors or more. Errors are binomial, as if
    the validation images of the two points were drawn anew; they are the same images, so the
    errors are overestimated and noise is seldom taken for progress.
    """
    reasons = [text for cell in cells if (text := _near_chance(cell))]
    for key in VALIDATED:
        reasons += [text] if (text := _improving(cells, key)) else []
    return "; ".join(reasons)


def _near_chance(cell: CellRecord) -> str:
    clean, classes = cell.accuracy(clean_metric_of(cell)), _classes(cell)
    if clean is None or classes < 2:
        return ""
    if (clean - 1 / classes) / (1 - 1 / classes) >= NEAR_CHANCE:
        return ""
    return f"seed {cell.seed} is near chance, {100 * clean:.1f} % clean of {classes} classes"


def _classes(cell: CellRecord) -> int:
    """How many classes there are; 0 if unknown."""
    names = nested(cell.evaluation, "dataset", "classes")
    if names:
        return len(names)
    if cell.outcomes is not None and "label" in cell.outcomes and len(cell.outcomes):
        return int(cell.outcomes["label"].nunique())
    return 0


def _improving(cells: Sequence[CellRecord], key: str) -> str:
    """Whether a validation accuracy still rose in the last quarter, all runs together."""
    pairs, images = [], 0
    for cell in cells:
        if not {key, "progress"} <= set(cell.curves.columns):
            continue
        points = cell.curves[["progress", key]].dropna()
        before = points[points["progress"] <= 0.76][key]  # the three quarters, rounded up
        number = cell.validation_images
        if before.empty or not number or points["progress"].iloc[-1] < 1:
            continue
        pairs.append((float(before.iloc[-1]), float(points[key].iloc[-1])))
        images += number
    if not pairs:
        return ""
    early, late = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    error = math.sqrt((early * (1 - early) + late * (1 - late)) / images)
    if late - early < max(RISE, ERRORS * error):
        return ""
    runs = "" if len(pairs) == 1 else f", mean of {len(pairs)} runs"
    return (
        f"still improving at the end, validation {VALIDATED[key]} {100 * early:.1f} % at three "
        f"quarters of training and {100 * late:.1f} % at the end{runs}"
    )


def all_undertrained(suite: SuiteRecord) -> dict[str, str]:
    """Method to the reason, for methods from which no conclusion is drawn."""
    found = {m: undertrained(suite.evaluated(m)) for m in suite.methods}
    return {method: reason for method, reason in found.items() if reason}


def undertrained_lines(reasons: Mapping[str, str]) -> list[str]:
    """A line per method from which no conclusion is drawn."""
    return [
        f"{UNDERTRAINED} {method} is under-trained: {reason}. Conclusions from it are withheld."
        for method, reason in reasons.items()
    ]
