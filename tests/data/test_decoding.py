"""Pixels of image files and arrays: right brightness, orientation and background, or one sentence."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.core.errors import DataError
from benchmark.data.check import check_labels, make_split
from benchmark.data.corruptions import corrupt
from benchmark.data.dataset import Dataset, Split
from benchmark.data.decode import Decoding, Remarks, open_image
from benchmark.data.loader import TrainLoader, evaluation_batches
from benchmark.data.source import DatasetConfig
from benchmark.data.sources import load
from benchmark.data.white import Extremes, to_grey, white_of

GREY = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
GREY[0, :2] = 0, 255


def write(folder: Path, image: Any, ending: str = "png", **options: Any) -> None:
    """``image(number)`` for 3 training and 2 validation images of each of two classes."""
    for part, count in (("train", 3), ("val", 2)):
        for name in ("a", "b"):
            for number in range(count):
                path = folder / part / name / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image(number).save(path, **options)


def read(folder: Path, **values: Any) -> Dataset:
    config = DatasetConfig.model_validate({"name": "folder", "path": str(folder), **values})
    return load(config, "nowhere")


def pixels(data: Dataset) -> np.ndarray:
    assert isinstance(data.train, Split)
    assert (data.train.images == data.train.images[:1]).all()
    return data.train.images[0].numpy()


@pytest.mark.parametrize(
    ("values", "ending", "white"),
    [
        (GREY.astype(np.uint16) * 257, "png", 65535),
        (GREY.astype(np.uint16) * 257, "tif", 65535),
        (GREY.astype(np.uint16) * 257, "pgm", 65535),
        (GREY.astype(np.uint16) * 16, "png", 4095),
        (GREY.astype(np.uint16), "png", 255),
        (GREY.astype(np.int32) * 257, "tif", 65535),
        (GREY.astype(np.float32) / 255, "tif", 1),
        (GREY.astype(np.float32), "tif", 255),
    ],
)
def test_images_of_more_than_8_bits(
    tmp_path: Path, values: np.ndarray, ending: str, white: float
) -> None:
    """Protects: grey images of 12 and 16 bits and of floats are scaled, never clipped to white."""
    write(tmp_path, lambda _: Image.fromarray(values), ending)
    data = read(tmp_path)
    wanted = np.round(values.astype(float) / white * 255)
    assert np.array_equal(pixels(data), np.broadcast_to(wanted, (3, 16, 16)))
    assert any(f"white is {white:g} " in note for note in data.notes)


def test_white_is_that_of_all_images_and_of_the_user(tmp_path: Path) -> None:
    """Protects: one scale for the whole data set, not one per image or per split."""
    values = [1000, 4000, 60000]
    write(tmp_path, lambda i: Image.fromarray(np.full((16, 16), values[i], np.uint16)))
    data = read(tmp_path, val_size=2)
    assert isinstance(data.test, Split)
    assert data.test.images[:, 0, 0, 0].tolist() == [4, 4, 16, 16]  # of 65535, though below 4096
    with pytest.raises(DataError, match="dataset.white is 4095; set it to"):
        read(tmp_path, white=4095)
    data = read(tmp_path, white=60000)
    assert isinstance(data.train, Split)
    assert int(data.train.images.max()) == 255


def test_a_deep_image_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: one 16-bit image that was not among those looked at is scaled all the same."""
    write(tmp_path, lambda _: Image.fromarray(GREY))
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "train" / "a" / "1.png")
    wanted = np.broadcast_to(GREY, (3, 16, 16))
    assert np.array_equal(pixels(read(tmp_path)), wanted)
    monkeypatch.setattr("benchmark.data.folders.LOOKED_AT", 2)
    assert np.array_equal(pixels(read(tmp_path)), wanted)


def test_large_deep_images_are_scaled_while_streamed(tmp_path: Path) -> None:
    """Protects: streamed 16-bit images have the pixels of the same images of 8 bits."""
    big = np.kron(GREY, np.ones((6, 6), np.uint8))
    write(tmp_path / "8", lambda _: Image.fromarray(big))
    write(tmp_path / "16", lambda _: Image.fromarray(big.astype(np.uint16) * 257))
    eight, sixteen = (read(tmp_path / bits, size=72) for bits in ("8", "16"))
    assert any("white is 65535" in note for note in sixteen.notes)
    for index in range(2):
        assert np.array_equal(
            eight.test.eval_image(index),  # type: ignore[union-attr]
            sixteen.test.eval_image(index),  # type: ignore[union-attr]
        )


