"""``generalist-bench list``."""

from __future__ import annotations

import inspect
from enum import Enum
from typing import Annotated

import typer

from benchmark.cli.options import AsJson
from benchmark.cli.output import print_json, print_table
from benchmark.core.errors import ConfigError


class Kind(str, Enum):
    """What ``list`` can list."""

    methods = "methods"
    datasets = "datasets"
    models = "models"
    metrics = "metrics"
    panels = "panels"
    suites = "suites"


def list_(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="What to list.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Whole descriptions.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The page docs/methods.md (methods only).")
    ] = False,
    json_: AsJson = False,
) -> None:
    """List methods, datasets, models, metrics, panels or suites."""
    if markdown:
        if kind is not Kind.methods:
            raise ConfigError("--markdown is for list methods")
        from benchmark.commands.catalogue import methods_page

        print(methods_page(), end="")
        return
    items = _listing(kind, verbose)
    if json_:
        print_json([{"name": name, "description": text} for name, text in items])
    elif verbose:
        for name, text in items:
            print(f"{name}\n{'-' * len(name)}\n{text}\n")
    else:
        rows = [[name, _first_paragraph(text)] for name, text in items]
        print_table(kind.value, [kind.value[:-1], "description"], rows)


def _first_paragraph(text: str) -> str:
    """In one line, without the marks of a docstring."""
    return " ".join(text.partition("\n\n")[0].replace("``", "").split())


def _listing(kind: Kind, verbose: bool) -> list[tuple[str, str]]:
    """(name, description) of everything of that kind."""
    if kind is Kind.methods:
        from benchmark.commands.catalogue import methods

        return [(entry.name, entry.text() if verbose else entry.doc) for entry in methods()]
    if kind is Kind.datasets:
        from benchmark.data.source import DATASETS

        return [(name, entry.description) for name, entry in DATASETS.items()]
    if kind is Kind.models:
        from benchmark.models.architecture import MODELS

        return [(name, entry.description) for name, entry in MODELS.items()]
    if kind is Kind.metrics:
        from benchmark.commands.catalogue import metrics

        return metrics()
    if kind is Kind.panels:
        from benchmark.config.panels import PANELS

        return [(name, inspect.getdoc(panel) or "") for name, panel in PANELS.items()]
    from benchmark.config.suite import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [
        (suite.name, f"{suite.title} ({suite.hardware})\n\n{suite.description.strip()}")
        for suite in suites
    ]
