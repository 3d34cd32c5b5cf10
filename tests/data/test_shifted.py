"""Shifted test sets: each layout as it is handed around, labels in the model's numbering, and
every kind of bad files refused with a usable message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import ConfigError, DataError
from benchmark.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from benchmark.data.dataset import Split, StreamedSplit
from benchmark.data.decode import resize_square
from benchmark.data.shifted import SHIFTED, STL10_CLASSES, find_shifted, load_shifted

from .conftest import encode, random_images

WNIDS = tuple(f"n{number:08d}" for number in range(1000, 3000, 2))
BASES = {"cifar10": CIFAR10_CLASSES, "imagenet": WNIDS}


def as_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def labels_of(count: int) -> np.ndarray:
    """All ten classes, not in order."""
    return (np.arange(count) * 7 + 3) % 10


def write_cifar101(folder: Path, version: str = "v6", **changes: Any) -> None:
    values: dict[str, Any] = {"data": random_images(30), "labels": labels_of(30).astype(np.int32)}
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in (values | changes).items():
        if array is not None:
            np.save(folder / f"cifar10.1_{version}_{part}.npy", array)


def write_stl10(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """``images`` [n, 96, 96, 3]: channel by channel, and within it column after column."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "test_X.bin", "wb") as file:
        for image in images:
            for channel in range(3):
                for column in range(96):
                    file.write(image[:, column, channel].tobytes())
    (folder / "test_y.bin").write_bytes(labels.astype(np.uint8).tobytes())


def write_class_folders(root: Path, classes: tuple[str, ...], size: int = 8) -> None:
    """One image per class, its red value the place of the class (modulo 256)."""
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        image = np.zeros((size, size, 3), np.uint8)
        image[..., 0] = place % 256
        (root / name / f"{name}_{place}.png").write_bytes(encode(image))


@pytest.mark.parametrize("below", ["", "CIFAR-10.1/datasets", "cifar10.1"])
@pytest.mark.parametrize(("name", "version"), [("cifar10.1", "v6"), ("cifar10.1-v4", "v4")])
def test_cifar101(tmp_path: Path, name: str, version: str, below: str) -> None:
    """Images and labels as saved, wherever the repository's files lie."""
    assert find_shifted(name, tmp_path) is None
    write_cifar101(tmp_path / below, version)
    found = find_shifted(name, tmp_path)
    assert found == tmp_path / below / f"cifar10.1_{version}_data.npy"
    shifted = load_shifted(name, tmp_path, CIFAR10_CLASSES, 32)
    assert isinstance(shifted.split, Split)
    assert torch.equal(shifted.split.images, as_tensor(random_images(30)))
    assert shifted.split.labels.tolist() == labels_of(30).tolist()
    assert shifted.split.labels.dtype == torch.int64
    assert shifted.kept is None
    assert any("30 of the official 2,0" in note for note in shifted.notes)
    assert "1806.00451" in shifted.source
    assert str(tmp_path) not in shifted.source


def test_size_and_fingerprint(tmp_path: Path) -> None:
    """Images take the model's size; other images or labels have another fingerprint."""
    write_cifar101(tmp_path)
    first = load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 32)
    assert first.fingerprint == load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 32).fingerprint
    resized = load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 16)
    assert isinstance(resized.split, Split)
    assert torch.equal(resized.split.images, resize_square(as_tensor(random_images(30)), 16))
    write_cifar101(tmp_path, labels=(labels_of(30) + 1) % 10)
    other = load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 32)
    assert len({first.fingerprint, resized.fingerprint, other.fingerprint}) == 3


def test_cifar102_reads_images_and_labels_alone(tmp_path: Path) -> None:
    """The archive's arrays of words are pickled; they must neither be read nor be in the way."""
    images, labels = random_images(20), labels_of(20)
    words = np.array(["cat", None], dtype=object)
    (tmp_path / "cifar-10.2").mkdir()
    path = tmp_path / "cifar-10.2" / "cifar102_test.npz"
    np.savez(path, images=images, labels=labels, label_names=words)
    shifted = load_shifted("cifar10.2", tmp_path, CIFAR10_CLASSES, 32)
    assert isinstance(shifted.split, Split)
    assert torch.equal(shifted.split.images, as_tensor(images))
    assert shifted.split.labels.tolist() == labels.tolist()
    np.savez(path, images=images)
    with pytest.raises(DataError, match="no array 'labels'"):
        load_shifted("cifar10.2", tmp_path, CIFAR10_CLASSES, 32)
    np.savez(path, images=images.astype(object), labels=labels)
    with pytest.raises(DataError, match="pickled"):
        load_shifted("cifar10.2", tmp_path, CIFAR10_CLASSES, 32)


