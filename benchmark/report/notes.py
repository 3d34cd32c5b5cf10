"""How to read a report: how figures were measured, what is missing, and what is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report.metric_roles import title
from benchmark.report.study_model import DOUBTFUL, Table
from benchmark.report.training_data import training_data_lines
from benchmark.report.undertrained import undertrained_lines

# Rules by which a checkpoint is chosen, and how they read.
RULES = {
    "last": "last of training",
    "best": "best PGD accuracy on held-out validation images",
    "best-sum": "largest clean + PGD accuracy on held-out validation images, clean {floor} or more",
}


def notes(suite: SuiteRecord, table: Table) -> tuple[str, ...]:
    """Everything a reader needs to interpret the figures, one statement per line."""
    done = [c for c in suite.cells if c.status == "evaluated"]
    several = any(s.seeds > 1 for s in table.summaries)
    lines = [
        "Accuracies in per cent of test images."
        + (" ± is the sample standard deviation over seeds." if several else ""),
        "Brackets: 95 % interval; "
        + (
            "with several seeds for new seeds and new images; with one seed (Wilson) for new "
            "images only: it says nothing about other seeds."
            if several
            else "with one seed (Wilson), for new images only: it says nothing about other seeds."
        ),
        "Bold: best of its column, and its interval overlaps no other. Italic: best, but its "
        "interval overlaps at least one other.",
    ]
    if any(s.partial for s in table.summaries):
        lines.append(
            "In brackets in a cell: how many of the method's runs have the figure, and on how many "
            "images it was measured, if that is fewer than in the rest of the row or column."
        )
    data = dict.fromkeys(
        note for c in done for note in nested(c.evaluation, "dataset", "notes") or ()
    )
    if data:
        lines.append(f"Data: {'; '.join(data)}.")
    for column in table.columns:
        if column.on_images_of:
            weaker, attack = (title(suite, name) for name in column.on_images_of)
            lines.append(
                f"{column.title}: {weaker} on only the images of {attack}, to be compared with it."
            )
    if any(s.these is not None for s in table.summaries):
        lines.append(
            "Estimate: first the interval for new images, over the choice of the test images and "
            "of the sample among them; then, after a semicolon, the interval for these test "
            "images, over the choice of the sample only."
        )
    for metric in suite.metrics():
        cells = [c for c in done if c.accuracy(metric) is not None]
        counts = sorted({s.n for s in table.summaries if s.metric == metric and s.seeds})
        parts = [f"n = {' or '.join(map(str, counts))}"]
        described = _values(cells, lambda c, name=metric: c.metrics[name]["description"])  # type: ignore[misc]
        parts += [" or ".join(described)] if any(described) else []
        if not suite.entry(metric)["higher_is_better"]:
            parts.append("smaller is better")
        lines.append(f"{title(suite, metric)}: {', '.join(parts)}.")
    lines += training_data_lines(done)
    authors = dict.fromkeys(
        c.label for c in done if nested(c.config, "method", "recipe", "recipe") == "authors"
    )
    if authors:
        lines.append(
            f"Recipe: {', '.join(authors)} with the optimiser and schedule of the method's "
            "authors; the others with the suite's common ones."
        )
    lines += _checkpoint_lines(done)
    precisions = _values(done, lambda c: nested(c.config, "train", "precision"))
    if precisions not in ([], ["fp32"]):
        lines.append(f"Trained in {' or '.join(precisions)}, evaluated in fp32.")
    if any(cost.heading == "Grad. passes" for cost in table.costs):
        lines.append(
            "Grad. passes: forward-backward passes per training image, natural training = 1."
        )
        begun = dict.fromkeys(c.label for c in done if c.training.get("trained"))
        if begun:
            lines.append(
                f"{', '.join(begun)}: started from, or learned from, trained networks, whose "
                "training is not included in Grad. passes."
            )
    if any(cost.key == "memory" for cost in table.costs):
        lines.append(
            "Memory: peak of training; on CUDA of the device's tensors, on a CPU of the whole "
            "process."
        )
    lines += reliability_lines(suite)
    lines += undertrained_lines({r.method: r.undertrained for r in table.rows if r.undertrained})
    lines.append(missing_line(suite) or f"No cell is missing ({len(suite.cells)} planned).")
    if suite.extra:
        lines.append(f"On disk but not in the plan, so not shown: {', '.join(suite.extra)}.")
    return tuple(lines)


def _checkpoint_lines(done: Sequence[CellRecord]) -> list[str]:
    """How the evaluated checkpoints were chosen, and whether one missed the rule's floor."""
    rules = _values(done, lambda c: c.training.get("checkpoint_rule"))
    floors = " or ".join(_values(done, lambda c: c.training.get("selection_floor")))
    meaning = {rule: text.format(floor=floors) for rule, text in RULES.items()}
    lines = []
    if rules:
        lines.append(f"Checkpoint: {' or '.join(meaning.get(r, r) for r in rules)}.")
    for rule in dict.fromkeys(rule for c in done for rule in c.training.get("also") or {}):
        lines.append(f"Columns marked ({rule}): {meaning.get(rule, rule)}, of the same runs.")
    missed = [f"{c.label} seed {c.seed}" for c in done if c.training.get("floor_missed")]
    if missed:
        lines.append(
            f"No checkpoint had a clean accuracy of {floors} or more, so best-sum chose among all: "
            f"{', '.join(missed)}."
        )
    return lines


def reliability_lines(suite: SuiteRecord) -> list[str]:
    """What the reliability checks found."""
    found: dict[str, list[str]] = {}
    for cell in suite.cells:
        for name, text in cell.findings:
            found.setdefault(f"{name}: {text}", []).append(f"{cell.label} seed {cell.seed}")
    lines = [
        f"{DOUBTFUL} {text} ({', '.join(runs)}). Attack results of these runs are doubtful."
        for text, runs in found.items()
    ]
    if not found and any(cell.status == "evaluated" for cell in suite.cells):
        lines.append("Reliability checks: no finding in any run.")
    return lines


def limit_warning(suite: SuiteRecord) -> str:
    """The warning that a run used a part of the data set, or nothing."""
    if suite.limit is None:
        return ""
    return (
        f"WARNING: limit = {suite.limit} was used: only a part of {suite.dataset or 'the data set'}"
        " was loaded. This is a trial run, not a result."
    )


def missing_line(suite: SuiteRecord) -> str:
    """Which planned cells have no result, and their state; or nothing."""
    cells = suite.missing()
    if not cells:
        return ""
    names = ", ".join(f"{c.label} seed {c.seed} ({_PROGRESS[c.status]})" for c in cells)
    return f"Missing {len(cells)} of {len(suite.cells)} cells: {names}."


_PROGRESS = {
    "missing": "not started",
    "training": "training not finished",
    "trained": "trained, not evaluated",
    "evaluated": "evaluated",
}


def _values(cells: Iterable[CellRecord], read: Callable[[CellRecord], Any]) -> list[str]:
    """Distinct values over the cells as text, in order of appearance, without unknown ones."""
    return list(dict.fromkeys(str(v) for c in cells if (v := read(c)) is not None))
