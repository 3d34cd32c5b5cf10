"""What every program has: a version, completion, the place of its data, its settings in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomllib
import typer
import yaml
from tiny_suites import cli, tiny, write_suite

import generalist_bench as gb
from benchmark.cli import app
from benchmark.config.suite import build_suite, load_suite, suite_names
from benchmark.core.errors import ConfigError
from benchmark.core.files import DATA_VARIABLE, data_folder

ROOT = Path(__file__).parents[2]


def test_the_version_is_that_of_the_package() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cli("--version").out == f"generalist-bench {stated}\n"


def test_a_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the script that --install-completion installs asks for it."""
    monkeypatch.setenv("_GENERALIST_BENCH_COMPLETE", "complete_bash")
    for words, found in (("generalist-bench evaluate-", "evaluate-model"),
                         ("generalist-bench run --data-", "--data-root")):  # fmt: skip
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        assert cli().out.split() == [found]


def test_one_variable_says_where_the_data_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every command that has --data-root, and in Python; the option wins."""
    group: Any = typer.main.get_command(app)
    roots = [p for c in group.commands.values() for p in c.params if "--data-root" in p.opts]
    assert len(roots) > 8
    assert {p.envvar for p in roots} == {DATA_VARIABLE}

    def root(*options: str) -> Path:
        context = group.commands["run"].make_context("run", ["quick", *options])
        found: Path = context.params["data_root"]
        return found

    def trained(suite: Any, full: Any, out: Any, *, data_root: Path, **more: Any) -> None:
        raise ConfigError(f"read from {data_root}")

    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert root() == data_folder(None) == Path("data")
    monkeypatch.setenv(DATA_VARIABLE, "/mine")
    assert root() == data_folder(None) == Path("/mine")
    assert root("--data-root", "here") == data_folder("here") == Path("here")
    monkeypatch.setattr("generalist_bench.training.run_suite", trained)
    with pytest.raises(ConfigError, match="read from /mine"):
        gb.train("natural", "digits", "small-resnet", quiet=True)


@pytest.mark.parametrize("name", suite_names())
def test_a_resolved_suite_has_the_same_cells(name: str) -> None:
    """Same hashes, so a run that was begun with one file goes on with the other."""
    suite = load_suite(name)
    again = build_suite(yaml.safe_load(yaml.safe_dump(suite.resolved())))
    assert [cell.slug for cell in again.cells()] == [cell.slug for cell in suite.cells()]
    assert (again.evaluation, again.fronts) == (suite.evaluation, suite.fronts)
    assert again.resolved() == suite.resolved()


def test_config_prints_what_run_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = ["natural", {"name": "trades", "label": "trades-3", "beta": 3}, "fat@authors"]
    fronts = {"trades": ["trades-3"], "fat": ["fat@authors"]}
    path = write_suite(tmp_path, methods=methods, fronts=fronts)
    changed = ["--set", "optimizer.lr=0.02", "--method", "trades-3", "--method", "fat@authors"]
    called = cli("config", path, *changed, "--seed", 3)
    assert called.status == 0, called.err
    (tmp_path / "resolved.yaml").write_text(called.out)
    resolved = load_suite("resolved.yaml")
    asked = load_suite(str(path), ["optimizer.lr=0.02"]).only(["trades-3", "fat@authors"], [3])
    assert [cell.slug for cell in resolved.cells()] == [cell.slug for cell in asked.cells()]
    written = yaml.safe_load(called.out)
    assert written["name"] == tiny()["name"]
    assert written["dataset"]["val_fraction"] == 0.1  # a default, stated
    assert cli("config", path, "--method", "trades-3").out.count("fat") == 0
    assert "did you mean 'quick'" in cli("config", "quik").err
