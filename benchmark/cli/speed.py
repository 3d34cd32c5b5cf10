"""``generalist-bench speed``."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import AsJson, Device, Precision, Quiet
from benchmark.cli.output import print_json, print_table


def speed(
    model: Annotated[
        list[str] | None, typer.Option(help="Architecture; default: small-resnet, resnet18.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task, e.g. pgd-at or pgd-20; repeatable."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="For our passes.")] = Precision.fp32,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats; results are medians.")] = 3,
    batch_size: Annotated[int | None, typer.Option(min=4, help="Default: 128; quick: 16.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds, for a first look.")] = False,
    device: Device = "auto",
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure training steps and attacks; compare with plain loops, other libraries, the limit."""
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.speed.measure import measure, options, tables

    asked = options(model or (), task or (), precision.value, repeats, batch_size, quick)
    document = measure(asked, pick_device(device), Progress(quiet))
    if json_:
        print_json(document)
        return
    for title, columns, rows in tables(document):
        print_table(title, columns, rows)
    for line in document["left_out"]:
        print(f"left out: {line}")
