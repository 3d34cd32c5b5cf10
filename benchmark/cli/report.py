"""``generalist-bench report``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import OUTPUT, AsJson, Intervals
from benchmark.cli.output import print_json, print_study
from benchmark.core.errors import ConfigError


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
    map_: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--map",
            metavar="ROW COLUMN",
            help="Over several studies OUT: how far the Generalist is above the front of its "
            "rivals, by two settings such as model.width and dataset.train_limit; --out defaults "
            "to the current folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    ranks: Annotated[
        bool,
        typer.Option(
            "--ranks",
            help="Over at least three studies OUT: mean ranks of the methods that all have, and a "
            "critical-difference diagram; --out defaults to the current folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    intervals: Intervals = False,
    json_: AsJson = False,
) -> None:
    """Render tables and plots from the records of a suite. Trains and attacks nothing."""
    given = {"--leaderboard": leaderboard, "--map": map_, "--ranks": ranks}
    if sum(map(bool, given.values())) > 1:
        raise ConfigError(f"give one of {', '.join(given)} at a time")
    if ranks:
        render_ranks(out, target or Path(), json_)
        return
    if map_:
        render_map(out, map_, target or Path(), json_)
        return
    if leaderboard:
        render_leaderboard(out, target or Path(), json_)
        return
    render(
        out[0],
        target,
        json_,
        intervals=intervals,
        reference=corruption_reference,
        html=html,
        beside=out[1:],
        intervals_in_cells=intervals_in_cells,
    )


def render(
    out: Path,
    target: Path | None,
    json_: bool,
    *,
    intervals: bool = False,
    reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
    intervals_in_cells: bool = False,
) -> None:
    """Write the report of ``out``, and print its table, its verdict and where it lies.

    Args:
        target: folder of the report; None for ``out/report``.
        json_: print data in place of the table.
        intervals: print the 95 % intervals, too.
        reference: errors of a reference network under corruptions, CSV.
        beside: folders whose rows stand with the suite's.
        intervals_in_cells: of table.tex.
    """
    from benchmark import report as reports
    from benchmark.report.tables import tidy
    from benchmark.report.verdict import verdict

    study, files = reports.render(out, target, reference, html, beside, intervals_in_cells)
    if json_:
        # null for what is missing; NaN is no JSON
        rows = tidy(study).replace({"": None}).to_dict(orient="records")
        paths = [str(path) for path in files]
        print_json({"report": paths, "verdict": verdict(study), "table": rows})
        return
    print_study(study, intervals)
    if not study.evaluated:
        print(f"next: {shlex.join(['generalist-bench', 'evaluate', str(out)])}")
    print(f"report: {files[0]}")
    for kind, name in (("plot", "tradeoff.png"), ("page", "report.html")):
        for path in files:
            if path.name == name and (html or kind == "plot"):
                print(f"{kind}: {path}")


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


def render_map(
    folders: Sequence[Path], settings: tuple[str, str], target: Path, json_: bool
) -> None:
    """Write map.md, map.csv and the figure to the folder ``target``.

    Args:
        settings: of the rows and of the columns.
        json_: print the places as data too.
    """
    from benchmark.records.study import read_suite
    from benchmark.report.regime_map import frame_of, regime_map, summary, write_map

    found = regime_map([read_suite(folder) for folder in folders], *settings)
    files = write_map(found, target)
    if json_:
        rows = json.loads(frame_of(found).to_json(orient="records"))
        print_json({"map": [str(path) for path in files], "places": rows})
        return
    print(summary(found))
    print(f"map: {files[0]}")


def render_ranks(folders: Sequence[Path], target: Path, json_: bool) -> None:
    """Write ranks.md, ranks.csv and the figure to the folder ``target``.

    Args:
        json_: print the mean ranks as data too.
    """
    from benchmark.records.study import read_suite
    from benchmark.report.study_ranks import study_ranks, write_study_ranks

    found = study_ranks([read_suite(folder) for folder in folders])
    files = write_study_ranks(found, target)
    if json_:
        ranks = {one.score: dict(one.mean) for one in found.ranks}
        print_json({"ranks": [str(path) for path in files], "mean_ranks": ranks})
        return
    for one in found.ranks:
        print(f"{one.heading}: {', '.join(f'{m} {rank:.2g}' for m, rank in one.mean.items())}")
    print(f"ranks: {files[0]}")
