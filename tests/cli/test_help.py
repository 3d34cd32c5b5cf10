"""``--help``: what people need stands first, each command has the options that can apply, and no command
waits for torch to say so."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny_suites import cli
from typer.testing import CliRunner

from benchmark.cli import app
from benchmark.cli.options import DataRoot, Metrics
from benchmark.cli.signature import flat


def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> set[str]:
    return {option for parameter in commands()[command].params for option in parameter.opts}


def test_the_first_screen_begins_with_the_five_commands_that_people_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = cli("--help").out
    assert len(text.splitlines()) < 50, "one screen"
    assert max(map(len, text.splitlines())) <= 80
    _, first, more = re.split("Start here|More", text)
    named = r"^\W+([a-z][a-z-]+)  +[A-Z]"
    assert re.findall(named, first, re.M) == ["run", "report", "compare", "evaluate", "list"]
    assert len(re.findall(named, more, re.M)) == len(commands()) - 5


@pytest.mark.parametrize("arguments", [["--help"], ["evaluate", "--help"], ["run", "--sed", "1"]])
def test_help_and_typing_errors_load_no_torch(arguments: list[str]) -> None:
    """Protects: a second or two for every word about the command line."""
    script = f"""if True:
        import sys
        sys.argv = ["generalist-bench", *{arguments}]
        from benchmark.cli import main
        try:
            main()
        finally:
            print(*{{"torch", "pandas", "matplotlib"}} & sys.modules.keys(), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert done.stderr.splitlines()[-1] == "", done.stderr


def test_an_option_that_cannot_apply_is_not_there() -> None:
    """Each of two commands that were one has the other's options no more."""
    assert not {"--checkpoint", "--out", "--model"} & options_of("evaluate")
    assert {"--panel", "--eps", "--aa-budget"} <= options_of("evaluate")
    assert {"--panel", "--eps", "--aa-budget", "--checkpoint"} <= options_of("evaluate-model")
    assert not {"--suite", "--reason", "--set", "--method"} & options_of("check")
    assert not {"--junit", "--markdown", "--json"} & options_of("record-baseline")


@dataclass
class Shared:
    metric: Metrics = None
    data_root: DataRoot = Path("data")


def test_options_of_a_dataclass_are_the_command_s_own() -> None:
    """Paths too, in which ``~`` is the home folder."""
    found: list[Any] = []

    def command(name: str, shared: Shared, loud: bool = False) -> None:
        found.extend([name, shared, loud])

    own = typer.Typer()
    own.command()(flat(command))
    arguments = ["x", "--metric", "clean", "--metric", "pgd", "--data-root", "~/d", "--loud"]
    result = CliRunner().invoke(own, arguments)
    assert result.exit_code == 0, result.output
    assert found == ["x", Shared(["clean", "pgd"], Path.home() / "d"), True]
    found.clear()
    assert CliRunner().invoke(own, ["x"]).exit_code == 0
    assert found == ["x", Shared(), False]
