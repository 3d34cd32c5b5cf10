"""Batches: the right pixels, each image once, and the same again after a resume."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmark.core.errors import ConfigError, DataError
from benchmark.data import streaming
from benchmark.data.dataset import FileNames, Split, StreamedSplit
from benchmark.data.loader import TrainLoader, evaluation_batches, train_loader
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load
from benchmark.data.streaming import StreamedTrainLoader, streamed_evaluation_batches

from .conftest import random_images, write_folders


def split(count: int = 50, size: int = 12) -> Split:
    images = torch.from_numpy(random_images(count, size)).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.arange(count))


def loader(data: Split, batch: int = 16, seed: int = 0, **values: object) -> TrainLoader:
    options: dict = {"crop": 3, "flip": True} | values
    return TrainLoader(data, batch, seed=seed, **options)


def in_groups(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Augment so many batches of 16 images of 12 pixels at once."""
    monkeypatch.setattr("benchmark.data.loader._GROUP_BYTES", batches * 16 * 12 * 12 * 3)


@pytest.mark.parametrize("group", [1, 3, 100])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    ("crop", "flip"), [(3, True), (3, False), (0, True), (0, False), (13, True)]
)
def test_crop_and_flip_match_a_naive_implementation(
    crop: int, flip: bool, channels_last: bool, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_groups(monkeypatch, group)
    data = split()
    batches = loader(data, crop=crop, flip=flip, channels_last=channels_last)
    order = batches.order(2)
    for k, (x, y) in enumerate(batches.epoch(2)):
        tops, lefts, flips = batches.draws(2, k)
        for j in range(len(y)):
            image = data.images[order[16 * k + j]].numpy()
            padded = np.pad(image, ((0, 0), (crop, crop), (crop, crop)))
            wanted = padded[:, tops[j] : tops[j] + 12, lefts[j] : lefts[j] + 12]
            if flips[j]:
                wanted = wanted[:, :, ::-1]
            assert np.array_equal((x[j] * 255).round().numpy(), wanted)
            assert y[j] == order[16 * k + j]
        memory = torch.channels_last if channels_last else torch.contiguous_format
        assert x.is_contiguous(memory_format=memory)
        assert x.dtype == torch.float32
        assert 0 <= x.min() <= x.max() <= 1


def test_crops_and_flips_are_uniform() -> None:
    tops, lefts, flips = loader(split(4000), batch=4000).draws(0, 0)
    for offsets in (tops, lefts):
        counts = torch.bincount(offsets, minlength=7)
        assert len(counts) == 7
        assert (counts - 4000 / 7).abs().max() < 110  # 5 standard deviations
    assert abs(flips.float().mean() - 0.5) < 0.04


def test_the_source_images_are_untouched() -> None:
    data = split()
    before = data.images.clone()
    for _ in loader(data, crop=0).epoch(0):
        pass
    assert torch.equal(data.images, before)


def test_resumed_epoch_is_bit_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(loader(split()).epoch(3))
    in_groups(monkeypatch, 3)  # the first of them would end in the middle of what is left
    resumed = list(loader(split()).epoch(3, start=2))
    assert len(whole) == 4
    assert len(resumed) == 2
    for (x, y), (x2, y2) in zip(whole[2:], resumed, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_global_random_state_is_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = next(loader(split()).epoch(0))[0]
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(a, next(loader(split()).epoch(0))[0])


def test_epochs_and_seeds_differ() -> None:
    a, b, c = (
        torch.cat([y for _, y in loader(split(), seed=seed).epoch(epoch)])
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    assert not torch.equal(a, b)
    assert not torch.equal(a, c)
    assert all(sorted(y.tolist()) == list(range(50)) for y in (a, b, c))


@pytest.mark.parametrize(
    ("count", "sizes"), [(32, [16, 16]), (34, [16, 16, 2]), (33, [16, 16]), (5, [5])]
)
def test_ragged_last_batch_is_kept_unless_single(count: int, sizes: list[int]) -> None:
    batches = loader(split(count))
    assert batches.steps_per_epoch == len(sizes)
    assert [len(y) for _, y in batches.epoch(0)] == sizes


def test_impossible_batches() -> None:
    with pytest.raises(ConfigError, match="batch_size = 1"):
        loader(split(), batch=1)
    with pytest.raises(DataError, match="at least 2 images"):
        loader(split(1))


def test_evaluation_batches() -> None:
    data = split()
    found = list(evaluation_batches(data, 20))
    assert [len(index) for index, _, _ in found] == [20, 20, 10]
    x = torch.cat([x for _, x, _ in found])
    assert torch.equal((x * 255).round().to(torch.uint8), data.images)
    chosen = torch.tensor([7, 3, 40])
    [(index, x, y)] = evaluation_batches(data, 20, indices=chosen)
    assert torch.equal(index, chosen)
    assert torch.equal(y, data.labels[chosen])
    assert torch.equal((x * 255).round().to(torch.uint8), data.images[chosen])


# Streamed


@pytest.fixture
def streamed(tmp_path: Path) -> StreamedSplit:
    write_folders(tmp_path, {"train": 10, "val": 3}, ["a", "b"], size=90)
    found = load(DatasetConfig(name="folder", path=str(tmp_path), size=70), tmp_path).train
    assert isinstance(found, StreamedSplit)
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_resume_and_workers(streamed: StreamedSplit, workers: int) -> None:
    plain = StreamedTrainLoader(streamed, 4, seed=0, flip=True, workers=0)
    other = StreamedTrainLoader(streamed, 4, seed=0, flip=True, workers=workers)
    next(iter(other.epoch(0)))  # an abandoned epoch leaves no trace
    whole, resumed = list(plain.epoch(1)), list(other.epoch(1, start=2))
    assert plain.steps_per_epoch == len(whole) == 5
    assert len(resumed) == 3
    for (x, y), (x2, y2) in zip(whole[2:], resumed, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    x, _ = whole[0]
    assert x.shape == (4, 3, 70, 70)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(x, next(iter(plain.epoch(0)))[0])


def test_augmentation_of_an_image_ignores_batch_size(streamed: StreamedSplit) -> None:
    small = StreamedTrainLoader(streamed, 4, seed=0, flip=True, workers=0)
    large = StreamedTrainLoader(streamed, 9, seed=0, flip=True, workers=0)
    a, b = (torch.cat([x for x, _ in batches.epoch(0)]) for batches in (small, large))
    assert torch.equal(a, b)


def test_streaming_leaves_the_global_random_state(streamed: StreamedSplit) -> None:
    state = torch.get_rng_state()
    list(StreamedTrainLoader(streamed, 4, seed=0, flip=True, workers=0).epoch(0))
    list(streamed_evaluation_batches(streamed, 9, torch.arange(9), torch.device("cpu"), workers=0))
    assert torch.equal(state, torch.get_rng_state())


def test_streamed_evaluation(streamed: StreamedSplit) -> None:
    chosen = torch.tensor([5, 1, 2])
    found = list(streamed_evaluation_batches(streamed, 2, chosen, torch.device("cpu"), workers=0))
    assert torch.equal(torch.cat([index for index, _, _ in found]), chosen)
    assert torch.equal(torch.cat([y for _, _, y in found]), streamed.labels[chosen])
    x = torch.cat([x for _, x, _ in found])
    assert x.shape == (3, 3, 70, 70)
    wanted = torch.from_numpy(streamed.eval_image(5).copy()).permute(2, 0, 1)
    assert torch.equal((x[0] * 255).round().to(torch.uint8), wanted)
    assert len(list(evaluation_batches(streamed, 18))) == 1


def test_memory_per_streamed_image_is_its_path_and_three_integers() -> None:
    """Neither a split nor an epoch's order keeps Python objects per image."""
    count, name = 100_000, "n01443537/n01443537_{:05}.JPEG"
    text = len(name.format(0))
    tracemalloc.start()
    files = FileNames(name.format(i) for i in range(count))
    split = StreamedSplit(Path("x"), files, torch.zeros(count, dtype=torch.int64), 64)
    assert tracemalloc.get_traced_memory()[0] < count * (text + 8) * 1.3
    batches = StreamedTrainLoader(split, 128, seed=0, flip=True, workers=0)
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    keys = [key for batch in batches._sampler for key in batch[:1]]
    assert tracemalloc.get_traced_memory()[1] - before < 4 * count  # a list of them takes 36
    tracemalloc.stop()
    assert len(keys) == batches.steps_per_epoch
    chosen = split.take(torch.tensor([99_999, 0, 512]))
    assert list(chosen.files) == [name.format(i) for i in (99_999, 0, 512)]


def test_file_names_are_kept_as_they_are() -> None:
    """Of no length, beyond ASCII, and not even UTF-8, as some archives unpack."""
    names = ["a/1.png", "", "ä/雪.png", "b/\udcff.png"]
    kept = FileNames(names)
    assert list(kept) == names
    assert (len(kept), kept[2]) == (4, "ä/雪.png")
    for index in (-1, 4):
        with pytest.raises(IndexError):
            kept[index]


def test_train_loader_dispatches(streamed: StreamedSplit) -> None:
    for data, kind in ((split(), TrainLoader), (streamed, StreamedTrainLoader)):
        assert isinstance(train_loader(data, 4, seed=0, crop=4, flip=True), kind)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batches_equal_cpu_batches() -> None:
    pairs = zip(loader(split()).epoch(0), loader(split(), device="cuda").epoch(0), strict=True)
    for (x, y), (x2, y2) in pairs:
        assert torch.equal((x * 255).round(), (x2 * 255).round().cpu())
        assert torch.equal(y, y2.cpu())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_streamed_cuda_batches_come_from_workers_through_pinned_memory(
    streamed: StreamedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy from pageable memory would wait for the device."""
    to_device, pinned = streaming._to_device, []

    def seen(images: torch.Tensor, *where: Any) -> torch.Tensor:
        pinned.append(images.is_pinned())
        return to_device(images, *where)

    monkeypatch.setattr(streaming, "_to_device", seen)
    batches = StreamedTrainLoader(streamed, 4, seed=0, flip=True, device="cuda", workers=2)
    found = list(batches.epoch(0))
    assert pinned == [True] * len(found)
    for (x, y), (x2, y2) in zip(
        found, StreamedTrainLoader(streamed, 4, seed=0, flip=True, workers=0).epoch(0), strict=True
    ):
        assert torch.equal((x * 255).round().cpu(), (x2 * 255).round())
        assert torch.equal(y.cpu(), y2)
