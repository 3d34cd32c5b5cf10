"""What a loaded data set is: splits in memory or on disk, their statistics and fingerprint."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmark.core.errors import DataError
from benchmark.data.decode import PLAIN, Decoding, cached, center_square, open_image, printable

STATISTICS_SAMPLE = 1000
WHOLE_BYTES = 1 << 30  # up to so many bytes, streamed files are hashed whole: about a second
SAMPLED_FILES = 2000


@dataclass(frozen=True)
class Split:
    """Images in memory: uint8 [n, c, s, s] in 0..255, labels int64 [n]; c is 3, or 1 for grey.

    Test images that are given in Python may also be float32 in [0, 1], if 8 bits would round them.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return int(self.images.shape[-1])

    @property
    def channels(self) -> int:
        """3, or 1 for grey images."""
        return int(self.images.shape[1])

    def take(self, indices: Tensor) -> Split:
        """The split of these images, in this order."""
        return Split(self.images[indices], self.labels[indices])


class FileNames:
    """Relative paths in two tensors, which take the text and 8 bytes per path; a million Python
    strings take four times as much.

    Worker processes share the two tensors, forked or not. A list of strings would be copied into
    each worker little by little: reading a Python object changes its reference count, which makes
    the operating system copy the page of memory.

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
    """Images on disk, decoded when needed.

    Attributes:
        files: paths relative to ``root``; ``labels``, int64 [n], are in the same order.
        image_size: side of the square images in pixels.
        decoding: how pixels become 8-bit values.
        small: images of at most ``folders.SMALL`` pixels that are streamed only because they are
            too many for memory; their pixels and augmentation are the same as in a ``Split``.
    """

    root: Path
    files: FileNames
    labels: Tensor
    image_size: int
    decoding: Decoding = PLAIN
    small: bool = False

    def __len__(self) -> int:
        return len(self.files)

    @property
    def channels(self) -> int:
        """3, or 1 for grey images."""
        return self.decoding.channels

    def take(self, indices: Tensor) -> StreamedSplit:
        """The split of these images, in this order."""
        files = FileNames(self.files.at(indices.numpy()))
        return replace(self, files=files, labels=self.labels[indices])

    def image(self, index: int) -> Image.Image:
        """Image ``index`` in the size of its file, of mode RGB or L. Raises DataError: damaged."""
        file = self.files[index]
        return open_image(self.root / file, f"{self.root.name}/{file}", self.decoding)

    def eval_image(self, index: int) -> np.ndarray:
        """Image ``index`` as evaluation sees it: uint8 [s, s, c].

        The shorter side is resized to 256/224 of the size (to the size itself where ``small``),
        and the central square is cut.
        """
        resize = self.image_size if self.small else round(self.image_size * 256 / 224)
        return center_square(self.image(index), self.image_size, resize)


AnySplit: TypeAlias = Split | StreamedSplit


@dataclass(frozen=True)
class ExtraImages:
    """Training images beside those of the data set, such as generated ones, read when needed.

    They are read with ordinary file access, and the operating system caches as much of the file as
    fits. A memory-mapped file would count as memory of the process, and a read error of the disk
    would end the process with a signal.

    Attributes:
        offset: where the pixels, uint8 of ``shape`` [n, s, s, c], begin in the file ``path``.
        labels: integers [n].
        share: the share of each batch that is drawn from them, in (0, 1).
        known_by: a hash over shape, labels and pixels, 16 hexadecimal digits.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    labels: np.ndarray
    share: float
    known_by: str

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, indices: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [m, s, s, c] and labels int64 [m] of ``indices``, in this order.

        Raises:
            DataError: the file is missing, or has become shorter.
        """
        images = np.empty((len(indices), *self.shape[1:]), dtype=np.uint8)
        size = images[:1].nbytes
        chosen = indices.numpy()
        try:
            with open(self.path, "rb", buffering=0) as file:
                for image, index in zip(images, chosen.tolist(), strict=True):
                    file.seek(self.offset + index * size)
                    if file.readinto(image.data) != size:
                        raise DataError(
                            f"{self.path.name} has become shorter while it was read; restore it, "
                            "then run the same command again to go on"
                        )
        except OSError as error:
            raise DataError(
                f"{self.path.name} cannot be read ({error.strerror}); restore it, then run the "
                "same command again to go on"
            ) from error
        return images, self.labels[chosen].astype(np.int64)


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test split of one data set.

    Attributes:
        fingerprint: first 16 hexadecimal digits of a SHA-256 over the three splits as used
            (arrays and labels; of streamed splits paths, labels, sizes and contents of files, see
            ``fingerprint``, and how they are decoded).
        source: what was read from where, for people; no absolute path.
        notes: remarks for the record, such as "20,000 of 50,000 training images".
        statistics: mean and standard deviation per channel, in [0, 1], used instead of those of
            the training images if the number of channels is the same.
        extra: further training images, from which a share of each batch is drawn; the fingerprint
            covers them.

    A data set that serves for evaluation only has empty training and validation splits.
    """

    name: str
    train: AnySplit
    val: AnySplit
    test: AnySplit
    classes: tuple[str, ...]
    fingerprint: str
    source: str
    notes: tuple[str, ...] = ()
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    extra: ExtraImages | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> int:
        """Side of the square images in pixels."""
        return self.test.image_size

    @property
    def channels(self) -> int:
        """3, or 1 for grey images."""
        return self.test.channels

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.statistics is not None and len(self.statistics[0]) == self.channels:
            return self.statistics
        if not len(self.train):
            raise DataError(
                f"{self.source}: there are no training images to compute mean and standard "
                "deviation from; give both in model.normalization"
            )
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
        channels = [images[..., c] for c in range(split.channels)]
    else:
        channels = [split.images[:, c] for c in range(split.channels)]
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in channels:  # histograms: exact, and no float copy of the whole set
        counts = torch.bincount(channel.reshape(-1), minlength=256).double()
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        means.append(float(mean))
        stds.append(float(variance.sqrt()))
    return tuple(means), tuple(stds)


