"""Layouts as the field's tools write them: read as those tools read them, or refused in a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmark.core.config import parse
from benchmark.core.errors import ConfigError, DataError
from benchmark.data import dataset, folders
from benchmark.data.cifar import CIFAR10_CLASSES, class_names
from benchmark.data.dataset import Dataset, FileNames, Split, StreamedSplit
from benchmark.data.loader import evaluation_batches, train_loader
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load
from benchmark.data.streaming import StreamedTrainLoader

from .conftest import encode, random_images, write_folders, write_parquet


def read(folder: Path, *, training: bool = True, **values: Any) -> Dataset:
    values = {"name": "folder", "path": str(folder), **values}
    return load(DatasetConfig.model_validate(values), folder, training=training)


def refused(folder: Path, message: str, *, training: bool = True, **values: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(folder, training=training, **values)
    assert "\n" not in str(caught.value)


def image_files(folder: Path, names: list[str], seed: int = 0) -> np.ndarray:
    """Random images of 16 pixels under these names: uint8 [n, 16, 16, 3]."""
    images = random_images(len(names), 16, seed)
    for name, image in zip(names, images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image))
    return images


def label_of(split: Any, image: np.ndarray) -> int:
    """The label under which ``split`` has ``image``."""
    wanted = torch.from_numpy(image.copy()).permute(2, 0, 1)
    (place,) = (split.images == wanted).flatten(1).all(1).nonzero().flatten().tolist()
    return int(split.labels[place])


# Order of classes


def test_class_order_is_that_of_imagefolder(tmp_path: Path) -> None:
    """Protects: labels are torchvision's, for numbers too; other orders on request."""
    from torchvision.datasets import ImageFolder

    names = [str(5 * place) for place in range(12)] + ["B", "a", "É"]
    write_folders(tmp_path, {"train": 2, "val": 1}, names, 16)
    theirs = ImageFolder(str(tmp_path / "val"))
    ours = read(tmp_path)
    assert list(ours.classes) == theirs.classes
    for image, label in theirs:
        assert label_of(ours.test, np.asarray(image)) == label
    refused(tmp_path, "'B', which is no number", class_order="numeric")
    refused(tmp_path, "class_order does not list", class_order=["0", "5"])
    order = (*reversed(names), "unseen")
    data = read(tmp_path, class_order=order)
    assert data.classes == order
    image = np.asarray(Image.open(tmp_path / "val" / "5" / "0.png"))
    assert data.classes[label_of(data.test, image)] == "5"


def test_numeric_class_order_and_its_place_in_the_configuration(tmp_path: Path) -> None:
    """Protects: numbers in order where that is asked for; hashes of other sets stay as they are."""
    write_folders(tmp_path, {"train": 2, "val": 1}, ["10", "9"], 16)
    assert read(tmp_path, class_order="numeric").classes == ("9", "10")
    config = parse(DatasetConfig, {"name": "folder", "path": "x", "class_order": [9, 10]})
    assert config.class_order == ("9", "10")
    assert DatasetConfig.model_validate(config.model_dump(mode="json")) == config
    later = {"class_order", "channels", "background", "white"}
    assert not later & DatasetConfig().model_dump(mode="json").keys()
    with pytest.raises(ConfigError, match="has its own"):
        parse(DatasetConfig, {"name": "cifar10", "class_order": "numeric"})
    with pytest.raises(ConfigError, match="named twice"):
        parse(DatasetConfig, {"name": "npz", "path": "x", "class_order": ["a", "a"]})


