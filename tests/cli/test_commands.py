"""The commands end to end, on a suite of a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_suites import cli, contents, write_suite

from benchmark.core.objective import METHODS
from benchmark.training.loop import Trainer

SHORT = {"epochs": 1, "validations": 1}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path, methods=["natural", "pgd-at", "generalist-d"], train=SHORT)


def labels(out: Path) -> list[tuple[str, int]]:
    plan = json.loads((out / "suite.json").read_text())["plan"]
    return [(item["label"], item["seed"]) for item in plan]


def test_a_suite_end_to_end(suite: Path, tmp_path: Path) -> None:
    dry = cli("run", suite, "--dry-run", "--json", "--out", "out").json()
    assert [row["state"] for row in dry["cells"]] == ["new"] * 3
    assert not (tmp_path / "out").exists()

    called = cli("run", suite, "--out", "out")
    assert called.status == 0, called.err
    for name in ("table.md", "table.csv", "table.tex", "report.md"):
        assert (tmp_path / "out" / "report" / name).stat().st_size > 0
    table = pd.read_csv(tmp_path / "out" / "report" / "table.csv")
    for method in ("natural", "pgd-at", "generalist-d"):
        assert method in called.out
        assert method in table.to_string()
    for text in (called.out, called.err):  # neither is a terminal
        assert "\x1b" not in text
        assert "\r" not in text
    for row in dry["cells"]:
        path = tmp_path / "out" / "cells" / row["cell"] / "training.json"
        done = json.loads(path.read_text())
        assert (row["steps"], row["gradient_passes"]) == (done["steps"], done["gradient_passes"])

    before = contents(tmp_path / "out")
    again = cli("run", suite, "--out", "out", "--json").json()
    assert next(Path(path).name for path in again["report"]) == "report.md"
    assert contents(tmp_path / "out") == before  # nothing is measured or drawn differently
    dry = cli("run", suite, "--dry-run", "--json", "--out", "out").json()
    assert {row["state"] for row in dry["cells"]} == {"evaluated"}
    assert (dry["train_seconds"], dry["evaluation_seconds_at_most"]) == (0, 0)
    assert contents(tmp_path / "out") == before
    plain = cli("run", suite, "--dry-run", "--out", "out")
    assert plain.out.splitlines()[0].startswith("cell\trecipe\tstate\tsteps")

    assert "page: elsewhere/report.html" in cli("report", "out", "--out", "elsewhere", "--html").out
    report = cli("report", "out", "--out", "elsewhere", "--json").json()
    assert all(Path(path).is_file() for path in report["report"])
    assert (tmp_path / "elsewhere" / "table.md").is_file()


@pytest.mark.figures
def test_a_tradeoff_plot_is_drawn(tmp_path: Path) -> None:
    """The plot of clean against robust accuracy needs a metric that the tables know as robust."""
    threat = {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 20}
    panel = [{"kind": "clean"}, {"kind": "pgd", "name": "pgd20_linf", "n": 20, "threat": threat}]
    path = write_suite(tmp_path, methods=["natural", "pgd-at"], train=SHORT, evaluation=panel)
    called = cli("run", path, "--out", "out", "--quiet")
    assert called.status == 0
    assert called.err == ""
    assert (tmp_path / "out" / "report" / "tradeoff.png").stat().st_size > 1000

    board = cli("report", tmp_path, "--leaderboard", "--out", "board", "--json").json()
    ours = [row for row in board["rows"] if row["ours"]]
    assert [row["name"].split()[0] for row in ours] == ["natural", "pgd-at"]
    assert {(row["attack"], row["norm"], row["eps"]) for row in ours} == {("PGD-20", "linf", "0.1")}
    assert any(not row["ours"] for row in board["rows"])
    assert "<table" in (tmp_path / "board" / "leaderboard.html").read_text()
    nothing = cli("report", tmp_path / "board", "--leaderboard")
    assert "holds no suite" in " ".join(nothing.err.split())


def test_method_and_seed_restrict_and_add(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli("run", suite, "--out", out, "--method", "pgd-at", "--seed", 1).status == 0
    assert labels(out) == [("pgd-at", 1)]
    one = contents(out / "cells")
    assert cli("run", suite, "--out", out, "--method", "joint", "--seed", 0).status == 0
    assert labels(out) == [("joint", 0), ("pgd-at", 1)]
    after = contents(out / "cells")
    assert {name: after[name] for name in one} == one
    called = cli("run", suite, "--out", out, "--method", "natural", "--seed", 1)
    assert labels(out) == [("joint", 0), ("natural", 1), ("pgd-at", 1)]
    assert all(f"\n{label}" in called.out for label in ("joint", "natural", "pgd-at"))


def test_train_then_evaluate(tmp_path: Path) -> None:
    settings = ["--limit", 60, "--set", "train.epochs=1", "--set", "model.width=8"]
    command = ["train", "--method", "natural", "--method", "trades", "--out", "out", *settings]
    plan = cli(*command, "--dry-run", "--json").json()
    assert {row["evaluation_seconds_at_most"] for row in plan["cells"]} == {0}
    assert cli(*command).out == "trained: out\nnext: generalist-bench evaluate out\n"
    cells = cli(*command, "--json").json()["cells"]
    assert cells == [row["cell"] for row in plan["cells"]]
    assert not list(tmp_path.rglob("evaluation.json"))

    results = cli("evaluate", "out", "--metric", "clean", "--json").json()
    assert list(results) == cells
    for slug, metrics in results.items():
        clean = metrics["clean"]
        assert clean["n"] == 60
        assert clean["mean"] == clean["correct"] / 60
        record = json.loads((tmp_path / "out" / "cells" / slug / "evaluation.json").read_text())
        assert record["metrics"]["clean"]["correct"] == clean["correct"]
    table = cli("evaluate", "out", f"out/cells/{cells[0]}", "--metric", "clean").out
    rows = [line for line in table.splitlines() if "\tclean\t" in line]
    assert len(rows) == len(cells)  # a run that is named twice counts once
    assert [line for line in table.splitlines() if line.startswith("record: ")] == [
        f"record: out/cells/{cell}/evaluation.json" for cell in cells
    ]
    more = cli("evaluate", "out", "--metric", "pgd20_linf", "--n", 20).out
    assert "\tpgd20_linf\t" in more
    assert "\tclean\t" not in more  # it is on record, but was not asked for
    assert cli("report", "out").status == 0


FACTORY = """
import torch
def net(num_classes=10):
    torch.manual_seed(0)
    layers = [torch.nn.Flatten(), torch.nn.Linear(768, num_classes)]
    return torch.nn.Sequential(*layers)
