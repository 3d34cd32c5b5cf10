"""Batches of splits too large for memory, decoded by worker processes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmark.core.mesh import DataAxis
from benchmark.data.dataset import StreamedSplit
from benchmark.data.decode import open_image
from benchmark.data.loader import Batch, IndexedBatch, batch_bounds, generator

# Of the cores that this process may use: a scheduler may have given it a part of the machine.
_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WORKERS = min(8, _CORES)
PREFETCH = 4
AREA = (0.08, 1.0)  # Inception crop, Szegedy et al., arXiv 1409.4842
RATIO = (3 / 4, 4 / 3)


def random_resized_crop(
    image: Image.Image, size: int, flip: bool, random: np.random.Generator
) -> np.ndarray:
    """A random box of 8-100 % of the area, resized bilinearly, maybe flipped: uint8 [s, s, 3].

    Ten tries to fit the box, then the central square, as torchvision's RandomResizedCrop does.
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
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return pixels[:, ::-1] if flip and random.random() < 0.5 else pixels


class _TrainImages(TorchDataset):
    """Item (epoch, i): image i augmented from (seed, epoch, i) alone, whichever worker does it."""

    def __init__(self, split: StreamedSplit, seed: int, flip: bool) -> None:
        self.split, self.seed, self.flip = split, seed, flip

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        image = open_image(self.split.root / self.split.files[index])
        random = np.random.default_rng((self.seed, epoch, index))
        pixels = random_resized_crop(image, self.split.image_size, self.flip, random)
        return torch.from_numpy(pixels.copy()), self.split.labels[index]


class _EvalImages(TorchDataset):
    def __init__(self, split: StreamedSplit) -> None:
        self.split = split

    def __getitem__(self, index: int) -> IndexedBatch:
        pixels = torch.from_numpy(self.split.eval_image(index).copy())
        return torch.tensor(index), pixels, self.split.labels[index]


class _EpochSampler:
    """Keys of the batches of the epoch asked for last; read when the DataLoader starts a pass."""

    def __init__(self, count: int, batch_size: int, seed: int, axis: DataAxis) -> None:
        self.bounds = batch_bounds(count, batch_size)
        self.axis = axis
        self.count, self.seed = count, seed
        self.epoch, self.start = 0, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.randperm(self.count, generator=generator(self.seed, self.epoch))
        epoch = self.epoch
        for first, last in self.bounds[self.start :]:
            low, high = self.axis.part(last - first)
            yield [(epoch, index) for index in order[first + low : first + high].tolist()]

    def __len__(self) -> int:
        return len(self.bounds) - self.start


class StreamedTrainLoader:
    """The interface of ``TrainLoader`` for a ``StreamedSplit``: random resized crop and flip.

    The augmentation of image i in epoch e depends only on (seed, e, i), and the order of an epoch
    only on (seed, e). Worker processes stay alive between epochs.
    """

    def __init__(
        self,
        split: StreamedSplit,
        batch_size: int,
        *,
        seed: int,
        flip: bool,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        workers: int = WORKERS,
        axis: DataAxis | None = None,
    ) -> None:
        self._axis = axis or DataAxis()
        self._sampler = _EpochSampler(len(split), batch_size, seed, self._axis)
        self.steps_per_epoch = len(self._sampler.bounds)
        self._device = torch.device(device)
        self._channels_last = channels_last
        self._loader: DataLoader = DataLoader(
            _TrainImages(split, seed, flip),
            batch_sampler=self._sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # or each pass would draw from the global one
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from number ``start`` on: x float32 [b, 3, s, s] in [0, 1], y int64 [b]."""
        self._sampler.epoch, self._sampler.start = epoch, start
        for (first, last), (images, labels) in zip(
            self._sampler.bounds[start:], self._loader, strict=True
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
    """``evaluation_batches`` for a ``StreamedSplit``: shorter side to 256/224 s, centre crop s."""
    loader: DataLoader = DataLoader(
        _EvalImages(split),
        batch_size=batch_size,
        sampler=indices.numpy(),  # a list would box every index
        num_workers=min(workers, math.ceil(len(indices) / batch_size)),
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    for index, images, labels in loader:
        yield index, _to_device(images, device, True), labels.to(device, non_blocking=True)


def _to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """uint8 [b, s, s, 3] to float32 [b, 3, s, s] in [0, 1]; bytes travel, floats do not."""
    x = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
    if not channels_last:
        x = x.contiguous()
    return x.float().div_(255)
