"""A run with extra images: it goes on where it was, and every record and text says what it had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_suites import Stopped, assert_same_result, cli, stop_after, tiny_cell, write_suite

from benchmark.core.errors import CheckpointError
from benchmark.data import sources
from benchmark.training.loop import Trainer

EXTRA = {"path": "made.npz", "share": 0.7}
DATA = {"name": "digits", "limit": 64, "extra": EXTRA}


def write_images(folder: Path, seed: int = 1) -> None:
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)
    np.savez(folder / "made.npz", image=images, label=np.arange(200) % 10)


def _train(root: Path, run: Path, method: Any, stop: int | None = None) -> Trainer:
    run.mkdir(exist_ok=True)
    cell = tiny_cell(dataset=DATA, methods=[method])
    data = sources.load(cell.config.dataset, root)
    trainer = Trainer(cell.config, data, run, device=torch.device("cpu"))
    if stop is not None:
        stop_after(trainer, stop)
    trainer.run()
    return trainer


@pytest.mark.parametrize("method", ["trades-generated", "generalist-d"])
def test_an_interrupted_training_goes_on_to_the_same_end(method: str, tmp_path: Path) -> None:
    """Also: 64 images in batches of 20 are 4 steps, whose batches are all full; 2.5 epochs."""
    write_images(tmp_path)
    trainer = _train(tmp_path, tmp_path / "whole", method)
    assert (trainer.state.step, trainer.state.images) == (10, 200)
    for stop in (4, 5):
        with pytest.raises(Stopped):
            _train(tmp_path, tmp_path / "run", method, stop)
    _train(tmp_path, tmp_path / "run", method)
    assert_same_result(tmp_path / "whole", tmp_path / "run")


def test_other_extra_images_are_other_data(tmp_path: Path) -> None:
    write_images(tmp_path)
    with pytest.raises(Stopped):
        _train(tmp_path, tmp_path / "run", "natural", 5)
    write_images(tmp_path, seed=2)
    with pytest.raises(CheckpointError, match="was made with other images"):
        _train(tmp_path, tmp_path / "run", "natural")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite on a long-tailed set with extra images, run to its report."""
    folder = tmp_path_factory.mktemp("extra")
    write_images(folder)
    data = {"name": "digits", "test_limit": 20, "imbalance": 10, "extra": EXTRA}
    suite = write_suite(
        folder,
        dataset=data,
        methods=["natural"],
        train={"epochs": 0.1, "validations": 1},
        evaluation=[{"kind": "clean"}],
    )
    called = cli("run", suite, "--data-root", folder, "--out", folder / "out")
    assert called.status == 0, called.err
    assert "70 % of each training batch are drawn from 200 extra images (made.npz" in called.err
    return folder


SAID = (
    "additional data, 70 % of each batch from made.npz; long-tailed training images, imbalance 10"
)


def test_reports_say_what_a_run_was_trained_on(evaluated: Path) -> None:
    report = (evaluated / "out" / "report" / "report.md").read_text()
    assert f"- Trained with {SAID} (all runs).\n" in report
    (row,) = [line for line in report.splitlines() if "cells/natural-" in line]
    assert SAID in row
    assert f"Trained with {SAID}" in (evaluated / "out" / "report" / "table.md").read_text()
    (run,) = (evaluated / "out" / "cells").iterdir()
    notes = json.loads((run / "evaluation.json").read_text())["dataset"]["notes"]
    assert any(note.startswith("additional data: 70 %") for note in notes)
    assert any(note.startswith("long-tailed training split: imbalance 10") for note in notes)


def test_a_comparison_says_so_too(evaluated: Path, tmp_path: Path) -> None:
    """Of a run with extra images and one without, the one that has them is named."""
    data = {"name": "digits", "test_limit": 20}
    suite = write_suite(
        tmp_path,
        dataset=data,
        methods=["natural"],
        train={"epochs": 0.1, "validations": 1},
        evaluation=[{"kind": "clean"}],
    )
    called = cli("run", suite, "--out", tmp_path / "out", "-q")
    assert called.status == 0, called.err
    runs = [next((folder / "out" / "cells").iterdir()) for folder in (evaluated, tmp_path)]
    compared = cli("compare", *runs)
    assert f"{runs[0].name} was trained with {SAID}" in compared.out + compared.err
    assert f"{runs[1].name} was trained" not in compared.out + compared.err


def test_a_submission_says_so(evaluated: Path, tmp_path: Path) -> None:
    """RobustBench's ``additional_data``: true without being asked, and never false."""
    (run,) = (evaluated / "out" / "cells").iterdir()
    bundle = tmp_path / "bundle"
    given = ("submit", run, "--draft", "--data-root", evaluated)
    called = cli(*given, "--out", bundle)
    assert called.status == 0, called.err
    (entry,) = bundle.glob("model_info/*/*/*.json")
    assert json.loads(entry.read_text())["additional_data"] is True
    issue = (bundle / "issue.md").read_text()
    assert "- Additional data: true (made.npz, 70 % of each training batch)\n" in issue
    assert "additional_data" not in (bundle / "DRAFT-DO-NOT-SUBMIT.txt").read_text()
    assert "trained on digits and extra images (made.npz)" in (bundle / "model.py").read_text()
    log = yaml.safe_load((bundle / "evaluation.log").read_text())
    assert log["trained on"] == "digits and extra images (made.npz)"
    (tmp_path / "info.yaml").write_text("additional_data: false\n")
    refused = cli(*given, "--out", tmp_path / "other", "--info", tmp_path / "info.yaml")
    assert refused.status == 2
    assert "was trained on extra images too (made.npz); say true" in refused.err
