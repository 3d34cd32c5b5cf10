"""``generalist-bench submit``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import OUTPUT, DataRoot, Threads, set_threads


class Threat(str, Enum):
    """Threat models of RobustBench's leaderboards."""

    linf = "linf"
    l2 = "l2"
    corruptions = "corruptions"


def submit(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluated run.")],
    threat: Annotated[Threat, typer.Option(help="Which leaderboard.")] = Threat.linf,
    info: Annotated[
        Path | None, typer.Option(help="YAML file: id, name, authors, link, venue, ...")
    ] = None,
    draft: Annotated[
        bool,
        typer.Option("--draft", help="Write it even if it would be refused, with the reasons."),
    ] = False,
    data_root: DataRoot = Path("data"),
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: RUN/submission.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Write a submission to RobustBench, and the issue to open."""
    from benchmark.commands.submit import submit as write_bundle

    set_threads(threads, quiet=False)
    target = write_bundle(
        run_, data_root=data_root, out=out, threat=threat.value, info=info, draft=draft
    )
    print(f"bundle: {target}")
