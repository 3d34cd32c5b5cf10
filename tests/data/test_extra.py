"""Extra images: a share of every batch, read in place, in the batches of one process."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_suites import tiny

from benchmark.core.errors import ConfigError, DataError
from benchmark.core.mesh import DataAxis
from benchmark.data.dataset import ExtraImages, Split
from benchmark.data.extra import read_extra
from benchmark.data.loader import TrainLoader
from benchmark.data.source import DatasetConfig, ExtraConfig
from benchmark.data.sources import load

from .conftest import random_images, write_folders

SIZE = 12
CLASSES = tuple("abcde")
COUNT, GENERATED = 50, 300


def split(count: int = COUNT) -> Split:
    images = torch.from_numpy(random_images(count, SIZE)).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.arange(count) % 5)


def write_npz(path: Path, count: int = GENERATED, size: int = SIZE, **changes: Any) -> Path:
    arrays = {"image": random_images(count, size, seed=1), "label": np.arange(count) % 5}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def extra(path: Path, share: float = 0.7) -> ExtraImages:
    return read_extra(ExtraConfig(path=str(path), share=share), Path(), split(), CLASSES)


@pytest.fixture
def images(tmp_path: Path) -> ExtraImages:
    return extra(write_npz(tmp_path / "made.npz"))


def loader(images: ExtraImages, batch: int = 16, **values: Any) -> TrainLoader:
    options: dict[str, Any] = {"seed": 3, "crop": 3, "flip": True} | values
    return TrainLoader(split(), batch, extra=images, **options)


@pytest.mark.parametrize(("crop", "flip"), [(3, True), (0, True), (3, False)])
def test_batches_match_a_naive_implementation(images: ExtraImages, crop: int, flip: bool) -> None:
    """Every pixel and label of an epoch, of both kinds, augmented alike."""
    batches = loader(images, crop=crop, flip=flip)
    both = np.concatenate(
        [split().images.permute(0, 2, 3, 1).numpy(), random_images(GENERATED, SIZE, seed=1)]
    )
    labels = [*(np.arange(COUNT) % 5), *(np.arange(GENERATED) % 5)]
    order = batches.order(1)
    assert batches.steps_per_epoch == 4  # as without extra images: 50 in batches of 16
    for k, (x, y) in enumerate(batches.epoch(1)):
        chosen = batches.chosen(1, k, order).tolist()
        tops, lefts, flips = batches.draws(1, k)
        assert len(y) == len(chosen) == 16  # the last batch too
        assert sum(index >= COUNT for index in chosen) == 11  # floor(0.7 * 16)
        for j, index in enumerate(chosen):
            padded = np.pad(both[index], ((crop, crop), (crop, crop), (0, 0)))
            wanted = padded[tops[j] : tops[j] + SIZE, lefts[j] : lefts[j] + SIZE]
            wanted = wanted[:, ::-1] if flips[j] else wanted
            assert np.array_equal((x[j] * 255).round().numpy(), wanted.transpose(2, 0, 1))
            assert y[j] == labels[index]


def test_own_images_without_replacement_and_extra_ones_with(images: ExtraImages) -> None:
    """An epoch takes its own images from the front of its permutation; over many epochs extra
    images are uniform and stand at every place of a batch."""
    batches = loader(images)
    counts, places = torch.zeros(GENERATED), torch.zeros(16)
    repeated = False
    for epoch in range(60):
        order = batches.order(epoch)
        every = torch.stack([batches.chosen(epoch, k, order) for k in range(4)])
        own = every[every < COUNT].tolist()
        assert sorted(own) == sorted(order[:20].tolist())
        drawn = every[every >= COUNT] - COUNT
        counts += torch.bincount(drawn, minlength=GENERATED)
        places += (every >= COUNT).sum(0)
        repeated |= len(set(drawn.tolist())) < len(drawn)
    assert repeated
    mean = 60 * 4 * 11 / GENERATED
    assert float((counts - mean).abs().max()) < 5 * math.sqrt(mean)
    assert float((places - 165).abs().max()) < 5 * math.sqrt(240 * 0.6875 * 0.3125)


def test_a_small_share_runs_out_of_own_images(tmp_path: Path) -> None:
    """Of 50 images in batches of 16, of which 15 are own, the last batch has 5; extra ones fill it."""
    batches = loader(extra(write_npz(tmp_path / "made.npz"), share=0.07))
    own = [(batches.chosen(0, k, batches.order(0)) < COUNT).sum().item() for k in range(4)]
    assert own == [15, 15, 15, 5]
    assert [len(y) for _, y in batches.epoch(0)] == [16, 16, 16, 16]


def test_a_resumed_epoch_is_bit_identical(
    images: ExtraImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(loader(images).epoch(3))
    monkeypatch.setattr("benchmark.data.loader._GROUP_BYTES", 3 * 16 * SIZE**2 * 3)
    for (x, y), (x2, y2) in zip(whole[2:], loader(images).epoch(3, start=2), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    other = next(loader(images, seed=4).epoch(3))
    assert not torch.equal(other[0], whole[0][0])


@pytest.mark.parametrize("size", [2, 3])
def test_processes_cut_the_batches_of_one(images: ExtraImages, size: int) -> None:
    whole = list(loader(images).epoch(0))
    parts = [list(loader(images, axis=DataAxis(at, size)).epoch(0)) for at in range(size)]
    for number, (x, y) in enumerate(whole):
        mine = [part[number] for part in parts]
        assert all(0 < len(part[1]) < 16 for part in mine)
        assert torch.equal(torch.cat([part[0] for part in mine]), x)
        assert torch.equal(torch.cat([part[1] for part in mine]), y)


# What is refused


def _fortran() -> np.ndarray:
    return np.asfortranarray(random_images(10, SIZE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": None}, "has no array 'image' .it has: label."),
        ({"label": None}, "has no array 'label'"),
        ({"image": random_images(10, SIZE) / 255}, "image is float64; expected uint8"),
        ({"image": random_images(10, SIZE).astype(np.uint16)}, "image is uint16"),
        ({"image": random_images(10, SIZE)[..., 0]}, r"expected \[n, s, s, 3\]"),
        ({"image": random_images(10, SIZE).transpose(0, 3, 1, 2)}, r"require \[n, 12, 12, 3\]"),
        ({"image": random_images(10, 14)}, r"\[10, 14, 14, 3\], but the images of the data set"),
        ({"image": _fortran()}, "in C order"),
        ({"image": np.empty((0, SIZE, SIZE, 3), np.uint8), "label": np.arange(0)}, "no images"),
        ({"label": np.arange(7) % 5}, "300 images but 7 labels"),
        ({"label": np.arange(GENERATED) % 6}, "label 5 is out of range; .* are 0 to 4"),
        ({"label": np.arange(GENERATED) % 5 - 1}, "label -1 is negative"),
        ({"label": np.arange(GENERATED) % 5 / 1}, "labels are float64; expected integers"),
    ],
)
def test_each_fault_has_its_message(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "made.npz", **changes)
    with pytest.raises(DataError, match=message):
        extra(path)


def test_faults_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dataset\.extra: there is no file .*gone.npz"):
        extra(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text.npz cannot be read as \.npz"):
        extra(tmp_path / "text.npz")
    whole = write_npz(tmp_path / "made.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.npz cannot be read as \.npz"):
        extra(tmp_path / "cut.npz")


def test_a_compressed_file_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_images(20, SIZE)
    np.savez_compressed(tmp_path / "made.npz", image=made, label=np.arange(20) % 5)
    with pytest.raises(DataError, match="is compressed") as caught:
        extra(tmp_path / "made.npz")
    code = str(caught.value).partition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    found, labels = extra(tmp_path / "plain-made.npz").read(torch.tensor([7, 0]))
    assert np.array_equal(found, made[[7, 0]])
    assert labels.tolist() == [2, 0]


def test_a_file_that_becomes_shorter_ends_the_run_with_its_name(tmp_path: Path) -> None:
    """Protects: a mapped file that becomes shorter kills the process without a word."""
    path = write_npz(tmp_path / "made.npz")
    batches = loader(extra(path))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"made.npz has become shorter"):
        list(batches.epoch(0))
    path.unlink()
    with pytest.raises(DataError, match=r"made.npz cannot be read"):
        list(batches.epoch(0))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_shares_outside_0_to_1(share: float) -> None:
    with pytest.raises(ValidationError, match="share"):
        ExtraConfig(path="made.npz", share=share)


def test_a_share_of_no_image(images: ExtraImages, tmp_path: Path) -> None:
    few = extra(write_npz(tmp_path / "few.npz"), share=0.05)
    with pytest.raises(ConfigError, match="share = 0.05 is less than one image of a batch of 16"):
        loader(few)


def test_streamed_images_are_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 6, "val": 3}, ["a", "b"], size=90)
    write_npz(tmp_path / "made.npz", size=70)
    config = {"name": "folder", "path": str(tmp_path), "size": 70, "extra": {"path": "made.npz"}}
    with pytest.raises(DataError, match="cannot be mixed with images that are streamed"):
        load(DatasetConfig.model_validate(config), tmp_path)


# How they are known


def digits(root: Path, **settings: Any) -> Any:
    config = {"name": "digits", "limit": 64, **settings}
    return load(DatasetConfig.model_validate(config), root)


def test_the_fingerprint_covers_every_pixel_and_label(tmp_path: Path) -> None:
    made = random_images(40, 16)
    labels = np.arange(40) % 10
    prints = [digits(tmp_path).fingerprint]
    changed = made.copy()
    changed[17, 3, 4, 1] ^= 1
    other = labels.copy()
    other[3] = 9
    for image, label in (
        (made, labels),
        (changed, labels),
        (made, other),
        (made[:39], labels[:39]),
    ):
        np.savez(tmp_path / "made.npz", image=image, label=label)
        data = digits(tmp_path, extra={"path": "made.npz"})
        prints.append(data.fingerprint)
    assert len(set(prints)) == 5
    np.savez(tmp_path / "made.npz", image=made, label=labels)
    again = digits(tmp_path, extra={"path": "made.npz"})
    assert again.fingerprint == prints[1]
    note = f"70 % of each training batch are drawn from 40 extra images (made.npz, {again.extra.known_by})"
    assert any(note in line for line in again.notes)


def test_an_evaluation_does_not_need_them(tmp_path: Path) -> None:
    config = DatasetConfig.model_validate({"name": "digits", "extra": {"path": "gone.npz"}})
    assert load(config, tmp_path, training=False).extra is None
    with pytest.raises(DataError, match="there is no file"):
        load(config, tmp_path)


# A million


def sparse_npz(path: Path, count: int, size: int, marks: dict[int, np.ndarray]) -> None:
    """Black images that take no room on the disk, but for those of ``marks``."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    )
    image = size * size * 3
    labels = io.BytesIO()
    np.save(labels, np.arange(count) % 10)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("label.npy", labels.getvalue())
        info = zipfile.ZipInfo("image.npy")
        info.file_size = info.compress_size = header.tell() + count * image
        info.CRC = 0  # nobody reads the images whole
        file: Any = archive.fp
        info.header_offset = file.tell()
        file.write(info.FileHeader(zip64=True))
        file.write(header.getvalue())
        begin = file.tell()
        for index, pixels in marks.items():
            file.seek(begin + index * image)
            file.write(pixels.tobytes())
        file.seek(begin + count * image)
        archive.start_dir = file.tell()
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info


