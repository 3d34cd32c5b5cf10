"""The comparison table for a paper: table.tex."""

from __future__ import annotations

import re

from benchmark.report.study_model import Study
from benchmark.report.tables import interval_cells, score_cells

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


def table_tex(study: Study) -> str:
    """table.tex: a booktabs table over both columns, notes below it."""
    cells = score_cells(
        study,
        escape=latex_escape,
        emphasis={"best": lambda t: rf"\textbf{{{t}}}", "tied": lambda t: rf"\textit{{{t}}}"},
        plus_minus=r"$\pm$",
    )
    alignment = "l" + "r" * (len(cells.head) - 1)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\footnotesize\setlength{\tabcolsep}{3.5pt}",
        rf"\caption{{{latex_escape(study.heading)}.}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]+', '-', study.name)}}}",
        # made smaller where it is wider than the page, never larger
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        " & ".join(cells.head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in cells.rows),
        *_intervals(study, len(cells.head)),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\scriptsize",
    ]
    if study.limit_warning:
        lines.append(rf"\textbf{{{latex_escape(study.limit_warning)}}}")
    lines += [latex_escape(line) for line in study.notes]
    lines += [r"\end{minipage}", r"\end{table*}"]
    return _LATEX_HEAD + "\n".join(lines) + "\n\\tableend\n"


def _intervals(study: Study, columns: int) -> list[str]:
    """The intervals as further rows, under the same headings."""
    if not study.table.columns:
        return []
    rows = interval_cells(study, latex_escape).rows
    return [
        r"\midrule",
        rf"\multicolumn{{{columns}}}{{@{{}}l}}{{95 \% intervals}} \\",
        *(" & ".join([row[0], "", *row[1:]]) + r" \\" for row in rows),
    ]
