"""The check of a GPU machine, from end to end in tiny form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmark.core.errors import BenchmarkError
from studies import gpu_check

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_on_a_cpu_in_tiny_form(tmp_path: Path) -> None:
    """Every part is there; where there is no GPU, its tests are skipped and count as that."""
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "studies.gpu_check", "--tiny", "--device", "cpu", "--out", out],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["failed"] == {}
    assert found["environment"]["device"] == "cpu"
    assert list(found["parts"]) == ["tests", "speed small-resnet", "cell"]
    tests = found["parts"]["tests"]
    assert tests["passed"] + tests["skipped"] >= 3
    speed = found["parts"]["speed small-resnet"]
    assert {row["task"] for row in speed["rows"]} == {"pgd-at", "pgd-20"}
    for row in speed["passes"]:
        sustained = speed["sustained_tflops"][f"{row['kind']} {row['precision']}"]
        rate = speed["gemm_gflop_per_s"][row["precision"]] / 1e3
        assert sustained == pytest.approx(row["share_of_gemm_rate"] * rate, rel=0.1, abs=2e-3)
    cell = found["parts"]["cell"]
    assert cell["images"] == 40
    assert cell["gradient_passes"] == 40 * 9  # 1 natural; 7 crafting steps and 1 robust
    assert set(cell["accuracies"]) == {"clean", "pgd20_linf"}


def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: Any) -> None:
    """And the file has what was done, with the reason for the rest."""

    def broken(*arguments: object) -> dict[str, Any]:
        raise BenchmarkError("not over after 480 seconds")

    monkeypatch.setattr(gpu_check, "speed", broken)
    monkeypatch.setattr(gpu_check, "tests", lambda tiny: {"failed": []})
    monkeypatch.setattr(gpu_check, "cell", lambda *arguments: {"seconds": 1.0})
    out = tmp_path / "gpu.json"
    with pytest.raises(BenchmarkError, match="not all is well"):
        gpu_check.main(out=out, data_root=None, device="cpu", tiny=False)
    found = json.loads(out.read_text())
    assert set(found["parts"]) == {"tests", "cell"}
    assert set(found["failed"]) == {"speed resnet18", "speed wrn-28-10"}


def test_counts_of_tests() -> None:
    report = ElementTree.fromstring(
        '<testsuites><testsuite><testcase classname="a" name="one"/><testcase classname="a" '
        'name="two"><failure/></testcase><testcase classname="a" name="three"><skipped/>'
        "</testcase></testsuite></testsuites>"
    )
    assert gpu_check.counts(report) == {"passed": 1, "skipped": 1, "failed": ["a::two"]}


def test_files_with_gpu_tests_are_all_run() -> None:
    """Protects: a file with tests for a GPU that the check never runs."""
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.name != Path(__file__).name and "mark.gpu" in path.read_text(encoding="utf-8")
    }
    assert marked == set(gpu_check.TESTS)
