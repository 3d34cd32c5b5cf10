"""Timing: which clock, and several ways of doing one thing in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

Work = Callable[[], object]


class Clock:
    """Seconds, as a call.

    On a CPU, it is the process's CPU time, which other processes do not affect; measure with one
    thread. On an accelerator, it is wall-clock time after the device has finished its work.

    Args:
        wall: wall-clock time on a CPU too.

    Attributes:
        name: for the record.
    """

    def __init__(self, device: torch.device, *, wall: bool = False) -> None:
        self._device = device if device.type == "cuda" else None
        self._now = time.perf_counter if wall or self._device else time.process_time
        self.name = "wall-clock" if self._now is time.perf_counter else "process CPU"

    def __call__(self) -> float:
        if self._device:
            torch.cuda.synchronize(self._device)
        return self._now()

    def of(self, work: Work) -> float:
        """Seconds that ``work`` takes."""
        started = self()
        work()
        return self() - started


class Stopwatch:
    """Adds up what parts of a program take.

    Attributes:
        seconds: by part.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time inside the block to ``name``."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - started

    def watch(self, owner: object, method: str, name: str) -> None:
        """From now on, add the time of calls of ``owner.method`` to ``name``."""
        call = getattr(owner, method)

        def watched(*arguments: object, **options: object) -> object:
            with self.part(name):
                return call(*arguments, **options)

        setattr(owner, method, watched)


def interleaved(
    ways: Mapping[str, Work],
    repeats: int,
    clock: Clock,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, list[float]]:
    """Seconds of each of the ``ways`` in each repeat. The ways take turns, so that a change of the
    machine's speed affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, work in ways.items():
            seconds[name].append(clock.of(work))
            say(f"repeat {repeat + 1}/{repeats}: {name} {seconds[name][-1]:.3g} s")
    return seconds


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """One thread on a CPU, so that its CPU time is the time of the work."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
