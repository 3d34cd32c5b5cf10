"""``generalist-bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import AsJson
from benchmark.cli.output import print_json, print_table, print_text


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="FIRST", help="Folder of an evaluated run, or of a network of your own."
        ),
    ],
    second: Annotated[
        Path, typer.Argument(metavar="SECOND", help="Folder of another one, same test images.")
    ],
    json_: AsJson = False,
) -> None:
    """Compare two networks on the same images: paired differences and exact tests."""
    from benchmark.report.compare import as_records, warnings
    from benchmark.report.compare import compare as compare_runs

    rows = compare_runs(first, second)
    if json_:
        print_json(as_records(rows))
        return
    shown = [
        [
            row.metric.replace(" on the images of ", " on "),  # in full with its verdict
            str(row.n),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            f"{100 * row.difference:+.1f}",
            _interval(row.low, row.high),
            "-" if row.only_first is None else f"{row.only_first}/{row.only_second}",
        ]
        for row in rows
    ]
    columns = ["metric", "n", "first", "second", "difference", "95 % interval", "right alone"]
    title = f"Accuracy in per cent; first: {first.name}, second: {second.name}"
    print_table(title, columns, shown, spare=("right alone",))
    for row in rows:
        print_text(f"{row.metric}: {row.verdict}{_p(row.p)}")
    print()
    for line in warnings(first, second):
        print_text(f"WARNING: {line}")
    print_text(
        "difference: percentage points, interval by the bootstrap over images; p: exact McNemar "
        "test, adjusted by Holm's method; one trained network each, so this says nothing on other "
        "seeds"
    )


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def _p(p: float | None) -> str:
    return "" if p is None else " (p < 0.001)" if p < 0.001 else f" (p = {p:.3f})"
