"""Two processes beside one: both are trained, and ratios are those of their seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_one_and_two_processes_are_trained_and_compared() -> None:
    command = ["-m", "studies.processes", "--dataset", "digits", "--task", "pgd-at"]
    command += ["--limit", "64", "--epochs", "0.5", "--repeats", "1"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["grid"]["data"] == 2
    (one,), (two,) = row["seconds"]["one"], row["seconds"]["two"]
    assert row["ratio"] == pytest.approx(two / one, abs=1e-3)
    (one,), (two,) = row["seconds"]["train_one"], row["seconds"]["train_two"]
    assert row["train_ratio"] == pytest.approx(two / one, abs=1e-3)
