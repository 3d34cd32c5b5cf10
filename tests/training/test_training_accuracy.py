"""Accuracy on images that are trained on, recorded beside that on held-out ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_suites import tiny_cell, tiny_data

from benchmark.core.progress import Progress
from benchmark.metrics.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.records.study import CellRecord
from benchmark.report.curves import curve_of
from benchmark.training.loop import Trainer
from benchmark.training.selection import load_deployed

CPU = torch.device("cpu")


def test_accuracy_on_training_images(tmp_path: Path) -> None:
    """The last line of the log is what the deployed network gives on that sample of the training
    split; the option is off by default and then changes no hash."""
    plain = tiny_cell(methods=["pgd-at"]).config
    cell = tiny_cell(methods=["pgd-at"], train={"validations": 2, "training_images": 24}).config
    assert "training_images" not in plain.model_dump()["train"]
    assert cell.model_dump()["train"]["training_images"] == 24
    data = tiny_data()
    trainer = Trainer(cell, data, tmp_path, device=CPU, progress=Progress(quiet=True))
    trainer.run()
    lines = pd.read_json(tmp_path / "metrics.jsonl", lines=True)
    assert lines["train_pgd"].notna().sum() == 2
    model = load_deployed(cell, data, tmp_path, CPU)
    indices = sample(len(data.train), 24, seed=0)
    last = lines.iloc[-1]
    settings: Any = {"batch_size": 256, "device": CPU}
    clean = clean_outcomes(model, data.train, indices, **settings)
    threat = cell.train.validation_threat
    robust = pgd_outcomes(model, data.train, indices, threat, seed=0, **settings)
    assert last["train_clean"] == pytest.approx(float(clean.double().mean()))
    assert last["train_pgd"] == pytest.approx(float(robust.double().mean()))


def test_the_gap_is_a_curve() -> None:
    """Training less validation PGD, by epoch; epochs that lack one of the two are left out."""

    def run(seed: int, train: list[float]) -> CellRecord:
        curves = pd.DataFrame(
            {
                "epoch": [1, 2, 3],
                "val_pgd": [0.2, None, 0.3],
                "train_pgd": [train[0], 0.5, train[1]],
            }
        )
        return CellRecord(Path("x"), "pgd-at", seed, "evaluated", curves=curves)

    cells = [run(0, [0.3, 0.7]), run(1, [0.1, 0.9])]
    suite: Any = SimpleNamespace(of=lambda method: cells)
    gap = curve_of(suite, "pgd-at", "gap_pgd")
    assert gap is not None
    assert gap.epochs == (1, 3)
    assert gap.mean == pytest.approx((0.0, 0.5))
    assert gap.low == pytest.approx((-0.1, 0.4))
    without: Any = SimpleNamespace(
        of=lambda method: [
            CellRecord(Path("x"), "a", 0, "evaluated", curves=cells[0].curves[["epoch", "val_pgd"]])
        ]
    )
    assert curve_of(without, "a", "gap_pgd") is None
