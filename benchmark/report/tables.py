"""The comparison table: as tidy rows, as CSV, and as the cells that Markdown and LaTeX show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from benchmark.records.study import SuiteRecord
from benchmark.report.study_model import Mark, Study
from benchmark.report.texts import cost_text, interval_text, score_text

CSV_COLUMNS = (
    "suite", "dataset", "model", "method", "metric", "seeds", "n", "mean", "low", "high", "note",
)  # fmt: skip


def tidy(study: Study) -> pd.DataFrame:
    """One row per method and column; a missing one has seeds 0, n 0 and empty figures.

    A trial run under ``--limit`` says so in the data set's name. ``note`` holds what marks a cell
    or a method in the other tables, and the interval of an estimate for these images.
    """
    rows = []
    dataset = study.dataset + (f" (limit {study.limit})" if study.limit is not None else "")
    for row in study.table.rows:
        for summary in row.summaries.values():
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
            notes.append("under-trained" if row.undertrained else "")
            rows.append(
                [
                    study.name, dataset, study.model, row.method, summary.metric,
                    summary.seeds, summary.n, *figures, "; ".join(filter(None, notes)),
                ]
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(CSV_COLUMNS))


def numbers(study: Study, suite: SuiteRecord) -> pd.DataFrame:
    """One row per method and column of the table, with numbers as numbers.

    Columns: ``method``, ``metric``, ``value`` with its 95 % interval ``low`` to ``high`` (all in
    [0, 1], NaN where there is none), ``sd`` over seeds, ``seeds``, ``n`` images, ``mark`` (best,
    tied or nothing), ``note`` (what is held against the figure) and ``settings``.
    """
    nan = math.nan
    rows = []
    for row in study.table.rows:
        held = [*row.doubts, "under-trained" if row.undertrained else ""]
        for one in row.summaries.values():
            found = one.interval
            rows.append(
                {
                    "method": row.method,
                    "metric": one.metric,
                    "value": found.value if found else nan,
                    "low": found.low if found else nan,
                    "high": found.high if found else nan,
                    "sd": nan if one.sd is None else one.sd,
                    "seeds": one.seeds,
                    "n": one.n,
                    "mark": one.mark,
                    "note": "; ".join(filter(None, [one.partial, *held])),
                    "settings": suite.entry(one.metric).get("description", ""),
                }
            )
    return pd.DataFrame(rows)


def csv_text(study: Study) -> str:
    """table.csv: ``tidy`` as CSV."""
    text: str = tidy(study).to_csv(index=False, lineterminator="\n")
    return text


@dataclass(frozen=True)
class Cells:
    """A table as text, headings first."""

    head: list[str]
    rows: list[list[str]]


def score_cells(
    study: Study,
    escape: Callable[[str], str],
    emphasis: Mapping[Mark, Callable[[str], str]],
    plus_minus: str,
) -> Cells:
    """Means, marked ones emphasised, and costs."""
    table = study.table
    titles = [column.title for column in table.columns]
    head = ["Method", "Seeds", *titles, *(cost.heading for cost in table.costs)]
    rows = []
    for row in table.rows:
        seeds = row.seeds if table.columns else f"{row.seeds} missing"
        scores = []
        for summary in row.summaries.values():
            text = score_text(summary, plus_minus)
            scores.append(emphasis[summary.mark](text) if summary.mark else text)
        costs = [cost_text(cost, row.method) for cost in table.costs]
        rows.append([escape(row.name), seeds, *scores, *costs])
    return Cells([escape(text) for text in head], rows)


def interval_cells(study: Study, escape: Callable[[str], str]) -> Cells:
    """The 95 % intervals."""
    head = ["Method", *(column.title for column in study.table.columns)]
    rows = [
        [escape(row.method), *map(interval_text, row.summaries.values())]
        for row in study.table.rows
    ]
    return Cells([escape(text) for text in head], rows)


def main_cells(study: Study, intervals: bool = False) -> Cells:
    """The table as a command prints it: nothing emphasised, and where asked for, each interval in a
    second line below its mean."""
    cells = score_cells(study, str, {"best": str, "tied": str}, "±")
    if not intervals:
        return cells
    ends = interval_cells(study, str)
    first = cells.head.index("Seeds") + 1
    for row, own in zip(cells.rows, ends.rows, strict=True):
        for i, text in enumerate(own[1:], first):
            row[i] += f"\n{text}" if text.startswith("[") else ""
    return cells


def by_importance(study: Study) -> list[int]:
    """The columns of ``main_cells`` but the methods' names, those that a reader needs most first:
    what leaders are named for, the seeds, what an attack must be read beside, then the others."""
    table = study.table
    named = {m for lead in study.findings.leads if lead.kind != "sum" for m in lead.metrics}

    def rank(i: int) -> int:
        column = table.columns[i]
        return 0 if column.key in named else 2 if column.on_images_of else 3

    columns = sorted(range(len(table.columns)), key=rank)
    main = [i for i in columns if rank(i) == 0]
    rest = [i for i in columns if rank(i) > 0]
    costs = range(len(table.columns), len(table.columns) + len(table.costs))
    return [*(i + 2 for i in main), 1, *(i + 2 for i in (*rest, *costs))]
