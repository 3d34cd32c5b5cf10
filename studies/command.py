"""What the command lines of the studies share. Imports no torch: ``memory`` must stay small."""

from __future__ import annotations

import os
import sys

import typer

from benchmark.core.errors import BenchmarkError


def new_app() -> typer.Typer:
    """A command line without completion, whose tracebacks are Python's own."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def start(app: typer.Typer) -> None:
    """Run ``app``. An error that the user can put right is one line, with exit status 1."""
    try:
        app()
    except BenchmarkError as problem:
        sys.exit(f"error: {problem}")


def one_thread_environment() -> dict[str, str]:
    """The environment of this process, for a child that computes with one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}
