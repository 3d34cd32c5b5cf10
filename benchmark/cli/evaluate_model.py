"""``generalist-bench evaluate-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.evaluation import EvaluationOptions, measure
from benchmark.cli.options import OUTPUT, Limit
from benchmark.core.files import at_home


def evaluate_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:factory, a listed architecture, a .ts, .pt2 or .onnx file, "
            "robustbench:ID, or hf:PATH_OR_ID of what export --hub wrote.",
        ),
    ],
    options: EvaluationOptions,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Its state dict; a file or an ID brings its own.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set, see list datasets; default: that of an hf: network, else cifar10."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="dataset.KEY=VALUE or model.KEY=VALUE; repeatable."),
    ] = None,
    limit: Limit = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where the record goes; default: a folder in runs/evaluate.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Evaluate a network of your own, from a file, a checkpoint or your code."""
    from benchmark.commands.evaluate_model import evaluate_model as measure_model

    spec = str(at_home(Path(model))) if model.startswith("~") else model
    measure(
        options,
        lambda request: measure_model(
            spec,
            checkpoint,
            request,
            dataset=dataset,
            limit=limit,
            out=out,
            settings=set_ or (),
        ),
    )
