"""Whether a run was trained long enough for conclusions, and on what it was trained."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles
from benchmark.records.keys import weights
from benchmark.records.schema import read_configuration, read_environment, read_evaluation
from benchmark.records.study import CellRecord, SuiteRecord, nested, once

MARK = " [u]"

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
    clean, classes = cell.accuracy("clean"), _classes(cell)
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
        number = _validation_images(cell)
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


def _validation_images(cell: CellRecord) -> int:
    """Images of a validation point; 0 if unknown."""
    known = (
        nested(cell.config, "train", "validation_images"),
        cell.training.get("val_images"),
    )
    return min((int(n) for n in known if n), default=0)


@once
def all_undertrained(suite: SuiteRecord) -> dict[str, str]:
    """Method to the reason, for methods from which no conclusion is drawn."""
    found = {m: undertrained(suite.evaluated(m)) for m in suite.methods}
    return {method: reason for method, reason in found.items() if reason}


def undertrained_lines(suite: SuiteRecord) -> list[str]:
    """A line per method from which no conclusion is drawn."""
    return [
        f"{MARK.strip()} {method} is under-trained: {reason}. Conclusions from it are withheld."
        for method, reason in all_undertrained(suite).items()
    ]


# --- on what --------------------------------------------------------------------------------------

# What changes the weights that a configuration trains to, beside the configuration.
CIRCUMSTANCES = ("device", "processor", "threads", "precision", "torch", "git")


def circumstances(cell: CellRecord) -> dict[str, str]:
    """On what a run was trained, as far as it is on record."""
    known = dict(cell.environment)
    known["precision"] = nested(cell.config, "train", "precision")
    return {k: str(known[k]) for k in CIRCUMSTANCES if known.get(k) not in (None, "")}


def trained_on(cell: CellRecord) -> str:
    """ "cpu, 1 thread, fp32, 0123abc"; "-" if nothing is on record."""
    found = circumstances(cell)
    if "threads" in found:
        found["threads"] += " thread" if found["threads"] == "1" else " threads"
    if "git" in found:
        found["git"] = found["git"][:7]
    shown = ("device", "processor", "threads", "precision", "git")
    return ", ".join(found[k] for k in shown if k in found) or "-"


def twins(suite: SuiteRecord) -> list[str]:
    """Runs of other studies beside this one that have the configuration of one of its runs and
    other weights, with what may explain it.

    Looked for by folder name (which holds the configuration's hash) in the folders beside
    ``suite.path``; what cannot be read there is left out, since it is no part of this report.
    """
    lines = []
    here = suite.path.resolve()
    for cell in suite.cells:
        own = weights(cell.evaluation)
        if not own or not cell.config_hash:
            continue
        for folder in sorted(here.parent.glob(f"*/cells/{glob.escape(cell.slug)}")):
            study = folder.parent.parent
            if study.resolve() == here or not RunFiles(folder).evaluation.exists():
                continue
            other = _read_twin(folder)
            if other is None or set(other[0]) & set(own) or other[2] != cell.config_hash:
                continue
            lines.append(
                f"{cell.label} seed {cell.seed}: {study.name} has other weights ({other[0][0]}) of "
                f"the same configuration ({cell.config_hash}): {_differs(cell, other[1])}."
            )
    return lines


def _read_twin(folder: Path) -> tuple[list[str], Mapping[str, Any], str] | None:
    """Hashes of its weights, environment and configuration hash of a run elsewhere."""
    try:
        models = weights(read_evaluation(folder))
        head, environment = read_configuration(folder), read_environment(folder)
    except BenchmarkError:
        return None
    if not models:
        return None
    precision = head["config"]["train"].get("precision")
    return models, {**environment, "precision": precision}, head["hash"]


def _differs(cell: CellRecord, other: Mapping[str, Any]) -> str:
    """What is on record of the circumstances of both and differs."""
    own = circumstances(cell)
    parts = []
    for key in CIRCUMSTANCES:
        value = other.get(key)
        theirs, ours = str(value) if value not in (None, "") else "", own.get(key, "")
        if theirs != ours:
            parts.append(f"{key} here {ours[:10] or 'unknown'}, there {theirs[:10] or 'unknown'}")
    if not parts:
        return "nothing on record tells the two trainings apart"
    return f"another machine, version or precision ({'; '.join(parts)})"
