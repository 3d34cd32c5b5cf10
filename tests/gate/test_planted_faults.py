"""The gate of this project's own CI: every planted fault fails it, by name; unchanged code passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "results/gate/quick.json"


@dataclass(frozen=True)
class Fault:
    """A change of one line; what must move, and a word of the likely cause."""

    file: str
    line: str
    instead: str
    moves: str
    cause: str


FAULTS = {
    "attack with half its steps": Fault(
        "benchmark/attacks/pgd.py",
        "    for _ in range(threat.steps):",
        "    for _ in range(threat.steps // 2):",
        "pgd20_linf margin",
        "fewer or smaller steps",
    ),
    "mixing ratio reversed": Fault(
        "generalist/framework.py",
        "        shares = [gamma[name] for name in here]",
        "        shares = [1 - gamma[name] for name in here]",
        "generalist-d",
        "mixing ratio",
    ),
    "KL mean instead of batchmean": Fault(
        "baselines/trades.py",
        'reduction="batchmean"',
        'reduction="mean"',
        "trades",
        "KL reduction mean for batchmean",
    ),
    "BatchNorm in train mode when attacking": Fault(
        "benchmark/core/crafting.py",
        '        model.train(batchnorm == "train")\n',
        "        model.train()\n",
        "reference network",
        "BatchNorm in train mode when attacking",
    ),
}


def check(tree: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``generalist-bench check`` of the code in ``tree``."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmark",
            "check",
            "--baseline",
            BASELINE,
            "-q",
            *map(str, arguments),
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught_and_named(name: str, tmp_path: Path) -> None:
    """Exit status 1, the figure that moved, and the likely cause."""
    fault = FAULTS[name]
    for package in ("benchmark", "baselines", "generalist"):
        shutil.copytree(ROOT / package, tmp_path / package)
    source = (tmp_path / fault.file).read_text()
    assert source.count(fault.line) >= 1
    (tmp_path / fault.file).write_text(source.replace(fault.line, fault.instead))
    called = check(tmp_path, "--json")
    assert called.returncode == 1, called.stderr
    verdict = json.loads(called.stdout)
    moved = [f"{row['subject']} {row['metric']}" for row in verdict["comparisons"] if row["moved"]]
    assert any(fault.moves in name for name in moved), moved
    assert any(fault.cause in cause for cause in verdict["causes"]), verdict["causes"]


@pytest.mark.slow
def test_unchanged_code_passes_with_another_seed(tmp_path: Path) -> None:
    """Exit status 0, and the summaries for people and for CI say so."""
    called = check(
        ROOT, "--seed", 1000, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md"
    )
    assert called.returncode == 0, called.stdout + called.stderr
    assert "nothing moved" in (tmp_path / "m.md").read_text()
    assert 'failures="0"' in (tmp_path / "j.xml").read_text()
