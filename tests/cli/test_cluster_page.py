"""docs/cluster.md: its scripts are valid shell, its commands exist, its table is what they print."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
from tiny_suites import cli

from benchmark.cli import app

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
SCRIPTS = re.findall(r"```(?:ba)?sh\n(.*?)```", PAGE, re.DOTALL)
# What stands before the arguments of our command line.
START = re.compile(r"(?:generalist-bench|-m benchmark) (.*)")


def commands() -> list[list[str]]:
    """The arguments of every call of the command line, shell variables replaced by 1."""
    found = []
    for script in SCRIPTS:
        text = re.sub(r"\\\n\s*", "", script)
        for line in text.splitlines():
            if not line.startswith("#") and (call := START.search(line)):
                plain = re.sub(r"\$\(\(.*?\)\)|\$\{.*?\}|\$\w+", "1", call[1])
                found.append(shlex.split(plain.removesuffix("&")))
    return found


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_scripts_are_valid_shell() -> None:
    assert len(SCRIPTS) == 5
    for script in SCRIPTS:
        done = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), script


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_are_ours(arguments: list[str]) -> None:
    """Protects: a renamed option or suite, found out after hours in a queue."""
    from benchmark.suites.schema import load_suite

    group = typer.main.get_command(app)
    name, *rest = arguments
    context = group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]
    if name == "run":
        methods = [method for method in context.params["method"] or () if method != "1"]
        load_suite(context.params["suite"]).only(methods, ())


def test_the_methods_of_the_scripts_are_those_of_the_suites() -> None:
    from benchmark.suites.schema import load_suite

    lists = re.findall(r"methods=\((.*?)\)", PAGE, re.DOTALL)
    assert len(lists) == 2
    for suite, names in zip(("cifar10-resnet18", "imagenet-resnet50"), lists, strict=True):
        assert names.split() == [entry.label for entry in load_suite(suite).methods]
        assert len(load_suite(suite).cells()) == 30  # --array=0-29


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
