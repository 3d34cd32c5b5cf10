"""Batches: training with augmentation, evaluation without.

No random state passes from batch to batch: batch k of epoch e depends only on (seed, e, k), so a
resumed run sees bit-identical data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmark.core.mesh import DataAxis
from benchmark.data.batches import (
    Batch,
    IndexedBatch,
    batch_bounds,
    draw_shifts,
    full_bounds,
    generator,
    sent,
)
from benchmark.data.dataset import AnySplit, ExtraImages, Split, StreamedSplit
from benchmark.data.streaming import StreamedTrainLoader, streamed_evaluation_batches

# Batches are augmented in groups of so many bytes of pixels. A training step evicts the code and
# tables of augmentation from the CPU's caches, so a batch of 128 CIFAR images takes 1.3 ms if
# augmented alone between two steps, and 0.6 ms in a group of this size (one thread of a CPU with
# AMX; a training step of a small network takes 22 ms there).
_GROUP_BYTES = 1 << 22


class BatchSource(Protocol):
    """What the training loop needs from a loader."""

    steps_per_epoch: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches ``start``, ``start`` + 1, ... of an epoch: x float32 [b, c, s, s], y [b]."""
        ...


def train_loader(
    split: AnySplit,
    batch_size: int,
    *,
    seed: int,
    crop: int,
    flip: bool,
    device: torch.device | str = "cpu",
    channels_last: bool = True,
    axis: DataAxis | None = None,
    extra: ExtraImages | None = None,
) -> BatchSource:
    """The loader for the kind of split: ``TrainLoader`` in memory, else ``StreamedTrainLoader``.

    ``extra`` works with splits in memory only; ``sources.load`` refuses it for streamed ones.
    """
    if isinstance(split, StreamedSplit):
        return StreamedTrainLoader(
            split,
            batch_size,
            seed=seed,
            crop=crop,
            flip=flip,
            device=device,
            channels_last=channels_last,
            axis=axis,
        )
    return TrainLoader(
        split,
        batch_size,
        seed=seed,
        crop=crop,
        flip=flip,
        device=device,
        channels_last=channels_last,
        axis=axis,
        extra=extra,
    )


