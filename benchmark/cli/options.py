"""Options that several commands have, and the headings that options stand under in ``--help``."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

MEASURE = "What to measure"
COMPUTING = "Data and computing"
OUTPUT = "Output"

DataRoot = Annotated[
    Path, typer.Option(help="Folder that holds the data sets.", rich_help_panel=COMPUTING)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=COMPUTING)]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="CPU threads; default: OMP_NUM_THREADS, else the free cores.",
        rich_help_panel=COMPUTING,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=2, help="Cap on images per split, for smoke tests; shown in every table."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="Only this method (fat@authors: by its authors' recipe; my_file.py:MyMethod: one of "
        "your own); repeatable.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric", help="Only this metric, e.g. clean; repeatable.", rich_help_panel=MEASURE
    ),
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed; repeatable.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, e.g. train.epochs=3; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON.", rich_help_panel=OUTPUT)]
Intervals = Annotated[
    bool,
    typer.Option(
        "--intervals", help="Print 95 % intervals beside the accuracies.", rich_help_panel=OUTPUT
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT)]


class Precision(str, Enum):
    """Precision of the networks' passes."""

    fp32 = "fp32"
    bf16 = "bf16"


def set_threads(asked: int | None, quiet: bool) -> None:
    """Choose torch's threads before anything is computed or estimated, and say how many unless the
    user did."""
    from benchmark.core.progress import Progress
    from benchmark.core.threads import use_threads

    chosen = use_threads(asked)
    quiet = quiet or chosen.by_user or os.environ.get("RANK", "0") != "0"
    Progress(quiet).say(f"threads: {chosen.why}")
