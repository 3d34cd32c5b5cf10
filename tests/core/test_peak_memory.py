"""The peak of memory that a training is recorded with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_suites import cli, write_suite

from benchmark.core import memory
from benchmark.core.memory import PeakMemory
from benchmark.records.study import read_suite
from benchmark.report.summary import costs_of

CPU = torch.device("cpu")
MEGABYTE = 10**6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts on Linux alone")
def test_the_peak_is_that_since_counting_began() -> None:
    """Protects: a small run after a large one in one process would get the large one's peak."""
    before = PeakMemory(CPU)
    assert before.bytes is not None
    held = torch.ones(200 * MEGABYTE, dtype=torch.uint8)
    large = before.bytes
    del held
    after = PeakMemory(CPU)
    assert after.bytes is not None
    assert after.bytes < large - 100 * MEGABYTE
    assert before.bytes == after.bytes, "there is one count in a process"


def test_where_it_cannot_be_counted_nothing_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where it can, the largest network of a run shows in its table."""
    suite = write_suite(tmp_path, methods=["natural"])
    assert cli("run", suite, "--out", tmp_path / "known", "-q").status == 0
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no-such-folder" / "clear_refs")
    assert cli("run", suite, "--out", tmp_path / "unknown", "-q").status == 0
    for name, shown in (("known", sys.platform.startswith("linux")), ("unknown", False)):
        (record,) = (tmp_path / name).glob("cells/*/training.json")
        peak = json.loads(record.read_text()).get("peak_memory")
        costs = {cost.key: cost for cost in costs_of(read_suite(tmp_path / name))}
        assert (peak is not None) == ("memory" in costs) == shown
        if shown:
            assert costs["memory"].values["natural"] == pytest.approx(peak / 1e9)
        said = "Memory: peak of training" in (tmp_path / name / "report/table.md").read_text()
        assert said == shown
