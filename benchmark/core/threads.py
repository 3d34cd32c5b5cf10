"""How many threads torch uses: as many as there are free cores."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch

# Seconds during which the load by other processes is measured.
_LOOK = 0.2
_BY_HAND = "--threads N sets another number"


@dataclass(frozen=True)
class Threads:
    """A number of threads and its reason.

    Attributes:
        why: the reason, in one line for the user.
        by_user: the user set the number, so the reason need not be shown.
    """

    count: int
    why: str
    by_user: bool = False


def use_threads(asked: int | None = None) -> Threads:
    """Let torch use ``asked`` threads, or the number that ``choose`` returns."""
    threads = choose(asked)
    torch.set_num_threads(threads.count)
    return threads


def choose(asked: int | None = None) -> Threads:
    """The threads that this process should use.

    If there are more threads than free cores, they wait for each other at every operation: on two
    cores, one of them busy with another process, two threads took up to 16 times as long as one. So
    unless the user sets a number (``asked``, or OMP_NUM_THREADS in the environment), the number is
    that of the cores that affinity and cgroup quota allow, minus those that other processes keep
    busy, divided by the number of processes that torchrun started on this machine; at least 1, and
    never more than torch's own setting.
    """
    here = torch.get_num_threads()
    if asked is not None:
        return Threads(asked, f"{_named(asked)} (--threads)", by_user=True)
    if os.environ.get("OMP_NUM_THREADS"):
        started = "TORCHELASTIC_RUN_ID" in os.environ
        hint = f"; torchrun sets it to 1 unless it is given; {_BY_HAND}" if started else ""
        return Threads(here, f"{_named(here)} (OMP_NUM_THREADS{hint})", by_user=not started)
    if here == 1:
        return Threads(1, f"1 thread (torch is set to it; {_BY_HAND})")
    cores = joblib.cpu_count()  # respects affinity and cgroup quotas
    busy = busy_cores()
    local = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    free = max(1, int(cores - busy + 0.5))
    count = max(1, min(here, free // local))
    total = os.cpu_count() or cores
    allowed = f"{cores} cores" + (f" allowed of {total}" if cores < total else "")
    why = f"{_named(count)}: {allowed}, other work takes about {min(busy, cores):.1f} of them"
    if local > 1:
        why += f", shared by {local} processes"
    return Threads(count, f"{why}; {_BY_HAND}")


def _named(count: int) -> str:
    return f"{count} thread" + ("s" if count > 1 else "")


def busy_cores() -> float:
    """How many of the cores that this process may use are kept busy by other processes now.

    The kernel's counters are read before and after a short sleep of this process. If the load
    average is higher (and as many processes are runnable now), it is used instead; so it is where
    there are no such counters.
    """
    before = _ticks()
    time.sleep(_LOOK)
    after = _ticks()
    load = _load()
    if not before or not after:
        return load
    idle = sum(after[core][0] - before[core][0] for core in before if core in after)
    every = sum(after[core][1] - before[core][1] for core in before if core in after)
    share = 1 - idle / every if every > 0 else 0.0
    return max(share * len(before), load)


def _ticks() -> dict[int, tuple[int, int]]:
    """Idle and total clock ticks so far of each core that this process may use; empty if the system
    is not Linux."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        mine = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return {}
    ticks = {}
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in mine:
            counts = [int(field) for field in fields[:8]]  # guest time is included in user time
            ticks[int(name[3:])] = (counts[3] + counts[4], sum(counts))
    return ticks


def _load() -> float:
    """The load average of the last minute, but at most the number of other processes that are
    runnable now, since the average still includes processes that have just ended."""
    try:
        average = os.getloadavg()[0]
    except (OSError, AttributeError):
        return 0.0
    try:
        runnable = int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return average
    return min(average, max(0, runnable - 1))
