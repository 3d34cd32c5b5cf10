"""The comparison table for a paper: table.tex."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby

from benchmark.report.study_model import Column, Study
from benchmark.report.tables import interval_cells, score_cells
from benchmark.report.texts import images

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


# Widths in points, for a table over both columns of an article: of a character at \footnotesize and
# at \tiny, of the space between columns, and of the page (a tenth more than it has: a table may be
# made smaller by so much). Then the lines that a page holds.
_CHARACTER, _TINY, _GAP, _PAGE, _LINES = 3.75, 2.7, 7.0, 515.0, 54
_NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$", "l1": r"$\ell_1$"}


@dataclass(frozen=True)
class _Column:
    """A column of figures.

    Attributes:
        group: what it shares with the columns beside it (norm and radius), or "".
        head: the lines of its heading, the number of images last.
        cells, intervals: by row; no intervals for costs, or where they stand in the cells.
        width: in points, about.
    """

    group: str
    head: tuple[str, ...]
    cells: list[str]
    intervals: list[str]
    width: float


def table_tex(study: Study, intervals_in_cells: bool = False) -> str:
    """table.tex: a booktabs table over both columns, notes below it.

    Columns under attacks of the same norm and radius stand together under one heading. Columns that
    do not fit the page's width follow below in a further block with the same rows, and blocks that
    do not fit its height in a further table.

    Args:
        intervals_in_cells: each interval below its figure, instead of in rows of their own.
    """
    rows = study.table.rows
    names = [latex_escape(row.name) for row in rows]
    seeds = [row.seeds if study.table.columns else f"{row.seeds} missing" for row in rows]
    first = (
        max(len(row.name) for row in rows) * _CHARACTER + 6 * _CHARACTER + 2 * _GAP if rows else 0.0
    )
    blocks = [
        _tabular(names, seeds, block)
        for block in _blocks(_columns(study, intervals_in_cells), _PAGE - first)
    ]
    heights = [len(block) * (1.7 if intervals_in_cells else 1) for block in blocks]
    notes = [rf"\textbf{{{latex_escape(study.limit_warning)}}}"] if study.limit_warning else []
    notes += [latex_escape(line) for line in study.notes]
    blocks.append([r"\begin{minipage}{\textwidth}\scriptsize", *notes, r"\end{minipage}"])
    heights.append(sum(map(len, notes)) / 170)
    label = re.sub(r"[^A-Za-z0-9]+", "-", study.name)
    caption = rf"{latex_escape(study.heading)}"
    lines = []
    for number, part in enumerate(_pages(blocks, heights)):
        again = rf"-{number + 1}" if number else ""
        lines += [
            r"\begin{table*}[t]",
            r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}",
            *([r"\addtocounter{table}{-1}"] if number else []),
            rf"\caption{{{caption}{' (continued)' if number else ''}.}}",
            rf"\label{{tab:{label}{again}}}",
            *[line for block in part for line in [*block, r"\par\smallskip"]][:-1],
            r"\end{table*}",
        ]
    return _LATEX_HEAD + "\n".join(lines) + "\n\\tableend\n"


def _pages(blocks: list[list[str]], heights: list[float]) -> list[list[list[str]]]:
    """The blocks of each page; of a block alone that is too high, a page of its own."""
    pages: list[list[list[str]]] = [[]]
    used = 0.0
    for block, height in zip(blocks, heights, strict=True):
        if pages[-1] and used + height > _LINES:
            pages.append([])
            used = 0.0
        pages[-1].append(block)
        used += height
    return pages


def _columns(study: Study, intervals_in_cells: bool) -> list[_Column]:
    """Metrics, those of one group side by side, then costs."""
    scores = score_cells(
        study,
        escape=latex_escape,
        emphasis={"best": lambda t: rf"\textbf{{{t}}}", "tied": lambda t: rf"\textit{{{t}}}"},
        plus_minus=r"$\pm$",
    )
    plain = score_cells(study, escape=str, emphasis={"best": str, "tied": str}, plus_minus="±")
    intervals = interval_cells(study, escape=str)
    found = []
    for i, column in enumerate(study.table.columns):
        cells, ends = [row[i + 2] for row in scores.rows], [row[i + 1] for row in intervals.rows]
        head = (
            *_lines(_title(column)),
            images(r.summaries[column.key].n for r in study.table.rows),
        )
        texts = [*head, *(row[i + 2] for row in plain.rows)]
        if intervals_in_cells:
            small = max(len(part) for text in ends for part in text.split("; ")) * _TINY
            cells = [_stacked(cell, text) for cell, text in zip(cells, ends, strict=True)]
            ends = []
        else:
            small, texts = 0.0, [*texts, *ends]
        width = max(small, max(map(len, texts)) * _CHARACTER) + _GAP
        found.append(_Column(_group(column), tuple(map(latex_escape, head)), cells, ends, width))
    order = list(dict.fromkeys(column.group for column in found))
    found.sort(key=lambda column: order.index(column.group))
    for j, cost in enumerate(study.table.costs, start=2 + len(study.table.columns)):
        head = (*_lines(cost.heading), "")
        width = max(map(len, head)) * _CHARACTER + _GAP
        cells = [row[j] for row in scores.rows]
        found.append(_Column("", tuple(map(latex_escape, head)), cells, [], width))
    return found


def _group(column: Column) -> str:
    if column.ball is None:
        return ""
    norm, eps = column.ball
    return f"{_NORMS.get(norm, latex_escape(norm))}, {latex_escape(eps)}"


def _title(column: Column) -> str:
    """The heading without the norm and the number of images, which stand above and below it."""
    text = re.sub(r" \(n = [\d,]+\)$", "", column.title)
    return text.removesuffix(f" {column.ball[0]}") if column.ball else text


def _lines(title: str) -> tuple[str, ...]:
    """A long title in two lines."""
    first, _, last = title.rpartition(" ")
    return (first, last) if len(title) > 12 and first else (title,)


def _stacked(cell: str, intervals: str) -> str:
    small = "".join(rf"\\[-2pt]{{\tiny {part}}}" for part in intervals.split("; "))
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{cell}{small}\end{{tabular}}"


def _blocks(columns: list[_Column], room: float) -> list[list[_Column]]:
    """The columns in as many blocks as the page's width asks for."""
    blocks: list[list[_Column]] = [[]]
    for column in columns:
        if blocks[-1] and sum(c.width for c in blocks[-1]) + column.width > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _tabular(names: list[str], seeds: list[str], block: list[_Column]) -> list[str]:
    alignment = "ll" + "r" * len(block)
    return [
        # made smaller where it is still wider than the page, never larger
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        *_heads(block),
        r"\midrule",
        *_body(names, seeds, [column.cells for column in block]),
        *_intervals(names, block),
        r"\bottomrule",
        r"\end{tabular}}",
    ]


