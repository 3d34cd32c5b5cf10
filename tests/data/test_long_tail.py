"""Long-tailed training sets: the exponential protocol, in training images alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from benchmark.core.errors import DataError
from benchmark.data.dataset import Dataset
from benchmark.data.official import official
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load
from benchmark.data.splits import long_tail, long_tailed

from .conftest import write_folders


def read(root: Path, **settings: Any) -> Dataset:
    return load(DatasetConfig.model_validate(settings), root)


def counts(data: Dataset) -> list[int]:
    return torch.bincount(data.train.labels, minlength=data.num_classes).tolist()


@pytest.mark.parametrize(
    ("classes", "each", "imbalance", "total", "last"),
    [(10, 5000, 10, 20_431, 500), (10, 5000, 50, 13_996, 100), (10, 5000, 100, 12_406, 50),
     (100, 500, 10, 19_573, 50), (100, 500, 100, 10_847, 5)],
)  # fmt: skip
def test_totals_of_the_published_long_tails(
    classes: int, each: int, imbalance: float, total: int, last: int
) -> None:
    """Images of CIFAR-10-LT and CIFAR-100-LT, as tables of long-tailed learning state them."""
    kept = long_tail([each] * classes, imbalance)
    assert (sum(kept), kept[0], kept[-1]) == (total, each, last)


def test_the_scarcest_class_decides_where_counts_differ() -> None:
    """The profile holds exactly, and no class is asked for more than it has."""
    assert long_tail([100, 100, 100], 4) == [100, 50, 25]
    assert long_tail([100, 30, 100], 4) == [60, 30, 15]
    with pytest.raises(DataError, match="imbalance = 50 leaves no image of class 2"):
        long_tail([40, 40, 40], 50)


def test_the_seed_chooses_and_nothing_else() -> None:
    labels = torch.arange(400) % 4
    one, same, other = (long_tailed(labels, 4, 8, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.tolist() == sorted(set(one.tolist()))
    assert torch.bincount(labels[one]).tolist() == [100, 50, 25, 12]


@pytest.mark.parametrize("imbalance", [10, 50])
def test_real_cifar10(imbalance: int, real_data: Path) -> None:
    """Counts by the formula, floor(n_0 * imbalance^(-c / 9)); what is measured on stays."""
    plain = read(real_data, name="cifar10", val_size=1000)
    tail = read(real_data, name="cifar10", val_size=1000, imbalance=imbalance)
    first = counts(plain)[0]
    assert counts(tail) == [int(first * imbalance ** (-c / 9) + 1e-9) for c in range(10)]
    assert counts(tail)[0] / counts(tail)[-1] == pytest.approx(imbalance, rel=0.03)
    for name in ("val", "test"):
        before, after = getattr(plain, name), getattr(tail, name)
        assert torch.equal(before.images, after.images)
    assert tail.fingerprint != plain.fingerprint
    ends = f"{counts(tail)[0]:,} images of airplane to {counts(tail)[-1]} of truck"
    (note,) = [note for note in tail.notes if "long-tailed" in note]
    assert note == (
        f"long-tailed training split: imbalance {imbalance}, {ends}, {len(tail.train):,} in all"
    )


def test_a_limit_keeps_the_shares(tmp_path: Path) -> None:
    data = read(tmp_path, name="digits", imbalance=10, train_limit=100)
    whole = counts(read(tmp_path, name="digits", imbalance=10))
    assert sum(counts(data)) == 100
    shares = [100 * n / sum(whole) for n in whole]
    assert all(abs(n - share) < 1 for n, share in zip(counts(data), shares, strict=True))


def test_streamed_images(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 20, "val": 3}, ["a", "b", "c"], size=70)
    settings = {"name": "folder", "path": str(tmp_path), "size": 70, "val_size": 6}
    assert counts(read(tmp_path, **settings, imbalance=9)) == [18, 6, 2]


def test_plans_without_images_know_the_number() -> None:
    config = DatasetConfig.model_validate({"name": "cifar10", "val_size": 5000, "imbalance": 10})
    data = official(config)
    assert data is not None
    assert len(data.train) == sum(long_tail([4500] * 10, 10))


@pytest.mark.parametrize("imbalance", [1, 0.1, -10])
def test_a_ratio_of_one_or_less_is_refused(imbalance: float) -> None:
    with pytest.raises(ValidationError, match="imbalance"):
        DatasetConfig(imbalance=imbalance)


def test_records_of_other_sets_stay_as_they_are() -> None:
    """Protects: hashes of the runs that are on record."""
    assert not {"imbalance", "extra"} & set(DatasetConfig().model_dump())
    both = {"imbalance": 10, "extra": {"path": "a.npz"}}
    written = DatasetConfig.model_validate(both).model_dump(mode="json")
    assert DatasetConfig.model_validate(written) == DatasetConfig.model_validate(both)
    assert written["extra"] == {"path": "a.npz", "share": 0.7}
