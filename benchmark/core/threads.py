"""How many threads torch computes with: as many as there are free cores."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch

# Seconds over which the other processes' share of the cores is measured.
_LOOK = 0.2
_BY_HAND = "--threads N sets another number"


@dataclass(frozen=True)
class Threads:
    """A number of threads and where it comes from.

    Attributes:
        why: one line for the person at the keyboard.
        by_user: the user said the number, so there is nothing to tell them.
    """

    count: int
    why: str
    by_user: bool = False


def use_threads(asked: int | None = None) -> Threads:
    """Let torch compute with ``asked`` threads, or as many as ``choose`` says."""
    threads = choose(asked)
    torch.set_num_threads(threads.count)
    return threads


def choose(asked: int | None = None) -> Threads:
    """The threads that this process should use.

    Threads that outnumber the free cores wait for each other at every operation: beside one other
    busy process on two cores, two threads took up to 16 times as long as one. So unless somebody
    said otherwise (``asked``, or OMP_NUM_THREADS in the environment), it is the number of cores
    that affinity and cgroup quota allow, less those that other processes keep busy, shared among
    the processes that torchrun started on this machine; at least 1, and never more than torch is
    set to.
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
    cores = joblib.cpu_count()  # knows affinity and cgroup quotas
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
    """How many of the cores that this process may use are kept busy by others, now.

    From the kernel's counters over a moment in which this process sleeps, or if the load average is
    higher (and as many processes are runnable now), from that; the load average alone where there
    are no such counters.
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
    """Idle and total clock ticks so far of each core that this process may use; empty elsewhere
    than on Linux."""
    try:
        lines = Path("/proc/stat").read_text(encoding="utf-8").splitlines()
        mine = os.sched_getaffinity(0)
    except (OSError, AttributeError):
        return {}
    ticks = {}
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in mine:
            counts = [int(field) for field in fields[:8]]  # guests are counted in user already
            ticks[int(name[3:])] = (counts[3] + counts[4], sum(counts))
    return ticks


def _load() -> float:
    """The load average of the last minute, but not more processes than are runnable now besides
    this one: the average remembers what has just ended."""
    try:
        average = os.getloadavg()[0]
    except (OSError, AttributeError):
        return 0.0
    try:
        runnable = int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return average
    return min(average, max(0, runnable - 1))
