"""``generalist-bench check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import (
    OUTPUT,
    AsJson,
    DataRoot,
    Device,
    Quiet,
    Seeds,
    Threads,
    set_threads,
)
from benchmark.cli.output import print_json, print_table, print_text

if TYPE_CHECKING:
    from benchmark.gate.verdict import Verdict


def check(
    run_: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder of a finished suite; default: run it now."),
    ] = None,
    baseline: Annotated[Path, typer.Option(help="The recorded baseline (.json).")] = Path(
        "baseline.json"
    ),
    seed: Seeds = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write a JUnit XML file.", rich_help_panel=OUTPUT)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the summary there.", rich_help_panel=OUTPUT)
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare the present code with a recorded baseline; exit status 1 if something changed or if
    the settings are not those of the baseline."""
    from dataclasses import asdict

    from benchmark.commands.check import check as hold_against
    from benchmark.commands.run import pick_device
    from benchmark.core.files import write_text
    from benchmark.core.progress import Progress
    from benchmark.gate import summary

    where = pick_device(device)
    set_threads(threads, quiet)
    verdict, kept = hold_against(
        baseline,
        run=run_,
        seeds=seed or (),
        data_root=data_root,
        device=where,
        progress=Progress(quiet),
    )
    text = summary.markdown(verdict, kept)
    if markdown:
        write_text(markdown, text)
    if junit:
        write_text(junit, summary.junit(verdict, kept))
    if json_:
        rows = [{**asdict(item), "moved": item.moved} for item in verdict.comparisons]
        print_json(
            {
                "moved": len(verdict.moved),
                "causes": verdict.causes,
                "other_settings": verdict.other_settings,
                "comparisons": rows,
            }
        )
    else:
        _print(verdict)
    if not verdict.passed:
        raise typer.Exit(1)


def _print(verdict: Verdict) -> None:
    """The table, then what moved, whether the settings are the baseline's, and likely causes."""
    from benchmark.gate.summary import difference, headline, moved_text

    print_table(
        "Check",
        ["subject", "metric", "baseline", "now", "difference", "p"],
        [
            [
                # which network it is, the file of the baseline says
                item.subject.partition(" (")[0],
                item.metric,
                f"{item.before:.4g}",
                f"{item.now:.4g}",
                "identical"
                if difference(item) == "identical"
                else f"{item.now - item.before:+.3g}",
                f"{item.p:.2g}" if item.tested else "-",
            ]
            for item in verdict.comparisons
        ],
        spare=("p",),
    )
    print_text(f"\n{headline(verdict)}")
    for item in verdict.moved:
        print_text(f"moved: {moved_text(item)}")
    if verdict.other_settings:
        print_text(f"other settings: {verdict.other_settings}")
    for cause in verdict.causes:
        print_text(f"likely cause: {cause}")
