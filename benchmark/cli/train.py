"""``generalist-bench train``."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.cells import CellOptions, run_cells
from benchmark.cli.options import set_threads


def train(
    options: CellOptions,
    dataset: Annotated[str, typer.Option(help="Data set, see list datasets.")] = "digits",
    model: Annotated[str, typer.Option(help="Architecture, see list models.")] = "small-resnet",
    method: Annotated[
        list[str] | None,
        typer.Option(help="Method, or my_file.py:MyMethod; repeatable. Default: pgd-at."),
    ] = None,
) -> None:
    """Train methods without a suite; evaluate OUT measures them."""
    from benchmark.commands.train import training_suite, with_earlier

    suite = training_suite(
        dataset,
        model,
        method or ["pgd-at"],
        options.seed or [0],
        options.set_ or (),
        options.extra(),
    )
    set_threads(options.threads, options.quiet)
    full = with_earlier(suite, options.folder(suite.name))
    run_cells(suite, full, options, evaluate=False)
