"""AutoAttack beside the bare library: verdicts and arithmetic of the record, never its times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import cli, write_suite


@pytest.mark.slow
def test_verdicts_are_compared_and_ratios_are_of_the_seconds(tmp_path: Path) -> None:
    out = tmp_path / "out"
    called = cli("run", write_suite(tmp_path), "--out", out, "-q")
    assert called.status == 0, called.err
    (run,) = (out / "cells").iterdir()
    command = ["-m", "studies.autoattack", "judged", str(run), "--n", "3", "--repeats", "1"]
    done = subprocess.run(
        # a radius at which everything falls to the first attack
        [sys.executable, *command, "--eps", "0.5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    plain = ["pyautoattack", "pyautoattack, channels_last weights"]
    assert [(row["task"], row["reference"]) for row in rows] == [
        (task, reference) for task in ("autoattack", "autoattack-screening") for reference in plain
    ]
    for row in rows:
        assert row["n"] == 3
        assert row["flags_equal"]
        assert row["detail"]["not_confirmed"] == 0
        (ours,), (theirs,) = row["detail"]["seconds"], row["detail"]["reference_seconds"]
        assert row["ratio"] == pytest.approx(theirs / ours, abs=1e-3)
