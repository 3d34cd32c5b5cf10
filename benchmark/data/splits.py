"""Stratified subsets: the validation split and limited training sets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import DataError


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Sorted indices of ``count`` images whose class shares follow ``labels`` within one image.

    RandomState, not Generator: numpy promises its stream never changes, so neither do the splits.
    """
    values = labels.numpy()
    present, sizes = np.unique(values, return_counts=True)
    exact = sizes * (count / len(values))
    take = np.floor(exact).astype(int)
    # largest remainders first, ties by class
    order = np.argsort(-(exact - take), kind="stable")
    take[order[: count - take.sum()]] += 1
    random = np.random.RandomState(seed)
    chosen = [
        random.permutation(np.flatnonzero(values == label))[:number]
        for label, number in zip(present, take, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def carve(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices (train, validation), disjoint; validation has ``count`` images.

    Raises:
        DataError: the split would leave no training image, or none of some class.
    """
    if not 0 < count < len(labels):
        raise DataError(
            f"a validation split of {count} images cannot be carved from {len(labels)} training "
            "images; change val_size or val_fraction"
        )
    validation = stratified(labels, count, seed)
    keep = torch.ones(len(labels), dtype=torch.bool)
    keep[validation] = False
    train = keep.nonzero().flatten()
    lost = set(labels.unique().tolist()) - set(labels[train].unique().tolist())
    if lost:
        raise DataError(
            f"a validation split of {count} of {len(labels)} images leaves no training image of "
            f"class {min(lost)}; lower val_size or val_fraction"
        )
    return train, validation
