"""What holds for all of the code at once: types, the order of the rooms, and the recorded figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def finished(*command: str) -> None:
    """Run a program of the environment in the project's folder; its output is the failure."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_types() -> None:
    finished(sys.executable, "-m", "mypy")


def test_rooms_import_only_those_below_them() -> None:
    # what the program lint-imports runs
    run = "from importlinter.cli import lint_imports_command as command; command()"
    finished(sys.executable, "-c", run)


@pytest.mark.slow
def test_no_figure_of_the_recorded_baseline_has_moved() -> None:
    """The project's own gate, as its users run it."""
    finished(
        sys.executable, "-m", "benchmark", "check", "--baseline", "results/gate/quick.json", "-q"
    )