class TrainLoader:
    """Shuffled, randomly cropped and flipped batches of a split in memory.

    With ``extra``, a share of each batch is drawn from there; see ``ExtraConfig``.

    Args:
        split: images in memory; they are moved to ``device`` once, together with their mirror
            images if ``flip`` is on.
        batch_size: images per batch; the last one of an epoch may be smaller.
        seed: of order, crops and flips, which are drawn on the CPU and so equal on every device.
        crop: zero padding in pixels before the random crop; 0 turns it off.
        flip: flip each image horizontally with probability 1/2.
        channels_last: memory format of the batches (values are the same).
        axis: processes that share every batch: this one yields its part, and tells the axis the
            size of the whole batch.
        extra: images beside those of the split.

    Raises:
        ConfigError, DataError: see ``batch_bounds`` and ``full_bounds``; while batches are read,
            DataError for a damaged file of extra images.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        crop: int,
        flip: bool,
        device: torch.device | str = "cpu",
        channels_last: bool = True,
        axis: DataAxis | None = None,
        extra: ExtraImages | None = None,
    ) -> None:
        self._axis = axis or DataAxis()
        self._extra = extra
        self._of_split = 0  # images of the split in a batch, if there are extra images too
        if extra is None:
            self._bounds = batch_bounds(len(split), batch_size)
        else:
            self._bounds, self._of_split = full_bounds(len(split), batch_size, extra.share)
        self.steps_per_epoch = len(self._bounds)
        device = torch.device(device)
        self._crops = _Crops(split, crop, device)
        self._runs = self._crops.run(split.images.permute(0, 2, 3, 1), mirrored=flip)
        self._labels = split.labels.to(device)
        self._seed, self._crop, self._flip = seed, crop, flip
        self._channels_last = channels_last
        image = split.images[0].numel()
        self._group = max(1, _GROUP_BYTES // (batch_size * image))

    def order(self, epoch: int) -> Tensor:
        """The permutation of the split in this epoch: int64 [n]."""
        return torch.randperm(len(self._labels), generator=generator(self._seed, epoch))

    def draws(self, epoch: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Crop offsets (top, left) in 0..2*crop and flips of one batch, each [b], on the CPU."""
        start, stop = self._bounds[batch]
        random = generator(self._seed, epoch, 1 + batch)
        return draw_shifts(random, stop - start, self._crop, self._flip)

    def chosen(self, epoch: int, batch: int, order: Tensor) -> Tensor:
        """The images of one batch, int64 [b]: a number below n is an image of the split, n + i is
        extra image i.

        Args:
            order: the order of the split in this epoch.
        """
        start, stop = self._bounds[batch]
        if self._extra is None:
            return order[start:stop]
        # a separate generator, so that crops and flips are the same as without extra images
        random = generator(self._seed, epoch, 1 + batch, 1)
        # the last batches have fewer images of the split if it runs out
        own = order[batch * self._of_split : (batch + 1) * self._of_split]
        others = torch.randint(len(self._extra), (stop - start - len(own),), generator=random)
        both = torch.cat([own, len(order) + others])
        return both[torch.randperm(len(both), generator=random)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Batches from number ``start`` on: x float32 [b, c, h, w] in [0, 1], y int64 [b]."""
        order = self.order(epoch)
        for group in range(start, self.steps_per_epoch, self._group):
            bounds = self._bounds[group : group + self._group]
            parts = [slice(*self._axis.part(last - first)) for first, last in bounds]
            chosen = [
                self.chosen(epoch, batch, order)[part] for batch, part in enumerate(parts, group)
            ]
            drawn = [
                [draw[part] for draw in self.draws(epoch, batch)]
                for batch, part in enumerate(parts, group)
            ]
            images, labels = self._augmented(
                torch.cat(chosen), *map(torch.cat, zip(*drawn, strict=True))
            )
            sizes = [len(part) for part in chosen]
            batches = zip(bounds, images.split(sizes), labels.split(sizes), strict=True)
            for (first, last), x, y in batches:
                self._axis.take(last - first)
                yield _to_float(x, self._channels_last), y

    def _augmented(
        self, chosen: Tensor, top: Tensor, left: Tensor, flips: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The chosen images, zero-padded, cut at (top, left), flipped: uint8 [b, h, w, c]; and
        their labels."""
        # Flipping after the crop equals cropping the mirrored image at the same distance from its
        # other side.
        left = torch.where(flips, 2 * self._crop - left, left)
        count = len(self._labels)
        if self._extra is None:
            images = self._crops.cut(self._runs, chosen + flips * count, top, left)
            return images, self._labels.index_select(0, sent(chosen, self._labels.device))
        (own,) = torch.where(chosen < count)
        (others,) = torch.where(chosen >= count)
        images = self._crops.cut(self._runs, chosen[own] + flips[own] * count, top[own], left[own])
        labels = self._labels.index_select(0, sent(chosen[own], self._labels.device))
        if not len(others):
            return images, labels
        pixels, theirs = self._extra.read(chosen[others] - count)
        mirrored = flips[others].numpy()
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        run = self._crops.run(torch.from_numpy(pixels), mirrored=False)
        cut = self._crops.cut(run, torch.arange(len(others)), top[others], left[others])
        back = sent(torch.cat([own, others]).argsort(), images.device)
        every = torch.cat([labels, sent(torch.from_numpy(theirs), labels.device)])
        return torch.cat([images, cut]).index_select(0, back), every.index_select(0, back)


class _Crops:
    """Cuts shifted images, as large as those of ``split``, out of a run of pixels.

    A run is one array with the images [h, w, c] one after another. An image shifted by some rows
    and columns is the window of the run that begins so many pixels later or earlier. Pixels of the
    window that belong to the neighbouring images are set to zero, which gives the zero padding.
    """

    def __init__(self, split: Split, crop: int, device: torch.device) -> None:
        height, width = split.images.shape[2:]
        self._shape = height, width, split.channels
        self._crop, self._device = crop, device
        self._rows = _inside(height, crop).to(device)
        self._columns = _inside(width, crop).repeat_interleave(split.channels, 1).to(device)

    def run(self, images: Tensor, *, mirrored: bool) -> Tensor:
        """All windows of the size of an image in a run of ``images`` (uint8 [n, h, w, c], on the
        CPU), followed, if asked, by all of them mirrored."""
        height, width, channels = self._shape
        image = height * width * channels
        margin = self._crop * (width + 1) * channels
        copies = 2 if mirrored else 1
        pixels = torch.zeros(copies * len(images) * image + 2 * margin, dtype=torch.uint8)
        inner = pixels.narrow(0, margin, copies * len(images) * image)
        inner = inner.view(copies, -1, *self._shape)
        inner[0] = images
        if mirrored:
            inner[1].numpy()[:] = inner[0].numpy()[:, :, ::-1]  # numpy: no temporary copy
        pixels = sent(pixels, self._device)
        return pixels.as_strided((len(pixels) - image + 1, image), (1, 1))

    def cut(self, runs: Tensor, chosen: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """The images that ``chosen`` numbers in ``runs``, zero-padded by the crop and cut at
        (top, left): uint8 [b, h, w, c]."""
        height, width, channels = self._shape
        begin = self._native(((chosen * height + top) * width + left) * channels)
        images = self._native(runs)[begin]
        if self._crop:
            rows = images.reshape(-1, height, width * channels)
            rows *= self._native(self._rows)[self._native(top)][:, :, None]
            rows *= self._native(self._columns)[self._native(left)][:, None]
        return torch.as_tensor(images).view(-1, *self._shape)

    def _native(self, tensor: Tensor) -> Any:
        """The array to copy from: on CPUs a numpy array, which copies whole images, where torch
        would copy byte by byte."""
        return tensor.numpy() if self._device.type == "cpu" else sent(tensor, self._device)


def _inside(length: int, crop: int) -> Tensor:
    """Which of ``length`` rows or columns of a crop lie inside the image (1) and which in the
    padding (0), for every offset 0..2*crop: uint8 [2 * crop + 1, length]."""
    places = torch.arange(2 * crop + 1).unsqueeze(1) - crop + torch.arange(length)
    return ((places >= 0) & (places < length)).to(torch.uint8)


def _to_float(images: Tensor, channels_last: bool) -> Tensor:
    """uint8 [b, h, w, c] to float32 [b, c, h, w] in [0, 1]; float32 values stay as they are."""
    x = images.permute(0, 3, 1, 2)
    if not channels_last:
        x = x.contiguous()
    return x if x.is_floating_point() else x.float().div_(255)


def evaluation_batches(
    split: AnySplit,
    batch_size: int,
    *,
    indices: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[IndexedBatch]:
    """(index int64 [b], x float32 [b, c, s, s] in [0, 1], y int64 [b]) without augmentation.

    Args:
        indices: which images, in this order; default all. The ``index`` that is returned counts
            in ``split`` and stays on the CPU; x and y are on ``device``, x in channels_last format.
    """
    if indices is None:
        indices = torch.arange(len(split))
    if isinstance(split, StreamedSplit):
        yield from streamed_evaluation_batches(split, batch_size, indices, torch.device(device))
        return
    for index in indices.split(batch_size):
        images = split.images.index_select(0, index).to(device).permute(0, 2, 3, 1).contiguous()
        yield index, _to_float(images, True), split.labels[index].to(device)
