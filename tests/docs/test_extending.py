"""docs/extending.md, executed: a package outside the repository adds a method."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fenced_blocks import blocks
from tiny_suites import tiny

from benchmark.catalogue import methods_page

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds the plugin's files and entry points as installed."""
    site = tmp_path / "site"
    info = site / "smooth_at-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "smooth_at.py").write_text((PLUGIN / "smooth_at.py").read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smooth-at\nVersion: 0.1.0\n")
    lines = (PLUGIN / "pyproject.toml").read_text().split("entry-points.")[1].splitlines()
    group = lines[0].strip('"]')
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines[1]}\n".replace('"', ""))
    return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def bench(environment: dict[str, str], *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", *map(str, arguments)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_shows_the_package_that_is_tested() -> None:
    page = blocks(ROOT / "docs" / "extending.md")
    for name, language in (("smooth_at.py", "python"), ("pyproject.toml", "toml")):
        shown = [block.text for block in page if block.language == language]
        assert (PLUGIN / name).read_text() in shown
    lines = (PLUGIN / "smooth_at.py").read_text().splitlines()
    assert len(lines) < 80


def test_a_plugin_is_listed_trained_and_reported(installed: dict[str, str], tmp_path: Path) -> None:
    listed: Any = json.loads(bench(installed, "list", "methods", "--json"))
    (entry,) = (item for item in listed if item["name"] == "smooth-at")
    assert "onehot" in entry["description"]

    inside = {"name": "generalist-d", "learners": [
        {"name": "natural", "objective": "natural"},
        {"name": "linf", "objective": {"name": "awp", "objective": "smooth-at"}},
    ]}  # fmt: skip
    train = {"epochs": 1, "validations": 1}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(tiny(methods=["smooth-at", inside], train=train)))
    table = bench(installed, "run", suite, "--out", tmp_path / "out")
    assert "| smooth-at" in table
    assert "smooth-at" in (tmp_path / "out" / "report" / "report.md").read_text()
    (cell,) = (tmp_path / "out" / "cells").glob("smooth-at-*")
    config = json.loads((cell / "config.json").read_text())["config"]
    objective = config["method"]["recipe"]["learner"]["objective"]
    assert (objective["smoothing"], objective["threat"]["eps"]) == (0.1, "0.1")


def test_methods_page_is_up_to_date() -> None:
    """Rewrite: generalist-bench list methods --markdown > docs/methods.md"""
    assert (ROOT / "docs" / "methods.md").read_text() == methods_page()


def test_every_method_says_where_it_comes_from() -> None:
    """Equation or purpose, source, departures: what a reader needs to hold it beside its paper."""
    from benchmark.catalogue import methods

    for entry in methods():
        first = entry.doc.splitlines()[0]
        assert re.search("[:(]", first), entry.name
        assert re.search(r"\d{4}\.\d{4,5}|openreview|ICLR|ICML", entry.doc), entry.name
        assert entry.passes is not None, entry.name
