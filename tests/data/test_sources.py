"""Every layout is read as it is, and every kind of bad input is refused with a usable message."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError
from benchmark.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from benchmark.data.dataset import Dataset, Split, StreamedSplit
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load

from .conftest import random_images, write_folders, write_parquet


def config(**values: Any) -> DatasetConfig:
    return DatasetConfig.model_validate(values)


def rows(split: Any) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def balanced(count: int, classes: int = 10) -> np.ndarray:
    return np.arange(count) % classes


# Digits and the rules that hold for every source


def test_digits_are_scaled_and_enlarged() -> None:
    data = load(config(name="digits"), "nowhere")
    assert (data.num_classes, data.image_size) == (10, 16)
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert data.train.images.dtype == torch.uint8
    assert int(data.train.images.max()) == 255
    assert len(data.train) + len(data.val) + len(data.test) == 1797
    assert len(data.test) == 449
    assert load(config(name="digits", size=32), "nowhere").image_size == 32


def test_validation_is_disjoint_stratified_and_exhaustive() -> None:
    data = load(config(name="digits", val_size=200), "nowhere")
    assert len(data.val) == 200
    assert not rows(data.train) & rows(data.val)
    assert not rows(data.train) & rows(data.test)
    whole = torch.bincount(torch.cat([data.train.labels, data.val.labels]))
    share = torch.bincount(data.val.labels) - whole * (200 / int(whole.sum()))
    assert share.abs().max() < 1


def test_the_test_set_depends_on_no_seed() -> None:
    a, b = (load(config(name="digits", split_seed=seed), "nowhere") for seed in (0, 1))
    assert torch.equal(a.test.images, b.test.images)
    assert not torch.equal(a.val.images, b.val.images)
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == load(config(name="digits"), "nowhere").fingerprint


def test_limits() -> None:
    full = load(config(name="digits"), "nowhere")
    data = load(config(name="digits", train_limit=100, test_limit=7), "nowhere")
    assert len(data.train) == 100
    assert torch.equal(data.val.images, full.val.images)  # carved before the limit
    assert rows(data.train) <= rows(full.train)
    assert torch.bincount(data.train.labels).min() >= 9
    assert torch.equal(data.test.images, full.test.images[:7])
    small = load(config(name="digits", limit=20), "nowhere")
    assert [len(s) for s in (small.train, small.val, small.test)] == [20, 20, 20]


def test_statistics_are_those_of_numpy() -> None:
    data = load(config(name="digits"), "nowhere")
    pixels = data.train.images.double() / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_validation_too_large() -> None:
    with pytest.raises(DataError, match="val_size"):
        load(config(name="digits", val_size=5000), "nowhere")


# CIFAR layouts


def check_cifar(data: Dataset, images: np.ndarray, labels: np.ndarray, test: np.ndarray) -> None:
    together = dict(zip([i.numpy().tobytes() for i in as_tensor(images)], labels, strict=True))
    for split in (data.train, data.val):
        for image, label in zip(split.images, split.labels, strict=True):
            assert together[image.numpy().tobytes()] == label
    assert len(data.train) + len(data.val) == len(images)
    assert torch.equal(data.test.images, as_tensor(test))


@pytest.mark.parametrize("below", ["cifar10", "cifar10/plain_text", "."])
@pytest.mark.parametrize("column", ["img", "image"])
def test_parquet_in_several_shards(tmp_path: Path, below: str, column: str) -> None:
    images, labels, test = random_images(60), balanced(60), random_images(20, seed=1)
    folder = tmp_path / below
    for k, part in enumerate((slice(0, 40), slice(40, 60))):
        name = f"train-0000{k}-of-00002.parquet"
        write_parquet(folder / name, images[part], labels[part], column)
    write_parquet(folder / "test-00000-of-00001.parquet", test, balanced(20), column)
    data = load(config(name="cifar10"), tmp_path)
    check_cifar(data, images, labels, test)
    assert "Hugging Face parquet" in data.source
    assert str(tmp_path) not in data.source
    assert any("60 of the official 50,000" in note for note in data.notes)
    assert data.classes == CIFAR10_CLASSES


def test_other_images_in_place_of_the_test_set_are_named(tmp_path: Path, real_data: Path) -> None:
    """Real images of the official test set are told from any others of the same form."""
    others = tmp_path / "cifar10" / "test-00000-of-00001.parquet"
    write_parquet(others, random_images(40), balanced(40))
    shutil.copy(real_data / "cifar10" / "train-00000-of-00001.parquet", others.parent)
    told = "the 40 test images are not the official test set, whose first image is not among them"
    assert told in load(config(name="cifar10"), tmp_path).notes
    official = load(config(name="cifar10"), real_data).notes
    assert not any("are not the official test set" in note for note in official)


def test_cifar100_reads_fine_labels(tmp_path: Path) -> None:
    for part, count in (("train", 200), ("test", 100)):
        name = f"{part}-00000-of-00001.parquet"
        write_parquet(
            tmp_path / "cifar100" / name,
            random_images(count, seed=count),
            balanced(count, 100),
            label="fine_label",
        )
    data = load(config(name="cifar100", val_size=50), tmp_path)
    assert data.num_classes == len(CIFAR100_CLASSES) == len(set(CIFAR100_CLASSES)) == 100


def test_class_folders_of_cifar(tmp_path: Path) -> None:
    write_folders(tmp_path / "cifar10", {"train": 4, "test": 2}, list(CIFAR10_CLASSES))
    data = load(config(name="cifar10", val_size=10), tmp_path)
    assert [len(s) for s in (data.train, data.val, data.test)] == [30, 10, 20]
    assert data.test.labels[:10].tolist() == list(range(10))  # classes in turn


def fake_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Batches as torchvision keeps them, with torchvision told their MD5 sums."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(count: int, seed: int) -> dict:
        flat = random_images(count, seed=seed).transpose(0, 3, 1, 2).reshape(count, -1)
        return {"data": flat, "labels": balanced(count).tolist()}

    monkeypatch.setattr(CIFAR10, "train_list", [write("data_batch_1", batch(40, 0))])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch(10, 1))])
    name, md5 = write("batches.meta", {"label_names": list(CIFAR10_CLASSES)})
    meta = {"filename": name, "key": "label_names", "md5": md5}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder


def test_torchvision_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_batches(tmp_path, monkeypatch)
    data = load(config(name="cifar10", val_size=10), tmp_path)
    check_cifar(data, random_images(40), balanced(40), random_images(10, seed=1))
    assert "MD5" in data.source


def test_a_wrong_md5_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fake_batches(tmp_path, monkeypatch)
    with open(folder / "data_batch_1", "ab") as file:
        file.write(b"x")
    monkeypatch.setattr(pickle, "load", lambda *a, **k: pytest.fail("unpickled"))
    with pytest.raises(DataError, match="MD5"):
        load(config(name="cifar10"), tmp_path)


def test_nothing_found_lists_layouts_and_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(config(name="cifar10"), tmp_path)
    for word in ("cifar-10-batches-py", "parquet", "<class>", "--data-root", "download"):
        assert word in str(caught.value)
    with pytest.raises(DataError, match="imagenet/train"):
        load(config(name="imagenet"), tmp_path)


def write_pair(folder: Path, **changes: Any) -> None:
    """A good train and test file, but for ``changes`` to the train file."""
    values: dict[str, Any] = {"images": random_images(40), "labels": balanced(40)} | changes
    write_parquet(folder / "train-00000-of-00001.parquet", **values)
    test = random_images(10, seed=1)
    write_parquet(folder / "test-00000-of-00001.parquet", test, balanced(10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "picture"}, "no image column.*picture"),
        ({"label": "target"}, "no label column.*target"),
        ({"labels": balanced(40) + 1}, "label 10 is out of range 0..9"),
        ({"labels": balanced(40) - 1}, "negative"),
        ({"labels": balanced(40) * 0.5}, "integers"),
        ({"labels": balanced(40, 9)}, "'truck'"),
        ({"labels": [None, *balanced(39).tolist()]}, "without gaps"),
        ({"images": random_images(40, 28)}, "32x32|28x28"),
        ({"images": random_images(0), "labels": balanced(0)}, "empty"),
    ],
)
def test_bad_parquet(tmp_path: Path, changes: dict, message: str) -> None:
    write_pair(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load(config(name="cifar10"), tmp_path)


def test_missing_and_damaged_parquet(tmp_path: Path) -> None:
    write_pair(tmp_path)
    train = tmp_path / "train-00000-of-00001.parquet"
    train.rename(tmp_path / "train-00000-of-00003.parquet")
    with pytest.raises(DataError, match="1 of 3"):
        load(config(name="cifar10"), tmp_path)
    (tmp_path / "train-00000-of-00003.parquet").rename(train)
    train.write_bytes(train.read_bytes()[:1000])
    with pytest.raises(DataError, match="damaged"):
        load(config(name="cifar10"), tmp_path)
    write_pair(tmp_path)
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="none named test"):
        load(config(name="cifar10"), tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_pair(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    cells = table["img"].to_pylist()
    cells[7]["bytes"] = cells[7]["bytes"][:60]
    pq.write_table(pa.table({"img": cells, "label": table["label"]}), path)
    with pytest.raises(DataError, match="image 7 of the train split"):
        load(config(name="cifar10"), tmp_path)
    cells[7]["bytes"] = None
    pq.write_table(pa.table({"img": cells, "label": table["label"]}), path)
    with pytest.raises(DataError, match=r"row 7.*no image bytes"):
        load(config(name="cifar10"), tmp_path)


def test_slow_decoding_is_cached_and_a_damaged_cache_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmark.data import decode

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decode, "CACHE_ABOVE_SECONDS", -1.0)
    write_pair(tmp_path / "data")
    first = load(config(name="cifar10"), tmp_path / "data").fingerprint
    stored = sorted((tmp_path / "cache" / "generalist-bench").iterdir())
    assert len(stored) == 2
    with monkeypatch.context() as context:
        context.setattr("benchmark.data.parquet.decode_all", lambda *a: pytest.fail("decoded"))
        assert load(config(name="cifar10"), tmp_path / "data").fingerprint == first
    stored[0].write_bytes(b"PK broken")
    stored[1].write_bytes(b"")
    assert load(config(name="cifar10"), tmp_path / "data").fingerprint == first
    write_pair(tmp_path / "data", images=random_images(40, seed=9))  # another file, another key
    assert load(config(name="cifar10"), tmp_path / "data").fingerprint != first


# Class folders


def test_small_folders_go_into_memory(tmp_path: Path) -> None:
    write_folders(tmp_path / "set", {"train": 6, "val": 2}, ["10", "2"], size=20)
    data = load(config(name="folder", path="set", val_size=2), tmp_path)
    assert isinstance(data.train, Split)
    assert data.classes == ("10", "2")  # text, as torchvision's ImageFolder sorts
    assert [len(s) for s in (data.train, data.val, data.test)] == [10, 2, 4]
    assert data.image_size == 20
    assert load(config(name="folder", path="set", size=16), tmp_path).image_size == 16


def test_large_folders_are_streamed(tmp_path: Path) -> None:
    write_folders(tmp_path / "imagenet", {"train": 5, "val": 2}, ["a", "b"], size=80)
    data = load(config(name="imagenet", size=72, val_size=2), tmp_path)
    assert isinstance(data.train, StreamedSplit)
    assert (len(data.train), len(data.test), data.image_size) == (8, 4, 72)
    assert not set(data.train.files) & set(data.val.files)
    assert data.test.files[0] == "a/0.png"
    assert data.test.files[1] == "b/0.png"
    own = load(config(name="folder", path=str(tmp_path / "imagenet"), size=72), "nowhere")
    assert 0.45 < own.mean[0] < 0.55


def test_own_validation_folder_is_used(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 4, "val": 2, "test": 3}, ["a", "b"])
    data = load(config(name="folder", path=str(tmp_path)), "nowhere")
    assert [len(s) for s in (data.train, data.val, data.test)] == [8, 4, 6]


def test_bad_folders(tmp_path: Path) -> None:
    def fails(message: str) -> None:
        with pytest.raises(DataError, match=message):
            load(config(name="folder", path="set"), tmp_path)

    fails("no folder 'set'")
    (tmp_path / "set" / "train").mkdir(parents=True)
    fails("no val folder")
    (tmp_path / "set" / "val").mkdir()
    fails("no class folders")
    (tmp_path / "set" / "train" / "a").mkdir()
    fails("train/a holds no image")
    image = Image.new("RGB", (32, 32))
    image.save(tmp_path / "set" / "train" / "a" / "0.png")
    image.save(tmp_path / "set" / "val" / "loose.png")
    fails("1 files but no class folders")
    (tmp_path / "set" / "val" / "b").mkdir()
    image.save(tmp_path / "set" / "val" / "b" / "0.png")
    fails("different classes.*'a' is only in train")
    (tmp_path / "set" / "val" / "b").rename(tmp_path / "set" / "val" / "a")
    fails("found 1 class;")
    for part in ("train", "val"):
        (tmp_path / "set" / part / "b").mkdir()
        image.resize((24, 32)).save(tmp_path / "set" / part / "b" / "0.png")
    fails("24x32 pixels.*set size")
    (tmp_path / "set" / "train" / "b" / "0.png").write_text("no image")
    fails("train/b/0.png cannot be decoded")


# npz


def npz(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {}
    for k, (part, count) in enumerate((("train", 30), ("val", 6), ("test", 9))):
        arrays[f"{part}_images"] = random_images(count, 16, seed=k)[..., 0]
        arrays[f"{part}_labels"] = balanced(count, 3)[:, None]
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_npz_uses_its_own_validation(tmp_path: Path) -> None:
    data = load(config(name="npz", path=str(npz(tmp_path / "a.npz"))), "nowhere")
    assert [len(s) for s in (data.train, data.val, data.test)] == [30, 6, 9]
    grey = random_images(30, 16)[..., 0]
    assert all(np.array_equal(data.train.images[:, c].numpy(), grey) for c in range(3))
    assert data.num_classes == 3
    npz(tmp_path / "b.npz", val_images=None, val_labels=None)
    data = load(config(name="npz", path="b.npz"), tmp_path)
    assert [len(s) for s in (data.train, data.val)] == [27, 3]


def test_float_npz_gives_the_same_bytes(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz")
    floats = {
        f"{part}_images": random_images(count, 16, seed=k)[..., 0] / np.float32(255)
        for k, (part, count) in enumerate((("train", 30), ("val", 6), ("test", 9)))
    }
    npz(tmp_path / "b.npz", **floats)
    a, b = (load(config(name="npz", path=name), tmp_path) for name in ("a.npz", "b.npz"))
    assert a.fingerprint == b.fingerprint


def spoilt(value: float) -> np.ndarray:
    images = random_images(30, 16)[..., 0] / 255
    images[3, 2, 2] = value
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": spoilt(np.nan)}, "1 images contain NaN"),
        ({"train_images": spoilt(np.inf)}, "1 images contain NaN or infinity"),
        ({"train_images": spoilt(-1)}, "undo the normalisation"),
        ({"train_images": spoilt(300)}, r"\[0, 300\]|undo"),
        ({"train_images": spoilt(1.0), "test_images": spoilt(200.0)[:9]}, "one scale"),
        ({"train_images": random_images(30, 16)[..., 0].astype(complex)}, "complex128"),
        ({"train_images": random_images(30, 16)[:, 0]}, "one size|not square|too small"),
        ({"train_images": random_images(30, 16).transpose(0, 3, 1, 2)}, "expected"),
        ({"train_images": random_images(30, 16)[..., :2]}, "expected"),
        ({"train_images": random_images(30, 16)[:, :, :12]}, "not square"),
        ({"train_images": random_images(30, 20)}, "20x20 pixels but val"),
        ({"train_images": random_images(29, 16)}, "29 images but 30 labels"),
        ({"train_images": random_images(0, 16), "train_labels": balanced(0)}, "empty"),
        ({"test_images": random_images(0, 16), "test_labels": balanced(0)}, "test.*empty"),
        ({"train_labels": np.zeros((30, 4), int)}, "multi-label"),
        ({"train_labels": balanced(30, 3) * 2}, "1 never occurs"),
        ({"train_labels": balanced(30, 3) * 1.0}, "float64"),
        ({"train_labels": balanced(30, 3) - 1}, "negative"),
        ({"train_labels": balanced(30, 2)}, "label 2 is out of range"),
        ({"train_labels": np.zeros(30, int)}, "1 class"),
        ({"train_labels": None}, "no array 'train_labels'"),
        ({"val_labels": None}, "no array 'val_labels'"),
        ({"train_labels": np.array([{}] * 30)}, "pickled"),
    ],
)
def test_bad_npz(tmp_path: Path, changes: dict, message: str) -> None:
    path = npz(tmp_path / "a.npz", **changes)
    with pytest.raises(DataError, match=message):
        load(config(name="npz", path=str(path)), "nowhere")


def test_unreadable_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="no file"):
        load(config(name="npz", path=str(path)), "nowhere")
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        load(config(name="npz", path=str(path)), "nowhere")
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        load(config(name="npz", path=str(path)), "nowhere")


# Real data


@pytest.mark.slow
def test_real_cifar10(real_data: Path) -> None:
    data = load(config(name="cifar10"), real_data)
    assert len(data.train) + len(data.val) == 20_000
    assert len(data.test) == 1_000
    # all 50,000 images: 0.4914 0.4822 0.4465 and 0.2470 0.2435 0.2616
    assert data.mean == pytest.approx((0.49139968, 0.48215841, 0.44653091), abs=0.004)
    assert data.std == pytest.approx((0.24703223, 0.24348513, 0.26158784), abs=0.002)
    assert data.test.labels[:5].tolist() == [3, 8, 8, 0, 6]  # cat ship ship airplane frog
    assert not rows(data.train) & rows(data.val)


def test_real_mednist(real_data: Path) -> None:
    data = load(config(name="npz", path="mednist_32.npz"), real_data)
    assert [len(s) for s in (data.train, data.val, data.test)] == [3000, 300, 900]
    assert (data.num_classes, data.image_size) == (6, 32)


def test_real_tiny_imagenet(real_data: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(real_data / "tiny-imagenet-10.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    data = load(config(name="folder", path="tiny-imagenet-10"), tmp_path)
    assert isinstance(data.train, Split)
    assert [len(s) for s in (data.train, data.val, data.test)] == [1350, 150, 500]
    assert (data.num_classes, data.image_size) == (10, 64)
    assert data.test.labels[:10].tolist() == list(range(10))
