"""Puts this folder on the import path (``tiny_learners``); one thread, since tiny nets gain nothing;
and a small synthetic suite."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic_records import ELEVEN, write_suite

from benchmark.records.study import SuiteRecord, read_suite

# A small suite with every difficulty: two seeds, one planned cell without folder, one whose last
# metrics line was cut off by a kill, and a part of the data only.
SMALL = {m: ELEVEN[m] for m in ("natural", "pgd-at", "joint", "generalist-d")}


def pytest_configure() -> None:
    """One thread, in child processes too. A shell starts background jobs with Ctrl-C ignored, and
    whatever they start inherits it."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_rendering(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures empty, since to render those of one report takes seconds; tests of figures are in
    tests/report/, or have the mark ``figures``."""
    if "report" in request.path.parts or request.node.get_closest_marker("figures"):
        return

    def empty(fig: Any, target: Path, **options: Any) -> None:
        Path(target).touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", empty)
    monkeypatch.setattr("matplotlib.figure.Figure.draw_without_rendering", lambda fig: None)


@pytest.fixture(scope="session")
def small_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = write_suite(
        tmp_path_factory.mktemp("small", numbered=False),
        SMALL,
        seeds=(0, 1),
        n=200,
        n_aa=100,
        limit=200,
        missing=[("joint", 1)],
        corruptions=("fog", "snow"),
    )
    curve = out / "cells" / "pgd-at-cifar10-s1" / "metrics.jsonl"
    curve.write_bytes(curve.read_bytes()[:-20])
    return out


@pytest.fixture(scope="session")
def small(small_out: Path) -> SuiteRecord:
    return read_suite(small_out)
