"""A step that the device's memory does not hold ends with what to set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import cli, tiny_cell, tiny_data, write_suite

from benchmark.core.errors import DeviceMemoryError
from benchmark.models.resnet import ResNet
from benchmark.training.loop import Trainer
from benchmark.training.memory import largest


def small_device(monkeypatch: pytest.MonkeyPatch, most: int, training: bool = True) -> None:
    """A device whose allocator fails when more than ``most`` images pass at once in that mode."""
    forward = ResNet.forward

    def checked(self: ResNet, x: torch.Tensor) -> torch.Tensor:
        if self.training == training and len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, x)

    monkeypatch.setattr(ResNet, "forward", checked)


def failure(tmp_path: Path, method: Any, **train: Any) -> str:
    cell = tiny_cell(methods=[method], train=train)
    with pytest.raises(DeviceMemoryError) as caught:
        Trainer(cell.config, tiny_data(), tmp_path, device=torch.device("cpu")).run()
    assert not list(tmp_path.glob("*.pt"))  # nothing of the tries is kept
    return str(caught.value)


@pytest.mark.parametrize(
    ("most", "accumulate", "found"),
    [
        (13, 1, ("13 is the largest batch", "train.accumulate=2", "train.batch_size=13")),
        (6, 1, ("6 is the largest batch", "train.accumulate=4", "train.batch_size=6")),
        (3, 2, ("20 images in 2 parts", "6 is the largest", "train.accumulate=7")),
        (1, 1, ("even with 2; choose a smaller model",)),
    ],
)
def test_the_largest_batch_and_the_options(
    most: int, accumulate: int, found: tuple[str, ...], tmp_path: Path, monkeypatch: Any
) -> None:
    small_device(monkeypatch, most)
    text = failure(tmp_path, "pgd-at", accumulate=accumulate)
    assert all(part in text for part in found), text


def test_the_option_that_is_named_helps(tmp_path: Path, monkeypatch: Any) -> None:
    small_device(monkeypatch, 13)
    suite = write_suite(tmp_path, train={"epochs": 0.5})
    called = cli("run", suite, "--out", tmp_path / "out", "--device", "cpu")
    assert called.status == 2
    assert "Set train.accumulate=2" in called.err
    assert "Traceback" not in called.err
    options = ("--set", "train.accumulate=2", "--out", tmp_path / "turns", "--device", "cpu")
    assert cli("run", suite, *options).status == 0


def test_a_method_in_one_piece_is_told_of_the_batch_size_alone(
    tmp_path: Path, monkeypatch: Any
) -> None:
    small_device(monkeypatch, 13)
    text = failure(tmp_path, "mixup")
    assert "train.batch_size=13" in text
    assert "accumulate" not in text


def test_an_evaluation_that_does_not_fit_names_its_option(tmp_path: Path, monkeypatch: Any) -> None:
    """And goes on with it, without training again."""
    suite, out = write_suite(tmp_path, train={"epochs": 0.5}), tmp_path / "out"
    with monkeypatch.context() as patch:
        small_device(patch, 30, training=False)
        called = cli("run", suite, "--out", out, "--device", "cpu")
    assert called.status == 2
    assert "evaluate --batch-size 128` or less" in called.err
    assert cli("evaluate", out, "--batch-size", 20, "--device", "cpu").status == 0


def test_bisection() -> None:
    for most in range(1, 40):
        for fitting in range(most + 1):
            expected = fitting if fitting >= 2 else 0
            assert largest(lambda count, limit=fitting: count <= limit, most) == expected
