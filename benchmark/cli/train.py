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
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training images; default: 30.")
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            help="l_inf radius of training, e.g. 8/255 (the default); for other norms: "
            "--set threats.l2.eps=0.5."
        ),
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
        epochs=epochs,
        eps=eps,
    )
    set_threads(options.threads, options.quiet)
    full = with_earlier(suite, options.folder(suite.name))
    run_cells(suite, full, options, evaluate=False)