def _heads(block: list[_Column]) -> list[str]:
    """The groups, the lines of the titles, and the numbers of images."""
    groups = [(group, len(list(of))) for group, of in groupby(block, key=lambda c: c.group)]
    rows = []
    if any(group for group, _ in groups):
        rules, at = [], 3
        for group, count in groups:
            if group:
                rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
            at += count
        spans = [
            rf"\multicolumn{{{count}}}{{c}}{{{group}}}" if group else " & ".join([""] * count)
            for group, count in groups
        ]
        rows = [" & ".join(["", "", *spans]) + r" \\", "".join(rules)]
    titles = [("Method",), ("Seeds",), *(column.head[:-1] for column in block)]
    height = max(map(len, titles))
    padded = [("",) * (height - len(title)) + title for title in titles]
    rows += [" & ".join(line) + r" \\" for line in zip(*padded, strict=True)]
    if any(column.head[-1] for column in block):
        counts = [rf"{{\tiny {c.head[-1]}}}" if c.head[-1] else "" for c in block]
        rows.append(" & ".join(["", "", *counts]) + r" \\")
    return rows


def _body(names: list[str], seeds: list[str], columns: list[list[str]]) -> list[str]:
    rows = zip(names, seeds, *columns, strict=True)
    return [" & ".join(row) + r" \\" for row in rows]


def _intervals(names: list[str], block: list[_Column]) -> list[str]:
    """The intervals as further rows, under the same headings."""
    if not any(column.intervals for column in block):
        return []
    blank = [""] * len(names)
    return [
        r"\midrule",
        rf"\multicolumn{{{len(block) + 2}}}{{@{{}}l}}{{95 \% intervals}} \\",
        *_body(names, blank, [column.intervals or blank for column in block]),
    ]
