"""``generalist-bench train``."""

from __future__ import annotations

from typing import Annotated, Any

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
    """Train methods without a suite. Measure the result by evaluate OUT."""
    from benchmark.config.suite import build_suite

    base: dict[str, Any] = {
        "name": f"train-{dataset}",
        "title": f"Methods on {dataset}",
        "dataset": {"name": dataset},
        "model": {"name": model},
        "methods": method or ["pgd-at"],
        "seeds": options.seed or [0],
    }
    suite = build_suite(base, options.set_ or (), options.extra())
    set_threads(options.threads, options.quiet)
    run_cells(suite, suite, options, evaluate=False)