@pytest.mark.parametrize(
    "names",
    [
        ("plane", "car", *CIFAR10_CLASSES[2:]),
        tuple(map(str, range(10))),
        tuple(name.upper() for name in CIFAR10_CLASSES),
    ],
)
def test_other_words_for_cifar_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Protects: every word for a class has the official label, not that of its place in order."""
    write_folders(tmp_path / "cifar10", {"train": 2, "test": 1}, list(names))
    data = load(DatasetConfig(name="cifar10"), tmp_path)
    assert data.classes == CIFAR10_CLASSES
    for label, name in enumerate(names):
        image = np.asarray(Image.open(tmp_path / "cifar10" / "test" / name / "0.png"))
        assert label_of(data.test, image) == label


def test_unknown_words_for_cifar_classes() -> None:
    """Protects: a folder that is no class of CIFAR is refused, never given some label."""
    wrong = (
        (("lorry", *CIFAR10_CLASSES[:9]), "'lorry', which is none of"),
        (("plane", *CIFAR10_CLASSES), "both 'airplane' and 'plane'"),
        (CIFAR10_CLASSES[:9], "'truck' is missing"),
        (tuple(map(str, range(1, 11))), "'10', which is none of"),
    )
    for names, message in wrong:
        with pytest.raises(DataError, match=message):
            class_names(names, CIFAR10_CLASSES, "train")


def test_cifar_parquet_in_another_class_order(tmp_path: Path) -> None:
    """Protects: the class names in a file's schema count, not the order they happen to have."""
    names = list(reversed(CIFAR10_CLASSES))
    images = random_images(30)
    hub_parquet(tmp_path / "cifar10" / "train.parquet", images, np.arange(30) % 10, names)
    hub_parquet(tmp_path / "cifar10" / "test.parquet", images[:10], np.arange(10), names)
    data = load(DatasetConfig(name="cifar10"), tmp_path)
    assert data.test.labels.tolist() == list(range(9, -1, -1))
    text = pa.array([names[i] for i in range(10)])
    write_parquet(tmp_path / "cifar10" / "test.parquet", images[:10], text)
    data = load(DatasetConfig(name="cifar10"), tmp_path)
    assert data.test.labels.tolist() == list(range(9, -1, -1))


# Splits and what lies beside them


@pytest.mark.parametrize(
    "names",
    [("Train", "Valid"), ("training", "validation"), ("TRAIN", "Testing"), ("train", "dev")],
)
def test_words_for_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    """Protects: splits are found whatever tool named them."""
    write_folders(tmp_path, {names[0]: 3, names[1]: 1}, ["a", "b"], 16)
    data = read(tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [5, 1, 2]
    write_folders(tmp_path, {"val": 1, "valid": 1}, ["c"], 16)
    refused(tmp_path, "has both")


def test_a_test_set_alone(tmp_path: Path) -> None:
    """Protects: a test set without training images can be evaluated, and is not trained on."""
    write_folders(tmp_path, {"val": 2}, ["a", "b"], 16)
    for folder in (tmp_path, tmp_path / "val"):
        data = read(folder, training=False)
        assert [len(split) for split in (data.train, data.val, data.test)] == [0, 0, 4]
        assert data.classes == ("a", "b")
        assert data.image_size == 16
        with pytest.raises(DataError, match=r"model\.normalization"):
            _ = data.mean
        refused(folder, "evaluate-model")


def test_links_hidden_and_other_files(tmp_path: Path) -> None:
    """Protects: links are followed (into no circle), and what is passed over is counted and named."""
    elsewhere = tmp_path / "elsewhere"
    write_folders(elsewhere, {"x": 3}, ["a", "b"], 16)
    root = tmp_path / "set"
    (root / "train").mkdir(parents=True)
    (root / "val").symlink_to(elsewhere / "x", target_is_directory=True)
    for name in ("a", "b"):
        (root / "train" / name).mkdir()
        (root / "train" / name / "more").symlink_to(elsewhere / "x" / name)
    (elsewhere / "x" / "a" / "circle").symlink_to(elsewhere / "x" / "a")
    hidden = root / "train" / "a" / ".ipynb_checkpoints" / "0-checkpoint.png"
    for path in (
        hidden,
        root / "train" / "__MACOSX" / "a" / "._0.png",
        root / "train" / "b" / "._0.png",
    ):
        path.parent.mkdir(parents=True) if not path.parent.is_dir() else None
        path.write_bytes(b"")
    for name in ("a/x.dcm", "a/y.dcm", "b/labels.txt", "b/README"):
        (root / "train" / name).write_text("x")
    (root / "train" / "notes.txt").write_text("x")
    data = read(root, val_size=2)
    assert [len(split) for split in (data.train, data.val, data.test)] == [4, 2, 6]
    notes = "; ".join(data.notes)
    for words in (
        "skipped 2 files and folders (a/x.dcm, a/y.dcm): ending in .dcm",
        "(b/labels.txt): ending in .txt",
        "(b/README): without an ending",
        "(notes.txt): beside the class folders",
        "a/.ipynb_checkpoints",
        "__MACOSX",
        "b/._0.png",
    ):
        assert words in notes, words
    for file in (root / "train" / "b").iterdir():
        if file.is_symlink():
            file.unlink()
    refused(root, r"train/b holds no image.*\.txt")


@pytest.mark.parametrize(
    "ending", ["PNG", "JPEG", "jpe", "gif", "jfif", "jp2", "tga", "pcx", "Tiff"]
)
def test_endings_that_pillow_reads(tmp_path: Path, ending: str) -> None:
    """Protects: no image is passed over for its ending, upper case or not."""
    kind = {"jpe": "JPEG", "jfif": "JPEG", "jp2": "JPEG2000", "Tiff": "TIFF"}.get(ending, ending)
    for part in ("train", "val"):
        for place, name in enumerate("ab"):
            for number in range(2):
                path = tmp_path / part / name / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (100 * place, 0, 0)).save(path, kind.upper())
    assert len(read(tmp_path).test) == 4