TRAIN = """
import json, sys
from pathlib import Path
import torch
from benchmark.commands.run import run_suite
from benchmark.config.suite import build_suite
from benchmark.core.progress import Progress
torch.set_num_threads(1)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew, without that of imports
suite = build_suite(json.loads(sys.argv[1]))
run_suite(suite, suite, Path(sys.argv[2]), data_root=Path("."), device=torch.device("cpu"),
          progress=Progress(True), evaluate=False)
# not ru_maxrss, which a process takes over from the one that started it
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def test_a_million_images_take_no_memory(tmp_path: Path) -> None:
    """Peak of resident memory of two whole trainings, one with a file of 3 GB."""
    mark = random_images(1, 32, seed=5)[0]
    sparse_npz(tmp_path / "million.npz", 1_000_000, 32, {0: mark, 999_999: mark})
    assert (tmp_path / "million.npz").stat().st_blocks * 512 < 50 << 20
    data = {"name": "digits", "size": 32, "train_limit": 1000, "test_limit": 10}
    found = load(DatasetConfig.model_validate(data | {"extra": {"path": "million.npz"}}), tmp_path)
    pixels, labels = found.extra.read(torch.tensor([999_999, 5, 0]))  # type: ignore[union-attr]
    assert np.array_equal(pixels, np.stack([mark, np.zeros_like(mark), mark]))
    assert labels.tolist() == [9, 5, 0]
    suites = [
        tiny(
            dataset=data | further,
            train={"epochs": 3, "batch_size": 100, "validations": 1},
            methods=["natural"],
        )
        for further in ({}, {"extra": {"path": "million.npz"}})
    ]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, json.dumps(suite), tmp_path / f"out-{number}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, suite in enumerate(suites)
    ]
    without, with_extra = (int(run.communicate()[0]) * 1024 for run in runs)
    assert with_extra - without < 200 << 20
