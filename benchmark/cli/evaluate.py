"""``generalist-bench evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.evaluation import EvaluationOptions, measure
from benchmark.core.errors import ConfigError

_OTHER = "Another test set"


def evaluate(
    run_: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of trained runs, or a suite's folder."),
    ],
    options: EvaluationOptions,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Measure on the test images of this data set; recorded separately.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of --dataset, dataset.KEY=VALUE; repeatable.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cap on the images of --dataset, for smoke tests; shown in every table.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
) -> None:
    """Evaluate trained runs by other metrics, attacks or test images."""
    from benchmark.commands.evaluate import OtherTestSet, evaluate_runs

    if dataset is None:
        wrong = next((name for name, value in (("--set", set_), ("--limit", limit)) if value), None)
        if wrong:
            raise ConfigError(
                f"{wrong} is for another test set: add --dataset, or remove {wrong}, since "
                "trained runs have their own test set"
            )
    other = OtherTestSet(dataset, set_ or (), limit) if dataset else None
    measure(options, lambda request: evaluate_runs(run_, request, other))