def test_transparency_is_laid_over_a_stated_background(tmp_path: Path) -> None:
    """Protects: a drawing in the alpha channel is seen, and what is done with it is said."""
    drawing = np.zeros((16, 16, 4), np.uint8)
    drawing[..., 3] = GREY
    write(tmp_path, lambda _: Image.fromarray(drawing))
    data = read(tmp_path)
    assert np.array_equal(pixels(data), np.broadcast_to(255 - GREY, (3, 16, 16)))
    assert any("transparent pixels are white" in note for note in data.notes)
    assert pixels(read(tmp_path, background="drop")).max() == 0
    assert data.fingerprint != read(tmp_path, background="black").fingerprint
    drawing[..., 3] = 255
    drawing[..., 0] = GREY
    write(tmp_path, lambda _: Image.fromarray(drawing))
    data = read(tmp_path)
    assert np.array_equal(pixels(data)[0], GREY)
    assert not any("transparent" in note for note in data.notes)


def test_palette_cmyk_and_bilevel() -> None:
    """Protects: colours of palettes (also with a transparent entry), of CMYK and of one bit."""
    grey = Image.fromarray(GREY)
    for image in (grey.convert("P"), grey.convert("RGB").convert("CMYK")):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF")
        assert np.array_equal(np.asarray(open_image(buffer.getvalue()))[..., 0], GREY)
    buffer = io.BytesIO()
    grey.convert("P").save(buffer, "PNG", transparency=int(GREY[5, 5]))
    found = np.asarray(open_image(buffer.getvalue()))[..., 0]
    assert np.array_equal(found, np.where(GREY[5, 5] == GREY, 255, GREY))
    buffer = io.BytesIO()
    grey.convert("1").save(buffer, "PNG")
    assert set(np.unique(np.asarray(open_image(buffer.getvalue())))) == {0, 255}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(kind: str) -> None:
    """Protects: a photograph taken upright is upright."""
    half = np.zeros((16, 16), np.uint8)
    half[:8] = 255
    image = Image.fromarray(half)
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    remarks = Remarks()
    found = np.asarray(open_image(buffer.getvalue(), "x", remarks=remarks))
    assert found[:, 8:].mean() > 250
    assert found[:, :8].mean() < 5


def test_the_first_of_several_frames_is_named(tmp_path: Path) -> None:
    """Protects: an animation is not taken for a still image in silence."""
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    write(tmp_path, lambda _: Image.fromarray(GREY), "gif")
    frames[0].save(tmp_path / "train/a/1.gif", save_all=True, append_images=frames[1:])
    data = read(tmp_path)
    assert np.array_equal(pixels(data)[0], GREY)
    assert any("(a/1.gif)" in n or "train/a/1.gif" in n for n in data.notes if "frames" in n)


