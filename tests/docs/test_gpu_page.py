"""The table of cards on the page about GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_suites import cli

from benchmark.commands.gpus import GPUS, sustained

PAGE = (Path(__file__).parents[2] / "docs/gpu.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_table_is_what_the_command_gives(tmp_path: Path) -> None:
    """Hours go with one over the throughput, so one plan gives all rows."""
    options = ("--dry-run", "--tflops", 1, "--data-root", tmp_path, "--out", tmp_path / "out")
    plan = cli("run", "cifar10-resnet18-hour", *options, "--json").json()
    assert f"{sum(cell['gradient_passes'] for cell in plan['cells']):.1e}" == "7.9e+07"
    assert f"{plan['train_seconds'] * 1e12:.1e}" == "1.9e+17"
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]]
        for line in PAGE.splitlines()
        if line.split("|")[1:2] and line.split("|")[1].strip(" `") in GPUS
    ]
    assert [row[0] for row in rows] == list(GPUS)
    for name, memory, *figures in rows:
        speed = sustained(name, None, "bf16")
        assert speed is not None
        hours = (
            plan["train_seconds"] / 3600 / speed.training,
            plan["evaluation_seconds_at_most"] / 3600 / speed.evaluation,
        )
        assert int(memory) == GPUS[name].memory
        expected = (speed.training, speed.evaluation, *hours)
        assert [float(figure) for figure in figures] == pytest.approx(expected, abs=0.051)
