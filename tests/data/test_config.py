"""What a user may write about a data set, and what is refused before anything is read."""

from __future__ import annotations

import pytest

from benchmark.core.config import parse
from benchmark.core.errors import ConfigError
from benchmark.data.source import DATASETS, DatasetConfig


def test_every_data_set_is_described() -> None:
    """What ``list datasets`` prints."""
    assert all(source.description for _, source in DATASETS.items())


@pytest.mark.parametrize(
    ("data", "size", "crop", "flip"),
    [
        ({"name": "digits"}, 16, 2, False),
        ({"name": "digits", "size": 32}, 32, 4, False),
        ({"name": "cifar10"}, None, 4, True),
        ({"name": "imagenet"}, 224, 4, True),
        ({"name": "npz", "path": "a.npz"}, None, 4, False),
        ({"name": "digits", "flip": None, "size": None}, 16, 2, False),
        ({"name": "digits", "crop": 0}, 16, 0, False),
    ],
)
def test_defaults_fit_the_data_set(data: dict, size: int | None, crop: int, flip: bool) -> None:
    config = parse(DatasetConfig, data)
    assert (config.size, config.crop, config.flip) == (size, crop, flip)
    assert parse(DatasetConfig, config.model_dump()) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "cifar01"}, "did you mean 'cifar10'"),
        ({"name": 3}, "name"),
        ({"name": "npz"}, "needs a path"),
        ({"name": "cifar10", "path": "x"}, "only for folder and npz and parquet.*--data-root"),
        ({"name": "digits", "class_order": "numeric"}, "only for folder, imagenet, npz, parquet"),
        ({"name": "digits", "size": 28}, "16 or 32"),
        ({"name": "cifar10", "size": 8, "crop": 8}, "smaller than size"),
        ({"val_fraction": 0}, "val_fraction"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_size": 0}, "val_size"),
        ({"trainlimit": 5}, "did you mean 'train_limit'"),
    ],
)
def test_wrong_values_are_explained(data: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(DatasetConfig, data)
