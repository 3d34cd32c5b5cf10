"""Which pixel value is white, and conversion of pixels of any number type to 0..255."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from benchmark.core.errors import DataError

# Relative to white. Rounding in float32 and resampling take pixels out of [0, 1] by less than this.
TOLERANCE = 1e-3
# The largest values of 8, 12 and 16 bits. Images of more than 8 bits are stored in 16 bits, but may
# use fewer.
INTEGER_WHITES = (255, 4095, 65535)
_CHUNK = 1 << 24  # pixels converted at once, which limits the memory of the float copy


class Extremes(NamedTuple):
    """Lowest and highest pixel of images; ``kind`` is numpy's letter, ``i``, ``u`` or ``f``."""

    kind: str
    low: float
    high: float

    def joined(self, other: Extremes) -> Extremes:
        """The extremes of both together; of kind float if either is."""
        kind = "f" if "f" in (self.kind, other.kind) else self.kind
        return Extremes(kind, min(self.low, other.low), max(self.high, other.high))


def extremes_of(where: str, images: np.ndarray) -> Extremes:
    """Lowest and highest pixel of ``images`` [n, ...], which are not empty.

    Raises:
        DataError: neither integers nor floats, NaN or infinity.
    """
    if images.dtype.kind not in "iuf":
        raise DataError(f"{where}: images are {images.dtype}; expected uint8 or floats")
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int((~np.isfinite(images)).reshape(len(images), -1).any(axis=1).sum())
        raise DataError(f"{where}: {bad} images contain NaN or infinity; repair or drop them")
    return Extremes(images.dtype.kind, low, high)


def white_of(parts: Mapping[str, Extremes], given: float | None = None) -> float:
    """The pixel value of white in the images of one data set, inferred from their extremes.

    Floats are taken to be on the scale [0, 1] or [0, 255], each with a tolerance of 0.1 % at both
    ends; integers to have 8, 12 or 16 bits, the fewest that hold the highest pixel.

    Args:
        parts: the extremes of each split, by what messages call it ("train split of cells.npz").
        given: the user's value (``dataset.white``): it is only checked against the extremes.

    Raises:
        DataError: pixels below 0 or above white, parts on different scales, or a highest pixel
            that fits two scales.
    """
    whites = {where: _white(where, part, given) for where, part in parts.items()}
    if len({white == 1 for white in whites.values()}) > 1:
        raise DataError(
            ", ".join(f"{where}: largest pixel is {parts[where].high:g}" for where in parts)
            + "; use one scale, [0, 1] or [0, 255], for all splits, or set dataset.white"
        )
    return max(whites.values())


def _white(where: str, part: Extremes, given: float | None) -> float:
    def refuse(reason: str) -> DataError:
        return DataError(f"{where}: pixels lie in [{part.low:g}, {part.high:g}]; {reason}")

    kind, low, high = part
    if given is not None:
        white = given
        reason = f"dataset.white is {given:g}; set it to the pixel value of white"
    elif kind == "f":
        white = 1 if high <= 1 + TOLERANCE else 255
        reason = "expected [0, 1] or [0, 255] (undo the normalisation)"
    else:
        white = next((white for white in INTEGER_WHITES if high <= white), INTEGER_WHITES[-1])
        reason = "expected whole numbers from 0 to 255, or to 65535 for 16 bits"
    if low < -TOLERANCE * white or high > (1 + TOLERANCE) * white:
        raise refuse(reason)
    if given is None:
        if (kind == "f" and 1 + TOLERANCE < high < 2) or (kind != "f" and high == 1):
            raise refuse(
                "the scale could be [0, 1] or [0, 255]; set dataset.white=1 or dataset.white=255 "
                "for arrays, and save image files with white at 255"
            )
        if kind != "f" and 255 < high < 512:
            raise refuse(
                "it is not clear whether white is 255 or a value of more bits; set dataset.white "
                "to the value of white, such as 1023 or 4095"
            )
    return white


def to_uint8(images: np.ndarray, white: float) -> np.ndarray:
    """``images`` / ``white`` * 255, rounded and clipped; uint8 images stay as they are at 255."""
    if images.dtype == np.uint8 and white == 255:
        return images
    out = np.empty(images.shape, dtype=np.uint8)
    step = max(1, _CHUNK * len(images) // max(1, images.size))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        if part.dtype.kind != "f":
            part = part.astype(np.float64)
        scaled = part if white == 255 else part * (255 / white)
        out[start : start + step] = np.clip(np.round(scaled), 0, 255)
    return out


def to_grey(images: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, 3] to luma [n, h, w, 1]: ITU-R 601, rounded as Pillow does."""
    out = np.empty((*images.shape[:-1], 1), dtype=np.uint8)
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    step = max(1, _CHUNK * len(images) // max(1, images.size))
    for start in range(0, len(images), step):
        part = images[start : start + step].astype(np.uint32)
        out[start : start + step, ..., 0] = (part @ weights + 0x8000) >> 16
    return out
