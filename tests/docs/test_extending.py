"""docs/extending.md, executed: a package outside the repository adds a method."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tomllib
import yaml
from fenced_blocks import blocks
from tiny_suites import tiny

from benchmark.commands.catalogue import methods_page

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"
MODULES = ["smooth_at.py", "corners.py", "calibration.py"]


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds the plugin's files and entry points as installed."""
    site = tmp_path / "site"
    info = site / "smooth_at-0.1.0.dist-info"
    info.mkdir(parents=True)
    for file in MODULES:
        (site / file).write_text((PLUGIN / file).read_text())
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smooth-at\nVersion: 0.1.0\n")
    groups = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    paths = os.pathsep.join(map(str, (site, ROOT, ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


# Several commands in one process, since a start takes seconds; prints their outputs as JSON.
COMMANDS = """
import json, sys
from tiny_suites import cli
outputs = []
for arguments in json.loads(sys.argv[1]):
    called = cli(*arguments)
    if called.status:
        sys.exit(called.err)
    outputs.append(called.out)
print(json.dumps(outputs))
"""


def bench(environment: dict[str, str], *commands: Sequence[object]) -> list[str]:
    """What each command prints, in a process that finds the plugin as installed."""
    listed = json.dumps([[str(argument) for argument in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, listed],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs: list[str] = json.loads(done.stdout)
    return outputs


def test_the_page_shows_the_package_that_is_tested() -> None:
    page = blocks(ROOT / "docs" / "extending.md")
    for names, language in ((MODULES[:2], "python"), (["pyproject.toml"], "toml")):
        shown = [block.text for block in page if block.language == language]
        assert all((PLUGIN / name).read_text() in shown for name in names)
    text = (ROOT / "docs" / "extending.md").read_text()
    for name, file, most in zip(
        ("smooth-at", "corners", "ece"), MODULES, (80, 60, 60), strict=True
    ):
        lines = len((PLUGIN / file).read_text().splitlines())
        assert lines <= most
        assert re.search(rf"^\| .*`{name}`.* \| 1 \| {lines} \| 1 \|$", text, re.MULTILINE)


def test_a_plugin_is_listed_trained_and_reported(installed: dict[str, str], tmp_path: Path) -> None:
    inside = {"name": "generalist-d", "learners": [
        {"name": "natural", "objective": "natural"},
        {"name": "linf", "objective": {"name": "awp", "objective": "smooth-at"}},
    ]}  # fmt: skip
    train = {"epochs": 1, "validations": 1}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump(tiny(methods=["smooth-at", inside], train=train)))
    listed, table = bench(
        installed, ("list", "methods", "--json"), ("run", suite, "--out", tmp_path / "out")
    )
    (entry,) = (item for item in json.loads(listed) if item["name"] == "smooth-at")
    assert "onehot" in entry["description"]
    assert "\nsmooth-at" in table
    assert "smooth-at" in (tmp_path / "out" / "report" / "report.md").read_text()
    (cell,) = (tmp_path / "out" / "cells").glob("smooth-at-*")
    record = json.loads((cell / "config.json").read_text())
    assert record["family"] == "adversarial training"
    objective = record["config"]["method"]["recipe"]["learner"]["objective"]
    assert (objective["smoothing"], objective["threat"]["eps"]) == (0.1, "0.1")


def test_metrics_of_a_plugin_appear_everywhere(installed: dict[str, str], tmp_path: Path) -> None:
    """Protects: an attack and a metric that is no accuracy need their file alone: the run, its
    plan, every table, the page and the comparison have them."""
    cheap = [{"kind": "clean", "n": 60}]
    own = [{"kind": "corners", "eps": 0.1, "tries": 3, "n": 40}, {"kind": "ece", "n": 60}]
    train = {"epochs": 1, "validations": 1}
    suites = {}
    for name, evaluation in (("cheap", cheap), ("both", cheap + own)):
        suites[name] = tmp_path / f"{name}.yaml"
        settings = tiny(methods=["natural"], seeds=[0, 1], train=train, evaluation=evaluation)
        suites[name].write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    plans = [("run", suite, "--out", out, "--dry-run", "--json") for suite in suites.values()]
    run = ("run", suites["both"], "--out", out)
    listed, *printed_plans, printed, _ = bench(
        installed, ("list", "metrics", "--json"), *plans, run, ("report", out, "--html")
    )
    assert {"corners", "ece"} <= {item["name"] for item in json.loads(listed)}
    cheaper, dearer = (_evaluation_seconds(json.loads(plan)) for plan in printed_plans)
    assert dearer > 2 * cheaper > 0

    report = out / "report"
    page = (report / "report.html").read_text()
    tables = [printed, page, *((report / f"table.{end}").read_text() for end in ("md", "tex"))]
    for text in tables:
        assert "Corners" in text
        assert "ECE" in text
    rows = pd.read_csv(report / "table.csv").set_index("metric")
    assert list(rows.index) == ["clean", "corners3_linf", "ece"]
    assert rows.loc["ece", "low"] < rows.loc["ece", "mean"] < rows.loc["ece", "high"]
    assert "3 random corners" in (report / "report.md").read_text()
    assert "expected calibration error, 15 bins" in (report / "report.md").read_text()

    runs = sorted((out / "cells").iterdir())
    (compared,) = bench(installed, ("compare", *runs, "--json"))
    found: Any = {row["metric"]: row for row in json.loads(compared)}
    assert list(found) == ["clean", "corners3_linf", "ece"]
    assert found["corners3_linf"]["p"] is not None
    assert (found["ece"]["p"], found["ece"]["low"]) == (None, None)
    assert "smaller is better" in found["ece"]["verdict"]
    record = json.loads((runs[0] / "evaluation.json").read_text())["metrics"]
    assert found["ece"]["first"] == record["ece"]["mean"] > 0
    assert record["corners3_linf"]["correct"] <= record["clean"]["correct"]


def _evaluation_seconds(plan: Any) -> float:
    rows = plan if isinstance(plan, list) else plan["cells"]
    return float(sum(row["evaluation_seconds_at_most"] for row in rows))


def test_methods_page_is_up_to_date() -> None:
    """Rewrite: generalist-bench list methods --markdown > docs/methods.md"""
    assert (ROOT / "docs" / "methods.md").read_text() == methods_page()


def test_every_method_says_where_it_comes_from() -> None:
    """Equation or purpose, source, departures: what a reader needs to hold it beside its paper."""
    from benchmark.commands.catalogue import methods

    for entry in methods():
        first = entry.doc.splitlines()[0]
        assert re.search("[:(]", first), entry.name
        assert re.search(r"\d{4}\.\d{4,5}|openreview|ICLR|ICML|ECCV", entry.doc), entry.name
        assert entry.passes is not None, entry.name
