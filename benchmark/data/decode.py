"""Image files and bytes are decoded to uint8 arrays; slow decoding is cached."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from benchmark.core.errors import BenchmarkError, DataError
from benchmark.core.files import atomic_path
from benchmark.data.white import Extremes, extremes_of, to_uint8, white_of

CACHE_ABOVE_SECONDS = 5.0
CACHE_FORMAT = 2  # part of the cache key: raise it when decoding changes
# Pillow's modes of 16-bit and 32-bit integers and of floats.
DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112  # EXIF tag
DECODE_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Decoding:
    """How the pixels of an image file become 8-bit values.

    Attributes:
        channels: 3, or 1 for grey: luma by the weights of ITU-R 601, as in Pillow.
        background: the colour behind transparent pixels; ``drop`` ignores transparency, as
            Pillow's ``convert("RGB")`` and therefore torchvision's ImageFolder do.
        white: the value of white in images of more than 8 bits; None if no such image is expected.
    """

    channels: Literal[1, 3] = 3
    background: Literal["white", "black", "drop"] = "white"
    white: float | None = None


PLAIN = Decoding()


class DeepImageError(DataError):
    """An image has more than 8 bits per pixel, and the value of white is not known."""


@dataclass
class Remarks:
    """Names of the images to which something was done that the user should know of."""

    animated: list[str] = field(default_factory=list)
    transparent: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def lines(self, how: Decoding) -> tuple[str, ...]:
        """One sentence per kind, for the record."""
        over = "transparency was dropped"
        if how.background != "drop":
            over = f"transparent pixels are {how.background} (dataset.background)"
        said = (
            (self.animated, "several frames, of which the first is used"),
            (self.transparent, over),
            (self.turned, "turned as their EXIF orientation says"),
        )
        return tuple(f"{counted(names)}: {what}" for names, what in said if names)


def counted(names: Sequence[str], one: str = "image", several: str = "images") -> str:
    """``3 images (a/1.png, a/2.png, a/3.png)``; of more than three, the first three are named."""
    shown = [printable(name) for name in sorted(names)[:3]] + ["..."] * (len(names) > 3)
    return f"{len(names):,} {one if len(names) == 1 else several} ({', '.join(shown)})"


def printable(name: str) -> str:
    """A file's name as text that can be printed anywhere; undecodable bytes become ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def open_image(
    source: Path | bytes,
    name: str = "",
    how: Decoding = PLAIN,
    remarks: Remarks | None = None,
) -> Image.Image:
    """Decode to an RGB image, or one of mode L where ``how.channels`` is 1.

    A grey image is repeated for each channel, palettes and CMYK are converted to RGB, the first of
    several frames is taken, and the image is rotated as its EXIF orientation says.

    Raises:
        DataError: not an image, or damaged, or pixels outside [0, ``how.white``]; ``name`` says
            which one.
        DeepImageError: more than 8 bits per pixel and no ``how.white``.
    """
    name = printable(name or (f"{source.parent.name}/{source.name}" if isinstance(source, Path)
                              else "an image"))  # fmt: skip
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            image: Image.Image = file
            # Phones append further pictures to a JPEG (MPO); they are no animation.
            if remarks and file.format != "MPO" and getattr(file, "is_animated", False):
                remarks.animated.append(name)
            if image.mode in DEEP_MODES:
                image = _to_8_bits(image, name, how)
            image = _turned(image, name, remarks)
            image = _opaque(image, name, how, remarks)
            return image.convert("L" if how.channels == 1 else "RGB")
    except DataError:
        raise
    # Pillow's plugins raise errors of any type for a damaged file.
    except Exception as error:
        raise DataError(
            f"{name} cannot be decoded ({error}); fetch it again or remove it"
        ) from error


def _to_8_bits(image: Image.Image, name: str, how: Decoding) -> Image.Image:
    if how.white is None:
        raise DeepImageError(
            f"{name} has more than 8 bits per pixel, unlike the images read before; set "
            "dataset.white to the value of white in such images, for example 65535, 4095 or 1"
        )
    pixels = np.asarray(image)
    white_of({name: extremes_of(name, pixels[None])}, how.white)
    turned = Image.fromarray(to_uint8(pixels[None], how.white)[0])
    turned.info = {key: image.info[key] for key in ("exif",) if key in image.info}
    return turned


def _turned(image: Image.Image, name: str, remarks: Remarks | None) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not damage the pixels
        orientation = 1
    if orientation not in range(2, 9):
        return image
    if remarks:
        remarks.turned.append(name)
    return ImageOps.exif_transpose(image)