def test_names_in_any_bytes(tmp_path: Path) -> None:
    """Protects: classes and files whose names are no UTF-8, in memory, streamed and on record."""
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/train")
        for name in (b"caf\xe9", "caf\u00e9".encode(), b"b"):
            for part in (b"/train/", b"/val/"):
                folder = os.fsencode(tmp_path) + part + name
                os.makedirs(folder)
                for size, number in ((16, b"/\xff0.png"), (16, b"/1.png")):
                    with open(folder + number, "wb") as file:
                        file.write(encode(random_images(1, size, seed=len(name))[0]))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    data = read(tmp_path)
    assert data.classes == ("b", "caf\u00e9", "caf\\xe9")
    json.dumps(data.classes).encode()
    streamed = read(tmp_path, size=72)
    assert isinstance(streamed.test, StreamedSplit)
    assert len(list(evaluation_batches(streamed.test, 4))) == 2
    with open(os.fsencode(tmp_path) + b"/val/caf\xe9/\xff0.png", "wb") as file:
        file.write(b"no image")
    refused(tmp_path, r"caf\\xe9/\\xff0.png cannot be decoded")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["dataset_dict.json", "train/data-00000-of-00001.arrow"], "save_to_disk.*to_parquet"),
        (["x-train.tfrecord-00000-of-00001"], "TFRecord"),
        (["train-0000.tar"], "unpack"),
        (["train-images-idx3-ubyte"], "idx files"),
        ([], "no train folder"),
    ],
)
def test_other_forms(tmp_path: Path, files: list[str], message: str) -> None:
    """Protects: forms that are not read are called by name, with a way to one that is."""
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    if files and files[0] == "dataset_dict.json":
        refused(tmp_path, "to_parquet", name="parquet")
        return
    refused(tmp_path, message)


# Tables of labels


def test_a_table_in_each_split(tmp_path: Path) -> None:
    """Protects: metadata.csv as Hugging Face writes it, names sorted as class folders are."""
    for seed, (part, count) in enumerate((("train", 8), ("test", 4))):
        names = [f"{number}.png" for number in range(count)]
        images = image_files(tmp_path / part, names, seed)
        rows = "".join(f"{name},{'zebra' if i % 2 else 'ant'}\n" for i, name in enumerate(names))
        (tmp_path / part / "metadata.csv").write_text("file_name,label\n" + rows)
    (tmp_path / "test" / "beside.png").write_bytes(encode(images[0]))
    data = read(tmp_path, val_size=2)
    assert data.classes == ("ant", "zebra")
    assert len(data.test) == 4
    assert [label_of(data.test, image) for image in images[1:]] == [1, 0, 1]
    assert any("beside.png" in note and "not named in metadata.csv" in note for note in data.notes)


def test_kaggle(tmp_path: Path) -> None:
    """Protects: ids without endings, numbers as labels, a test folder without any."""
    names = [f"{number:03}" for number in range(12)]
    images = image_files(tmp_path / "train", [f"{name}.png" for name in names])
    image_files(tmp_path / "test", ["a.png"])
    rows = "".join(f"{name},{2 - i % 3}\n" for i, name in enumerate(names))
    (tmp_path / "train.csv").write_text("id_code;diagnosis\n".replace(";", ",") + rows)
    (tmp_path / "sample_submission.csv").write_text("id_code,diagnosis\na,0\n")
    refused(tmp_path, "test has 1 files but no class folders")
    held_out = image_files(tmp_path / "val", ["x.png", "y.png"], seed=1)
    (tmp_path / "valLabels.csv").write_text("id,label\nx,2\ny,0\n")
    data = read(tmp_path, val_size=3)
    assert data.classes == ("0", "1", "2")
    assert [label_of(data.test, image) for image in held_out] == [2, 0]
    whole = {image.numpy().tobytes() for s in (data.train, data.val) for image in s.images}  # type: ignore[union-attr]
    assert whole == {image.transpose(2, 0, 1).tobytes() for image in images}
    assert "test has no labels and is not read" in data.notes


