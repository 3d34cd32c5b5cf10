"""``generalist-bench report``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import OUTPUT, AsJson
from benchmark.cli.output import print_json


def report(
    out: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT",
            help="A suite's folder, e.g. runs/quick; runs and networks of your own (folders that "
            "evaluate-model wrote) alone or beside it.",
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; default: OUT/report.", rich_help_panel=OUTPUT),
    ] = None,
    corruption_reference: Annotated[
        Path | None,
        typer.Option(help="CSV (corruption,severity,error) of a reference network, for mCE."),
    ] = None,
    html: Annotated[
        bool,
        typer.Option(
            "--html", help="Also one interactive page, report.html.", rich_help_panel=OUTPUT
        ),
    ] = False,
    intervals_in_cells: Annotated[
        bool,
        typer.Option(
            "--intervals-in-cells",
            help="In table.tex, each interval below its figure and not in rows of their own.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    leaderboard: Annotated[
        bool,
        typer.Option(
            "--leaderboard",
            help="One page, leaderboard.html, over all folders OUT (studies, runs, networks of "
            "your own, or folders that hold such) beside published figures; --out defaults to the "
            "current folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Render tables and plots from the records of a suite. Trains and attacks nothing."""
    if leaderboard:
        render_leaderboard(out, target or Path(), json_)
        return
    render(out[0], target, json_, corruption_reference, html, out[1:], intervals_in_cells)


def render(
    out: Path,
    target: Path | None,
    json_: bool,
    reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
    intervals_in_cells: bool = False,
) -> None:
    """Write the report of ``out`` and print its table.

    Args:
        target: folder of the report; None for ``out/report``.
        json_: print data in place of the table.
        reference: errors of a reference network under corruptions, CSV.
        beside: folders whose rows stand with the suite's.
        intervals_in_cells: of table.tex.
    """
    from benchmark.records.study import read_suite
    from benchmark.report import render as write_report
    from benchmark.report.summarise import summarise
    from benchmark.report.tables import tidy

    files = write_report(out, target, reference, html, beside, intervals_in_cells)
    if json_:
        # null for what is missing; NaN is no JSON
        rows = (
            tidy(summarise(read_suite(out, beside))).replace({"": None}).to_dict(orient="records")
        )
        print_json({"report": [str(path) for path in files], "table": rows})
        return
    table = next((path for path in files if path.name == "table.md"), None)
    if table:
        print(table.read_text(encoding="utf-8"))
    print(f"report: {files[0]}")
    if html:
        print(f"page: {next(path for path in files if path.suffix == '.html')}")


def render_leaderboard(folders: Sequence[Path], target: Path, json_: bool) -> None:
    """Write leaderboard.html to the folder ``target``.

    Args:
        json_: print the rows as data too.
    """
    from benchmark.core.files import write_text
    from benchmark.report.leaderboard import leaderboard
    from benchmark.report.leaderboard_page import leaderboard_html

    entries = leaderboard(folders)
    page = target / "leaderboard.html"
    write_text(page, leaderboard_html(entries))
    if json_:
        print_json({"page": str(page), "rows": [asdict(entry) for entry in entries]})
        return
    ours = sum(entry.ours for entry in entries)
    print(f"page: {page} ({ours} accuracies of ours, {len(entries) - ours} published)")
