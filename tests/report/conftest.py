"""The report of the small suite, shared by the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.records.study import SuiteRecord
from benchmark.report import render
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise


@pytest.fixture(scope="session")
def small_study(small: SuiteRecord) -> Study:
    return summarise(small)


@pytest.fixture(scope="session")
def rendered(small_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("rendered")
    render(small_out, target)
    return target
