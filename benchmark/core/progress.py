"""Progress and time left: a bar in terminals and notebooks, plain lines from time to time
elsewhere."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from tqdm import TqdmWarning

with warnings.catch_warnings():  # tqdm warns in a notebook without widgets; a plain bar is enough
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

# Seconds between two plain lines of one task.
_PLAIN_INTERVAL = 15.0


def duration(seconds: float) -> str:
    """``95`` as ``1m35s``; hours above 48 in days, ``3d04h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    hours = whole // 3600
    if hours <= 48:
        return f"{hours}h{whole % 3600 // 60:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


class Task:
    """One piece of work of known length."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.done = name, total, done
        self._first = done
        self.started = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; ``note`` is shown beside the name."""
        self.done += count

    def resize(self, total: int) -> None:
        """Change the length of the work to ``total`` units."""
        self.total = total

    def eta(self) -> float | None:
        """Seconds left at the speed so far (work done before this process is not counted)."""
        fresh = self.done - self._first
        if not fresh:
            return None
        return (time.monotonic() - self.started) / fresh * (self.total - self.done)


class _PlainTask(Task):
    """Prints a line every ``_PLAIN_INTERVAL`` seconds; no line for work that ends sooner."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        super().__init__(name, total, done)
        self._last = self.started

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        now = time.monotonic()
        if now - self._last < _PLAIN_INTERVAL:
            return
        self._last = now
        left = self.eta()
        eta = f", {duration(left)} left" if left is not None else ""
        share = 100 * self.done / max(1, self.total)
        tail = f"  {note}" if note else ""
        print(
            f"  {self.name}: {self.done}/{self.total} ({share:.0f} %){eta}{tail}", file=sys.stderr
        )


class _BarTask(Task):
    def __init__(self, bars: RichProgress, name: str, total: int, done: int = 0) -> None:
        super().__init__(name, total, done)
        self._bars = bars
        self._id = bars.add_task(escape(name), total=total, completed=done)

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        text = f"{escape(self.name)} [dim]{escape(note)}[/dim]" if note else escape(self.name)
        self._bars.update(self._id, advance=count, description=text)

    def resize(self, total: int) -> None:
        super().resize(total)
        self._bars.update(self._id, total=total)


class _NotebookTask(Task):
    def __init__(self, bar: tqdm[Any], name: str, total: int, done: int = 0) -> None:
        super().__init__(name, total, done)
        self._bar = bar

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)

    def resize(self, total: int) -> None:
        super().resize(total)
        self._bar.total = total


class Progress:
    """Shows progress and messages. It writes to standard error, so that standard output can be
    piped."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line for the user now."""
        if self.quiet:
            return
        if self._console.is_terminal:
            self._console.print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task to be advanced inside the block."""
        if self.quiet:
            yield Task(name, total, done)
        elif self._console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
            )
            with RichProgress(*columns, console=self._console, transient=True) as bars:
                yield _BarTask(bars, name, total, done)
        elif self._console.is_jupyter:
            # rich redraws its bars in a notebook only with widgets; this one does with or without
            with tqdm(total=total, initial=done, desc=name, leave=False) as bar:
                yield _NotebookTask(bar, name, total, done)
        else:
            yield _PlainTask(name, total, done)
