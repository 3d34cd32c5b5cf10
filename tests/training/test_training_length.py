"""How long training is: exact counts, and trainings that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_suites import tiny_cell, tiny_data

from benchmark.config.suite import TrainConfig
from benchmark.core.errors import ConfigError
from benchmark.data.source import DatasetConfig
from benchmark.training.build import training_length
from benchmark.training.loop import Trainer

DIGITS = DatasetConfig(name="digits")


def test_ragged_batches_are_counted_exactly() -> None:
    # 64 = 20 + 20 + 20 + 4; two epochs and two batches
    length = training_length(TrainConfig(epochs=2.5, batch_size=20), DIGITS, 64)
    assert (length.steps, length.steps_per_epoch, length.images) == (10, 4, 64 + 64 + 40)


def test_a_last_batch_of_one_image_is_not_trained_on() -> None:
    length = training_length(TrainConfig(epochs=1, batch_size=20), DIGITS, 61)
    assert (length.steps, length.images) == (3, 60)


def test_the_record_agrees(tmp_path: Path) -> None:
    cell = tiny_cell(methods=["joint"])
    trainer = Trainer(cell.config, tiny_data(), tmp_path, device=torch.device("cpu"))
    trainer.run()
    done = json.loads((tmp_path / "training.json").read_text())
    assert (done["steps"], done["images"]) == (10, 168)
    assert done["gradient_passes"] == 168 * trainer.method.passes


def test_less_than_a_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than one step"):
        training_length(TrainConfig(epochs=0.1, batch_size=20), DIGITS, 64)
    assert training_length(TrainConfig(epochs=0.25, batch_size=20), DIGITS, 64).steps == 1


def test_batches_larger_than_the_data_are_refused_but_for_smoke_tests() -> None:
    train = TrainConfig(epochs=1, batch_size=100)
    with pytest.raises(ConfigError, match=r"batch_size = 100 .* 64"):
        training_length(train, DIGITS, 64)
    limited = DatasetConfig(name="digits", limit=64)
    assert training_length(train, limited, 64).steps == 1
