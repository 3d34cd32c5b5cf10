"""SIGINT and SIGTERM while training: the loop ends after the current step, with a checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether a signal has asked training to stop: its truth value.

    Attributes:
        number: the number of the signal; 0 if none has come yet.
    """

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return bool(self.number)


@contextmanager
def interruptible(quiet: bool) -> Iterator[Interruption]:
    """Inside, the first SIGINT or SIGTERM is only recorded; a second one acts as usual."""
    interruption = Interruption()
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: object) -> None:
        interruption.number = number
        restore()
        if not quiet:
            # The signal may have come in the middle of a print, and then print would fail here.
            # os.write has no buffer, so it works.
            os.write(2, b"\nstopping once a checkpoint is written; again to stop at once\n")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    except ValueError:  # not the main thread, where alone Python allows handlers: run without one
        previous.clear()
    try:
        yield interruption
    finally:
        restore()
