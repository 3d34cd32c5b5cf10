"""docs/cluster.md: its scripts are valid shell, its table is what the command prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from fenced_blocks import blocks
from tiny_suites import cli

PATH = Path(__file__).parents[2] / "docs" / "cluster.md"
PAGE = PATH.read_text()
SCRIPTS = [block.text for block in blocks(PATH) if block.language in ("sh", "bash")]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_scripts_are_valid_shell() -> None:
    assert len(SCRIPTS) == 5
    for script in SCRIPTS:
        done = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), script


def test_the_methods_of_the_scripts_are_those_of_the_suites() -> None:
    from benchmark.config.suite import load_suite

    lists = re.findall(r"methods=\((.*?)\)", PAGE, re.DOTALL)
    assert len(lists) == 2
    for suite, names in zip(("cifar10-resnet18", "imagenet-resnet50"), lists, strict=True):
        assert names.split() == [entry.label for entry in load_suite(suite).methods]
        assert len(load_suite(suite).cells()) == 48  # --array=0-47


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["cifar10-resnet18", "imagenet-resnet50"])
def test_the_table_is_what_the_command_gives(suite: str, tmp_path: Path) -> None:
    """Without the data, and without a GPU."""
    options = ("--dry-run", "--tflops", 60, "--data-root", tmp_path, "--out", tmp_path / "out")
    plan = cli("run", suite, *options, "--json").json()
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{suite}`"))
    _, _, passes, training, evaluation, *cells, _ = (cell.strip() for cell in row.split("|"))

    def hours(seconds: float) -> str:
        return f"{seconds / 3600:.1f}"

    assert float(passes) == pytest.approx(
        sum(cell["gradient_passes"] for cell in plan["cells"]), rel=0.03
    )
    assert training == hours(plan["train_seconds"])
    assert evaluation == hours(plan["evaluation_seconds_at_most"])
    for label, text in zip(("pgd-at", "generalist-d", "generalist-t"), cells, strict=True):
        (cell,) = (c for c in plan["cells"] if re.match(rf"{label}-s0-\w{{10}}$", c["cell"]))
        parts = (cell["train_seconds"], cell["evaluation_seconds_at_most"])
        assert text == " + ".join(map(hours, parts))
