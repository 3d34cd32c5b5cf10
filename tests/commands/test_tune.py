"""Tuning: the same effort for every method, on the validation split, resumed exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from benchmark.commands import tune as module
from benchmark.commands.tune import knobs, tune
from benchmark.config.suite import SuiteConfig, build_suite, load_suite
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.objective import METHODS
from benchmark.core.progress import Progress

SUITE = {
    "name": "small",
    "dataset": {"name": "digits", "train_limit": 128},
    "model": {"name": "small-resnet", "width": 4},
    "threats": {"linf": {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 1}},
    "train": {"epochs": 1, "batch_size": 64, "validations": 1, "validation_images": 30},
    "methods": ["pgd-at", {"name": "trades", "label": "trades-6", "beta": 6}, "generalist-d"],
    "seeds": [0, 1],
    "evaluation": [{"kind": "clean"}],
}


def _suite(**changes: Any) -> SuiteConfig:
    return build_suite({**SUITE, **changes})


def _tune(suite: SuiteConfig, out: Path, **options: Any) -> Path:
    given = {"seed": 7, "data_root": out, "device": torch.device("cpu"), **options}
    return tune(suite, out, progress=Progress(quiet=True), **given)


def _record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "tuning.json").read_text())
    return found


def test_every_method_gets_the_same_trials_and_the_best_ones_are_a_suite(tmp_path: Path) -> None:
    suite = _suite()
    path = _tune(suite, tmp_path, trials=2)
    record = _record(tmp_path)
    assert {label: len(done) for label, done in record["trials"].items()} == {
        "pgd-at": 2, "trades-6": 2, "generalist-d": 2,
    }  # fmt: skip
    names = {label: [knob["name"] for knob in space] for label, space in record["space"].items()}
    assert names == {
        "pgd-at": ["lr", "weight_decay"],
        "trades-6": ["lr", "weight_decay", "beta"],
        "generalist-d": ["lr", "weight_decay", "last_ratio"],
    }
    for label, (first, second) in record["trials"].items():
        assert first["values"] == {}, label
        for knob in record["space"][label]:
            assert knob["low"] <= second["values"][knob["name"]] <= knob["high"]
        assert second["score"] == pytest.approx((second["clean"] + second["pgd"]) / 2)
    tuned = load_suite(str(path))
    assert (tuned.name, tuned.seeds) == ("small-tuned", (0, 1))
    for entry in tuned.methods:
        done = record["trials"][entry.label]
        values = max(done, key=lambda trial: trial["score"])["values"]
        recipe = entry.recipe.model_dump(mode="json")
        learner = recipe.get("learner") or recipe["learners"][0]
        assert learner["optimizer"]["lr"] == pytest.approx(values.get("lr", 0.1))
    assert tuned.dataset == suite.dataset
    assert tuned.evaluation == suite.evaluation


def test_values_reach_the_training(tmp_path: Path) -> None:
    """What is on record as tried is what the trial's configuration says."""
    _tune(_suite(methods=["trades", "generalist-d"]), tmp_path, trials=2)
    trials = _record(tmp_path)["trials"]

    def learners(label: str) -> Any:
        folder = tmp_path / "trials" / f"{label}-trial-1" / "cells" / trials[label][1]["slug"]
        recipe = json.loads((folder / "config.json").read_text())["config"]["method"]["recipe"]
        return recipe, recipe.get("learners") or [recipe["learner"]]

    recipe, (learner,) = learners("trades")
    values = trials["trades"][1]["values"]
    assert learner["objective"]["beta"] == values["beta"]
    assert learner["optimizer"]["weight_decay"] == values["weight_decay"]
    recipe, both = learners("generalist-d")
    values = trials["generalist-d"][1]["values"]
    assert recipe["mixing"]["linf"]["points"][-1][1] == values["last_ratio"]
    assert {one["optimizer"]["lr"] for one in both} == {values["lr"]}


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = _suite(methods=["pgd-at"])
    _tune(suite, tmp_path / "whole", trials=6)
    _tune(suite, tmp_path / "parts", trials=3)
    calls = []
    run = module.run_suite
    monkeypatch.setattr(
        module, "run_suite", lambda *args, **more: [calls.append(1), run(*args, **more)][1]
    )
    _tune(suite, tmp_path / "parts", trials=6)
    assert len(calls) == 3
    assert _record(tmp_path / "parts") == _record(tmp_path / "whole")
    values = [str(trial["values"]) for trial in _record(tmp_path / "whole")["trials"]["pgd-at"]]
    assert len(set(values)) == 6


def test_a_budget_of_passes_buys_fewer_trials_of_a_dearer_method(tmp_path: Path) -> None:
    """128 images and an epoch: 256 passes of pgd-at (1 + 1), 384 of TRADES (1 + 2)."""
    _tune(_suite(methods=["pgd-at", "trades"]), tmp_path, passes=800)
    counts = {label: len(done) for label, done in _record(tmp_path)["trials"].items()}
    assert counts == {"pgd-at": 3, "trades": 2}


def test_what_is_refused(tmp_path: Path) -> None:
    suite = _suite(methods=["pgd-at"])
    with pytest.raises(ConfigError, match="one of the suite's seeds"):
        _tune(suite, tmp_path, trials=1, seed=1)
    taught = _suite(methods=["natural", "pgd-at", "mixednuts"])
    with pytest.raises(ConfigError, match="mixednuts needs the runs of natural, pgd-at; leave it"):
        _tune(taught, tmp_path, trials=1)
    _tune(suite, tmp_path, trials=1)
    with pytest.raises(BenchmarkError, match="holds a search with seed 7, not 8"):
        _tune(suite, tmp_path, trials=1, seed=8)


def test_every_declared_knob_is_a_setting_of_its_method() -> None:
    """Both bounds of every knob of every registered method make a valid suite."""
    searched = 0
    for name in METHODS.names():
        if not METHODS.get(name).search:
            continue
        suite = build_suite({"name": "s", "methods": [name]})
        (entry,) = suite.methods
        for knob in knobs(entry)[2:]:
            searched += 1
            for value in (knob.low, knob.high):
                changed = suite.varied(entry, knob.settings(value), {})
                assert changed.recipe != entry.recipe
    assert searched >= 8


def test_tuned_suite_is_plain_yaml(tmp_path: Path) -> None:
    path = _tune(_suite(methods=["pgd-at"]), tmp_path, trials=1)
    assert yaml.safe_load(path.read_text())["methods"][0]["label"] == "pgd-at"
