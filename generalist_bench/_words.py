"""Turns names of command-line options in messages into names of Python arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.core.errors import BenchmarkError


@contextmanager
def in_python_words() -> Iterator[None]:
    """Errors that are raised inside say ``n_aa`` instead of ``--n-aa``."""
    try:
        yield
    except BenchmarkError as error:
        said = str(error)
        text = re.sub(r"--([a-z][a-z0-9-]*)", lambda found: found[1].replace("-", "_"), said)
        if text == said:
            raise
        raise type(error)(text) from error
