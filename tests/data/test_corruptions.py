"""The 15 corruptions: published parameters, exact formulas where simple, and independence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from benchmark.core.errors import ConfigError, DataError
from benchmark.data.corruptions import (
    CORRUPTIONS,
    DEPARTURES,
    SEVERITIES,
    bilinear,
    corrupt,
    disk,
    find_published,
    frost_textures,
    load_published,
    motion_blur,
    plasma,
    zoom_matrix,
)


def photos(count: int = 12, size: int = 32) -> torch.Tensor:
    """Smooth coloured blobs with some texture, nearer to photographs than white noise is."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((count, 3, size, size))
    images = ndimage.gaussian_filter(noise, (0, 0, size / 8, size / 8)) * size / 2
    images += 0.3 * ndimage.gaussian_filter(noise, (0, 0, 0.7, 0.7))
    return torch.from_numpy((128 + 50 * images).clip(0, 255).astype(np.uint8))


def change(name: str, severity: int) -> float:
    x = photos()
    return float((corrupt(x, name, severity, 0).float() - x.float()).abs().mean())


def test_the_fifteen() -> None:
    assert len(CORRUPTIONS) == 15
    assert not {"speckle_noise", "gaussian_blur", "spatter", "saturate"} & set(CORRUPTIONS)
    assert all(len(levels) == 5 for levels in SEVERITIES.values())
    assert set(DEPARTURES) <= {"all", *CORRUPTIONS}
    assert "synthetic" in DEPARTURES["frost"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_deterministic_and_independent_of_the_batch(name: str) -> None:
    x = photos()
    whole = corrupt(x, name, 3, 0)
    assert whole.shape == x.shape
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, corrupt(x, name, 3, 0))
    chosen = torch.tensor([7, 2])
    assert torch.equal(whole[chosen], corrupt(x[chosen], name, 3, 0))
    assert not torch.equal(whole, x)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_seed_matters_only_where_chance_does(name: str) -> None:
    fixed = {
        "defocus_blur",
        "zoom_blur",
        "brightness",
        "contrast",
        "pixelate",
        "jpeg_compression",
    }
    same = torch.equal(corrupt(photos(), name, 4, 0), corrupt(photos(), name, 4, 1))
    assert same == (name in fixed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severity_grows(name: str) -> None:
    changes = [change(name, severity) for severity in range(1, 6)]
    if name == "elastic_transform":  # its published affine shift falls as the waves grow
        assert changes[0] > changes[4]
    else:
        assert changes[4] > changes[0]
        assert all(late > 0.7 * early for early, late in pairwise(changes))


@pytest.mark.parametrize("size", [16, 64])
def test_other_sizes(size: int) -> None:
    x = photos(2, size)
    for name in CORRUPTIONS:
        assert corrupt(x, name, 5, 0).shape == x.shape


def flat(value: int, count: int = 40) -> torch.Tensor:
    """Grey images that differ in one pixel, so that each has its own noise."""
    images = torch.full((count, 3, 32, 32), value, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count, dtype=torch.uint8)
    return images


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_stated_size(severity: int) -> None:
    inside = (slice(None), slice(None), slice(1, None))
    level = SEVERITIES["gaussian_noise"][severity - 1]
    noisy = corrupt(flat(128), "gaussian_noise", severity, 0)[inside].double() / 255
    assert float(noisy.std()) == pytest.approx(level, rel=0.02)
    assert float(noisy.mean()) == pytest.approx(128 / 255 - 0.5 / 255, abs=0.002)
    photons = SEVERITIES["shot_noise"][severity - 1]
    noisy = corrupt(flat(128), "shot_noise", severity, 0)[inside].double() / 255
    assert float(noisy.std()) == pytest.approx((128 / 255 / photons) ** 0.5, rel=0.02)
    share = SEVERITIES["impulse_noise"][severity - 1]
    noisy = corrupt(flat(128), "impulse_noise", severity, 0)[inside]
    assert float((noisy == 0).double().mean()) == pytest.approx(share / 2, rel=0.12)
    assert float((noisy == 255).double().mean()) == pytest.approx(share / 2, rel=0.12)


def test_contrast_formula() -> None:
    x = photos().double() / 255
    mean = x.mean((2, 3), keepdim=True)
    wanted = ((x - mean) * 0.4 + mean).clamp(0, 1) * 255
    assert torch.equal(corrupt(photos(), "contrast", 3, 0), (wanted + 1e-6).to(torch.uint8))


def test_brightness_formula() -> None:
    import colorsys

    x = photos(1)
    out = corrupt(x, "brightness", 5, 0)[0]
    for row, column in ((0, 0), (5, 9), (31, 20)):
        hue, saturation, value = colorsys.rgb_to_hsv(
            *(x[0, :, row, column].double() / 255).tolist()
        )
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))
        assert out[:, row, column].tolist() == [int(v * 255 + 1e-6) for v in wanted]
    assert int(corrupt(flat(0, 1), "brightness", 5, 0)[0, 0, 9, 9]) == 76  # black: grey 0.3


def test_pixelate_and_jpeg_are_pillows() -> None:
    import io

    x = photos(1)
    image = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    box = Image.Resampling.BOX
    wanted = np.asarray(image.resize((20, 20), box).resize((32, 32), box))  # int(32 * 0.65)
    assert np.array_equal(corrupt(x, "pixelate", 5, 0)[0].permute(1, 2, 0).numpy(), wanted)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    wanted = np.asarray(Image.open(buffer))
    assert np.array_equal(corrupt(x, "jpeg_compression", 5, 0)[0].permute(1, 2, 0).numpy(), wanted)


