"""``generalist-bench interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import (
    MEASURE,
    OUTPUT,
    AsJson,
    DataRoot,
    Device,
    Metrics,
    Quiet,
    Threads,
    set_threads,
)
from benchmark.cli.output import print_json, print_table


def interpolate(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help="Folder of a trained run.")],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="Folder of another, same architecture.")
    ],
    points: Annotated[
        int,
        typer.Option(min=2, help="Points of the path, ends included.", rich_help_panel=MEASURE),
    ] = 11,
    metric: Metrics = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Default: runs/interpolate/A--B.", rich_help_panel=OUTPUT),
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the straight path in weight space between two runs, and plot it."""
    from benchmark.commands.interpolate import interpolate as evaluate_path
    from benchmark.commands.interpolate import summary
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.records.schema import read_path
    from benchmark.report import plots

    set_threads(threads, quiet)
    target = out or Path("runs/interpolate") / f"{first.name}--{second.name}"
    table = evaluate_path(
        first,
        second,
        target,
        points=points,
        only=metric or (),
        data_root=data_root,
        device=pick_device(device),
        progress=Progress(quiet),
    )
    names = read_path(target)
    plots.save(
        plots.interpolation(table, names["first"], names["second"]), target / "interpolation"
    )
    found = table.to_dict(orient="records")
    if json_:
        print_json(found)
        return
    rows = [
        [f"{row['alpha']:.2f}", row["metric"], f"{100 * row['mean']:.2f}", str(row["n"])]
        for row in found
    ]
    print_table(
        f"From {names['first']} (alpha 0) to {names['second']} (alpha 1)",
        ["alpha", "metric", "accuracy %", "n"],
        rows,
    )
    print()
    for line in summary(table):
        print(line)
    print(f"plot: {target / 'interpolation.png'}")
