"""The 15 common corruptions of CIFAR-10-C (Hendrycks & Dietterich, arXiv 1903.12261).

Our own implementation, with the parameters of CIFAR-10-C, which are milder than those of
ImageNet-C. ``DEPARTURES`` says where it differs from the published files, which
``load_published`` reads.
Lengths are in pixels of a 32x32 image and scale with the side of larger or smaller images.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from benchmark.core.errors import ConfigError, DataError
from benchmark.core.registry import did_you_mean
from benchmark.data.arrays import read_npy
from benchmark.data.source import DATASETS
from benchmark.data.white import to_grey

# Parameters for severity 1..5. Source: hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py.
SEVERITIES: dict[str, tuple[Any, ...]] = {
    # standard deviation, in [0, 1]
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    # photons per unit of brightness
    "shot_noise": (500, 250, 100, 75, 50),
    # share of the values (pixel and channel) that become 0 or 1
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    # disk radius, sigma of the blur that smooths the disk
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    # sigma, largest shift, iterations
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    # radius, sigma; angle uniform in -45..45 degrees
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    # zoom factors np.arange(1, this, 0.01); at severities 1 and 2 rounding includes the end
    "zoom_blur": (1.06, 1.11, 1.16, 1.21, 1.26),
    # mean, sd, zoom, threshold, blur radius, blur sigma, weight of the image
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    # weight of the image, weight of the frost
    "frost": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    # weight of the fog, decay of its roughness
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    # added to the value of HSV
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    # factor around the mean of each channel
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    # strength, smoothing sigma, affine shift; times 32 pixels
    "elastic_transform": (
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    # factor of the box down-scaling
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    # quality
    "jpeg_compression": (80, 65, 58, 50, 40),
}
CORRUPTIONS: tuple[str, ...] = tuple(SEVERITIES)

DEPARTURES: dict[str, str] = {
    "all": "random numbers have the same distributions as in the files but are drawn anew, so the "
    "noise differs; lengths scale with side / 32",
    "frost": "the original blends in photographs of frost, which are not shipped; the texture here "
    "is synthetic (streaks along crystal grains), so only the blending weights are comparable",
    "motion_blur": "the kernel of ImageMagick is rebuilt in numpy: a one-sided Gaussian along a "
    "line, whole-pixel offsets, edge pixels repeated",
    "snow": "its motion blur is the one of motion_blur; the blurred layer is not rounded to 8 bits",
    "glass_blur": "pixels are copied, not swapped: that is the effect of the original code",
    "jpeg_compression": "bytes depend on the JPEG library that Pillow was built with",
}

PUBLISHED_IMAGES = 10_000  # per severity

Images: TypeAlias = np.ndarray  # float64 [n, h, w, 3] in [0, 1]
Randoms: TypeAlias = list[np.random.Generator]  # one per image


def corrupt(images: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupt uint8 images [n, c, h, w] in 0..255; the result has the same shape and type.

    Grey images (c = 1) are corrupted as colour images of equal channels, whose luma is the result.

    Each image has its own random generator, seeded by a hash of (seed, name, severity, the image's
    bytes), so the result for an image does not depend on its batch or its position there.

    Raises:
        ConfigError: unknown corruption, or severity outside 1..5.
        DataError: images of another type or shape.
    """
    _check_request(name, severity)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"corrupt needs uint8 images [n, 3 or 1, h, w], not {images.dtype} {list(images.shape)}"
        )
    if images.shape[2] != images.shape[3]:
        raise DataError(f"corrupt needs square images, not {list(images.shape[2:])}")
    if len(images) == 0:
        return images.clone()
    colour = images.expand(-1, 3, -1, -1)
    pixels = np.ascontiguousarray(colour.permute(0, 2, 3, 1).cpu().numpy())
    key = f"{seed}/{name}/{severity}".encode()
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), 500):  # bounds the float copies
        part = pixels[start : start + 500]
        randoms = [_generator(key, image) for image in part]
        result = _FUNCTIONS[name](part / 255, SEVERITIES[name][severity - 1], randoms)
        # The original truncates; the small term prevents 50.9999999 from becoming 50.
        out[start : start + 500] = (np.clip(result, 0, 1) * 255 + 1e-6).astype(np.uint8)
    if images.shape[1] == 1:
        out = to_grey(out)
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()


def _check_request(name: str, severity: int) -> None:
    if name not in SEVERITIES:
        raise ConfigError(f"unknown corruption {name!r}; {did_you_mean(name, CORRUPTIONS)}")
    if severity not in (1, 2, 3, 4, 5):
        raise ConfigError(f"severity = {severity}: choose 1, 2, 3, 4 or 5")


