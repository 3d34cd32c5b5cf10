"""Rotations and translations: the worst case over a grid (Engstrom et al., 1712.02779).

Parts that leave the frame are lost, and areas that enter it are black. The image is interpolated
once, as in the paper's formula; the released code rotates it and then shifts the result, which
interpolates twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.attacks.pgd import is_right
from benchmark.core.config import Config
from benchmark.core.errors import ConfigError


class SpatialGrid(Config):
    """Angles and shifts to try; the defaults are the paper's for CIFAR-10, 775 points.

    Attributes:
        rotation: largest angle, in degrees, either way.
        rotations: number of angles, evenly spaced, odd so that 0 is one of them.
        translation: largest shift, in pixels, either way along each axis.
        translations: number of shifts per axis, odd likewise.

    Raises:
        ValueError: an even number; several points in a range of 0, or one in a larger range.
    """

    rotation: float = Field(default=30.0, ge=0, le=180)
    rotations: int = Field(default=31, ge=1)
    translation: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    translations: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _check(self) -> SpatialGrid:
        for name, largest in (("rotation", self.rotation), ("translation", self.translation)):
            count = getattr(self, f"{name}s")
            if count % 2 == 0:
                raise ValueError(
                    f"{name}s = {count} must be odd, or the grid lacks the image itself"
                )
            if (count == 1) != (largest == 0):
                raise ValueError(
                    f"{name} = {largest:g} with {name}s = {count}: one point and a range of 0 go "
                    "together"
                )
        return self

    def __len__(self) -> int:
        return self.rotations * self.translations**2

    def points(self) -> Iterator[tuple[float, float, float]]:
        """(degrees, pixels to the right, pixels down), the image itself first."""
        angles = _spread(self.rotation, self.rotations)
        shifts = _spread(self.translation, self.translations)
        identity = (0.0, 0.0, 0.0)
        yield identity
        yield from (point for point in product(angles, shifts, shifts) if point != identity)


def _spread(largest: float, count: int) -> list[float]:
    """``count`` values from -largest to largest, exactly 0 in the middle."""
    half = count // 2
    return [largest * step / max(half, 1) for step in range(-half, half + 1)]


def warp(x: Tensor, angle: Tensor, to_right: float = 0.0, down: float = 0.0) -> Tensor:
    """Images turned about their centre, then shifted; bilinear, zeros outside, in [0, 1].

    Args:
        x: images [n, c, h, w] in [0, 1].
        angle: anticlockwise, in radians, [n] or one for all, [1].
        to_right, down: in pixels.
    """
    height, width = x.shape[-2:]
    # Where each pixel comes from: unshift, then turn back. Coordinates run from -1 to 1 along
    # either side.
    cos, sin = angle.cos(), angle.sin()
    across, along = sin * (height / width), sin * (width / height)
    u, v = 2 * to_right / width, 2 * down / height
    back = torch.stack([cos, -across, across * v - cos * u, along, cos, -along * u - cos * v], 1)
    grid = F.affine_grid(back.view(-1, 2, 3), [len(angle), *x.shape[1:]], align_corners=False)
    grid = grid.expand(len(x), -1, -1, -1)
    return F.grid_sample(x, grid, align_corners=False).clamp_(0, 1)


def move(x: Tensor, degrees: float, to_right: float, down: float) -> Tensor:
    """``warp`` by one grid point; without rotation, whole pixels are copied, not interpolated."""
    if degrees == 0 and to_right % 1 == 0 and down % 1 == 0:
        columns, rows = int(to_right), int(down)
        return F.pad(x, (columns, -columns, rows, -rows))
    return warp(x, x.new_tensor([math.radians(degrees)]), to_right, down)


@torch.no_grad()
def spatial_robust(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    grid: SpatialGrid,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Whether each image is right at every point of the grid, itself included: bool [n].

    The caller must put the model in the right mode (``core.crafting``). An image that is
    misclassified at one point is not tried at further points.

    Args:
        model: [n, c, h, w] in [0, 1] to logits [n, k].
        x: images in [0, 1]; y: labels [n].
        on_step: called after each point (``len(grid)`` in all), for progress.

    Raises:
        ConfigError: a translation that moves the whole image out of the frame.
    """
    if grid.translation >= min(x.shape[-2:]):
        raise ConfigError(
            f"translation = {grid.translation:g} pixels leaves nothing of images of "
            f"{x.shape[-2]}x{x.shape[-1]}; lower it"
        )
    robust = torch.ones(len(x), dtype=torch.bool, device=x.device)
    for point in grid.points():
        left = robust.nonzero().squeeze(1)
        if len(left):
            robust[left] = is_right(model(move(x[left], *point)), y[left])
        if on_step:
            on_step()
    return robust
