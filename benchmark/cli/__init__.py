"""The command line: a file per command, which checks options and leaves work to ``commands``."""

from benchmark.cli.app import app, main

__all__ = ["app", "main"]
