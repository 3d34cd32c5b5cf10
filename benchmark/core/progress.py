"""Progress and time left: a bar in terminals and notebooks, plain lines from time to time
elsewhere."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
)
from rich.progress import Progress as RichProgress
from tqdm import TqdmWarning

from benchmark.core.shorten import shorten

with warnings.catch_warnings():  # tqdm warns in a notebook without widgets; a plain bar is enough
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

# What the bar of a task takes beside its name: the bar, counts and the time left; and how much more
# where the time for something larger stands there, too.
_BAR, _COUNTS, _LEFT, _WHOLE = 10, 15, 13, 18
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


class Whole(Protocol):
    """Something larger that tasks are parts of, such as the cells of a suite, stage by stage."""

    def begin(self, stage: str) -> None:
        """A stage is begun; tasks belong to it until it ends."""

    def end(self, stage: str, finished: bool) -> None:
        """The stage is over, or failed."""

    def left(self, task: Task) -> str:
        """The time that is left for everything while ``task`` runs, in words; "" if unknown."""


class Task:
    """One piece of work of known length.

    Attributes:
        first: units that were done before it began.
        whole: what it is a part of; None if nothing larger is known.
    """

    whole: Whole | None = None

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        self.name, self.total, self.done = name, total, done
        self.first = done
        self.started = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done; ``note`` is shown beside the name."""
        self.done += count

    def resize(self, total: int) -> None:
        """Change the length of the work to ``total`` units."""
        self.total = total

    def eta(self) -> float | None:
        """Seconds left at the speed so far (work done before this process is not counted)."""
        fresh = self.done - self.first
        if not fresh:
            return None
        return (time.monotonic() - self.started) / fresh * (self.total - self.done)

    def left(self) -> str:
        """ "20s left, suite: 3h05m", or what of it is known."""
        own = self.eta()
        parts = [f"{duration(own)} left"] if own is not None else []
        parts += [text] if self.whole and (text := self.whole.left(self)) else []
        return ", ".join(parts)


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
        left = self.left()
        eta = f", {left}" if left else ""
        share = 100 * self.done / max(1, self.total)
        tail = f"  {note}" if note else ""
        print(
            f"  {self.name}: {self.done}/{self.total} ({share:.0f} %){eta}{tail}", file=sys.stderr
        )


class _BarTask(Task):
    """Room for the name is what the console has beside bar and times; a note takes what is left."""

    def __init__(
        self, bars: RichProgress, name: str, total: int, done: int = 0, whole: Whole | None = None
    ) -> None:
        super().__init__(name, total, done)
        self._bars, self.whole = bars, whole
        beside = _BAR + _COUNTS + _LEFT + (_WHOLE if whole else 0)
        self._room = max(16, bars.console.width - beside)
        self._id = bars.add_task(
            escape(shorten(name, self._room)), total=total, completed=done, left=""
        )

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        text = escape(shorten(self.name, self._room))
        if note and len(self.name) + len(note) < self._room:
            text += f" [dim]{escape(note)}[/dim]"
        self._bars.update(self._id, advance=count, description=text, left=self.left())

    def resize(self, total: int) -> None:
        super().resize(total)
        self._bars.update(self._id, total=total)


class _NotebookTask(Task):
    def __init__(self, bar: tqdm[Any], name: str, total: int, done: int = 0) -> None:
        super().__init__(name, total, done)
        self._bar = bar

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        whole = self.whole.left(self) if self.whole else ""
        if text := ", ".join(filter(None, (note, whole))):
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(count)

    def resize(self, total: int) -> None:
        super().resize(total)
        self._bar.total = total


class Progress:
    """Shows progress and messages. It writes to standard error, so that standard output can be
    piped.

    Attributes:
        whole: what all tasks are parts of, while it is set.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.whole: Whole | None = None
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
    def stage(self, name: str) -> Iterator[None]:
        """A stage of ``whole``: the tasks inside the block belong to it."""
        if self.whole is None:
            yield
            return
        self.whole.begin(name)
        finished = False
        try:
            yield
            finished = True
        finally:
            self.whole.end(name, finished)

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator[Task]:
        """A task to be advanced inside the block."""
        if self.quiet:
            yield Task(name, total, done)
        elif self._console.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(bar_width=_BAR),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
            )
            with RichProgress(*columns, console=self._console, transient=True) as bars:
                yield _BarTask(bars, name, total, done, self.whole)
        elif self._console.is_jupyter:
            # rich redraws its bars in a notebook only with widgets; this one does with or without
            with tqdm(total=total, initial=done, desc=name, leave=False) as bar:
                shown: Task = _NotebookTask(bar, name, total, done)
                shown.whole = self.whole
                yield shown
        else:
            shown = _PlainTask(name, total, done)
            shown.whole = self.whole
            yield shown