def _opaque(image: Image.Image, name: str, how: Decoding, remarks: Remarks | None) -> Image.Image:
    transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if not transparent:
        return image
    whole = image.convert("RGBA")
    if whole.getchannel("A").getextrema()[0] == 255:  # an alpha channel without effect
        return whole
    if remarks:
        remarks.transparent.append(name)
    if how.background == "drop":
        return whole
    return Image.alpha_composite(Image.new("RGBA", whole.size, how.background), whole)


def find_white(
    sources: Sequence[Path | bytes], names: Callable[[int], str], given: float | None = None
) -> float | None:
    """The value of white in those of the images that have more than 8 bits per pixel.

    Returns:
        ``given``, or else the value inferred from the highest pixel of all these images (see
        ``white.white_of``); None if no image has more than 8 bits.

    Raises:
        DataError: an image is damaged, or ``white_of`` refuses the images.
    """
    if given is not None:
        return given

    def one(index: int) -> Extremes | None:
        source = sources[index]
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.mode not in DEEP_MODES:
                    return None
                return extremes_of(printable(names(index)), np.asarray(image)[None])
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{printable(names(index))} cannot be decoded ({error}); fetch it again or remove "
                "it"
            ) from error

    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        found = [extremes for extremes in pool.map(one, range(len(sources))) if extremes]
    if not found:
        return None
    kinds = {extremes.kind == "f" for extremes in found}
    where = f"the {len(found):,} images of more than 8 bits"
    if len(kinds) > 1:
        raise DataError(f"{where} have whole numbers and floats; save all of them in one form")
    return white_of({where: reduce(Extremes.joined, found)})


def pixels_of(image: Image.Image) -> np.ndarray:
    """uint8 [h, w, 3 or 1]."""
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def center_square(image: Image.Image, size: int, resize: int | None = None) -> np.ndarray:
    """Resize the shorter side to ``resize`` (default ``size``) pixels, then cut the central square
    of side ``size``: [s, s, c]."""
    shorter = resize or size
    width, height = image.size
    if min(width, height) != shorter:
        scale = shorter / min(width, height)
        shape = (max(shorter, round(width * scale)), max(shorter, round(height * scale)))
        image = image.resize(shape, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return pixels_of(image.crop((left, top, left + size, top + size)))


def resize_square(images: Tensor, size: int) -> Tensor:
    """uint8 [n, c, h, w] to [n, c, size, size]: bilinear, anti-aliased, centre-cropped."""
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
    sources: Sequence[Path | bytes],
    names: Callable[[int], str],
    size: int | None = None,
    how: Decoding = PLAIN,
    remarks: Remarks | None = None,
) -> np.ndarray:
    """Decode to uint8 [n, h, w, c]; ``size`` asks for central squares of that side.

    Raises:
        DataError: a damaged image, or images of different shapes and no ``size``.
        DeepImageError: see ``open_image``.
    """

    def one(index: int) -> np.ndarray:
        image = open_image(sources[index], names(index), how, remarks)
        return center_square(image, size) if size else pixels_of(image)

    # Two threads on two cores: 1.6 times faster for 400x500 photographs that are scaled down, no
    # gain for 32x32 images, where the interpreter lock is held most of the time.
    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        arrays = pool.map(one, range(len(sources)))
        first = next(arrays)
        # filled while images arrive: a list of all images first would need the memory twice
        out = np.empty((len(sources), *first.shape), dtype=np.uint8)
        out[0] = first
        for index, array in enumerate(arrays, 1):
            if array.shape != first.shape:
                raise DataError(
                    f"{printable(names(index))} has {array.shape[1]}x{array.shape[0]} pixels but "
                    f"{printable(names(0))} has {first.shape[1]}x{first.shape[0]}; set size to "
                    "resize all of them"
                )
            out[index] = array
    return out


def cached(
    files: Sequence[Path], compute: Callable[[], dict[str, np.ndarray]], *settings: object
) -> dict[str, np.ndarray]:
    """``compute()``, kept in the user's cache folder if it took more than 5 seconds.

    The cache's key is a hash of what ``compute`` depends on: path, size and times of ``files``, and
    the ``repr`` of ``settings``, which must differ where settings differ. Besides the modification
    time, the key holds the time of the last change of the file's metadata, because archives and
    copies can set the modification time to anything. 20,000 WebP images take 9 s to decode and
    0.1 s to read back. A cache that cannot be written or read is ignored.
    """
    path = cache_folder() / f"{_key(files, settings)}.npz"
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


def _key(files: Sequence[Path], settings: tuple[object, ...]) -> str:
    digest = hashlib.sha256(repr((CACHE_FORMAT, settings)).encode())
    folders: dict[Path, Path] = {}
    for file in files:
        folder = folders.setdefault(file.parent, file.parent.resolve())
        stat = file.stat()
        digest.update(os.fsencode(folder / file.name))
        digest.update(f"\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()[:24]
