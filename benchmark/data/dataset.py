"""What a loaded data set is: splits in memory or on disk, their statistics and fingerprint."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from benchmark.data.decode import center_square, open_image

# Statistics of the full ImageNet training set, which public ImageNet networks expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STATISTICS_SAMPLE = 1000


@dataclass(frozen=True)
class Split:
    """Images in memory: uint8 [n, 3, s, s] in 0..255, labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return int(self.images.shape[-1])

    def take(self, indices: Tensor) -> Split:
        """The split of these images, in this order."""
        return Split(self.images[indices], self.labels[indices])


class FileNames:
    """Relative paths, 8 bytes each beside their text: a million strings take four times as much.

    Worker processes share the two tensors, forked or not; strings they would come to copy, since
    looking at an object writes its reference count into its page of memory.

    Attributes:
        text: all paths one after another, uint8.
        ends: where each ends in ``text``, int64 [n].
    """

    def __init__(self, names: Iterable[str]) -> None:
        text, ends = bytearray(), array("q")
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
        self.text = torch.from_numpy(np.frombuffer(text, dtype=np.uint8))
        self.ends = torch.from_numpy(np.frombuffer(ends, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return next(self.at([index]))

    def __iter__(self) -> Iterator[str]:
        return self.at(range(len(self)))

    def at(self, indices: Iterable[int]) -> Iterator[str]:
        """The paths of these images, in this order."""
        text, ends = self.text.numpy().data, self.ends.numpy()
        for index in indices:
            yield os.fsdecode(bytes(text[ends[index - 1] if index else 0 : ends[index]]))


@dataclass(frozen=True)
class StreamedSplit:
    """Images on disk, decoded when needed: ``files`` relative to ``root``, labels int64 [n]."""

    root: Path
    files: FileNames
    labels: Tensor
    image_size: int

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Tensor) -> StreamedSplit:
        """The split of these images, in this order."""
        files = FileNames(self.files.at(indices.numpy()))
        return StreamedSplit(self.root, files, self.labels[indices], self.image_size)

    def eval_image(self, index: int) -> np.ndarray:
        """Image ``index`` resized to 256/224 of the size and centre-cropped: uint8 [s, s, 3]."""
        image = open_image(self.root / self.files[index])
        return center_square(image, self.image_size, round(self.image_size * 256 / 224))


AnySplit: TypeAlias = Split | StreamedSplit


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test split of one data set.

    Attributes:
        fingerprint: first 16 hexadecimal digits of a SHA-256 over the three splits as used
            (arrays and labels; for streamed splits sorted relative paths and file sizes).
        source: what was read from where, for people; no absolute path.
        notes: remarks for the record, such as "20,000 of 50,000 training images".
    """

    name: str
    train: AnySplit
    val: AnySplit
    test: AnySplit
    classes: tuple[str, ...]
    fingerprint: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.image_size

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.name == "imagenet":
            return IMAGENET_MEAN, IMAGENET_STD
        return channel_statistics(self.train)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel of the training images, in [0, 1]."""
        return self._statistics[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation over all training pixels per channel, in [0, 1] units."""
        return self._statistics[1]


def channel_statistics(split: AnySplit) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; streamed: over 1,000 evenly spaced images."""
    if isinstance(split, StreamedSplit):
        chosen = np.unique(np.linspace(0, len(split) - 1, STATISTICS_SAMPLE).round().astype(int))
        images = torch.from_numpy(np.stack([split.eval_image(int(i)) for i in chosen]))
        channels = [images[..., c] for c in range(3)]
    else:
        channels = [split.images[:, c] for c in range(3)]
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in channels:  # histograms: exact, and no float copy of the whole set
        counts = torch.bincount(channel.reshape(-1), minlength=256).double()
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        means.append(float(mean))
        stds.append(float(variance.sqrt()))
    return tuple(means), tuple(stds)


def fingerprint(splits: tuple[AnySplit, ...], classes: tuple[str, ...]) -> str:
    """First 16 hexadecimal digits of the SHA-256 described at ``Dataset.fingerprint``."""
    digest = hashlib.sha256("\n".join(classes).encode())
    for split in splits:
        if isinstance(split, StreamedSplit):
            for file in sorted(split.files):
                digest.update(f"{file}\0{(split.root / file).stat().st_size}\n".encode())
        else:
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
            digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()[:16]
