"""Peak memory of a run: what is measured, never how much it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import write_suite


def test_peak_memory_is_that_of_the_run(tmp_path: Path) -> None:
    """The whole command runs in the process that is looked at, and weighs more than torch alone.
    Called in a process of its own: a child's peak is at least its parent's size."""
    suite = write_suite(tmp_path)
    command = [sys.executable, "-m", "studies.memory", str(suite), "--method", "natural"]
    done = subprocess.run([*command, "--epochs", "0.5"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["torch_gib"] > 0.05
    assert found["beyond_torch_gib"] > 0.02
    assert found["peak_gib"] == pytest.approx(
        found["torch_gib"] + found["beyond_torch_gib"], abs=2e-3
    )
