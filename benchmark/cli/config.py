"""``generalist-bench config``."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmark.cli.options import Limit, Methods, Overrides, Seeds


def config(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name, or a YAML file.")],
    method: Methods = None,
    seed: Seeds = None,
    set_: Overrides = None,
    limit: Limit = None,
) -> None:
    """Print a suite with all its settings, as a file for run."""
    import yaml

    from benchmark.config.suite import load_suite

    full = load_suite(suite, set_ or (), {"dataset": {"limit": limit}})
    chosen = full.only(method or (), seed or ())
    print(yaml.safe_dump(chosen.resolved(), sort_keys=False, allow_unicode=True), end="")
