"""Synthetic suites shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_records import ELEVEN, write_suite

from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import render
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise

# A small suite with every difficulty: two seeds, one planned cell without folder, one whose last
# metrics line was cut off by a kill, and a part of the data only.
SMALL = {m: ELEVEN[m] for m in ("natural", "pgd-at", "joint", "generalist-d")}


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


@pytest.fixture(scope="session")
def small_study(small: SuiteRecord) -> Study:
    return summarise(small)


@pytest.fixture(scope="session")
def rendered(small_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rendered")
    render(small_out, target)
    return target