def test_one_table_for_all(tmp_path: Path) -> None:
    """Protects: a column of splits, or paths that begin with them."""
    names = [f"images/{number}.png" for number in range(9)]
    images = image_files(tmp_path, names)
    splits = ["train"] * 5 + ["valid"] * 2 + ["test"] * 2
    rows = [f"{n},{'ab'[i % 2]},{s}" for i, (n, s) in enumerate(zip(names, splits, strict=True))]
    (tmp_path / "labels.csv").write_text("\n".join(["path,class,split", *rows]))
    data = read(tmp_path)
    assert [len(split) for split in (data.train, data.val, data.test)] == [5, 2, 2]
    assert label_of(data.test, images[7]) == 1
    (tmp_path / "labels.csv").write_text("\n".join(["path,class,split", *rows, "x.png,a,extra"]))
    refused(tmp_path, "split 'extra' is unknown")
    (tmp_path / "labels.csv").write_text(
        "\n".join(row.rpartition(",")[0] for row in ["f,c,", *rows])
    )
    assert len(read(tmp_path, training=False).test) == 9


def test_tiny_imagenet(tmp_path: Path) -> None:
    """Protects: the official archive, whose validation images have a text file for labels."""
    for name in ("n01", "n02"):
        image_files(tmp_path / "train" / name / "images", ["0.png", "1.png"], seed=int(name[1:]))
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0.png\t0\t0\t1\t1\n")
    images = image_files(tmp_path / "val" / "images", ["val_0.png", "val_1.png"], seed=9)
    image_files(tmp_path / "test" / "images", ["test_0.png"])
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "val_0.png\tn02\t0\t0\t1\t1\nval_1.png\tn01\t0\t0\t1\t1\n"
    )
    data = read(tmp_path, val_size=1)
    assert data.classes == ("n01", "n02")
    assert [label_of(data.test, image) for image in images] == [1, 0]
    assert "test has no labels and is not read" in data.notes


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\n0.png,a\n1.png,\n", "1 rows have no file or no label"),
        ("file,label\n0.png,a\n9.png,b\n", r"1 file \(9.png\) that is not there"),
        ("file,label\n0.png,a\n0,b\n", "several rows for 0.png"),
        ("file,label\n0.png,a\n1.png,b,c\n", "line 3: expected 2 values"),
        ("image,MEL,NV\n0.png,1,0\n1.png,0,1\n", "no column for labels.*MEL"),
        ("file,label\n", "no rows"),
        ("file,label\n0.png,1\n1.png,2\n", "go up to 2 but 0 never occurs"),
        ("file,label\n0.png,0\n1.png,4294967295\n", "4294967295 is no class"),
    ],
)
def test_bad_tables(tmp_path: Path, table: str, message: str) -> None:
    """Protects: a table that leaves a label open is refused with what to mend."""
    for part in ("train", "val"):
        image_files(tmp_path / part, ["0.png", "1.png"])
        (tmp_path / part / "labels.csv").write_text(table)
    refused(tmp_path, message)


def test_numbers_from_one_need_a_word(tmp_path: Path) -> None:
    """Protects: labels 1, 2 are shifted to 0, 1 only when the user says how."""
    for part in ("train", "val"):
        image_files(tmp_path / part, ["0.png", "1.png", "2.png", "3.png"])
        rows = [{"file_name": f"{i}.png", "label": 1 + i % 2} for i in range(4)]
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / part / "metadata.jsonl").write_text(text)
    refused(tmp_path, "class_order")
    for order in ("numeric", ["1", "2"]):
        data = read(tmp_path, class_order=order, val_size=1)
        assert data.classes == ("1", "2")
        assert sorted(data.test.labels.tolist()) == [0, 0, 1, 1]
    assert read(tmp_path, class_order=["none", "one", "two"], val_size=1).test.labels.max() == 2


# npz


