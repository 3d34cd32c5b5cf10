"""The result tables: tidy CSV, GitHub Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from benchmark.core.threat import Pixels
from benchmark.records.statistics import (
    Interval,
    population_interval,
    seed_interval,
    seed_spread,
)
from benchmark.records.study import (
    CellRecord,
    SuiteRecord,
    accuracy_on,
    is_estimate,
    measured_on,
    nested,
    once,
)
from benchmark.report import training

CSV_COLUMNS = (
    "suite", "dataset", "model", "method", "metric", "seeds", "n", "mean", "low", "high", "note",
)  # fmt: skip

# Rules by which a checkpoint is chosen, and how they read.
RULES = {
    "last": "last of training",
    "best": "best PGD accuracy on held-out validation images",
    "best-sum": "largest clean + PGD accuracy on held-out validation images, clean {floor} or more",
}


@dataclass(frozen=True)
class Summary:
    """One metric of one method over its evaluated seeds.

    Attributes:
        seeds: runs that were measured by this metric, of all that were evaluated (``of``).
        n: test images; the fewest where runs differ.
        interval: for new images (and, with several runs, new seeds); None if there is no figure.
        these: of an estimate, the interval for these test images, which leaves out how they were
            chosen; None for all other figures.
        most: the largest n of the column.
    """

    method: str
    metric: str
    seeds: int
    n: int
    interval: Interval | None
    sd: float | None
    of: int = 0
    these: Interval | None = None
    most: int = 0

    @property
    def partial(self) -> str:
        """ "1 of 3 seeds", "n = 50": what of a figure is less than its row or column says."""
        seeds = f"{self.seeds} of {self.of} seeds" if 0 < self.seeds < self.of else ""
        images = f"n = {self.n}" if 0 < self.n < self.most else ""
        return ", ".join(filter(None, (seeds, images)))


def title(suite: SuiteRecord, metric: str) -> str:
    """A metric's heading, as its record says; that of a further checkpoint names its rule."""
    entry = suite.entry(metric)
    text, rule = str(entry.get("title", metric)), entry.get("checkpoint")
    return f"{text} ({rule})" if rule else text


@once
def summarise(suite: SuiteRecord) -> dict[tuple[str, str], Summary]:
    """(method, column) to its summary, for all methods and all of ``columns``."""
    pairs = paired_columns(suite)
    result = {}
    for method in suite.methods:
        for key in columns(suite):
            if key in pairs:
                result[method, key] = replace(same_images(suite, method, *pairs[key]), metric=key)
            else:
                result[method, key] = _summary(suite, method, key)
    most: dict[str, int] = {}
    for (_, key), summary in result.items():
        most[key] = max(most.get(key, 0), summary.n)
    return {(m, key): replace(s, most=most[key]) for (m, key), s in result.items()}


@once
def columns(suite: SuiteRecord) -> dict[str, str]:
    """Key to heading of the table's columns, in order.

    AutoAttack is often measured on fewer images than PGD. The two must not be compared then, so a
    column with PGD on AutoAttack's images stands before AutoAttack's.
    """
    found = {}
    pairs = {attack: (key, pgd) for key, (pgd, attack) in paired_columns(suite).items()}
    for metric in suite.metrics():
        if metric in pairs:
            key, pgd = pairs[metric]
            found[key] = f"{title(suite, pgd)} (n = {_fewest(suite, metric)})"
        found[metric] = title(suite, metric)
    return found


@once
def paired_columns(suite: SuiteRecord) -> dict[str, tuple[str, str]]:
    """Key to (PGD metric, AutoAttack metric) where AutoAttack met fewer images than PGD did."""
    found = {}
    metrics = suite.metrics()
    for attack in metrics:
        own = suite.entry(attack)
        if not own["reference"] or own["form"]:
            continue
        for weaker in metrics:
            other = suite.entry(weaker)
            fewer = _fewest(suite, attack) < _fewest(suite, weaker)
            if fewer and not other["reference"] and same_attack_ball(own, other):
                found[f"{weaker}_on_{attack}"] = (weaker, attack)
                break
    return found


