"""The CPU hands a GPU one step after the other and waits for none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import tiny_cell, tiny_data
from torch import Tensor
from waits import Waits

from benchmark.data.loader import TrainLoader
from benchmark.training.divergence import CHECK_EVERY
from benchmark.training.loop import Trainer

# Those of cifar10-resnet18-hour, and what they are made of.
METHODS: list[Any] = [
    "natural",
    "pgd-at",
    {"name": "pgd-at", "label": "l2", "threat": "l2", "grad_clip": 1.0},
    "trades",
    "awp",
    "ema",
    "joint",
    {"name": "generalist-d", "warmup": "0%", "every": "20%"},
    {
        "name": "generalist-d",
        "label": "with-trades",
        "learners": [
            {"name": "natural", "objective": "natural"},
            {"name": "linf", "objective": "trades"},
        ],
    },
]


def trainer(method: Any, folder: Path, device: str, **train: Any) -> Trainer:
    cell = tiny_cell(methods=[method], train=train)
    return Trainer(cell.config, tiny_data(), folder, device=torch.device(device))


def steps(made: Trainer, count: int) -> Iterator[None]:
    """As ``Trainer.run``, without validations."""
    made._validate_at = set()
    for batch, _ in zip(made._batches(), range(count), strict=False):
        made._update(batch)
        yield


def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs numpy copies the pixels; let torch do it, as everywhere else."""
    monkeypatch.setattr("benchmark.data.loader._Crops._native", lambda self, tensor: tensor)


def label(method: Any) -> str:
    return method if isinstance(method, str) else str(method.get("label", method["name"]))


TURNS = {"precision": "bf16", "accumulate": 2}
CASES = [
    *(pytest.param(method, {}, id=label(method)) for method in METHODS),
    *(pytest.param(method, TURNS, id=f"{method}-turns") for method in ("pgd-at", "awp")),
]


@pytest.mark.parametrize(("method", "train"), CASES)
def test_no_step_reads_a_tensor(
    method: Any, train: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ``.item()`` and ``.cpu()`` nor indexing by a mask, which on a GPU would each wait for
    it; the losses are read at the first step and at every ``CHECK_EVERY``-th."""
    as_on_a_device(monkeypatch)
    made = trainer(method, tmp_path, "cpu", **train)
    running = steps(made, 4)
    next(running)
    assert made.state.step + 3 < CHECK_EVERY
    with Waits() as waits:
        for _ in running:
            pass
    assert made.state.step == 4
    assert waits.found == []


def test_the_counter_counts() -> None:
    x = torch.arange(4.0)
    with Waits() as waits:
        x.sum().item()
        x.cpu()
        x[x > 1]
        x[x > 1] = 0
        bool((x > 1).any())
        torch.where(x > 1)
        x.tolist()
        assert len(set(waits.found)) >= 6
        found = len(waits.found)
        torch.where(x > 1, x, 0.0)
        x.index_select(0, torch.tensor([1]))
        x.masked_fill(x > 1, 0.0)
        assert len(waits.found) == found


def test_a_device_cuts_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very bits that numpy gives, with nothing read back."""
    data = tiny_data()

    def batches() -> list[tuple[Tensor, Tensor]]:
        return list(TrainLoader(data.train, 20, seed=3, crop=4, flip=True).epoch(1))

    expected = batches()
    as_on_a_device(monkeypatch)
    with Waits() as waits:
        found = batches()
    assert waits.found == ["numpy"] * waits.found.count("numpy")  # the mirrored copy, made once
    assert len(waits.found) <= 2
    for (x, y), (x2, y2) in zip(expected, found, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("method", "train"), CASES)
def test_no_step_waits_for_cuda(method: Any, train: dict[str, Any], tmp_path: Path) -> None:
    """torch itself raises at a call that waits."""
    made = trainer(method, tmp_path, "cuda", **train)
    running = steps(made, 4)
    next(running)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in running:
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
