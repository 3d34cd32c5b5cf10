"""Clean repeats of the gate: seeds of the baseline are refused, others are counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import cli, write_suite


@pytest.mark.slow
def test_repeats_are_counted_and_the_baseline_s_seeds_refused(tmp_path: Path) -> None:
    suite, baseline = write_suite(tmp_path), tmp_path / "gate.json"
    record = ["--suite", suite, "--reason", "first", "-q"]
    seeds = [part for seed in range(4) for part in ("--seed", seed)]
    assert cli("record-baseline", baseline, *record, *seeds).status == 0

    def repeated(first: int) -> subprocess.CompletedProcess[str]:
        command = ["-m", "studies.gate_repeats", "--baseline", str(baseline)]
        command += ["--repeats", "2", "--first-seed", str(first)]
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False
        )

    assert "seed 3" in repeated(3).stderr
    done = repeated(10)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["seed"] for row in told["rows"]] == [10, 11]
    assert told["alarms"] == sum(bool(row["moved"]) for row in told["rows"])
