"""Subsets: the validation split, limited training sets, long-tailed ones, and one image less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmark.core.errors import DataError


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """Sorted indices of ``count`` images whose class shares follow ``labels`` within one image.

    It uses RandomState, not Generator, because numpy guarantees that the numbers of RandomState
    never change; so the splits never change either.
    """
    values = labels.numpy()
    present, sizes = np.unique(values, return_counts=True)
    exact = sizes * (count / len(values))
    take = np.floor(exact).astype(int)
    # classes with the largest remainders get one image more; ties go to the lower class
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
        DataError: no training image would be left, or none of some class.
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


def long_tail(counts: Sequence[int], imbalance: float) -> list[int]:
    """How many images each class keeps: n_c = floor(n_0 * imbalance^(-c / (C - 1))), c from 0.

    This is the exponential profile of Cui et al., 1901.05555, in the order of labels. n_0 is the
    largest number for which every class has enough images (``counts``); in a balanced set, the
    first class keeps all its images.

    Raises:
        DataError: a class would keep no image.
    """
    shares = [imbalance ** (-label / (len(counts) - 1)) for label in range(len(counts))]
    # 1e-9: 4500 * 0.1 must not become 449 by rounding
    first = min(int(n / share + 1e-9) for n, share in zip(counts, shares, strict=True))
    kept = [int(first * share + 1e-9) for share in shares]
    if min(kept) < 1:
        raise DataError(
            f"dataset.imbalance = {imbalance:g} leaves no image of class {kept.index(min(kept))}; "
            "lower it"
        )
    return kept


def long_tailed(labels: Tensor, classes: int, imbalance: float, seed: int) -> Tensor:
    """Sorted indices of the images that stay, see ``long_tail``; ``seed`` chooses them.

    Raises:
        DataError: a class would keep no image.
    """
    values = labels.numpy()
    counts = np.bincount(values, minlength=classes).tolist()
    random = np.random.RandomState(seed)
    chosen = [
        random.permutation(np.flatnonzero(values == label))[:number]
        for label, number in enumerate(long_tail(counts, imbalance))
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def without(labels: Tensor, number: int) -> Tensor:
    """Indices of all images, with the next image of its class in the place of image ``number``.

    The next is searched for from ``number`` on, then from the first image.

    Raises:
        DataError: there is no such image, or no other of its class.
    """
    if number >= len(labels):
        raise DataError(
            f"dataset.without = {number}: there are {len(labels)} training images, numbered from 0"
        )
    same = (labels == labels[number]).nonzero().flatten()
    others = same[same != number]
    if not len(others):
        raise DataError(
            f"dataset.without = {number}: this is the only training image of its class; name "
            "another"
        )
    later = others[others > number]
    indices = torch.arange(len(labels))
    indices[number] = later[0] if len(later) else others[0]
    return indices