def fingerprint(
    splits: tuple[AnySplit, ...], classes: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """The fingerprint of a data set, and notes on what it does not cover.

    It is the first 16 hexadecimal digits of a SHA-256 over the class names and the splits. For a
    split in memory it covers all pixels and labels. For a streamed split it covers image size and
    decoding, names, labels and lengths of all files, and the contents of all files if they have at
    most 1 GiB together; otherwise the contents of 2,000 files, evenly spaced in order of name.
    Contents are read again only if the size or a time stamp of a file has changed.
    """
    digest = hashlib.sha256("\n".join(classes).encode("utf-8", "surrogateescape"))
    notes: list[str] = []
    for split in splits:
        if isinstance(split, StreamedSplit):
            notes += _add_streamed(digest, split)
        else:
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
            digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()[:16], tuple(dict.fromkeys(notes))


def _add_streamed(digest: hashlib._Hash, split: StreamedSplit) -> list[str]:
    """Add ``split`` to ``digest``; returns a note if the digest does not cover all contents."""
    names = list(split.files)
    order = sorted(range(len(names)), key=names.__getitem__)
    digest.update(repr((split.image_size, split.decoding, split.small)).encode())
    labels, root, total = split.labels.numpy(), str(split.root), 0
    for index in order:
        try:
            size = os.stat(os.path.join(root, names[index])).st_size
        except OSError as error:
            raise DataError(
                f"{printable(f'{split.root.name}/{names[index]}')} cannot be read "
                f"({error.strerror}); is it a link to a missing file?"
            ) from error
        total += size
        digest.update(os.fsencode(names[index]))
        digest.update(f"\0{size} {labels[index]}\n".encode())
    if total > WHOLE_BYTES and len(order) > SAMPLED_FILES:
        steps = np.linspace(0, len(order) - 1, SAMPLED_FILES).round().astype(int)
        chosen = [split.root / names[order[step]] for step in steps]
        note = (
            f"the fingerprint of streamed images covers the contents of {SAMPLED_FILES:,} evenly "
            "spaced files, and names and lengths of all"
        )
    else:
        chosen, note = [split.root / names[index] for index in order], ""

    def contents() -> dict[str, np.ndarray]:
        whole = hashlib.sha256()
        for file in chosen:
            whole.update(hashlib.sha256(file.read_bytes()).digest())
        return {"digest": np.frombuffer(whole.digest(), dtype=np.uint8)}

    digest.update(cached(chosen, contents, "contents")["digest"].tobytes())
    return [note] if note else []
