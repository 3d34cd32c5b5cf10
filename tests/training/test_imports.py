"""What importing the trainer loads: no attack library, no plots, no report."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """The modules of a fresh process that has imported the trainer."""
    script = "import sys, benchmark.training.loop; print(*sys.modules)"
    called = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert called.returncode == 0, called.stderr
    return called.stdout.split()


@pytest.mark.parametrize(
    "unwanted",
    [
        "matplotlib",
        "benchmark.report",
        "pyautoattack",
    ],
)
def test_the_trainer_loads_only_what_it_trains_with(unwanted: str, loaded: list[str]) -> None:
    """Protects: a process that trains does not wait for libraries that it makes no use of."""
    assert "benchmark.training.loop" in loaded
    assert not [name for name in loaded if f"{name}.".startswith(f"{unwanted}.")]
