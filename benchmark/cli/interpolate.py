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
        Path | None,
        typer.Argument(
            metavar="SECOND",
            help="Folder of another, same architecture; without it, the base learners of FIRST.",
        ),
    ] = None,
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
        typer.Option(help="Default: runs/interpolate/A--B, or A.", rich_help_panel=OUTPUT),
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate mixtures of the weights of two runs, or of one run's learners.

    With two networks the path between them is plotted. A report that is given OUT beside its suite
    draws the mixtures as a front.
    """
    from benchmark.commands.interpolate import interpolate as evaluate_path
    from benchmark.commands.interpolate import summary
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.records.schema import read_path
    from benchmark.report import plots

    set_threads(threads, quiet)
    between = "--".join(run.resolve().name for run in (first, second) if run)
    target = out or Path("runs/interpolate") / between
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
    ends = read_path(target)["ends"]
    drawn = len(ends) == 2  # a path has one axis
    if drawn:
        plots.save(plots.interpolation(table, *ends), target / "interpolation")
    found = table.to_dict(orient="records")
    if json_:
        print_json(found)
        return
    shares = [column for column in table.columns if column not in ("metric", "n", "mean")]
    rows = [
        [
            *(f"{row[share]:.2f}" for share in shares),
            str(row["metric"]),
            f"{100 * row['mean']:.2f}",
            str(row["n"]),
        ]
        for row in found
    ]
    title = f"From {ends[0]} (alpha 0) to {ends[1]} (alpha 1)" if drawn else "Mixtures"
    print_table(title, [*map(str, shares), "metric", "accuracy %", "n"], rows)
    print()
    for line in summary(table):
        print(line)
    print(f"plot: {target / 'interpolation.png'}" if drawn else f"table: {target}")