def test_cinic10_says_what_is_from_cifar(tmp_path: Path) -> None:
    """Classes by folder name; the images a CIFAR-10 model may have seen are counted."""
    root = tmp_path / "CINIC-10" / "test"
    write_class_folders(root, CIFAR10_CLASSES, 32)
    for file in ("cat/cifar10-train-7.png", "cat/cifar10-test-8.png", "dog/cifar10-train-9.png"):
        (root / file).write_bytes(encode(random_images(1)[0]))
    shifted = load_shifted("cinic10", tmp_path, CIFAR10_CLASSES, 32)
    assert isinstance(shifted.split, Split)
    assert torch.bincount(shifted.split.labels).tolist() == [1, 1, 1, 3, 1, 2, 1, 1, 1, 1]
    plain = (shifted.split.images[:, 1] == 0).flatten(1).all(1)
    assert torch.equal(shifted.split.images[plain, 0, 0, 0], shifted.split.labels[plain].byte())
    note = "3 images are CIFAR-10's own, 2 of them from its training set; the other 10 are"
    assert any(note in line for line in shifted.notes)


def test_stl10_columns_labels_and_monkeys(tmp_path: Path) -> None:
    """Column-major files, labels 1..10 of another order, and a class that CIFAR-10 lacks."""
    images = np.zeros((20, 96, 96, 3), np.uint8)
    images[:, 10:30, 50:80] = (200, 100, 50)  # wider than high, off centre, coloured
    images[:, :, :, 2] += np.arange(20, dtype=np.uint8)[:, None, None]
    labels = np.tile(np.arange(1, 11), 2)
    write_stl10(tmp_path / "stl10_binary", images, labels)
    shifted = load_shifted("stl10", tmp_path, CIFAR10_CLASSES, 96)
    no_monkey = labels != 8
    assert isinstance(shifted.split, Split)
    assert torch.equal(shifted.split.images, as_tensor(images[no_monkey]))
    words = [{"car": "automobile"}.get(w, w) for w in np.array(STL10_CLASSES)[labels - 1]]
    expected = [word for word in words if word != "monkey"]
    assert [CIFAR10_CLASSES[label] for label in shifted.split.labels] == expected
    assert any("without the 2 monkeys" in note and "18 images" in note for note in shifted.notes)
    small = load_shifted("stl10", tmp_path, CIFAR10_CLASSES, 32).split
    assert isinstance(small, Split)
    # 96 to 32 pixels: 3x3 blocks, seen where they are of one colour
    assert small.images[0, :, 6, 20].tolist() == [200, 100, 50]
    assert small.images[0, :, 20, 6].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("name", "below"), [("imagenet-a", "imagenet-a"),
                                             ("imagenet-r", "imagenet-rendition/imagenet-r")])  # fmt: skip
def test_two_hundred_classes(tmp_path: Path, name: str, below: str) -> None:
    """Labels are places among the model's 1,000 classes, and the logits that count are the 200."""
    chosen = tuple(WNIDS[place] for place in range(3, 1000, 5))
    write_class_folders(tmp_path / below, chosen)
    (tmp_path / below / "README.txt").write_text("about")
    shifted = load_shifted(name, tmp_path, WNIDS, 16)
    assert isinstance(shifted.split, StreamedSplit)
    assert shifted.kept is not None
    assert shifted.kept.tolist() == list(range(3, 1000, 5))
    for file, label in zip(shifted.split.files, shifted.split.labels, strict=True):
        assert WNIDS[label] == Path(file).parent.name
    assert shifted.split.eval_image(4).shape == (16, 16, 3)
    # a model that is surest of a class outside is still right among the 200
    logits = torch.zeros(200, 1000)
    logits[:, 0] = 9.0
    logits[torch.arange(200), shifted.split.labels] = 1.0
    prediction = shifted.kept[logits[:, shifted.kept].argmax(1)]
    assert torch.equal(prediction, shifted.split.labels)
    (tmp_path / below / chosen[0] / f"{chosen[0]}_0.png").unlink()
    (tmp_path / below / chosen[0]).rmdir()
    with pytest.raises(DataError, match="199 classes"):
        load_shifted(name, tmp_path, WNIDS, 16)


def test_imagenet_v2_folders_are_places(tmp_path: Path) -> None:
    """Folder 10 is class 10, not the third in order of letters; the archive's own folder wins."""
    root = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    write_class_folders(root, tuple(str(place) for place in range(1000)))
    shifted = load_shifted("imagenet-v2", tmp_path, WNIDS, 16)
    assert isinstance(shifted.split, StreamedSplit)
    assert shifted.kept is None
    for file, label in zip(shifted.split.files, shifted.split.labels, strict=True):
        assert int(Path(file).parent.name) == label
    image = np.asarray(Image.open(root / shifted.split.files[300]))
    assert image[0, 0, 0] == int(shifted.split.labels[300]) % 256


