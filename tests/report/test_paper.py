"""What goes into a paper and onto GitHub: LaTeX compiles in two columns, Markdown is Markdown."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmark.report.latex import table_tex
from benchmark.report.study_model import Study

ROOT = Path(__file__).parents[2]
REPORTS = sorted(path.parent for path in ROOT.glob("reports/*/report.md"))
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in ROOT.glob("docs/**/*.md") if page.name != "commands.md"),
    *ROOT.glob("reports/*/*.md"),
    *ROOT.glob("results/*.md"),
]
ARTICLE = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs,graphicx}
\begin{document}
Before.
%s
After.
\end{document}
"""
FIGURE = r"""\begin{figure}
\includegraphics[width=\columnwidth]{%s}
\caption{One column wide.}
\end{figure}
"""


def compiled(source: str, folder: Path) -> str:
    """The log of pdflatex."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_tables_and_figures_fit_a_two_column_article(report: Path, tmp_path: Path) -> None:
    shutil.copy(report / "table.tex", tmp_path)
    figures = sorted(path.name for path in report.glob("*.pdf"))
    assert "tradeoff.pdf" in figures
    for name in figures:
        shutil.copy(report / name, tmp_path)
    body = "\\input{table}\n" + "".join(FIGURE % name for name in figures)
    (tmp_path / "paper.tex").write_text(ARTICLE % body)
    assert "Overfull" not in compiled("paper.tex", tmp_path)
    assert "Overfull" not in compiled("table.tex", tmp_path)  # and alone


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_a_table_of_every_kind_of_cell_compiles(
    rendered: Path, small_study: Study, tmp_path: Path
) -> None:
    """Missing cells, several seeds, estimates and marks; with intervals in the cells too."""
    (tmp_path / "cells.tex").write_text(table_tex(small_study, intervals_in_cells=True))
    log = compiled("cells.tex", tmp_path)
    assert "Overfull" not in log
    assert "too large" not in log
    shutil.copy(rendered / "table.tex", tmp_path)
    (tmp_path / "paper.tex").write_text(ARTICLE % r"\input{table}")
    assert "Overfull" not in compiled("paper.tex", tmp_path)
    assert "Overfull" not in compiled("table.tex", tmp_path)


def test_there_is_something_to_look_at() -> None:
    assert len(REPORTS) >= 4
    assert len(PAGES) >= 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_markdown_tables_are_tables(page: Path) -> None:
    """As GitHub's renderer sees them: no row falls out of its table, and every row has its cells."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = markdown.parse(page.read_text(encoding="utf-8"))
    kinds = [token.type for token in tokens]
    source = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    rules = re.findall(r"^\|(?: *:?-+:? *\|)+ *$", source, re.MULTILINE)
    assert kinds.count("table_open") == len(rules)
    rows = [line for line in source.splitlines() if line.startswith("|")]
    assert kinds.count("tr_open") == len(rows) - len(rules)
    # GitHub pads a short row and cuts a long one, without a word
    for table in re.findall(r"(?:^\|.*\n)+", source, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#", "mailto")):
            assert (page.parent / target.split("#")[0]).exists(), target
