"""SIGINT and SIGTERM while training: the loop ends after the current step, with a checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether a signal has asked training to stop; true once one came.

    Attributes:
        number: the signal's; 0 while none has come.
    """

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return bool(self.number)


@contextmanager
def interruptible(quiet: bool) -> Iterator[Interruption]:
    """Inside, the first SIGINT or SIGTERM is noted only; the second acts as it would outside."""
    interruption = Interruption()
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: object) -> None:
        interruption.number = number
        restore()
        if not quiet:
            # os.write has no buffer. The signal may have come in the middle of a print, and
            # printing again from here would fail.
            os.write(2, b"\nstopping once a checkpoint is written; again to stop at once\n")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    except ValueError:  # Python allows handlers in the main thread only; elsewhere do without
        previous.clear()
    try:
        yield interruption
    finally:
        restore()