def test_imagenet_sketch(tmp_path: Path) -> None:
    """All 1,000 wnids, streamed at the model's size."""
    write_class_folders(tmp_path / "sketch", WNIDS)
    shifted = load_shifted("imagenet-sketch", tmp_path, WNIDS, 224)
    assert shifted.split.image_size == 224
    assert sorted(shifted.split.labels.tolist()) == list(range(1000))
    assert shifted.kept is None


@pytest.mark.parametrize("name", SHIFTED.names())
def test_missing_files_and_wrong_models(tmp_path: Path, name: str) -> None:
    """The message says where was looked and where to get it; another base is refused first."""
    entry = SHIFTED.get(name)
    assert find_shifted(name, tmp_path) is None
    with pytest.raises(DataError) as caught:
        load_shifted(name, tmp_path, BASES[entry.base], 32)
    for word in (*entry.folders, entry.file, entry.fetch, "--data-root"):
        assert word in str(caught.value)
    other = {"cifar10": "imagenet", "imagenet": "cifar10"}[entry.base]
    for classes in (BASES[other], CIFAR100_CLASSES, BASES[entry.base][::-1]):
        with pytest.raises(ConfigError, match=f"models of {entry.base}"):
            load_shifted(name, tmp_path, classes, 32)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'cifar10\.1'"):
        find_shifted("cifar10.11", ".")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, r"v6_labels\.npy is missing"),
        ({"labels": labels_of(29)}, "30 images but 29 labels"),
        ({"labels": labels_of(30) + 1}, r"label 10 is out of range 0\.\.9"),
        ({"labels": labels_of(30) - 1}, "negative"),
        ({"labels": labels_of(30) / 2}, "expected integers"),
        ({"labels": labels_of(30) % 9}, "images of 9 classes"),
        ({"data": random_images(30, 28)}, "expected \\[n, 32, 32, 3\\]"),
        ({"data": random_images(30)[..., 0]}, "expected \\[n, 32, 32, 3\\]"),
        ({"data": random_images(30) / 255 - 0.5}, "undo the normalisation"),
        ({"data": random_images(0), "labels": labels_of(0)}, "empty"),
    ],
)
def test_damaged_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_cifar101(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 32)


def test_truncated_npy(tmp_path: Path) -> None:
    write_cifar101(tmp_path)
    path = tmp_path / "cifar10.1_v6_data.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="damaged"):
        load_shifted("cifar10.1", tmp_path, CIFAR10_CLASSES, 32)


@pytest.mark.parametrize(
    ("labels", "cut", "message"),
    [
        (np.arange(1, 11), 1, "not 10 images"),
        (np.arange(1, 10), 0, "not 9 images"),
        (np.arange(10), 0, r"labels 1\.\.10"),
        (np.arange(2, 12), 0, r"labels 1\.\.10"),
        (np.full(10, 8), 0, "empty"),
        (np.arange(10) % 7 + 1, 0, "images of 7 classes"),
    ],
)
def test_damaged_stl10(tmp_path: Path, labels: np.ndarray, cut: int, message: str) -> None:
    write_stl10(tmp_path, random_images(10, 96), labels)
    path = tmp_path / "test_X.bin"
    path.write_bytes(path.read_bytes()[: path.stat().st_size - cut])
    with pytest.raises(DataError, match=message):
        load_shifted("stl10", tmp_path, CIFAR10_CLASSES, 32)


def test_stl10_without_labels(tmp_path: Path) -> None:
    write_stl10(tmp_path, random_images(10, 96), np.arange(1, 11))
    (tmp_path / "test_y.bin").unlink()
    with pytest.raises(DataError, match=r"test_y\.bin cannot be read"):
        load_shifted("stl10", tmp_path, CIFAR10_CLASSES, 32)


def test_unknown_class_folders(tmp_path: Path) -> None:
    """A folder that is no class is named; its images would otherwise get another's label."""
    write_class_folders(tmp_path / "cinic10" / "test", ("airplane", "lion"), 32)
    with pytest.raises(DataError, match="'lion', which is no class"):
        load_shifted("cinic10", tmp_path, CIFAR10_CLASSES, 32)
    write_class_folders(tmp_path / "imagenet-r", (WNIDS[0], "n99999999"))
    with pytest.raises(DataError, match="'n99999999', which is no class"):
        load_shifted("imagenet-r", tmp_path, WNIDS, 32)
    write_class_folders(tmp_path / "imagenetv2", ("0", "1000"))
    with pytest.raises(DataError, match="'1000', which is no class"):
        load_shifted("imagenet-v2", tmp_path, WNIDS, 32)
    (tmp_path / "sketch").mkdir()
    with pytest.raises(DataError, match="no class folders"):
        load_shifted("imagenet-sketch", tmp_path, WNIDS, 32)


def test_cinic10_of_another_size(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "cinic10" / "test", CIFAR10_CLASSES, 64)
    with pytest.raises(DataError, match="expected \\[n, 32, 32, 3\\]"):
        load_shifted("cinic10", tmp_path, CIFAR10_CLASSES, 32)