def test_blurs_keep_flat_images() -> None:
    grey = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    for name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"):
        assert (corrupt(grey, name, 5, 0).int() - 90).abs().max() <= 1


def test_pieces() -> None:
    assert disk(1.5, 0.1).sum() == pytest.approx(1)
    assert (disk(1.5, 0.1) > 0.05).sum() == 9
    dot = np.zeros((1, 21, 21, 1))
    dot[0, 10, 10] = 1
    line = motion_blur(dot, 3, 1.0, np.array([0.0]))[0, :, :, 0]
    assert line[10, 4:11] == pytest.approx(
        np.exp(-0.5 * np.arange(6, -1, -1) ** 2) / 1.7533, rel=1e-3
    )
    assert line.sum() == pytest.approx(1)
    fractal = plasma(np.random.default_rng(0).uniform(-1, 1, (2, 1024)), 32, 2.0)
    assert fractal.min(axis=(1, 2)).tolist() == [0, 0]
    assert fractal.max(axis=(1, 2)).tolist() == [1, 1]
    assert np.array_equal(zoom_matrix(32, 1.0, 32), np.eye(32))
    assert np.allclose(zoom_matrix(32, 1.26, 32).sum(axis=1), 1)
    textures = frost_textures()
    assert textures.min() >= 0
    assert textures.max() <= 1


@pytest.mark.parametrize("factor", [1.05, 1.26, 2.25])
def test_zoom_is_that_of_scipy(factor: float) -> None:
    image = np.random.default_rng(0).random((32, 32))
    crop = int(np.ceil(32 / factor))
    first = (32 - crop) // 2
    big = ndimage.zoom(image[first : first + crop, first : first + crop], factor, order=1)
    trim = (big.shape[0] - 32) // 2
    matrix = zoom_matrix(32, factor, 32)
    assert np.allclose(matrix @ image @ matrix.T, big[trim : trim + 32, trim : trim + 32])


@pytest.mark.parametrize(("severity", "end"), enumerate((1.06, 1.11, 1.16, 1.21, 1.26), 1))
def test_zoom_blur_averages_the_factors_of_the_original(severity: int, end: float) -> None:
    """Protects: the factors are np.arange(1, end, 0.01), which rounding makes end with ``end``
    itself at severities 1 and 2; by scipy's zoom, as in make_cifar_c.py."""
    image = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    x = image.permute(1, 2, 0).double().numpy() / 255
    total, factors = x.copy(), np.arange(1, end, 0.01)
    assert len(factors) == {1: 7, 2: 12, 3: 16, 4: 21, 5: 26}[severity]
    for factor in factors:
        crop = int(np.ceil(32 / factor))
        first = (32 - crop) // 2
        middle = x[first : first + crop, first : first + crop]
        big = ndimage.zoom(middle, (factor, factor, 1), order=1)
        trim = (big.shape[0] - 32) // 2
        total += big[trim : trim + 32, trim : trim + 32]
    wanted = torch.from_numpy(total / (len(factors) + 1) * 255).permute(2, 0, 1)
    ours = corrupt(image.to(torch.uint8)[None], "zoom_blur", severity, 0)[0]
    assert (ours.double() - wanted).abs().max() <= 1


@pytest.mark.parametrize("border", ["mirror", "reflect"])
def test_bilinear_is_that_of_scipy(border: str) -> None:
    random = np.random.default_rng(0)
    image, places = random.random((20, 20)), random.uniform(-6, 25, (2, 20, 20))
    ours = bilinear(image[None, :, :, None], places[:1], places[1:], border)[0, :, :, 0]
    assert np.allclose(ours, ndimage.map_coordinates(image, places, order=1, mode=border))


def test_bad_requests() -> None:
    with pytest.raises(ConfigError, match="did you mean 'frost'"):
        corrupt(photos(1), "forst", 1, 0)
    with pytest.raises(ConfigError, match="severity = 6"):
        corrupt(photos(1), "fog", 6, 0)
    with pytest.raises(DataError, match="uint8"):
        corrupt(photos(1).float(), "fog", 1, 0)
    with pytest.raises(DataError, match="square"):
        corrupt(photos(1)[:, :, :20], "fog", 1, 0)
    assert len(corrupt(photos(1)[:0], "fog", 1, 0)) == 0


def test_published_files(tmp_path: Path) -> None:
    assert find_published(tmp_path, "cifar10") is None
    with pytest.raises(DataError, match="missing"):
        load_published(tmp_path, "fog", 1, 10)
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    # a sparse file of 150 MB: only the rows that are read exist on disk
    shape = (50_000, 32, 32, 3)
    array = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, shape)
    array[20_000:20_003] = np.arange(3, dtype=np.uint8)[:, None, None, None] + 7
    array[20_000, 0, 1] = (50, 60, 70)
    array.flush()
    np.save(folder / "labels.npy", (np.arange(50_000) % 10).astype(np.int64))
    assert find_published(tmp_path, "cifar10") == folder
    assert find_published(tmp_path, "digits") is None
    images, labels = load_published(tmp_path, "fog", 3, 3)
    assert images.shape == (3, 3, 32, 32)
    assert images[:, 0, 5, 5].tolist() == [7, 8, 9]
    assert images[0, :, 0, 1].tolist() == [50, 60, 70]
    assert labels.tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="n = 10001"):
        load_published(tmp_path, "fog", 1, 10_001)
    with pytest.raises(DataError, match=r"snow\.npy is missing"):
        load_published(tmp_path, "snow", 1, 10)
    np.save(folder / "snow.npy", np.zeros((5, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"uint8 \[5, 32, 32, 3\]"):
        load_published(tmp_path, "snow", 1, 10)
    np.save(folder / "snow.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        load_published(tmp_path, "snow", 1, 10)
