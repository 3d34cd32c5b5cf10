"""The documentation: the site builds, and what a reader may type works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from fenced_blocks import blocks

from benchmark.cli import app
from benchmark.config.panels import PANELS
from benchmark.config.suite import build_suite, load_suite
from benchmark.core.objective import METHODS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What stands before the arguments of our command line.
START = re.compile(r"(?:generalist-bench|-m benchmark) (.*)")


def commands() -> list[Any]:
    """The arguments of every call of the command line, shell variables replaced by 1."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            text = re.sub(r"\\\n\s*", "", block.text)
            for line in text.splitlines() if block.language in ("sh", "bash") else ():
                if not line.startswith("#") and (call := START.search(line)):
                    plain = re.sub(r"\$\(\(.*?\)\)|\$\{.*?\}|\$\w+", "1", call[1])
                    plain = plain.split("#")[0].split(" > ")[0].rstrip().removesuffix("&")
                    found.append(pytest.param(shlex.split(plain), id=f"{page.name}: {plain}"))
    return found


@pytest.mark.parametrize("arguments", commands())
def test_commands_are_ours(arguments: list[str]) -> None:
    """Protects: a renamed option or suite, found out after hours in a queue."""
    group = typer.main.get_command(app)
    name, *rest = arguments
    if name.startswith("--"):  # of the program itself
        assert name in {option for parameter in group.params for option in parameter.opts}
        return
    context = group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]
    suite = context.params.get("suite")
    if name == "run" and suite != "SUITE" and not suite.endswith(".yaml"):
        methods = [method for method in context.params["method"] or () if method != "1"]
        load_suite(suite).only([m for m in methods if m != "smooth-at"], ())
    elif name == "train":
        assert {m for m in context.params["method"] if ":" not in m} <= set(METHODS.names())
    elif name in ("evaluate", "evaluate-model"):
        assert context.params["panel"] in {None, *PANELS.names()}


def test_blocks_are_found() -> None:
    """Protects: a regular expression that finds nothing, so that nothing is checked."""
    assert len(commands()) > 50
    tutorial = blocks(ROOT / "docs" / "tutorial.md")
    assert sum(block.run for block in tutorial) >= 10
    assert [block.title for block in tutorial if block.title] == ["my_suite.yaml"]
    assert [block.text.splitlines()[0] for block in tutorial if not block.run] == [
        "python3 -m venv .venv",
        "generalist-bench run quick",
        "generalist-bench tune my_suite.yaml --method pgd-at --method trades-6 --trials 2"
        "    # 8 or more in earnest",
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", ["tutorial", "data", "model"])
def test_a_page_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """Block by block, from top to bottom, in an empty folder."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # as for someone who starts python in the folder
        "PYTHONPATH": str(tmp_path),
    }
    ran = 0
    for block in blocks(ROOT / "docs" / f"{name}.md"):
        if not block.run:
            continue
        if block.title:
            (tmp_path / block.title).write_text(block.text)
            continue
        shell = ["bash", "-euo", "pipefail", "-c", block.text]
        command = {"sh": shell, "python": [sys.executable, "-c", block.text]}[block.language]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        ran += 1
    assert ran >= 3


def test_settings_on_the_page_of_generalist_are_a_suite() -> None:
    (text,) = (b.text for b in blocks(ROOT / "docs" / "generalist.md") if b.language == "yaml")
    suite = build_suite({"name": "page", "dataset": {"name": "digits"}, **yaml.safe_load(text)})
    assert [entry.label for entry in suite.methods] == ["generalist-d", "trades-inside"]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and docstrings; the reference holds the docstrings and the commands."""
    pytest.importorskip("furo")
    # the build writes the page of commands beside its sources
    source, site = tmp_path / "docs", tmp_path / "site"
    shutil.copytree(ROOT / "docs", source)
    (tmp_path / "reports").symlink_to(ROOT / "reports")  # pages show figures from there
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", source, site],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    reference = (site / "reference" / "commands.html").read_text()
    assert "--learner-groups" in reference
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f'id="generalist-bench-{name}"' in reference
    python = (site / "reference" / "python.html").read_text()
    assert 'id="generalist.framework.Generalist"' in python
    assert 'id="benchmark.attacks.pgd.pgd"' in python
    suites = (site / "reference" / "suites.html").read_text()
    assert "<strong>description</strong>" in suites  # of "name, title, description: for people"
