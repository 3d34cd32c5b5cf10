"""A file that marks a folder while a process works in it, so that the next start can report a
crash.

A process that is killed by the system (too little memory) or by a fault in a library (a
segmentation fault) cannot report anything. Its mark stays, and the next process in the folder
reports what the killed one was doing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.files import write_json

NAME = ".running.json"


@dataclass
class Running:
    """The mark of this process; ``at`` updates it.

    Attributes:
        path: the file; None for a process that writes no mark.
    """

    path: Path | None

    def at(self, stage: str) -> None:
        """State what the process does from now on, for example ``training``."""
        if self.path is not None:
            write_json(self.path, {"pid": os.getpid(), "stage": stage})


@contextmanager
def running(folder: Path, stage: str, *, mark: bool = True) -> Iterator[Running]:
    """Keep a mark in ``folder`` while the block runs. It is removed at the end, also after an
    exception or a signal that Python can handle. The caller must hold the folder's lock, and call
    ``last_words`` before.

    Args:
        mark: whether this process writes a mark at all.
    """
    here = Running(folder / NAME if mark else None)
    here.at(stage)
    try:
        yield here
    finally:
        if here.path is not None:
            here.path.unlink(missing_ok=True)


def last_words(folder: Path) -> str | None:
    """A report on the last process here if it ended without an error message; else None.

    The mark is removed. No other process may be working in the folder.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        pid, stage = int(found["pid"]), str(found["stage"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pid, stage = 0, "unknown work"
    path.unlink(missing_ok=True)
    who = f"process {pid}" if pid else "a process"
    return (
        f"{folder.name}: {who} ended without an error message during {stage}: it was killed, had "
        "too little memory (see dmesg), or a library crashed. Resuming from what was saved; if it "
        "ends there again, try a smaller batch size or one thread (--threads 1)"
    )
