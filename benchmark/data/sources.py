"""``load``: one data set by name, validated, split, limited and fingerprinted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from benchmark.core.errors import DataError
from benchmark.data.check import check_classes, check_same_size
from benchmark.data.dataset import AnySplit, Dataset, Split, StreamedSplit, fingerprint
from benchmark.data.decode import resize_square
from benchmark.data.extra import read_extra
from benchmark.data.source import DATASETS, DatasetConfig
from benchmark.data.splits import carve, long_tailed, stratified, without


def load(config: DatasetConfig, data_root: Path | str, *, training: bool = True) -> Dataset:
    """Read, check and split the data set that ``config`` describes.

    Unless the source has a validation split, a stratified one is taken from the training images.
    Then ``imbalance`` and ``train_limit``, in this order, reduce the training images that are left,
    and ``without`` replaces one of them. Test images depend on no seed.

    Args:
        training: whether training images are required. If not, a source with only a test split is
            accepted, with empty training and validation splits, and ``extra`` is not read.

    Raises:
        DataError: nothing found, damaged files, or data in another form than declared.
    """
    source = DATASETS.get(config.name)
    raw = source.read(config, Path(data_root))
    if raw.train is None and training:
        raise DataError(
            f"there is only a test split ({raw.source}), which is enough for evaluate-model and "
            "evaluate RUN --dataset; to train on it, add training images (a folder train/ beside "
            "val/ or test/, or arrays train_images and train_labels)"
        )
    in_memory = {
        name: split
        for name, split in (("train", raw.train), ("val", raw.val), ("test", raw.test))
        if isinstance(split, Split)
    }
    if config.size is None and in_memory:
        check_same_size(in_memory)
    others = {"test": raw.test} if raw.val is None else {"val": raw.val, "test": raw.test}
    check_classes(raw.train, others, raw.classes)

    notes = list(raw.notes)
    train, val = raw.train, raw.val
    if train is None:
        nothing = torch.empty(0, dtype=torch.int64)
        train, val = raw.test.take(nothing), raw.test.take(nothing)
        notes.append("only a test split")
    elif val is None:
        count = config.val_size or max(1, round(config.val_fraction * len(train)))
        kept, held_out = carve(train.labels, count, config.split_seed)
        train, val = train.take(kept), train.take(held_out)
        notes.append(f"validation: {len(val):,} images carved from training, stratified")
    else:
        notes.append(f"validation: the source's own {len(val):,} images")
    if config.imbalance is not None and len(train):
        train = train.take(
            long_tailed(train.labels, len(raw.classes), config.imbalance, config.split_seed)
        )
        ends = [int((train.labels == label).sum()) for label in (0, len(raw.classes) - 1)]
        notes.append(
            f"long-tailed training split: imbalance {config.imbalance:g}, {ends[0]:,} images of "
            f"{raw.classes[0]} to {ends[1]:,} of {raw.classes[-1]}, {len(train):,} in all"
        )
    train = _thin(train, lowest(config.train_limit, config.limit), config.split_seed)
    if config.without is not None and len(train):
        kept = without(train.labels, config.without)
        train = train.take(kept)
        notes.append(
            f"training image {config.without} is left out; image {int(kept[config.without])}, of "
            "the same class, stands in its place a second time"
        )
    val = _thin(val, config.limit, config.split_seed)
    test = raw.test
    first = lowest(config.test_limit, config.limit)
    if first is not None and first < len(test):
        test = test.take(torch.arange(first))
    train, val, test = (_resized(split, config.size) for split in (train, val, test))
    known_by, rests_on = fingerprint((train, val, test), raw.classes)
    extra = None
    if config.extra is not None and training:
        extra = read_extra(config.extra, Path(data_root), train, raw.classes)
        known_by = hashlib.sha256(f"{known_by} {extra.known_by}".encode()).hexdigest()[:16]
        notes.append(
            f"additional data: {100 * extra.share:g} % of each training batch are drawn from "
            f"{len(extra):,} extra images ({extra.path.name}, {extra.known_by})"
        )
    return Dataset(
        name=config.name,
        train=train,
        val=val,
        test=test,
        classes=raw.classes,
        fingerprint=known_by,
        source=raw.source,
        notes=(*notes, *rests_on),
        statistics=source.statistics,
        extra=extra,
    )


def _thin(split: AnySplit, count: int | None, seed: int) -> AnySplit:
    """A stratified subset of ``count`` images, or the whole split if it has no more."""
    if count is None or count >= len(split):
        return split
    chosen: Tensor = stratified(split.labels, count, seed)
    if len(set(split.labels[chosen].tolist())) < 2:
        raise DataError(f"a limit of {count} images keeps a single class; raise the limit")
    return split.take(chosen)


def lowest(*limits: int | None) -> int | None:
    """The least of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


def _resized(split: AnySplit, size: int | None) -> AnySplit:
    if size is None or isinstance(split, StreamedSplit):
        return split
    return Split(resize_square(split.images, size), split.labels)
