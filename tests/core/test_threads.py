"""Threads: as many as there are free cores, unless somebody said otherwise."""

from __future__ import annotations

import pytest
import torch

from benchmark.core import threads
from benchmark.core.threads import choose


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, all of them torch's, and nobody else there."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(threads, "busy_cores", lambda: 0.0)


@pytest.mark.parametrize(
    ("busy", "count"), [(0.0, 8), (0.3, 8), (1.0, 7), (6.8, 1), (8.0, 1), (30.0, 1)]
)
def test_busy_cores_are_left_to_others(
    busy: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: ``quick --method natural`` took 8m21 instead of 31 s beside other work."""
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    chosen = choose()
    assert chosen.count == count
    assert f"8 cores, other work takes about {min(busy, 8):.1f} of them" in chosen.why.replace(
        " allowed of", ""
    )


def test_affinity_and_quota_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 2)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 64)
    assert choose().count == 2
    assert "2 cores allowed of 64" in choose().why


def test_torchrun_shares_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose().count == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert choose().count == 1


def test_what_somebody_said_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: 8.0)
    assert choose(5).count == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert choose().count == 8
    assert choose(3).count == 3
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert "torchrun sets it to 1" in choose().why


def test_torch_is_never_given_more_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that set torch to one thread keeps it, and nothing needs to be measured."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(threads, "busy_cores", lambda: pytest.fail("measured"))
    assert choose().count == 1


def test_other_processes_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the kernel's ticks now; the load average counts while as many are runnable."""
    ticks = iter([{0: (0, 0), 1: (0, 0)}, {0: (20, 20), 1: (5, 20)}])
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_LOOK", 0.0)
    monkeypatch.setattr(threads, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(threads, "_load", lambda: 0.0)
    assert threads.busy_cores() == pytest.approx(0.75)
    monkeypatch.setattr(threads, "_ticks", dict)
    monkeypatch.setattr(threads, "_load", lambda: 1.5)
    assert threads.busy_cores() == 1.5