def same_attack_ball(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries are of attacks in the same ball on the same checkpoint."""
    if not one["ball"] or not other["ball"] or one["form"] or other["form"]:
        return False
    same = one["ball"][0] == other["ball"][0] and Pixels(one["ball"][1]) == Pixels(other["ball"][1])
    return same and one.get("checkpoint") == other.get("checkpoint")


def _fewest(suite: SuiteRecord, metric: str) -> int:
    counts = [int(c.metrics[metric]["n"]) for c in suite.cells if metric in c.metrics]
    return min(counts, default=0)


def _summary(suite: SuiteRecord, method: str, metric: str) -> Summary:
    cells = suite.evaluated(method, metric)
    values = [v for c in cells if (v := c.accuracy(metric)) is not None]
    # Seeds share their images; if a run saw fewer, the smaller n is the honest one.
    n = min((int(c.metrics[metric]["n"]) for c in cells), default=0)
    interval, these = _intervals(cells, metric, values, n)
    return Summary(
        method=method,
        metric=metric,
        seeds=len(values),
        n=n,
        interval=interval,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        of=len(suite.evaluated(method)),
        these=these,
    )


@once
def same_images(suite: SuiteRecord, method: str, metric: str, other: str) -> Summary:
    """``metric`` on the images that ``other`` was measured on too, by the runs that have both."""
    found = [shared_accuracy(c, metric, other) for c in suite.evaluated(method, metric)]
    values = [value for value, _ in filter(None, found)]
    counts = [n for _, n in filter(None, found)]
    whole = _summary(suite, method, metric)
    if values and min(counts) == whole.n and len(values) == whole.seeds:
        return whole  # with the interval of its kind
    return Summary(
        method=method,
        metric=metric,
        seeds=len(values),
        n=min(counts, default=0),
        interval=seed_interval(values, min(counts)) if values else None,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        of=len(suite.evaluated(method)),
    )


def shared_accuracy(cell: CellRecord, metric: str, other: str) -> tuple[float, int] | None:
    """A run's accuracy by ``metric`` on the images that ``other`` was measured on too, and how many
    these are.

    None if a metric is missing, or if the numbers of images differ and the record does not say
    which they are. A shifted test set has images of its own, and some figures are no means over
    images, so nothing is left out beside those.
    """
    value = cell.accuracy(metric)
    if value is None or cell.accuracy(other) is None:
        return None
    n = int(cell.metrics[metric]["n"])
    own, theirs = measured_on(cell, metric), measured_on(cell, other)
    if any(cell.metrics[m]["outcomes"] != "test" for m in (metric, other)):
        return value, n
    if own is None or theirs is None:
        return (value, n) if n == int(cell.metrics[other]["n"]) else None
    shared = own[own.isin(theirs)]
    value = accuracy_on(cell, metric, shared)
    return None if value is None else (value, len(shared))


def _intervals(
    cells: Sequence[CellRecord], metric: str, values: Sequence[float], n: int
) -> tuple[Interval | None, Interval | None]:
    """Of the mean over seeds: for new images, and of an estimate also for these images.

    A figure that is no share of images has no interval over images: its ends are those over seeds,
    and not a number if there is one seed.
    """
    if not values:
        return None, None
    if any(cell.metrics[metric]["outcomes"] == "none" for cell in cells):
        mean = sum(values) / len(values)
        spread = seed_spread(values) if len(values) > 1 else math.nan
        return Interval(mean, mean - spread, mean + spread), None
    if not all(is_estimate(cell, metric) for cell in cells):
        return seed_interval(values, n), None
    ends = [cell.metrics[metric].get("detail") or {} for cell in cells]
    own = [
        Interval(v, min(v, float(d["low"])), max(v, float(d["high"])))
        for v, d in zip(values, ends, strict=True)
    ]
    return _over_seeds([population_interval(i, n) for i in own]), _over_seeds(own)


def _over_seeds(intervals: Sequence[Interval]) -> Interval:
    """Of the mean: the widest on either side, with the spread over seeds added in squares."""
    values = [i.value for i in intervals]
    mean = sum(values) / len(values)
    below = max(i.value - i.low for i in intervals)
    above = max(i.high - i.value for i in intervals)
    if len(values) > 1:
        spread = seed_spread(values)
        below, above = math.hypot(below, spread), math.hypot(above, spread)
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above))


def tidy(suite: SuiteRecord) -> pd.DataFrame:
    """One row per method and column; a missing one has seeds 0, n 0 and empty figures.

    A trial run under ``--limit`` says so in the data set's name. ``note`` holds what marks a cell
    or a method in the other tables, and the interval of an estimate for these images.
    """
    rows = []
    doubtful = training.all_undertrained(suite)
    dataset = suite.dataset + (f" (limit {suite.limit})" if suite.limit is not None else "")
    for summary in summarise(suite).values():
        found = summary.interval
        figures = (
            ["" if math.isnan(v) else f"{v:.6f}" for v in (found.value, found.low, found.high)]
            if found
            else [""] * 3
        )
        notes = [summary.partial]
        if summary.these is not None:
            ends = f"[{summary.these.low:.6f}; {summary.these.high:.6f}]"
            notes.append(f"estimate; for these images alone {ends}")
        notes.append("under-trained" if summary.method in doubtful else "")
        rows.append(
            [
                suite.name, dataset, suite.model, summary.method, summary.metric,
                summary.seeds, summary.n, *figures, "; ".join(filter(None, notes)),
            ]
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(CSV_COLUMNS))


def csv_text(suite: SuiteRecord) -> str:
    """``tidy`` as CSV."""
    text: str = tidy(suite).to_csv(index=False, lineterminator="\n")
    return text


def ranks(
    summaries: Iterable[Summary], withheld: Iterable[str] = (), highest: bool = True
) -> dict[str, str]:
    """Method to "best" or "tied" for the highest mean of a column, or for the lowest.

    "best": its interval overlaps no other method's. "tied": highest mean, but overlapped, or the
    same as another's to the digit that is printed. A column with one method has no best; methods
    in ``withheld`` are compared, but never marked.
    """
    found = [(s.method, s.interval) for s in summaries if s.interval is not None]
    if len(found) < 2:
        return {}
    top = percent((max if highest else min)(i.value for _, i in found))
    best = [(m, i) for m, i in found if percent(i.value) == top]
    known = not any(math.isnan(i.low) for _, i in found)
    overlapped = any(i.overlaps(best[0][1]) for m, i in found if m != best[0][0])
    apart = len(best) == 1 and known and not overlapped
    marks = {m: "best" if apart else "tied" for m, _ in best}
    return {m: mark for m, mark in marks.items() if m not in set(withheld)}


# --- cost -----------------------------------------------------------------------------------------


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _passes_per_image(cells: Iterable[CellRecord]) -> float | None:
    """As recorded, else gradient passes over images drawn (steps x batch size)."""

    def one(cell: CellRecord) -> float | None:
        batch = nested(cell.config, "train", "batch_size")
        if (known := cell.training.get("passes_per_image")) is not None:
            return float(known)
        passes, steps = cell.training.get("gradient_passes"), cell.training.get("steps")
        return float(passes / (steps * batch)) if passes is not None and steps and batch else None

    return _mean(one(c) for c in cells)


def relative_cost(suite: SuiteRecord) -> dict[str, float | None]:
    """Gradient passes per training image over those of natural training.

    Natural training needs one, which stands in where the suite has no natural run.
    """
    natural = _passes_per_image(
        c for m in suite.methods for c in suite.of(m) if c.method == "natural"
    )
    own = {m: _passes_per_image(suite.of(m)) for m in suite.methods}
    return {m: None if v is None else v / (natural or 1) for m, v in own.items()}


def cost_columns(suite: SuiteRecord) -> list[tuple[str, dict[str, str]]]:
    """(heading, method to text) of the cost columns that any method can fill."""

    def text(values: Mapping[str, float | None], digits: int) -> dict[str, str]:
        return {m: "n/a" if v is None else f"{v:.{digits}f}" for m, v in values.items()}

    inference = {
        m: _mean(c.training.get("inference_passes") for c in suite.of(m)) for m in suite.methods
    }
    # Seconds are not shown: wall time on a shared machine, which says more about what else ran.
    found = [
        ("Grad. passes", text(relative_cost(suite), 1)),
        ("Infer. passes", text(inference, 0)),
    ]
    return [(head, cells) for head, cells in found if set(cells.values()) != {"n/a"}]


# --- notes ----------------------------------------------------------------------------------------


def _values(cells: Iterable[CellRecord], read: Callable[[CellRecord], Any]) -> list[str]:
    """Distinct values over the cells as text, in order of appearance, unknown ones left out."""
    return list(dict.fromkeys(str(v) for c in cells if (v := read(c)) is not None))


def limit_line(suite: SuiteRecord) -> str:
    """The warning that a run used a part of the data set, or nothing."""
    if suite.limit is None:
        return ""
    return (
        f"WARNING: limit = {suite.limit} was used: only a part of {suite.dataset or 'the data set'}"
        " was loaded. A trial run, not a result."
    )


def missing_line(suite: SuiteRecord) -> str:
    """Which planned cells have no result, and how far they are; or nothing."""
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


def notes(suite: SuiteRecord) -> list[str]:
    """Everything a reader needs to interpret the figures, one statement per line."""
    done = [c for c in suite.cells if c.status == "evaluated"]
    summaries = summarise(suite)
    lines = [
        "Accuracies in per cent of test images."
        + (" ± is the sample standard deviation over seeds." if _several(suite) else ""),
        "Brackets: 95 % interval; "
        + (
            "several seeds: for new seeds and new images, one seed: Wilson (new images only, says "
            "nothing about other seeds)."
            if _several(suite)
            else "one seed, so Wilson: for new images, nothing about other seeds."
        ),
        "Bold: highest of its column, its interval overlapped by no other. Italic: highest, but "
        "overlapped by at least one other.",
    ]
    if any(s.partial for s in summaries.values()):
        lines.append(
            "In brackets in a cell: how many of the method's runs have the figure, and of how many "
            "images it is, where that is less than elsewhere."
        )
    pairs = paired_columns(suite)
    for key, heading_ in columns(suite).items():
        if key in pairs:
            pgd, attack = (title(suite, name) for name in pairs[key])
            lines.append(
                f"{heading_}: {pgd} on the images of {attack}; compare {attack} with this."
            )
    if any(s.these is not None for s in summaries.values()):
        lines.append(
            "Estimate: first the interval for new images, which holds the choice of the test "
            "images and of the sample among them; then, after a semicolon, the one for these test "
            "images, which holds the sample alone."
        )
    for metric in suite.metrics():
        cells = [c for c in done if c.accuracy(metric) is not None]
        counts = sorted({s.n for s in summaries.values() if s.metric == metric and s.seeds})
        parts = [f"n = {' or '.join(map(str, counts))}"]
        described = _values(cells, lambda c, name=metric: c.metrics[name]["description"])  # type: ignore[misc]
        parts += [" or ".join(described)] if any(described) else []
        if not suite.entry(metric)["higher_is_better"]:
            parts.append("smaller is better")
        lines.append(f"{title(suite, metric)}: {', '.join(parts)}.")
    authors = dict.fromkeys(
        c.label for c in done if nested(c.config, "method", "recipe", "recipe") == "authors"
    )
    if authors:
        lines.append(
            f"Recipe: optimiser and schedule of the method's authors for {', '.join(authors)}; the "
            "suite's common ones for the others."
        )
    lines += _checkpoint_lines(done)
    precisions = _values(done, lambda c: nested(c.config, "train", "precision"))
    if precisions not in ([], ["fp32"]):
        lines.append(f"Trained in {' or '.join(precisions)}, evaluated in fp32.")
    if any(head == "Grad. passes" for head, _ in cost_columns(suite)):
        lines.append(
            "Grad. passes: forward-backward passes per training image, natural training = 1."
        )
    lines += reliability_lines(suite)
    lines += training.undertrained_lines(suite)
    lines.append(missing_line(suite) or f"No cell is missing ({len(suite.cells)} planned).")
    if suite.extra:
        lines.append(f"On disk but not in the plan, so not shown: {', '.join(suite.extra)}.")
    return lines


def _checkpoint_lines(done: Sequence[CellRecord]) -> list[str]:
    """How the evaluated checkpoints were chosen, and what a chosen one had not reached."""
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
            f"No checkpoint was at least {floors} clean, so best-sum chose among all: "
            f"{', '.join(missed)}."
        )
    return lines


def _several(suite: SuiteRecord) -> bool:
    return any(s.seeds > 1 for s in summarise(suite).values())


# --- rendering ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Grid:
    head: list[str]
    rows: list[list[str]]


def percent(value: float) -> str:
    """A fraction as per cent with one decimal."""
    return f"{100 * value:.1f}"


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


def marks(suite: SuiteRecord, summaries: Mapping[tuple[str, str], Summary]) -> dict[str, Any]:
    """Column to the ``ranks`` of its methods."""
    withheld = training.all_undertrained(suite)
    return {
        key: ranks(
            (summaries[method, key] for method in suite.methods),
            withheld,
            highest=bool(suite.entry(key).get("higher_is_better", True)),
        )
        for key in columns(suite)
    }


def _grid(
    suite: SuiteRecord,
    escape: Callable[[str], str],
    emphasis: Mapping[str, Callable[[str], str]],
    plus_minus: str,
) -> _Grid:
    summaries, shown = summarise(suite), columns(suite)
    marked = marks(suite, summaries)
    costs = cost_columns(suite)
    head = ["Method", "Seeds", *shown.values(), *(name for name, _ in costs)]
    rows = []
    for method in suite.methods:
        planned = len(suite.of(method))
        done = len(suite.evaluated(method))
        row = [
            escape(flagged(suite, method)),
            str(done) if done == planned else f"{done}/{planned}",
        ]
        if not shown:
            row[1] += " missing"
        for key in shown:
            text = score_text(summaries[method, key], plus_minus)
            mark = marked[key].get(method)
            row.append(emphasis[mark](text) if mark else text)
        rows.append([*row, *(cells[method] for _, cells in costs)])
    return _Grid([escape(h) for h in head], rows)


MARK = " [!]"


def flagged(suite: SuiteRecord, method: str) -> str:
    """The method's name, marked [!] if a reliability check found something in one of its runs, and
    [u] if they are under-trained."""
    doubt = MARK if any(cell.findings for cell in suite.of(method)) else ""
    return method + doubt + (training.MARK if method in training.all_undertrained(suite) else "")


def reliability_lines(suite: SuiteRecord) -> list[str]:
    """What the reliability checks found, and whether all cells were checked."""
    found: dict[str, list[str]] = {}
    for cell in suite.cells:
        for name, text in cell.findings:
            found.setdefault(f"{name}: {text}", []).append(f"{cell.label} seed {cell.seed}")
    lines = [
        f"{MARK.strip()} {text} ({', '.join(runs)}). Attack results of these runs are doubtful."
        for text, runs in found.items()
    ]
    if not found and any(cell.status == "evaluated" for cell in suite.cells):
        lines.append("Reliability checks: no finding in any run.")
    return lines


def _interval_grid(suite: SuiteRecord, escape: Callable[[str], str]) -> _Grid:
    summaries, shown = summarise(suite), columns(suite)
    rows = [
        [escape(method), *(interval_text(summaries[method, key]) for key in shown)]
        for method in suite.methods
    ]
    return _Grid([escape(h) for h in ["Method", *shown.values()]], rows)


def markdown_table(head: list[str], rows: list[list[str]], text_columns: int = 1) -> str:
    """A GitHub table, padded so that it also reads as plain text; later columns to the right."""
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in [head, *rows]]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(head))]
    rule = ["-" * w if i < text_columns else "-" * (w - 1) + ":" for i, w in enumerate(widths)]

    def line(row: list[str]) -> str:
        padded = [
            c.ljust(w) if i < text_columns else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])]) + "\n"


def heading(suite: SuiteRecord) -> str:
    """ "title: data set, model"."""
    where = ", ".join(part for part in (suite.dataset, suite.model) if part)
    return f"{suite.title}: {where}" if where else suite.title


def markdown_text(suite: SuiteRecord) -> str:
    """table.md: means, intervals, notes."""
    grid = _grid(
        suite,
        escape=lambda text: text,
        emphasis={"best": lambda t: f"**{t}**", "tied": lambda t: f"*{t}*"},
        plus_minus="±",
    )
    parts = [f"# {heading(suite)}\n"]
    if suite.limit is not None:
        parts.append(f"> **{limit_line(suite)}**\n")
    parts.append(markdown_table(grid.head, grid.rows))
    if suite.metrics():
        intervals = _interval_grid(suite, escape=lambda text: text)
        parts += ["95 % intervals\n", markdown_table(intervals.head, intervals.rows)]
    parts.append("\n".join(f"- {line}" for line in notes(suite)) + "\n")
    return "\n".join(parts)


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "×": r"$\times$",
}
_LATEX_PATTERN = re.compile("|".join(re.escape(c) for c in _LATEX))


def latex_escape(text: str) -> str:
    """Text as LaTeX; characters pdfLaTeX cannot print become "?"."""
    escaped = _LATEX_PATTERN.sub(lambda match: _LATEX[match.group()], text)
    return escaped.encode("latin-1", "replace").decode("latin-1")


# The file compiles alone and can be \input: inside a document \@nodocument has become \relax.
_LATEX_HEAD = r"""% Needs \usepackage{booktabs,graphicx}. \input it, or run pdflatex on it alone.
\expandafter\ifx\csname @nodocument\endcsname\relax
  \def\tableend{}
\else
  \def\tableend{\end{document}}
  \documentclass[twocolumn]{article}
  \usepackage{booktabs,graphicx}
  \begin{document}
\fi
"""


def _latex_intervals(suite: SuiteRecord, columns: int) -> list[str]:
    """The intervals as further rows, under the same headings."""
    if not suite.metrics():
        return []
    rows = _interval_grid(suite, latex_escape).rows
    return [
        r"\midrule",
        rf"\multicolumn{{{columns}}}{{@{{}}l}}{{95 \% intervals}} \\",
        *(" & ".join([row[0], "", *row[1:]]) + r" \\" for row in rows),
    ]


def latex_text(suite: SuiteRecord) -> str:
    """table.tex: a booktabs table over both columns, notes below it."""
    grid = _grid(
        suite,
        escape=latex_escape,
        emphasis={"best": lambda t: rf"\textbf{{{t}}}", "tied": lambda t: rf"\textit{{{t}}}"},
        plus_minus=r"$\pm$",
    )
    alignment = "l" + "r" * (len(grid.head) - 1)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}",
        rf"\caption{{{latex_escape(heading(suite))}.}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', suite.name)}}}",
        # made smaller where it is wider than the page, never larger
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        " & ".join(grid.head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in grid.rows),
        *_latex_intervals(suite, len(grid.head)),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\scriptsize",
    ]
    if suite.limit is not None:
        lines.append(rf"\textbf{{{latex_escape(limit_line(suite))}}}")
    lines += [latex_escape(line) for line in notes(suite)]
    lines += [r"\end{minipage}", r"\end{table*}"]
    return _LATEX_HEAD + "\n".join(lines) + "\n\\tableend\n"