def _generator(key: bytes, image: np.ndarray) -> np.random.Generator:
    digest = hashlib.blake2b(image.data, digest_size=16, salt=b"corrupt", person=b"")
    digest.update(key)
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest.digest(), "little")))


def _draw(randoms: Randoms, draw: Callable[[np.random.Generator], np.ndarray]) -> np.ndarray:
    return np.stack([draw(random) for random in randoms])


def _scale(x: Images) -> float:
    """Pixels per pixel of a 32x32 image."""
    return x.shape[1] / 32


# Noise


def _gaussian_noise(x: Images, sigma: float, randoms: Randoms) -> Images:
    return x + sigma * _draw(randoms, lambda random: random.standard_normal(x.shape[1:]))


def _shot_noise(x: Images, photons: float, randoms: Randoms) -> Images:
    pairs = zip(x, randoms, strict=True)
    return np.stack([random.poisson(image * photons) / photons for image, random in pairs])


def _impulse_noise(x: Images, share: float, randoms: Randoms) -> Images:
    u = _draw(randoms, lambda random: random.random(x.shape[1:]))
    return np.where(u < share / 2, 0.0, np.where(u < share, 1.0, x))


# Blur


def _smooth(x: Images, sigma: float) -> Images:
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def _defocus_blur(x: Images, level: tuple[float, float], randoms: Randoms) -> Images:
    kernel = disk(level[0] * _scale(x), level[1] * _scale(x))
    return ndimage.convolve(x, kernel[None, :, :, None], mode="mirror")


