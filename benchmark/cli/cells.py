"""What ``run`` and ``train`` have in common: their options, the plan, and the cells themselves."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import (
    COMPUTING,
    OUTPUT,
    AsJson,
    DataRoot,
    Device,
    Limit,
    Overrides,
    Quiet,
    Seeds,
    Threads,
)
from benchmark.cli.output import print_json, print_table
from benchmark.cli.report import render
from benchmark.core.errors import ConfigError, DivergenceError

if TYPE_CHECKING:
    from benchmark.commands.gpus import Sustained
    from benchmark.commands.run import Engine
    from benchmark.config.suite import SuiteConfig
    from benchmark.metrics.metric import Metric


class TrainingPrecision(str, Enum):
    """Precision of the networks' passes in training."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


@dataclass
class CellOptions:
    """Options of ``run`` and ``train``."""

    seed: Seeds = None
    set_: Overrides = None
    limit: Limit = None
    data_root: DataRoot = Path("data")
    device: Device = "auto"
    precision: Annotated[
        TrainingPrecision | None,
        typer.Option(help="Training precision.", rich_help_panel=COMPUTING),
    ] = None
    threads: Threads = None
    learner_groups: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Under torchrun: groups of processes that share the learners.",
            rich_help_panel=COMPUTING,
        ),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(help="Where results go; default: runs/NAME.", rich_help_panel=OUTPUT),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan and its cost; do nothing.", rich_help_panel=OUTPUT
        ),
    ] = False
    json_: AsJson = False
    quiet: Quiet = False
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Also write TensorBoard files.", rich_help_panel=OUTPUT),
    ] = False

    def extra(self) -> dict[str, Any]:
        """Settings of a suite that have an option of their own."""
        return {
            "dataset": {"limit": self.limit},
            "train": {"precision": self.precision.value if self.precision else None},
        }

    def folder(self, name: str) -> Path:
        """Where the results of the suite ``name`` go."""
        return self.out or Path("runs") / name


def run_cells(
    chosen: SuiteConfig,
    full: SuiteConfig,
    options: CellOptions,
    *,
    evaluate: bool,
    engine: Engine | None = None,
    intervals: bool = False,
) -> None:
    """Print the plan of ``chosen``, or train its cells and, with ``evaluate``, measure and report
    them.

    Args:
        full: the suite with all its methods and seeds.
        engine: where the cells run; None for one after another in this process.
        intervals: print the 95 % intervals, too.

    Raises:
        DivergenceError: some cells diverged; the others are finished.
    """
    from benchmark.commands.run import local_engine, pick_device, run_suite
    from benchmark.core.progress import Progress
    from benchmark.core.ranks import ranks

    out = options.folder(full.name)
    if options.dry_run:
        metrics = chosen.evaluation if evaluate else ()
        print_plan(chosen, options, metrics)
        return
    if options.tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the tensorboard package: pip install "
                "'generalist-bench[tensorboard]'"
            ) from error
    with ranks() as together:
        if engine and (together.world > 1 or options.learner_groups):
            raise ConfigError("--engine ray starts its own processes; leave out torchrun's")
        diverged = run_suite(
            chosen,
            full,
            out,
            data_root=options.data_root,
            # Ray's workers pick theirs on their own machine.
            device=options.device if engine else pick_device(options.device),
            progress=Progress(options.quiet or not together.first),
            evaluate=evaluate,
            tensorboard=options.tensorboard,
            engine=engine or local_engine,
            ranks=together,
            learner_groups=options.learner_groups,
        )
    if not together.first:
        return
    if evaluate:
        render(out, None, options.json_, intervals=intervals)
    elif options.json_:
        print_json({"out": str(out), "cells": [cell.slug for cell in chosen.cells()]})
    else:
        print(f"trained: {out}")
        print(f"next: {next_command(out, options)}")
    if diverged:
        count = f"{len(diverged)} of {len(chosen.cells())} cells diverged"
        raise DivergenceError(f"{count}; the first: {diverged[0]}")


def next_command(out: Path, options: CellOptions) -> str:
    """What measures the runs in ``out``, with the options that it needs to find their data."""
    words = ["generalist-bench", "evaluate", str(out)]
    if options.data_root != CellOptions.data_root:
        words += ["--data-root", str(options.data_root)]
    return shlex.join(words)


def print_plan(
    suite: SuiteConfig,
    options: CellOptions,
    metrics: tuple[Metric, ...],
    assumed: Sustained | None = None,
) -> None:
    """Print every cell with what it will cost on the device of the options, or on an assumed GPU.

    Args:
        metrics: to be measured after training.
    """
    import torch

    from benchmark.commands.plan import plan
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import duration
    from benchmark.data import sources
    from benchmark.data.official import official

    device = torch.device("meta") if assumed else pick_device(options.device)
    data = official(suite.dataset) if assumed else None
    data = data or sources.load(suite.dataset, options.data_root)
    for note in data.notes:
        print(note, file=sys.stderr)
    rows = plan(suite, data, options.folder(suite.name), device, metrics, assumed)
    training = sum(row["train_seconds"] for row in rows)
    evaluation = sum(row["evaluation_seconds_at_most"] for row in rows)
    if options.json_:
        print_json(
            {
                "cells": rows,
                "train_seconds": training,
                "evaluation_seconds_at_most": evaluation,
                "hardware": suite.hardware,
                "limit": suite.dataset.limit,
                "assumed": asdict(assumed) if assumed else None,
            }
        )
        return

    def time(seconds: float) -> str:
        return f"{seconds / 3600:.1f} h" if assumed else duration(seconds)

    on = assumed or device
    print_table(
        f"{suite.name}: {len(rows)} cells on {on}",
        ["cell", "recipe", "state", "steps", "gradient passes", "training", "evaluation (at most)"],
        [
            [
                row["cell"],
                row["recipe"],
                row["state"],
                str(row["steps"]),
                f"{row['gradient_passes']:,.0f}",
                time(row["train_seconds"]),
                time(row["evaluation_seconds_at_most"]),
            ]
            for row in rows
        ],
    )
    print(
        f"training {time(training)}, evaluation at most {time(evaluation)} "
        "(if every image survived every attack)"
        + (f" on {on}, which is assumed, not measured" if assumed else "")
        + (f"; limit = {suite.dataset.limit}: a trial run" if suite.dataset.limit else "")
    )
