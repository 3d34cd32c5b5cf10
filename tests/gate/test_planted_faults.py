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

from benchmark.gate.baseline import read_baseline, weights_path, write_baseline

ROOT = Path(__file__).resolve().parents[2]
BASELINE = ROOT / "results/gate/quick.json"


@dataclass(frozen=True)
class Fault:
    """A change of one line; the method whose training shows it, what must move, and a word of the
    likely cause."""

    method: str
    file: str
    line: str
    instead: str
    moves: str
    cause: str


FAULTS = {
    "attack with half its steps": Fault(
        "trades",
        "benchmark/attacks/pgd.py",
        "    for _ in range(threat.steps):",
        "    for _ in range(threat.steps // 2):",
        "pgd20_linf margin",
        "fewer or smaller steps",
    ),
    "mixing ratio reversed": Fault(
        "generalist-d",
        "generalist/framework.py",
        "        shares = [gamma[name] for name in here]",
        "        shares = [1 - gamma[name] for name in here]",
        "generalist-d",
        "mixing ratio",
    ),
    "KL mean instead of batchmean": Fault(
        "trades",
        "baselines/trades.py",
        'reduction="batchmean"',
        'reduction="mean"',
        "trades",
        "KL reduction mean for batchmean",
    ),
    "BatchNorm in train mode when attacking": Fault(
        "trades",
        "benchmark/core/crafting.py",
        '        model.train(batchnorm == "train")\n',
        "        model.train()\n",
        "reference network",
        "BatchNorm in train mode when attacking",
    ),
}


def part_of_baseline(folder: Path, *methods: str) -> Path:
    """The baseline, cut down to some methods: to train one shows what the fault does."""
    whole = read_baseline(BASELINE)
    part = whole.model_copy(
        update={
            "scope": whole.scope.model_copy(update={"methods": methods}),
            "runs": tuple(run for run in whole.runs if run.label in methods),
        }
    )
    path = folder / "baseline.json"
    write_baseline(path, part)
    shutil.copy(weights_path(BASELINE), weights_path(path))
    return path


def check(tree: Path, baseline: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``generalist-bench check`` of the code in ``tree``."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmark",
            "check",
            "--baseline",
            str(baseline),
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
    called = check(tmp_path, part_of_baseline(tmp_path, fault.method), "--json")
    assert called.returncode == 1, called.stderr
    verdict = json.loads(called.stdout)
    moved = [f"{row['subject']} {row['metric']}" for row in verdict["comparisons"] if row["moved"]]
    assert any(fault.moves in name for name in moved), moved
    assert any(fault.cause in cause for cause in verdict["causes"]), verdict["causes"]


@pytest.mark.slow
def test_unchanged_code_passes_with_another_seed(tmp_path: Path) -> None:
    """Exit status 0, and the summaries for people and for CI say so."""
    summaries = ("--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    baseline = part_of_baseline(tmp_path, "trades", "generalist-d")
    called = check(ROOT, baseline, "--seed", 1000, *summaries)
    assert called.returncode == 0, called.stdout + called.stderr
    assert "nothing moved" in (tmp_path / "m.md").read_text()
    assert 'failures="0"' in (tmp_path / "j.xml").read_text()
