"""``generalist-bench theory``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import OUTPUT, AsJson, DataRoot, Device, Quiet, Threads, set_threads
from benchmark.cli.output import print_json


def theory(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a run trained with train.snapshots."),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(
            metavar="OTHER",
            help="The same run without one training image (dataset.without), for stability.",
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Default: runs/theory/RUN.", rich_help_panel=OUTPUT),
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure regrets, risk bounds and stability of a run."""
    from benchmark.commands.run import pick_device
    from benchmark.commands.theory import measure_theory
    from benchmark.core.progress import Progress
    from benchmark.report.theory import write_theory_report

    set_threads(threads, quiet)
    target = out or Path("runs/theory") / run.resolve().name
    measured = measure_theory(
        run,
        other,
        target,
        data_root=data_root,
        device=pick_device(device),
        progress=Progress(quiet),
    )
    written = write_theory_report(measured, target)
    if json_:
        print_json(measured.model_dump(mode="json"))
        return
    print(written[0].read_text(encoding="utf-8"))
    for path in written:
        print(path)
