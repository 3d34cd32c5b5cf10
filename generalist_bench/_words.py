"""Messages that name options of the command line, in the words of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from benchmark.core.errors import BenchmarkError


@contextmanager
def in_python_words() -> Iterator[None]:
    """Errors raised inside say ``n_aa`` where they would say ``--n-aa``."""
    try:
        yield
    except BenchmarkError as error:
        said = str(error)
        text = re.sub(r"--([a-z][a-z0-9-]*)", lambda found: found[1].replace("-", "_"), said)
        if text == said:
            raise
        raise type(error)(text) from error