"""


def test_a_model_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "users_module.py").write_text(FACTORY)
    state = {"1.weight": torch.zeros(10, 768), "1.bias": torch.arange(10.0)}
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    arguments = ["evaluate-model", "users_module:net", "--dataset", "digits"]
    arguments += ["--limit", 50, "--n", 40, "--metric", "clean", "--metric", "pgd20_linf"]
    mine = cli(*arguments, "--checkpoint", "net.pt", "--json").json()["users_module:net"]
    assert mine["clean"]["n"] == 40
    assert mine["clean"] | {"settings": ""} == mine["pgd20_linf"] | {"settings": ""}  # constant net
    assert "eps=8/255" in mine["pgd20_linf"]["settings"]

    # Other weights go to another folder: nobody's results are replaced.
    (first,) = (tmp_path / "runs" / "evaluate").iterdir()
    before = contents(first)
    assert cli(*arguments).status == 0
    assert len(list((tmp_path / "runs" / "evaluate").iterdir())) == 2
    assert contents(first) == before
    nested = json.loads((first / "model.json").read_text())
    assert (nested["model"], nested["checkpoint"]) == ("users_module:net", "net.pt")


def test_several_radii(tmp_path: Path) -> None:
    (tmp_path / "users_module2.py").write_text(FACTORY)
    arguments = ["evaluate-model", "users_module2:net", "--dataset", "digits", "--limit", 30]
    arguments += ["--eps", "2/255", "--eps", "4/255", "--out", "out", "--json"]
    for eps in ("2/255", "4/255"):
        arguments += ["--metric", f"pgd20_linf@{eps}"]
    results = cli(*arguments).json()["users_module2:net"]
    assert list(results) == ["pgd20_linf@2/255", "pgd20_linf@4/255"]
    assert results["pgd20_linf@2/255"]["correct"] >= results["pgd20_linf@4/255"]["correct"]


@pytest.mark.parametrize("kind", ["methods", "datasets", "models", "metrics", "suites"])
def test_lists(kind: str) -> None:
    items = cli("list", kind, "--json").json()
    assert items
    assert all(item["name"] and item["description"] for item in items)
    plain = cli("list", kind)
    assert [line.split("\t")[0] for line in plain.out.splitlines()[1:]] == [
        item["name"] for item in items
    ]
    assert "\x1b" not in plain.out
    assert cli("list", kind, "--verbose").status == 0


def test_list_methods_finds_every_entry_point() -> None:
    assert {item["name"] for item in cli("list", "methods", "--json").json()} == set(
        METHODS.names()
    )


def test_no_arguments_is_help() -> None:
    called = cli()
    assert called.status == 0
    assert "Usage" in called.out


def test_an_interruption_prints_the_command_to_continue(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Trainer) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "run", interrupted)
    called = cli("run", suite, "--out", "my runs")
    assert called.status == 130
    assert f"generalist-bench run {suite} --out 'my runs'" in called.err
    assert "Traceback" not in called.err