def disk(radius: float, blur: float) -> np.ndarray:
    """A disk smoothed by a 3x3 (radius above 8: 5x5) Gaussian; sums to 1."""
    reach = int(radius)
    taps = 1 if radius <= 8 else 2
    ticks = np.arange(-reach - taps, reach + taps + 1)
    flat = (ticks[:, None] ** 2 + ticks**2 <= radius**2).astype(float)
    weights = np.exp(-0.5 * (np.arange(-taps, taps + 1) / blur) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        flat = ndimage.convolve1d(flat, weights, axis=axis, mode="constant")
    return flat / flat.sum()


def _glass_blur(x: Images, level: tuple[float, int, int], randoms: Randoms) -> Images:
    sigma, shift, iterations = level[0] * _scale(x), max(1, round(level[1] * _scale(x))), level[2]
    side = x.shape[1]
    places = range(side - shift, shift, -1)
    # the upper bound is exclusive, as in the original: shifts of -1 and 0 for a largest shift of 1
    moves = _draw(
        randoms,
        lambda random: random.integers(
            -shift, shift, size=(iterations, len(places), len(places), 2)
        ),
    )
    every = np.arange(len(x))
    x = np.floor(_smooth(x, sigma) * 255 + 1e-6) / 255
    for step in range(iterations):
        for i, row in enumerate(places):
            for j, column in enumerate(places):
                move = moves[:, step, i, j]
                x[:, row, column] = x[every, row + move[:, 1], column + move[:, 0]]
    return _smooth(x, sigma)


def _motion_blur(x: Images, level: tuple[float, float], randoms: Randoms) -> Images:
    angles = _draw(randoms, lambda random: random.uniform(-45, 45, size=()))
    return motion_blur(x, level[0] * _scale(x), level[1] * _scale(x), angles)


def motion_blur(x: np.ndarray, radius: float, sigma: float, angles: np.ndarray) -> np.ndarray:
    """Smear [n, h, w, c] along a line at ``angles`` [n] degrees from the x axis.

    Weights exp(-i^2 / (2 sigma^2)) for i = 0 .. 2 radius, offsets rounded to whole pixels.
    """
    width = 2 * int(np.ceil(radius)) + 1
    weights = np.exp(-0.5 * (np.arange(width) / sigma) ** 2)
    weights /= weights.sum()
    radians = np.deg2rad(angles)[:, None]
    steps = np.arange(width)
    dx = np.ceil(steps * np.cos(radians) - 0.5).astype(int)
    dy = np.ceil(steps * np.sin(radians) - 0.5).astype(int)
    height, breadth = x.shape[1:3]
    every = np.arange(len(x))[:, None, None]
    out = np.zeros_like(x)
    for step, weight in enumerate(weights):
        rows = np.clip(np.arange(height) + dy[:, step, None], 0, height - 1)
        columns = np.clip(np.arange(breadth) + dx[:, step, None], 0, breadth - 1)
        out += weight * x[every, rows[:, :, None], columns[:, None, :]]
    return out


def _zoom_blur(x: Images, end: float, randoms: Randoms) -> Images:
    factors = np.arange(1, end, 0.01)
    return (x + sum(_zoom(x, factor) for factor in factors)) / (len(factors) + 1)


def _zoom(x: np.ndarray, factor: float, side: int | None = None) -> np.ndarray:
    """The centre of [n, s, s, c] enlarged by ``factor`` and cut to ``side`` (default s)."""
    matrix = zoom_matrix(x.shape[1], factor, side or x.shape[1])
    tall = np.einsum("ij,njwc->niwc", matrix, x, optimize=True)
    return np.einsum("ij,nhjc->nhic", matrix, tall, optimize=True)


@lru_cache(maxsize=256)
def zoom_matrix(source: int, factor: float, side: int) -> np.ndarray:
    """The matrix [side, source] of linear interpolation between the central pixels."""
    crop = min(source, int(np.ceil(side / factor)))
    first = (source - crop) // 2
    enlarged = max(side, round(crop * factor))
    places = np.arange(enlarged) * ((crop - 1) / max(1, enlarged - 1))
    places = places[(enlarged - side) // 2 :][:side]
    low = np.minimum(places.astype(int), crop - 1)
    high = np.minimum(low + 1, crop - 1)
    matrix = np.zeros((side, source))
    np.add.at(matrix, (np.arange(side), first + low), 1 - (places - low))
    np.add.at(matrix, (np.arange(side), first + high), places - low)
    return matrix


# Weather


def _snow(x: Images, level: tuple[float, ...], randoms: Randoms) -> Images:
    mean, sd, zoom, threshold, radius, sigma, weight = level
    scale = _scale(x)
    # flakes of a 32x32 grid, so that they cover the same share of an image of any size
    layer = _draw(randoms, lambda random: random.normal(mean, sd, (32, 32, 1)))
    angles = _draw(randoms, lambda random: random.uniform(-135, -45, size=()))
    layer = _zoom(layer, zoom * scale, x.shape[1])
    layer = np.clip(np.where(layer < threshold, 0, layer), 0, 1)
    layer = motion_blur(layer, radius * scale, sigma * scale, angles)
    grey = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = weight * x + (1 - weight) * np.maximum(x, 1.5 * grey + 0.5)
    return x + layer + layer[:, ::-1, ::-1]


def _frost(x: Images, level: tuple[float, float], randoms: Randoms) -> Images:
    textures = frost_textures()
    high = textures.shape[1] - 32
    frost = _draw(randoms, lambda random: _cut(textures, random, high))
    if x.shape[1] != 32:
        frost = _zoom(frost, _scale(x), x.shape[1])
    return level[0] * x + level[1] * frost


def _cut(textures: np.ndarray, random: np.random.Generator, high: int) -> np.ndarray:
    which = random.integers(len(textures))
    top, left = random.integers(0, high, size=2)
    return textures[which, top : top + 32, left : left + 32]


@lru_cache(maxsize=1)
def frost_textures() -> np.ndarray:
    """Five synthetic frost pictures [5, 192, 192, 3] in [0, 1], always the same.

    The picture is divided into grains (Voronoi cells of random points). Each grain has streaks of
    noise along its own direction, and the density of frost changes slowly over the picture: sharp
    bright needles on a darker, bluish ground. These pictures replace photographs of frost; their
    statistics are not those of photographs.
    """
    side, grains = 192, 90
    pictures = []
    for seed in range(5):
        random = np.random.RandomState(seed)
        angles = np.linspace(-90, 90, 12, endpoint=False)
        noise = random.standard_normal((side, side))
        streaks = np.stack([_streaks(noise, angle) for angle in angles])
        points = random.uniform(0, side, (grains, 2))
        rows, columns = np.mgrid[:side, :side]
        wobble = ndimage.gaussian_filter(random.standard_normal((2, side, side)), (0, 3, 3)) * 25
        distance = (rows + wobble[0] - points[:, :1, None]) ** 2 + (
            columns + wobble[1] - points[:, 1:, None]
        ) ** 2
        grain = distance.argmin(axis=0)
        needles = streaks[random.randint(0, 12, grains)[grain], rows, columns]
        needles = 1 / (1 + np.exp(-1.8 * needles))
        density = ndimage.gaussian_filter(random.standard_normal((side, side)), 14, mode="wrap")
        density = 0.5 + 0.25 * density / density.std()
        grey = np.clip(0.25 + 0.6 * needles + 0.3 * (density - 0.5), 0, 1)
        tint = np.array([0.78, 0.9, 1.0])  # dark parts bluish, bright parts white
        pictures.append(grey[..., None] ** (1 / tint**1.5))
    return np.stack(pictures)


def _streaks(noise: np.ndarray, angle: float) -> np.ndarray:
    """Noise smoothed over about 8 pixels along one direction, unit variance."""
    along = np.deg2rad(angle)
    ticks = np.arange(-12, 13)
    u = ticks[:, None] * np.sin(along) + ticks * np.cos(along)
    v = ticks[:, None] * np.cos(along) - ticks * np.sin(along)
    kernel = np.exp(-0.5 * ((u / 4) ** 2 + (v / 0.6) ** 2))
    smooth = ndimage.convolve(noise, kernel, mode="wrap")
    return smooth / smooth.std()


def _fog(x: Images, level: tuple[float, float], randoms: Randoms) -> Images:
    weight, decay = level
    side = x.shape[1]
    size = 1 << (side - 1).bit_length()
    noise = _draw(randoms, lambda random: random.uniform(-1, 1, size * size))
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    x = x + weight * plasma(noise, size, decay)[:, :side, :side, None]
    return x * brightest / (brightest + weight)


def plasma(noise: np.ndarray, size: int, decay: float) -> np.ndarray:
    """Diamond-square fractals [n, size, size] with values 0..1 that wrap around.

    Args:
        noise: uniform in [-1, 1], [n, size * size]; used up from coarse to fine.
        size: a power of two.
        decay: each halving of the grid divides the displacement by decay squared.
    """
    count = len(noise)
    grid = np.zeros((count, size, size))
    used, step, roughness = 1, size, 100.0

    def displaced(total: np.ndarray) -> np.ndarray:
        nonlocal used
        amount = total[0].size
        part = noise[:, used : used + amount].reshape(total.shape)
        used += amount
        return total / 4 + roughness**2 * part

    while step >= 2:
        half = step // 2
        corners = grid[:, ::step, ::step]
        below = corners + np.roll(corners, -1, axis=1)
        grid[:, half::step, half::step] = displaced(below + np.roll(below, -1, axis=2))
        centres = grid[:, half::step, half::step]
        corners = grid[:, ::step, ::step]
        beside = corners + np.roll(corners, -1, axis=2)
        above = corners + np.roll(corners, -1, axis=1)
        grid[:, ::step, half::step] = displaced(centres + np.roll(centres, 1, axis=1) + beside)
        grid[:, half::step, ::step] = displaced(centres + np.roll(centres, 1, axis=2) + above)
        step, roughness = half, roughness / decay
    grid -= grid.min(axis=(1, 2), keepdims=True)
    return grid / grid.max(axis=(1, 2), keepdims=True)


def _brightness(x: Images, added: float, randoms: Randoms) -> Images:
    # In HSV the value is the largest channel. Hue and saturation stay the same if the other
    # channels keep their ratios to it.
    value = x.max(axis=-1, keepdims=True)
    target = np.clip(value + added, 0, 1)
    return np.where(value > 0, x * target / np.where(value > 0, value, 1), target)


def _contrast(x: Images, factor: float, randoms: Randoms) -> Images:
    mean = x.mean(axis=(1, 2), keepdims=True)
    return (x - mean) * factor + mean


# Digital


def _elastic_transform(x: Images, level: tuple[float, float, float], randoms: Randoms) -> Images:
    side = x.shape[1]
    strength, sigma, shift = (side * value for value in level)
    centre, reach = side // 2, side // 3
    corners = np.array(  # (x, y)
        [
            [centre + reach, centre + reach],
            [centre + reach, centre - reach],
            [centre - reach, centre - reach],
        ],
        dtype=float,
    )
    moved = corners + _draw(randoms, lambda random: random.uniform(-shift, shift, (3, 2)))
    rows, columns = np.mgrid[:side, :side].astype(float)
    # the affine map that takes the moved corners back: [n, 2, 3]
    homogeneous = np.concatenate([moved, np.ones((len(x), 3, 1))], axis=2)
    back = np.linalg.solve(homogeneous, np.broadcast_to(corners, moved.shape)).transpose(0, 2, 1)
    target = np.stack([columns, rows, np.ones_like(rows)])
    place = np.einsum("nij,jhw->nihw", back, target)
    x = bilinear(x, place[:, 1], place[:, 0], "mirror")
    noise = _draw(randoms, lambda random: random.uniform(-1, 1, (2, side, side)))
    wave = strength * ndimage.gaussian_filter(
        noise, (0, 0, sigma, sigma), mode="reflect", truncate=3
    )
    return bilinear(x, rows + wave[:, 1], columns + wave[:, 0], "reflect")


def bilinear(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, border: str) -> np.ndarray:
    """Values of [n, h, w, c] at real-valued coordinates [n, h', w']; borders are named as in
    scipy.ndimage."""
    every = np.arange(len(x))[:, None, None]
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    r0, r1 = (_fold(top + k, x.shape[1], border) for k in (0, 1))
    c0, c1 = (_fold(left + k, x.shape[2], border) for k in (0, 1))
    above = x[every, r0, c0] * (1 - right) + x[every, r0, c1] * right
    below = x[every, r1, c0] * (1 - right) + x[every, r1, c1] * right
    return above * (1 - down) + below * down


def _fold(index: np.ndarray, size: int, border: str) -> np.ndarray:
    """Indices mirrored into 0..size-1: ``mirror`` (c b | a b c) or ``reflect`` (b a | a b c)."""
    if border == "mirror":
        index = np.abs(index) % (2 * size - 2)
        return np.minimum(index, 2 * size - 2 - index)
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index)


def _pixelate(x: Images, factor: float, randoms: Randoms) -> Images:
    side = x.shape[1]
    small = int(side * factor)
    box = Image.Resampling.BOX
    return _each(x, lambda image: image.resize((small, small), box).resize((side, side), box))


def _jpeg_compression(x: Images, quality: int, randoms: Randoms) -> Images:
    def squeeze(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(x, squeeze)


def _each(x: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    pixels = np.round(x * 255).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in pixels]) / 255


_FUNCTIONS: dict[str, Callable[[Images, Any, Randoms], Images]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}


# Published files


def find_published(root: Path, dataset: str) -> Path | None:
    """The folder of published corrupted images (CIFAR-10-C, CIFAR-100-C) below ``root``, if any."""
    folder = DATASETS.get(dataset).corrupted if dataset in DATASETS else None
    path = Path(root) / folder if folder else None
    return path if path and (path / "labels.npy").is_file() else None


def load_published(
    root: Path, name: str, severity: int, n: int, dataset: str = "cifar10"
) -> tuple[Tensor, Tensor]:
    """The first ``n`` published images: uint8 [n, 3, 32, 32] and labels int64 [n].

    Reads ``<root>/CIFAR-10-C/<name>.npy``, uint8 [50000, 32, 32, 3], and ``labels.npy``; severity
    s occupies rows (s - 1) * 10000 to s * 10000.

    Raises:
        ConfigError: unknown corruption or data set, severity outside 1..5, n outside 1..10000.
        DataError: a file is missing or not of that form.
    """
    _check_request(name, severity)
    source = DATASETS.get(dataset)
    if source.corrupted is None:
        known = DATASETS.where(lambda other: other.corrupted is not None)
        raise ConfigError(
            f"no corrupted images are published for {dataset!r}; {did_you_mean(dataset, known)}"
        )
    if not 1 <= n <= PUBLISHED_IMAGES:
        raise ConfigError(f"n = {n}: a severity has 1 to {PUBLISHED_IMAGES} published images")
    folder = Path(root) / source.corrupted
    images, labels = (
        read_npy(
            folder / file,
            "fetch the archive from zenodo.org/records/2535967 (CIFAR-10-C) or 3555552 "
            "(CIFAR-100-C)",
        )
        for file in (f"{name}.npy", "labels.npy")
    )
    rows = 5 * PUBLISHED_IMAGES
    if images.dtype != np.uint8 or images.shape != (rows, 32, 32, 3):
        raise DataError(
            f"{folder.name}/{name}.npy is {images.dtype} {list(images.shape)}; the published file "
            f"is uint8 [{rows}, 32, 32, 3]. Fetch it again"
        )
    start = (severity - 1) * PUBLISHED_IMAGES
    if labels.shape != (rows,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{folder.name}/labels.npy is {labels.dtype} {list(labels.shape)}; expected integers "
            f"[{rows}]. Fetch it again"
        )
    chosen = np.array(labels[start : start + n], dtype=np.int64)
    classes = source.published.classes if source.published else None
    if chosen.min() < 0 or (classes and chosen.max() >= classes):
        wanted = f"0..{classes - 1}" if classes else "0, 1, 2, ..."
        raise DataError(f"{folder.name}/labels.npy has labels outside {wanted}")
    pixels = np.array(images[start : start + n].transpose(0, 3, 1, 2), order="C")
    return torch.from_numpy(pixels), torch.from_numpy(chosen)