def test_npz_of_keras_and_of_a_test_split(tmp_path: Path) -> None:
    """Protects: arrays by the names that tools give them, pickled ones beside them untouched."""
    images, labels = random_images(12, 16), np.arange(12) % 3
    odd = np.array([{}], dtype=object)
    np.savez(tmp_path / "keras.npz", x_train=images, y_train=labels, x_test=images[:6],
             y_test=labels[:6], names=odd)  # fmt: skip
    data = read(tmp_path, name="npz", path="keras.npz")
    assert [len(data.test), data.num_classes] == [6, 3]
    np.savez(tmp_path / "test.npz", test_images=images, test_labels=labels[:, None])
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    for path in ("test.npz", "plain.npz"):
        data = read(tmp_path, name="npz", path=path, training=False)
        assert [len(data.train), len(data.test), data.num_classes] == [0, 12, 3]
        refused(tmp_path, "only a test split", name="npz", path=path)
        order = ["a", "b", "c", "d"]
        data = read(tmp_path, name="npz", path=path, training=False, class_order=order)
        assert data.num_classes == 4
    np.savez(tmp_path / "two.npz", x_test=images, test_images=images, y_test=labels)
    refused(tmp_path, "has both", name="npz", path="two.npz", training=False)


# Parquet


def hub_parquet(path: Path, images: np.ndarray, labels: Any, names: list[str] | None) -> None:
    """As ``datasets`` writes it, with class names in the schema."""
    write_parquet(path, images, labels)
    if names:
        feature = {"label": {"names": names, "_type": "ClassLabel"}}
        metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    "form",
    ["{}.parquet", "{}/0000.parquet", "default/{}/0000.parquet", "data/{}-00000-of-00001.parquet"],
)
@pytest.mark.parametrize("name", ["cifar10", "parquet"])
def test_forms_of_the_hub(tmp_path: Path, form: str, name: str) -> None:
    """Protects: each form in which the Hub hands out parquet, for CIFAR and for any set."""
    names = list(CIFAR10_CLASSES)
    images = random_images(30)
    for part, count in (("train", 30), ("test", 10)):
        path = tmp_path / "cifar10" / form.format(part)
        hub_parquet(path, images[:count], np.arange(count) % 10, names)
    values = {"name": name} | ({"path": "cifar10"} if name == "parquet" else {})
    data = load(DatasetConfig.model_validate(values), tmp_path)
    assert data.classes == CIFAR10_CLASSES
    assert torch.equal(data.test.labels, torch.arange(10))
    assert torch.equal(data.test.images, torch.from_numpy(images[:10]).permute(0, 3, 1, 2))  # type: ignore[union-attr]


def test_parquet_labels(tmp_path: Path) -> None:
    """Protects: texts are sorted, numbers are themselves, names of the schema keep its order."""
    images = random_images(6, 16)
    for labels, names, classes, wanted in (
        (["b", "a"] * 3, None, ("a", "b"), [1, 0]),
        ([0, 1] * 3, None, ("0", "1"), [0, 1]),
        ([0, 1] * 3, ["z", "a"], ("z", "a"), [0, 1]),
    ):
        for part in ("train", "validation"):
            hub_parquet(tmp_path / f"{part}.parquet", images, labels, names)
        data = read(tmp_path, name="parquet", val_size=2)
        assert data.classes == classes
        assert [label_of(data.test, image) for image in images[:2]] == wanted
    hub_parquet(tmp_path / "train.parquet", images, [0, 4] * 3, ["z", "a"])
    refused(tmp_path, "label 4 is out of range", name="parquet")


def test_parquet_copies_and_gaps(tmp_path: Path) -> None:
    """Protects: two copies of a shard, or one that is missing, are told apart."""
    images, labels = random_images(4), np.arange(4)
    for name, message in (
        ("train-00000-of-00001-b42d.parquet", "both parquet file 0 of the train split"),
        ("train/0000.parquet", "the train split twice"),
        ("train-00002-of-00003.parquet", "found 2 of 3"),
        ("test/0003.parquet", "the test split twice"),
    ):
        for file in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet", name):
            write_parquet(tmp_path / "cifar10" / file, images, labels)
        with pytest.raises(DataError, match=message):
            load(DatasetConfig(name="cifar10"), tmp_path)
        (tmp_path / "cifar10" / name).unlink()
    write_parquet(tmp_path / "cifar10" / "test" / "0001.parquet", images, labels)
    (tmp_path / "cifar10" / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match="found 1 of 2 parquet files of the test split"):
        load(DatasetConfig(name="cifar10"), tmp_path)


# In memory or streamed


