"""Batches of splits too large for memory, decoded by worker processes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from benchmark.core.errors import DataError
from benchmark.core.mesh import DataAxis
from benchmark.data.batches import Batch, IndexedBatch, batch_bounds, draw_shifts, generator
from benchmark.data.dataset import StreamedSplit
from benchmark.data.decode import pixels_of

# The cores that this process may use, since a scheduler may have given it only some of the machine.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(8, _CORES)
PREFETCH = 4
AREA = (0.08, 1.0)  # Inception crop, Szegedy et al., arXiv 1409.4842
RATIO = (3 / 4, 4 / 3)


def random_resized_crop(
    image: Image.Image, size: int, flip: bool, random: np.random.Generator
) -> np.ndarray:
    """A random box of 8-100 % of the area, resized bilinearly, maybe flipped: uint8 [s, s, c].

    If ten random boxes do not fit, the central square is taken, as in torchvision's
    RandomResizedCrop.
    """
    width, height = image.size
    side = min(width, height)
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    for _ in range(10):
        area = width * height * random.uniform(*AREA)
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
            box = (left, top, left + w, top + h)
            break
    pixels = pixels_of(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if flip and random.random() < 0.5 else pixels


def shifted_crop(pixels: np.ndarray, top: int, left: int, crop: int, flip: bool) -> np.ndarray:
    """``pixels`` [h, w, c], zero-padded by ``crop``, cut at (top, left), maybe flipped."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((crop, crop), (crop, crop), (0, 0)))
    cut = padded[top : top + height, left : left + width]
    return cut[:, ::-1] if flip else cut


Item = TypeVar("Item")
# Epoch, image, and the crop's (top, left) and the flip, which only small images use.
TrainKey: TypeAlias = tuple[int, int, int, int, bool]


class _TrainImages(TorchDataset):
    """Item (epoch, i, top, left, flip) is image i, augmented; every worker gives the same result.

    The augmentation of large images depends only on (seed, epoch, i), that of small images is given
    by the rest of the key.
    """

    def __init__(self, split: StreamedSplit, seed: int, crop: int, flip: bool) -> None:
        self.split, self.seed, self.crop, self.flip = split, seed, crop, flip

    def __getitem__(self, key: TrainKey) -> Batch | DataError:
        epoch, index, top, left, flip = key
        try:
            if self.split.small:
                pixels = self.split.eval_image(index)
                pixels = shifted_crop(pixels, top, left, self.crop, flip)
            else:
                image = self.split.image(index)
                random = np.random.default_rng((self.seed, epoch, index))
                pixels = random_resized_crop(image, self.split.image_size, self.flip, random)
        except DataError as error:
            return error
        return torch.from_numpy(pixels.copy()), self.split.labels[index]


class _EvalImages(TorchDataset):
    def __init__(self, split: StreamedSplit) -> None:
        self.split = split

    def __getitem__(self, index: int) -> IndexedBatch | DataError:
        try:
            pixels = torch.from_numpy(self.split.eval_image(index).copy())
        except DataError as error:
            return error
        return torch.tensor(index), pixels, self.split.labels[index]


def _collate(items: list[Item | DataError]) -> Any:
    """A batch, or the first error among its images.

    The error is returned, not raised: an error that a worker raises would reach the user as a long
    traceback.
    """
    for item in items:
        if isinstance(item, DataError):
            return item
    return default_collate(items)


def _sound(batches: Iterable[Any]) -> Iterator[Any]:
    """Pass the batches on. Raises DataError: an image in one of them is damaged."""
    for batch in batches:
        if isinstance(batch, DataError):
            raise batch
        yield batch


class _EpochSampler:
    """Yields the keys of the batches of the epoch that is set when the DataLoader starts a pass."""

    def __init__(
        self,
        split: StreamedSplit,
        batch_size: int,
        seed: int,
        crop: int,
        flip: bool,
        axis: DataAxis,
    ) -> None:
        self.bounds = batch_bounds(len(split), batch_size)
        self.axis = axis
        self.count, self.seed, self.small = len(split), seed, split.small
        self.crop, self.flip = crop, flip
        self.epoch, self.start = 0, 0

    def __iter__(self) -> Iterator[list[TrainKey]]:
        order = torch.randperm(self.count, generator=generator(self.seed, self.epoch))
        epoch = self.epoch
        for batch, (first, last) in enumerate(self.bounds[self.start :], self.start):
            low, high = self.axis.part(last - first)
            indices = order[first + low : first + high].tolist()
            if not self.small:
                yield [(epoch, index, 0, 0, False) for index in indices]
                continue
            # as TrainLoader draws them
            random = generator(self.seed, epoch, 1 + batch)
            drawn = draw_shifts(random, last - first, self.crop, self.flip)
            shifts = (draw[low:high].tolist() for draw in drawn)
            yield [(epoch, *rest) for rest in zip(indices, *shifts, strict=True)]

    def __len__(self) -> int:
        return len(self.bounds) - self.start


class StreamedTrainLoader:
    """The interface of ``TrainLoader`` for a ``StreamedSplit``: random resized crop and flip.

    The augmentation of image i in epoch e depends only on (seed, e, i), and the order of an epoch
    only on (seed, e). Small images come in exactly the batches that ``TrainLoader`` would make.
    Worker processes stay alive between epochs.

    Args:
        crop: as in ``TrainLoader``; for small images only.

    Raises:
        DataError: while batches are read, for a damaged image.
    """

    def __init__(
        self,
        split: StreamedSplit,
        batch_size: int,
        *,
        seed: int,
        crop: int = 0,
        flip: bool,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        workers: int = WORKERS,
        axis: DataAxis | None = None,
    ) -> None:
        self._axis = axis or DataAxis()
        self._sampler = _EpochSampler(split, batch_size, seed, crop, flip, self._axis)
        self.steps_per_epoch = len(self._sampler.bounds)
        self._device = torch.device(device)
        self._channels_last = channels_last
        self._loader: DataLoader = DataLoader(
            _TrainImages(split, seed, crop, flip),
            collate_fn=_collate,
            batch_sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # else each epoch would draw from the global generator
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from number ``start`` on: x float32 [b, c, s, s] in [0, 1], y int64 [b]."""
        self._sampler.epoch, self._sampler.start = epoch, start
        for (first, last), (images, labels) in zip(
            self._sampler.bounds[start:], _sound(self._loader), strict=True
        ):
            x = _to_device(images, self._device, self._channels_last)
            self._axis.take(last - first)
            yield x, labels.to(self._device, non_blocking=True)


def streamed_evaluation_batches(
    split: StreamedSplit,
    batch_size: int,
    indices: Tensor,
    device: torch.device,
    workers: int = WORKERS,
) -> Iterator[IndexedBatch]:
    """``evaluation_batches`` for a ``StreamedSplit``, see ``StreamedSplit.eval_image``."""
    loader: DataLoader = DataLoader(
        _EvalImages(split),
        batch_size=batch_size,
        collate_fn=_collate,
        sampler=indices.numpy(),  # a list would make a Python object of every index
        num_workers=min(workers, math.ceil(len(indices) / batch_size)),
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for index, images, labels in _sound(loader):
        yield index, _to_device(images, device, True), labels.to(device, non_blocking=True)


def _to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """uint8 [b, s, s, c] to float32 [b, c, s, s] in [0, 1]. The bytes are copied to the device and
    converted there, since floats would take four times as long to copy."""
    x = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
    if not channels_last:
        x = x.contiguous()
    return x.float().div_(255)
