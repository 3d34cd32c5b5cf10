"""A mark of the process that works in a folder, so that the next start can report a crash.

A process killed by the system (too little memory) or by a fault in a library (a segmentation fault)
says nothing. Its mark stays, and the next process in the folder says what was under way.
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
    """This process's mark; ``at`` renews it.

    Attributes:
        path: None for a process that leaves none.
    """

    path: Path | None

    def at(self, stage: str) -> None:
        """From now on the process does this, in words, e.g. ``training``."""
        if self.path is not None:
            write_json(self.path, {"pid": os.getpid(), "stage": stage})


@contextmanager
def running(folder: Path, stage: str, *, mark: bool = True) -> Iterator[Running]:
    """Leave a mark in ``folder`` while the block runs; an exception or a signal that Python can
    handle removes it too. The folder must be locked by the caller (ask ``last_words`` first).

    Args:
        mark: whether this process leaves one at all.
    """
    here = Running(folder / NAME if mark else None)
    here.at(stage)
    try:
        yield here
    finally:
        if here.path is not None:
            here.path.unlink(missing_ok=True)


def last_words(folder: Path) -> str | None:
    """What is to be said about the process that died here without a word; None if none did.

    The mark is removed. Nobody else may be working in the folder.
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
        f"{folder.name}: {who} died here without a word during {stage}: it was killed, had too "
        "little memory (look into dmesg), or a library crashed. Going on from what was saved; "
        "if it dies there again, try a smaller batch size or one thread (--threads 1)"
    )