def test_small_images_are_the_same_however_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: pixels and augmentation of small images do not depend on where they are kept."""
    write_folders(tmp_path, {"train": 9, "val": 4}, ["a", "b"], 20)
    for size in (None, 16):
        held = read(tmp_path, size=size, val_size=4)
        with monkeypatch.context() as context:
            context.setattr(folders, "MEMORY_BYTES", 0)
            streamed = read(tmp_path, size=size, val_size=4)
        assert isinstance(held.train, Split)
        assert isinstance(streamed.train, StreamedSplit)
        assert isinstance(streamed.test, StreamedSplit)
        assert streamed.image_size == held.image_size == (size or 20)
        options: dict[str, Any] = {"seed": 3, "crop": 3, "flip": True}
        plain = train_loader(held.train, 4, **options)
        other = StreamedTrainLoader(streamed.train, 4, **options, workers=0)
        for epoch, start in ((0, 0), (2, 1)):
            for a, b in zip(plain.epoch(epoch, start), other.epoch(epoch, start), strict=True):
                assert torch.equal(a[0], b[0])
                assert torch.equal(a[1], b[1])
        images = np.stack([streamed.test.eval_image(i) for i in range(8)])
        assert isinstance(held.test, Split)
        assert np.array_equal(images.transpose(0, 3, 1, 2), held.test.images.numpy())


def test_only_what_does_not_fit_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a test set that fits into memory can be corrupted, whatever the training set."""
    write_folders(tmp_path, {"train": 9, "val": 2}, ["a", "b"], 16)
    monkeypatch.setattr(folders, "MEMORY_BYTES", 4 * 16 * 16 * 3)
    data = read(tmp_path)
    assert isinstance(data.train, StreamedSplit)
    assert isinstance(data.test, Split)
    assert "train streamed at 16 pixels" in data.source


def test_streamed_images_are_known_by_their_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: other pixels under the same names and lengths, another size, order or background
    are another data set; another copy of the files is the same one."""
    import shutil

    def folder(root: Path, seed: int) -> Path:
        for part in ("train", "val"):
            for name in ("a", "b"):
                for number in range(3):
                    path = root / part / name / f"{number}.bmp"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(encode(random_images(1, 80, seed)[0], "BMP"))
        return root

    def known(root: Path, **values: Any) -> str:
        return read(root, **values).fingerprint

    first = folder(tmp_path / "x", 0)
    seen = [known(first, size=size) for size in (96, 72)]
    seen += [
        known(first, size=72, background="black"),
        known(first, size=72, class_order=["b", "a"]),
    ]
    shutil.copytree(first, tmp_path / "copy")
    assert known(tmp_path / "copy", size=72) == seen[1]
    monkeypatch.setattr("benchmark.data.decode.CACHE_ABOVE_SECONDS", -1.0)
    assert known(first, size=72) == known(first, size=72) == seen[1]
    folder(first, 1)
    seen.append(known(first, size=72))
    assert len(set(seen)) == len(seen)
    monkeypatch.setattr(dataset, "WHOLE_BYTES", 0)
    monkeypatch.setattr(dataset, "SAMPLED_FILES", 3)
    sampled = read(first, size=72)
    assert any("covers the contents of 3 evenly spaced files" in note for note in sampled.notes)
    assert sampled.fingerprint != seen[-1]


def test_a_truncated_streamed_image_is_named(tmp_path: Path) -> None:
    """Protects: what a worker process finds wrong reaches the user as one sentence with the path."""
    write_folders(tmp_path, {"train": 3, "val": 3}, ["a", "b"], 80, "JPEG")
    data = read(tmp_path)
    for part in ("train", "val"):
        path = tmp_path / part / "b" / "1.jpeg"
        path.write_bytes(path.read_bytes()[:700])
    split = data.test
    assert isinstance(split, StreamedSplit)
    with pytest.raises(DataError) as caught:
        list(evaluation_batches(split, 2))
    assert str(caught.value).startswith("val/b/1.jpeg cannot be decoded (")
    assert "Traceback" not in str(caught.value)
    whole = StreamedSplit(
        tmp_path / "train", FileNames(["a/0.jpeg", "b/1.jpeg"]), torch.arange(2), 72
    )
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"^train/b/1.jpeg cannot be decoded \("):
            list(StreamedTrainLoader(whole, 2, seed=0, flip=True, workers=workers).epoch(0))
    refused(tmp_path, "cannot be decoded")
    (tmp_path / "val" / "b" / "1.jpeg").unlink()
    (tmp_path / "val" / "b" / "1.jpeg").symlink_to("gone.jpeg")
    refused(tmp_path, "val/b/1.jpeg cannot be decoded.*No such file")
