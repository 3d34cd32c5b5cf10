"""How commands print: JSON, and tables that fit a terminal or a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from benchmark.core.shorten import shorten_all

if TYPE_CHECKING:
    from benchmark.report.study_model import Study

# The first column of a table holds names; they get no more than this share of a terminal's width.
_NAMES = 0.35


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_table(
    title: str, columns: list[str], rows: list[list[str]], spare: Sequence[str] = ()
) -> None:
    """A table with lines on a terminal; elsewhere tabs between columns, without the title. Without
    rows, nothing.

    Args:
        spare: the columns that a narrow terminal does without, in this order; they are named below
            the table.
    """
    if not rows:
        return
    console = Console()
    if not console.is_terminal:
        # Nothing is cut to a width that a file or a pipe does not have.
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    names = _fitting([row[0] for row in rows], console)
    body = [list(map(escape, [names[i], *row[1:]])) for i, row in enumerate(rows)]

    def drawn(shown: Sequence[int]) -> Table:
        return _table(
            title, [columns[j] for j in shown], [[row[j] for j in shown] for row in body], "left"
        )

    needed = [j for j, column in enumerate(columns) if column not in spare]
    order = [*needed, *reversed([columns.index(column) for column in spare])]
    count = _that_fit(console, lambda shown: drawn(sorted(shown)), order, len(needed))
    console.print(drawn(sorted(order[:count])))
    if count < len(order):
        left_out = ", ".join(columns[j] for j in sorted(order[count:]))
        console.print(f"Not shown here: {left_out}; --json has them.", style="dim", markup=False)


def print_study(study: Study, intervals: bool) -> None:
    """The table of a study and its verdict.

    A terminal gets as many of the columns as its width takes, the most important ones first, and is
    told which are missing; a pipe gets all of them, with tabs between.

    Args:
        intervals: write the 95 % interval beside each accuracy.
    """
    from benchmark.report.tables import by_importance, main_cells
    from benchmark.report.verdict import verdict

    cells = main_cells(study, intervals)
    console = Console(highlight=False)
    if not console.is_terminal:
        if study.evaluated:
            rows = [[text.replace("\n", " ") for text in row] for row in cells.rows]
            print_table(study.heading, cells.head, rows)
    elif study.evaluated:
        _print_what_fits(console, study, cells.head, cells.rows, by_importance(study))
    print_text(f"\n{verdict(study)}")
    if study.limit_warning:
        print_text(study.limit_warning)
    others = len(study.findings.warnings) - bool(study.limit_warning)
    if others:
        first = next(w for w in study.findings.warnings if w not in study.limit_warning)
        print_text(f"{others} warning{'s' * (others > 1)}, see the report: {_start(first)}")
    print()


def _start(text: str) -> str:
    """The first sentence of a warning; the report has all of it."""
    sentence, more, _ = text.partition(". ")
    return sentence + (". ..." if more else "")


def print_text(text: str) -> None:
    """Running text: broken between words on a terminal, in one line elsewhere."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(text, markup=False)
    else:
        print(text)


def _print_what_fits(
    console: Console,
    study: Study,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    order: Sequence[int],
) -> None:
    """Print as many columns of ``order`` as the terminal's width takes, in the table's order."""
    names = _fitting([row[0] for row in rows], console)
    styles = {
        (i, column.title): style
        for i, row in enumerate(study.table.rows)
        for column in study.table.columns
        if (style := _STYLES.get(row.summaries[column.key].mark))
    }

    headings = [*head]
    for j, column in enumerate(study.table.columns, 2):
        most = max(row.summaries[column.key].n for row in study.table.rows)
        headings[j] += "" if column.on_images_of else f"\nn = {most:,}"

    def drawn(shown: Sequence[int]) -> Table:
        kept = [0, *sorted(shown)]
        body = [
            [
                escape(names[i]) if j == 0 else _styled(row[j], styles.get((i, head[j])))
                for j in kept
            ]
            for i, row in enumerate(rows)
        ]
        return _table(study.heading, [headings[j] for j in kept], body, "right")

    count = _that_fit(console, drawn, order, 1)
    console.print(drawn(order[:count]))
    legend = (
        "bold: highest and overlapped by no other interval; underlined: highest, but overlapped"
    )
    left_out = [head[j] for j in sorted(order[count:])]
    more = f"Not shown here: {', '.join(left_out)}; table.md has them." if left_out else ""
    if styles:
        console.print(f"Accuracies in per cent; {legend}.", style="dim")
    if more:
        console.print(more, style="dim", markup=False)


# Not every terminal has italics.
_STYLES = {"best": "bold", "tied": "underline"}


def _styled(text: str, style: str | None) -> str:
    return f"[{style}]{escape(text)}[/{style}]" if style else escape(text)


def _table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Literal["left", "right"],
) -> Table:
    """A table of marked-up texts; ``numbers``: where the columns after the first are aligned."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(
            escape(column), overflow="fold", justify=numbers if i else "left", no_wrap=not i
        )
    for row in rows:
        table.add_row(*row)
    return table


def _that_fit(
    console: Console, drawn: Callable[[Sequence[int]], Table], order: Sequence[int], least: int
) -> int:
    """How many columns of ``order`` the terminal's width takes, and ``least`` at any width.

    Args:
        drawn: the table of some columns.
    """
    count = len(order)
    while count > least and _width(console, drawn(order[:count])) > console.width:
        count -= 1
    return count


def _width(console: Console, table: Table) -> int:
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def _fitting(names: Sequence[str], console: Console) -> list[str]:
    return shorten_all(names, max(12, int(_NAMES * console.width)))
