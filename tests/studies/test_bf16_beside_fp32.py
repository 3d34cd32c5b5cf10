"""bf16 beside fp32: the comparison trains both, on the same seeds and images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_suites import write_suite


@pytest.mark.slow
def test_both_precisions_are_trained_and_compared(tmp_path: Path) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("bf16 on a CPU needs oneDNN")
    suite = write_suite(tmp_path, methods=["pgd-at"], evaluation=[
        {"kind": "clean"},
        {"kind": "pgd", "name": "pgd20_linf",
         "threat": {"norm": "linf", "eps": 0.1, "step": 0.025, "steps": 20}},
    ])  # fmt: skip
    command = ["-m", "studies.precision", "--suite", str(suite), "--method", "pgd-at"]
    command += ["--seed", "0", "--seed", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["method"], row["metric"]) for row in rows] == [
        ("pgd-at", "clean"),
        ("pgd-at", "pgd20_linf"),
    ]
    for row in rows:
        assert row["n"] == 64
        assert len(row["fp32"]) == len(row["bf16"]) == 2
        gap = sum(row["bf16"]) / 2 - sum(row["fp32"]) / 2
        assert row["difference"] == pytest.approx(gap, abs=0.02)
        assert row["low"] <= row["difference"] <= row["high"]
    for precision in ("fp32", "bf16"):
        for config in (tmp_path / "out" / precision / "cells").glob("*/config.json"):
            assert json.loads(config.read_text())["config"]["train"]["precision"] == precision
