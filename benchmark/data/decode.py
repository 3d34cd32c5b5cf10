"""Image files and bytes to uint8 arrays, and the cache of slow decoding."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.core.errors import BenchmarkError, DataError
from benchmark.core.files import atomic_path

CACHE_ABOVE_SECONDS = 5.0
CACHE_FORMAT = 1  # part of the cache key: raise it when decoding changes
DECODE_THREADS = min(4, os.cpu_count() or 1)


def open_image(source: Path | bytes, name: str = "") -> Image.Image:
    """Decode to an RGB image; grey is repeated, transparency dropped.

    Raises:
        DataError: not an image, or damaged; ``name`` says which one.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        what = name or (f"{source.parent.name}/{source.name}" if isinstance(source, Path) else "")
        raise DataError(
            f"{what or 'an image'} cannot be decoded ({error}); fetch it again or remove it"
        ) from error


def center_square(image: Image.Image, size: int, resize: int | None = None) -> np.ndarray:
    """Shorter side to ``resize`` (default ``size``) pixels, then the central square: [s, s, 3]."""
    shorter = resize or size
    width, height = image.size
    if min(width, height) != shorter:
        scale = shorter / min(width, height)
        shape = (max(shorter, round(width * scale)), max(shorter, round(height * scale)))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def resize_square(images: Tensor, size: int) -> Tensor:
    """uint8 [n, 3, h, w] to [n, 3, size, size]: bilinear, anti-aliased, centre-cropped."""
    height, width = images.shape[-2:]
    if height == width == size:
        return images
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    parts = []
    for part in images.split(4096):  # bounds the float copy
        big = interpolate(
            part.float(), size=shape, mode="bilinear", align_corners=False, antialias=True
        )
        big = big[..., top : top + size, left : left + size]
        parts.append(big.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(parts)


def decode_all(
    sources: Sequence[Path | bytes], names: Callable[[int], str], size: int | None = None
) -> np.ndarray:
    """Decode to uint8 [n, h, w, 3]; ``size`` asks for central squares of that side.

    Raises:
        DataError: a damaged image, or images of different shapes and no ``size``.
    """

    def one(index: int) -> np.ndarray:
        image = open_image(sources[index], names(index))
        return center_square(image, size) if size else np.asarray(image)

    # Two threads on two cores: 1.6 times faster for 400x500 photographs that are scaled down, no
    # gain for 32x32 images, where the interpreter lock is held most of the time.
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        arrays = list(pool.map(one, range(len(sources))))
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            raise DataError(
                f"{names(index)} has {array.shape[1]}x{array.shape[0]} pixels but {names(0)} has "
                f"{arrays[0].shape[1]}x{arrays[0].shape[0]}; set size to resize all of them"
            )
    return np.stack(arrays)


def cached(
    files: Sequence[Path], compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """``compute()``, kept in the user's cache folder if it took more than 5 seconds.

    The key is name, size and modification time of ``files``. 20,000 WebP images take 9 s to
    decode and 0.1 s to read back. A cache that cannot be written or read is ignored.
    """
    path = cache_folder() / f"{_key(files)}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # damaged: decode again and replace it
    start = time.perf_counter()
    arrays = compute()
    if time.perf_counter() - start > CACHE_ABOVE_SECONDS:
        try:
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except BenchmarkError as error:
            warnings.warn(f"decoded images are not cached: {error}", stacklevel=2)
    return arrays


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/generalist-bench``, by default below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "generalist-bench"


def _key(files: Sequence[Path]) -> str:
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((CACHE_FORMAT, stats)).encode()).hexdigest()[:24]
