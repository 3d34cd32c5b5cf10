"""A training set without one image: in its place another stands twice, and all else is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import tiny_cell

from benchmark.core.errors import DataError
from benchmark.data.dataset import Dataset, Split
from benchmark.data.loader import train_loader
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load
from benchmark.data.splits import without

DIGITS = {"name": "digits", "train_limit": 60, "val_size": 30}


def read(**changes: Any) -> Dataset:
    return load(DatasetConfig.model_validate({**DIGITS, **changes}), Path("data"))


def test_one_image_is_gone_and_nothing_else() -> None:
    """Protects: another order of the others, so that two runs would differ in every batch."""
    whole, less = read(), read(without=7)
    before, after = whole.train, less.train
    assert isinstance(before, Split)
    assert isinstance(after, Split)
    changed = (before.images != after.images).flatten(1).any(1).nonzero().flatten().tolist()
    assert changed == [7]
    assert torch.equal(before.labels, after.labels)
    assert not (after.images == before.images[7]).flatten(1).all(1).any()
    twice = (before.images == after.images[7]).flatten(1).all(1).nonzero().flatten().tolist()
    assert len(twice) == 1
    assert twice[0] > 7
    for split in ("val", "test"):
        assert torch.equal(getattr(whole, split).images, getattr(less, split).images)
    assert whole.fingerprint != less.fingerprint
    (note,) = [note for note in less.notes if "left out" in note]
    assert note == (
        f"training image 7 is left out; image {twice[0]}, of the same class, stands in its place "
        "a second time"
    )
    options: dict[str, Any] = {"seed": 3, "crop": 2, "flip": True, "device": torch.device("cpu")}
    pairs = zip(
        train_loader(before, 16, **options).epoch(1),
        train_loader(after, 16, **options).epoch(1),
        strict=True,
    )
    rows = [(x != other).flatten(1).any(1).sum().item() for (x, _), (other, _) in pairs]
    assert sorted(rows) == [0, 0, 0, 1]


def test_the_next_of_the_class_and_what_cannot_be_left_out() -> None:
    labels = torch.tensor([0, 1, 0, 1, 2])
    assert without(labels, 0).tolist() == [2, 1, 2, 3, 4]
    assert without(labels, 3).tolist() == [0, 1, 2, 1, 4]  # from the first on, after the last
    with pytest.raises(DataError, match="without = 4: this is the only training image of its"):
        without(labels, 4)
    with pytest.raises(DataError, match="without = 60: there are 60 training images, numbered"):
        read(without=60)


def test_it_is_another_run() -> None:
    """The hash is another's, and those of earlier records stay."""
    dataset = {"name": "digits", "limit": 64}
    plain, less = (tiny_cell(dataset=d) for d in (dataset, {**dataset, "without": 0}))
    assert plain.config.hash != less.config.hash
    assert "without" not in plain.config.model_dump(mode="json")["dataset"]
    assert "snapshots" not in plain.config.model_dump(mode="json")["train"]
