"""Which checkpoint is deployed, by several rules at once, and what is recorded of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_learners import tiny_setting
from tiny_suites import cli, tiny, tiny_cell, tiny_data, write_suite

from benchmark.config.suite import TrainConfig, build_suite
from benchmark.core.errors import ConfigError
from benchmark.core.method import make_recipe
from benchmark.core.progress import Progress
from benchmark.records.study import read_cell, read_suite
from benchmark.training import loop
from benchmark.training.loop import Trainer
from benchmark.training.selection import load_deployed

CPU = torch.device("cpu")
RULES = ["last", "best", "best-sum"]
# (clean, PGD) at steps 2, 4, 6, 8 and 10 of 10; Generalist-D mixes from the 8th on.
SCORES = [(0.95, 0.60), (0.80, 0.58), (0.92, 0.50), (0.91, 0.30), (0.50, 0.40)]


def trained(
    run: Path, monkeypatch: pytest.MonkeyPatch, method: Any, **train: Any
) -> tuple[Trainer, dict[str, Any]]:
    """A training whose validations give ``SCORES``."""
    run.mkdir(parents=True)
    given = iter(SCORES)

    def scores(*_: object) -> dict[str, float]:
        clean, robust = next(given)
        return {"val_clean": clean, "val_pgd": robust}

    monkeypatch.setattr(loop, "validation_scores", scores)
    cell = tiny_cell(methods=[method], train={"validations": 5, "selection": RULES, **train})
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU, progress=Progress(quiet=False))
    trainer.run()
    return trainer, json.loads((run / "training.json").read_text())


def epochs(record: dict[str, Any]) -> dict[str, float]:
    chosen = {record["checkpoint_rule"]: record, **record["also"]}
    return {rule: chosen[rule]["selected_epoch"] for rule in chosen}


def test_each_rule_chooses_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PGD accuracy; clean + PGD among those clean enough. An epoch has four steps."""
    _, record = trained(tmp_path / "a", monkeypatch, "pgd-at")
    assert epochs(record) == {"last": 2.5, "best": 0.5, "best-sum": 0.5}
    _, record = trained(tmp_path / "b", monkeypatch, "pgd-at", selection_floor=0.96)
    assert epochs(record)["best-sum"] == 0.5  # nobody is clean enough: the largest sum of all
    assert record["floor_missed"]
    assert "train.selection_floor = 0.96 demands" in capsys.readouterr().err
    SCORES[0] = (0.85, 0.60)
    try:
        _, record = trained(tmp_path / "c", monkeypatch, "pgd-at")
    finally:
        SCORES[0] = (0.95, 0.60)
    # 0.85 + 0.60 is the largest sum, but below 0.88
    assert epochs(record) == {"last": 2.5, "best": 0.5, "best-sum": 1.5}
    assert not record["floor_missed"]


@pytest.mark.parametrize("name", ["generalist-d", "generalist-official", "generalist-distill"])
def test_a_generalist_that_has_not_mixed_is_never_the_best(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: by validation PGD, 6 of 6 recorded cells would have deployed mixing ratio 1."""
    trainer, record = trained(tmp_path / "run", monkeypatch, name)
    # of steps 8 and 10: PGD 0.40 beats 0.30; 0.91 is clean enough, 0.50 is not
    assert epochs(record) == {"last": 2.5, "best": 2.5, "best-sum": 2.0}
    mixing = record["also"]["best-sum"]["mixing"]
    assert sum(mixing.values()) == pytest.approx(1)
    assert 0.9 < max(mixing.values()) < 1  # at progress 0.7, just begun
    assert record["mixing"] == record["also"]["best"]["mixing"] != mixing
    for rule, file in (("last", ""), ("best", "-best"), ("best-sum", "-best-sum")):
        model = load_deployed(trainer.config, tiny_data(), tmp_path / "run", CPU, rule)  # type: ignore[arg-type]
        saved = torch.load(tmp_path / "run" / f"deployed{file}.pt", weights_only=True)
        assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())


def test_swa_is_chosen_from_its_first_average_on() -> None:
    """Until then it deploys the trained network: another method's."""
    method = make_recipe({"name": "swa", "since": "50%"}, {}).build(tiny_setting(8, 2))
    assert not method.selectable(0.0)
    method.steps = 4  # type: ignore[attr-defined]
    assert method.selectable(3 / 8)


def test_a_method_that_never_becomes_itself_is_taken_as_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, record = trained(tmp_path / "run", monkeypatch, {"name": "swa", "since": 99})
    assert epochs(record) == {"last": 2.5, "best": 2.5, "best-sum": 2.5}


def test_one_rule_is_recorded_as_ever_and_unknown_ones_are_refused() -> None:
    """Hashes of recorded cells stay."""
    assert TrainConfig().model_dump()["selection"] == "last"
    assert (
        TrainConfig(selection=["best"]).model_dump() == TrainConfig(selection="best").model_dump()
    )  # type: ignore[arg-type]
    assert "selection_floor" not in TrainConfig(selection="best").model_dump()  # type: ignore[arg-type]
    for wrong in ("test", ["last", "last"], []):
        with pytest.raises(ConfigError, match="selection"):
            build_suite(tiny(train={"selection": wrong}))


@pytest.mark.slow
def test_every_checkpoint_gets_columns_of_its_own(tmp_path: Path) -> None:
    """Tables, page, comparison and plan show both; each figure is of its own weights."""
    suite, out = write_suite(tmp_path, train={"selection": ["last", "best"]}), tmp_path / "out"
    suite.write_text(suite.read_text() + "seeds: [0, 1]\n")
    assert cli("run", suite, "--out", out).status == 0
    runs = sorted((out / "cells").iterdir())
    for run in runs:
        records = [json.loads((folder / "evaluation.json").read_text())
                   for folder in (run, run / "deployed-best")]  # fmt: skip
        entries = read_cell(run).metrics
        assert list(entries) == ["clean", "pgd2_linf", "clean@best", "pgd2_linf@best"]
        assert entries["clean@best"]["model"] == records[1]["metrics"]["clean"]["model"]
        assert entries["clean@best"]["correct"] == records[1]["metrics"]["clean"]["correct"]
        outcomes = read_cell(run).outcomes
        assert outcomes is not None
        assert int(outcomes["clean@best"].sum()) == entries["clean@best"]["correct"]
    suite_record = read_suite(out)
    assert suite_record.stale == ()
    assert suite_record.metrics() == ["clean", "clean@best", "pgd2_linf", "pgd2_linf@best"]
    table = (out / "report" / "table.md").read_text()
    assert "Clean (best)" in table
    assert "Columns marked (best): best PGD accuracy on held-out validation images" in table
    assert cli("report", out, "--html").status == 0
    compared = cli("compare", *runs, "--json").json()
    assert "pgd2_linf@best" in json.dumps(compared)
    (cells,) = (cli("run", suite, "--out", out, "--dry-run", "--json").json()["cells"],)
    assert {cell["state"] for cell in cells} == {"evaluated"}
    # what one checkpoint lacks is measured for it alone
    before = (runs[0] / "evaluation.json").read_bytes()
    (runs[0] / "deployed-best" / "evaluation.json").unlink()
    assert cli("evaluate", runs[0]).status == 0
    assert (runs[0] / "evaluation.json").read_bytes() == before
    assert "clean@best" in read_cell(runs[0]).metrics
