"""``generalist-bench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import AsJson
from benchmark.cli.output import print_json, print_table


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
            row.metric,
            str(row.n),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            f"{100 * row.difference:+.1f}" + _interval(row.low, row.high),
            "-" if row.only_first is None else f"{row.only_first}/{row.only_second}",
            "-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
            row.verdict,
        ]
        for row in rows
    ]
    columns = ["metric", "n", "first %", "second %", "difference", "right alone", "p", "verdict"]
    print_table(f"{first.name} - {second.name}", columns, shown)
    for line in warnings(first, second):
        print(f"WARNING: {line}")
    print(
        "difference: percentage points with 95 % bootstrap interval over images; p: exact McNemar, "
        "adjusted by Holm's method; one trained network each, so this says nothing on other seeds"
    )


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
