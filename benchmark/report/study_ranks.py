"""Mean ranks of methods over studies, such as of different data sets (Demsar, JMLR 7, 2006).

A study is a block: it ranks the methods that all studies have by their score in it, the mean over
its seeds. So the diagram says how far the order depends on the data set and the setting; that of a
single study (``report.ranks``) says how far it depends on the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_text
from benchmark.records.study import SuiteRecord
from benchmark.report.comparison_plots import critical_difference
from benchmark.report.families import family_of
from benchmark.report.figures import STYLE, figure, save
from benchmark.report.leaders import mean_score, scores
from benchmark.report.markdown import markdown_table
from benchmark.report.paired import ALPHA, p_text
from benchmark.report.ranks import FEWEST, ranks_of
from benchmark.report.study_model import MethodRanks
from benchmark.report.texts import percent
from benchmark.report.undertrained import all_undertrained


@dataclass(frozen=True)
class StudyRanks:
    """The ranks in each score that all studies have.

    Attributes:
        studies: name and data set of each.
        tables: a table per score, its rows the studies, its columns the methods; accuracies.
        undertrained: "study: methods" where methods were still improving at the end.
    """

    studies: tuple[tuple[str, str], ...]
    ranks: tuple[MethodRanks, ...]
    tables: tuple[pd.DataFrame, ...]
    colours: dict[str, str]
    undertrained: tuple[str, ...]


def study_ranks(studies: Sequence[SuiteRecord]) -> StudyRanks:
    """Ranks over several studies.

    Raises:
        BenchmarkError: fewer than three studies, methods that all have, or no score that all have.
    """
    if len(studies) < FEWEST:
        raise BenchmarkError(
            f"ranks over studies need at least {FEWEST} studies, and {len(studies)} "
            f"{'is' if len(studies) == 1 else 'are'} given"
        )
    shared = [m for m in studies[0].methods if all(study.evaluated(m) for study in studies)]
    if len(shared) < FEWEST:
        raise BenchmarkError(
            f"the studies have {len(shared)} evaluated methods in common, under the same label; "
            f"ranks need at least {FEWEST}"
        )
    found, tables = [], []
    for score in scores(studies[0]):
        table = _table(studies, score.words, shared)
        if table is not None and table.shape[1] >= FEWEST:
            found.append(ranks_of(table, score.words, tuple(score.weights), n=0))
            tables.append(table)
    if not found:
        raise BenchmarkError(
            "the studies have no score in common for three methods; scores are called: "
            + "; ".join(f"{s.name}: {', '.join(x.words for x in scores(s))}" for s in studies)
        )
    late = {study.name: all_undertrained(study) for study in studies}
    return StudyRanks(
        studies=tuple((study.name, study.dataset) for study in studies),
        ranks=tuple(found),
        tables=tuple(tables),
        colours={m: family_of(studies[0].of(m)).colour for m in shared},
        undertrained=tuple(
            f"{name}: {', '.join(m for m in shared if m in reasons)}"
            for name, reasons in late.items()
            if set(shared) & set(reasons)
        ),
    )


def _table(
    studies: Sequence[SuiteRecord], words: str, methods: Sequence[str]
) -> pd.DataFrame | None:
    """The score of each method that has it in every study; None if a study does not have it."""
    rows = []
    for study in studies:
        score = next((one for one in scores(study) if one.words == words), None)
        if score is None:
            return None
        rows.append([mean_score(study, method, score.weights) for method in methods])
    names = [study.name for study in studies]
    return pd.DataFrame(rows, columns=list(methods), index=names, dtype=float).dropna(axis=1)


def write_study_ranks(found: StudyRanks, target: Path) -> list[Path]:
    """Write ranks.md, ranks.csv and the figure to ``target``; returns them, the text first."""
    text, data = target / "ranks.md", target / "ranks.csv"
    write_text(text, study_ranks_md(found))
    write_text(data, _tidy(found).to_csv(index=False, lineterminator="\n"))
    return [text, data, *save(draw(found), target / "ranks")]


def _tidy(found: StudyRanks) -> pd.DataFrame:
    rows = [
        {"score": one.score, "study": study, "method": method, "accuracy": value,
         "mean_rank": one.mean[str(method)]}
        for one, table in zip(found.ranks, found.tables, strict=True)
        for study, line in table.iterrows()
        for method, value in line.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def study_ranks_md(found: StudyRanks) -> str:
    """Ranks, tests and accuracies as text."""
    named = ", ".join(f"{name} ({dataset})" for name, dataset in found.studies)
    parts = [
        "# Mean ranks over studies",
        f"Studies: {named}. Each ranks the methods once, by the mean over its seeds; rank 1 is the "
        "best. Friedman's test asks whether all methods rank alike, Nemenyi's test compares two at "
        f"a time. With {len(found.studies)} studies, only large differences can be detected.",
        "![ranks](ranks.png)",
    ]
    if found.undertrained:
        parts.append(f"Still improving at the end: {'; '.join(found.undertrained)}.")
    for one, table in zip(found.ranks, found.tables, strict=True):
        apart = [f"{a} and {b} ({p_text(p)})" for (a, b), p in one.pairs.items() if p <= ALPHA]
        told = f"Told apart: {', '.join(apart)}." if apart else "No two methods are told apart."
        ranked = ", ".join(f"{method} {rank:.2g}" for method, rank in one.mean.items())
        parts += [
            f"## {one.heading}",
            f"Mean ranks: {ranked}. Friedman {p_text(one.friedman)}. {told}",
            _accuracies(table[list(one.mean)]),
        ]
    return "\n\n".join(parts) + "\n"


def _accuracies(table: pd.DataFrame) -> str:
    rows = [[str(study), *map(percent, line)] for study, line in table.iterrows()]
    return markdown_table(["Study", *table.columns], rows).rstrip()


def draw(found: StudyRanks) -> Figure:
    """A critical-difference diagram for each score."""
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        height = 0.65 + 0.085 * max(len(one.mean) for one in found.ranks)
        fig, axes = figure(height * len(found.ranks), len(found.ranks))
        for ax, one in zip(axes[:, 0], found.ranks, strict=True):
            critical_difference(ax, one, found.colours, f"{len(found.studies)} studies")
        return fig