def test_a_cache_is_not_that_of_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: files of the same name, length and time elsewhere, as archives unpack them."""
    import os

    monkeypatch.setattr("benchmark.data.decode.CACHE_ABOVE_SECONDS", -1.0)
    for name, image in (("x", GREY), ("y", 255 - GREY)):
        write(tmp_path / name, lambda _, image=image: Image.fromarray(image), "bmp")
        for file in (tmp_path / name).rglob("*.bmp"):
            os.utime(file, (0, 0))
    x, y = (read(tmp_path / name) for name in "xy")
    assert np.array_equal(pixels(x), 255 - pixels(y))
    assert np.array_equal(pixels(x), pixels(read(tmp_path / "x")))
    for file in (tmp_path / "x").rglob("*.bmp"):
        file.write_bytes((tmp_path / "y" / "train/a/0.bmp").read_bytes())
        os.utime(file, (0, 0))
    assert np.array_equal(pixels(read(tmp_path / "x")), pixels(y))
    assert not np.array_equal(pixels(read(tmp_path / "x", channels=1)), pixels(y))


# Scales of arrays


@pytest.mark.parametrize(
    ("kind", "low", "high", "white"),
    [
        ("f", 0, 1, 1),
        ("f", -3e-8, 1.0000002, 1),
        ("f", -1e-3, 1.001, 1),
        ("f", 0, 2, 255),
        ("f", -0.2, 255.2, 255),
        ("u", 0, 0, 255),
        ("u", 0, 2, 255),
        ("i", 0, 255, 255),
        ("u", 0, 512, 4095),
        ("u", 0, 4096, 65535),
    ],
)
def test_scales(kind: str, low: float, high: float, white: float) -> None:
    """Protects: rounding at both ends of a scale does not make another scale of it."""
    assert white_of({"here": Extremes(kind, low, high)}) == white


@pytest.mark.parametrize(
    ("kind", "low", "high", "message"),
    [
        ("f", 0, 1.5, "could be"),
        ("f", 0, 1.0011, "could be"),
        ("u", 0, 1, "dataset.white=1 or dataset.white=255"),
        ("f", -0.01, 1, "undo the normalisation"),
        ("f", -2.1, 2.6, "undo the normalisation"),
        ("f", 0, 256, "undo"),
        ("i", -1, 255, "whole numbers"),
        ("u", 0, 300, "it is not clear whether white is 255"),
        ("u", 0, 70000, "65535"),
    ],
)
def test_scales_that_cannot_be_told(kind: str, low: float, high: float, message: str) -> None:
    """Protects: what could be on two scales is refused, with the setting that decides."""
    with pytest.raises(DataError, match=message):
        white_of({"here": Extremes(kind, low, high)})


def test_white_of_arrays(tmp_path: Path) -> None:
    """Protects: bilevel arrays are read where the user says what white is."""
    bits = (GREY > 127).astype(np.uint8)
    arrays = {f"{part}_images": np.stack([bits] * 6) for part in ("train", "test")}
    labels = {f"{part}_labels": np.arange(6) % 2 for part in ("train", "test")}
    np.savez(tmp_path / "a.npz", **arrays, **labels)
    with pytest.raises(DataError, match="dataset.white=1"):
        load(DatasetConfig(name="npz", path="a.npz"), tmp_path)
    data = load(DatasetConfig(name="npz", path="a.npz", white=1), tmp_path)
    assert np.array_equal(pixels(data)[0], 255 * bits)
    arrays["test_images"] = arrays["test_images"].astype(np.uint16) * 4095
    np.savez(tmp_path / "b.npz", **arrays, **labels)
    with pytest.raises(DataError, match="8 bits in one split"):
        load(DatasetConfig(name="npz", path="b.npz", white=4095), tmp_path)


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_unsigned_labels_of_minus_one(kind: type) -> None:
    """Protects: a label no set can have is refused before a class is made for each number."""
    labels = np.array([0, 1, -1]).astype(kind)
    with pytest.raises(DataError, match=r"is it -1.*3 images"):
        check_labels("here", labels)
    with pytest.raises(DataError, match="argmax"):
        check_labels("here", np.eye(3))
    with pytest.raises(DataError, match="sorted list"):
        check_labels("here", np.array(["cat", "dog"]))


# Grey images for one-channel networks


def test_luma_is_that_of_pillow() -> None:
    """Protects: files and arrays of one picture become the same grey image."""
    colour = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    wanted = np.stack([np.asarray(Image.fromarray(one).convert("L")) for one in colour])
    assert np.array_equal(to_grey(colour)[..., 0], wanted)
    split = make_split("here", colour, np.arange(4), channels=1)
    assert np.array_equal(split.images[:, 0].numpy(), wanted)
    buffer = io.BytesIO()
    Image.fromarray(colour[0]).save(buffer, "PNG")
    found = open_image(buffer.getvalue(), how=Decoding(channels=1))
    assert np.array_equal(np.asarray(found), wanted[0])


def test_one_channel_from_files_to_batches(tmp_path: Path) -> None:
    """Protects: crop, flip and evaluation of grey images are those of the same in colour."""
    for size, folder in ((16, "small"), (80, "large")):
        big = np.kron(GREY, np.ones((size // 16, size // 16), np.uint8))
        write(tmp_path / folder, lambda _, big=big: Image.fromarray(big))
        grey, colour = (
            read(tmp_path / folder, channels=channels, size=None if size == 16 else 72)
            for channels in (1, 3)
        )
        assert (grey.channels, colour.channels) == (1, 3)
        assert grey.mean == pytest.approx(colour.mean[:1])
        assert grey.fingerprint != colour.fingerprint
        from benchmark.data.loader import train_loader

        for a, b in zip(
            *(
                train_loader(data.train, 3, seed=1, crop=2, flip=True).epoch(0)
                for data in (grey, colour)
            ),
            strict=True,
        ):
            assert a[0].shape[1] == 1
            assert torch.equal(a[0].expand(-1, 3, -1, -1), b[0])
        for a, b in zip(
            *(evaluation_batches(data.test, 3) for data in (grey, colour)), strict=True
        ):
            assert torch.equal(a[1].expand(-1, 3, -1, -1), b[1])


def test_grey_digits_train_a_grey_network_and_are_corrupted() -> None:
    """Protects: a registered architecture takes one channel, and corruptions keep it."""
    from benchmark.core.errors import ConfigError
    from benchmark.models.config import ModelConfig
    from benchmark.models.zoo import build_model

    data = load(DatasetConfig(name="digits", channels=1, limit=20), "nowhere")
    assert isinstance(data.test, Split)
    x, _ = next(TrainLoader(data.train, 4, seed=0, crop=2, flip=False).epoch(0))  # type: ignore[arg-type]
    shape = {"num_classes": 10, "image_size": 16, "channels": 1}
    for name in ("small-resnet", "preactresnet18"):
        config = ModelConfig(name=name, normalization="dataset")
        network = build_model(config, mean=data.mean, std=data.std, **shape)  # type: ignore[arg-type]
        assert network(x).shape == (4, 10)
    with pytest.raises(ConfigError, match="takes colour images"):
        build_model(ModelConfig(name="torchvision-resnet18"), **shape)  # type: ignore[arg-type]
    assert corrupt(data.test.images[:2], "fog", 3, 0).shape == (2, 1, 16, 16)
