"""Rotations and translations: the geometry against scipy, the verdicts against plain loops."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from benchmark.attacks.spatial import SpatialGrid, move, spatial_robust, warp
from benchmark.core.config import parse
from benchmark.core.errors import ConfigError


def images(count: int, height: int = 9, width: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, height, width or height, generator=generator, dtype=torch.float64)


def by_scipy(x: Tensor, degrees: float, to_right: float, down: float) -> Tensor:
    """The same for each channel by ``affine_transform``, in rows and columns."""
    angle = math.radians(degrees)
    centre = (np.array(x.shape[-2:]) - 1) / 2
    # anticlockwise on the screen, where rows run down: the inverse of the turn of (row, column)
    back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    offset = centre - back @ (centre + np.array([down, to_right]))
    channels = [
        ndimage.affine_transform(channel.numpy(), back, offset, order=1, mode="grid-constant")
        for channel in x.reshape(-1, *x.shape[-2:])
    ]
    return torch.from_numpy(np.stack(channels)).view(x.shape)


def test_the_papers_grid() -> None:
    """31 angles to 30 degrees and 5 x 5 shifts to 3 pixels, each once, the image itself first."""
    grid = SpatialGrid()
    points = list(grid.points())
    assert len(points) == len(grid) == len(set(points)) == 775
    assert points[0] == (0, 0, 0)
    shifts = np.linspace(-3, 3, 5)
    expected = product(np.linspace(-30, 30, 31), shifts, shifts)
    np.testing.assert_allclose(sorted(points), sorted(expected), atol=1e-12)


def test_the_image_itself_is_exactly_on_every_grid() -> None:
    """Uneven steps must not miss 0 by rounding."""
    grid = SpatialGrid(rotation=0.7, rotations=7, translation=0.1, translations=11)
    assert (0.0, 0.0, 0.0) in list(grid.points())
    assert list(SpatialGrid(rotation=0, rotations=1, translation=0, translations=1).points()) == [
        (0, 0, 0)
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("height", [7, 8, 28])
def test_whole_pixels_are_copied(height: int, dtype: torch.dtype) -> None:
    """To the bit, with black where nothing comes from: no rounding of interpolation."""
    x = images(2, height).to(dtype)
    for to_right, down in product((-3, 0, 1, 2), repeat=2):
        expected = torch.zeros_like(x)
        for row, column in product(range(height), repeat=2):
            if 0 <= row - down < height and 0 <= column - to_right < height:
                expected[:, :, row, column] = x[:, :, row - down, column - to_right]
        assert torch.equal(move(x, 0.0, float(to_right), float(down)), expected)
        turned_by_nothing = warp(x, torch.zeros(1, dtype=dtype), to_right, down)
        torch.testing.assert_close(turned_by_nothing, expected, rtol=0, atol=1e-5)


def test_half_pixels_are_means() -> None:
    x = images(2)
    half = move(x, 0.0, 0.5, 0.0)
    torch.testing.assert_close(half[..., 1:], (x[..., 1:] + x[..., :-1]) / 2)
    torch.testing.assert_close(half[..., 0], x[..., 0] / 2)  # the other half is black


@pytest.mark.parametrize("height", [7, 8])
@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns(height: int, quarters: int) -> None:
    """About the centre of the image, anticlockwise."""
    x = images(2, height).float()
    turned = move(x, 90.0 * quarters, 0.0, 0.0)
    torch.testing.assert_close(turned, torch.rot90(x, quarters, (-2, -1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 9), (6, 10)])
@pytest.mark.parametrize(
    "point", [(30, 0, 0), (-17, 1.5, -3), (5, -2, 1), (0, 0.25, -1.5), (180, 1, 0), (90, 2, -1)]
)
def test_against_scipy(point: tuple[float, float, float], height: int, width: int) -> None:
    """Turned first and shifted after, bilinear, zeros outside."""
    x = images(2, height, width)
    torch.testing.assert_close(move(x, *point), by_scipy(x, *point), rtol=0, atol=1e-9)


def test_one_angle_for_each_image() -> None:
    x, degrees = images(3), (10.0, -40.0, 90.0)
    turned = warp(x, torch.tensor(degrees, dtype=x.dtype).deg2rad())
    for image, one, angle in zip(x, turned, degrees, strict=True):
        torch.testing.assert_close(one, by_scipy(image[None], angle, 0, 0)[0], rtol=0, atol=1e-9)


class OnePixel(nn.Module):
    """Class 1 iff one pixel is white. Keeps the numbers of images that it was shown."""

    def __init__(self, row: int, column: int) -> None:
        super().__init__()
        self.row, self.column = row, column
        self.shown: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(len(x))
        value = x[:, 0, self.row, self.column]
        return torch.stack([torch.full_like(value, 0.5), value], 1)


def test_white_from_a_column_on() -> None:
    """By hand: white from column k on, shifted by up to 3, leaves column 5 white iff k <= 2."""
    x = torch.zeros(9, 3, 11, 11)
    for k in range(9):
        x[k, :, :, k:] = 1
    y = torch.ones(9, dtype=torch.long)
    grid = SpatialGrid(rotation=0, rotations=1, translation=3, translations=7)
    assert spatial_robust(OnePixel(5, 5), x, y, grid).tolist() == [k <= 2 for k in range(9)]
    # at column 8, a shift to the left by 3 brings in the black from outside
    assert not spatial_robust(OnePixel(5, 8), x, y, grid).any()


def test_a_turn_finds_what_shifts_do_not() -> None:
    """By hand: a pixel 5 from the centre on a white bar turns out of it, at 90 degrees."""
    x = torch.zeros(1, 3, 13, 13)
    x[:, :, 4:9] = 1
    y = torch.ones(1, dtype=torch.long)
    shifts = SpatialGrid(rotation=0, rotations=1, translation=1, translations=3)
    assert spatial_robust(OnePixel(6, 11), x, y, shifts).all()
    turns = SpatialGrid(rotation=90, rotations=3, translation=0, translations=1)
    assert not spatial_robust(OnePixel(6, 11), x, y, turns).any()


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(3 * 9 * 9, 3, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def test_verdicts_against_a_plain_loop() -> None:
    """Right at every point, each image transformed by scipy and judged alone; nothing is changed."""
    model, x = Linear(), images(40)
    kept = x.clone()
    y = model(x).argmax(1)
    y[:4] = (y[:4] + 1) % 3  # wrong when clean
    grid = SpatialGrid(rotation=4, rotations=3, translation=0.1, translations=3)
    expected = [
        all(
            int(model(by_scipy(image[None], degrees, to_right, down)).argmax()) == label
            for degrees in (-4, 0, 4)
            for to_right in (-0.1, 0, 0.1)
            for down in (-0.1, 0, 0.1)
        )
        for image, label in zip(x, y.tolist(), strict=True)
    ]
    robust = spatial_robust(model, x.requires_grad_(), y, grid)
    assert robust.tolist() == expected
    assert 5 < sum(expected) < 31
    assert not robust[:4].any()
    assert torch.equal(x, kept)
    assert x.grad is None


def test_fallen_images_are_not_tried_again() -> None:
    """The model sees survivors alone, and progress comes to the end in any case."""
    x = torch.zeros(6, 3, 11, 11)
    for k in range(6):
        x[k, :, :, k:] = 1
    y = torch.ones(6, dtype=torch.long)
    y[0] = 0  # falls at once
    grid = SpatialGrid(rotation=0, rotations=1, translation=3, translations=7)
    model, steps = OnePixel(5, 5), []
    robust = spatial_robust(model, x, y, grid, on_step=lambda: steps.append(1))
    assert model.shown[:2] == [6, 5]
    assert model.shown == sorted(model.shown, reverse=True)
    assert model.shown[-1] == int(robust.sum()) == 2
    assert len(steps) == len(grid) == 49
    blind, steps = OnePixel(5, 5), []
    spatial_robust(blind, 0 * x, y.fill_(1), grid, on_step=lambda: steps.append(1))
    assert blind.shown == [6]
    assert len(steps) == 49


def test_nan_is_wrong() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 2), torch.nan)

    one = SpatialGrid(rotation=0, rotations=1, translation=0, translations=1)
    assert not spatial_robust(Broken(), images(2), torch.zeros(2, dtype=torch.long), one).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotations": 30}, "rotations = 30 must be odd"),
        ({"translations": 4}, "translations = 4 must be odd"),
        ({"rotations": 1}, "go together"),
        ({"translation": 0}, "go together"),
        ({"rotation": 181}, "rotation"),
        ({"rotation": -1}, "rotation"),
        ({"translation": math.inf}, "translation"),
        ({"translations": -1}, "translations"),
        ({"angle": 3}, "unknown key 'angle'"),
    ],
)
def test_grids_that_cannot_be(values: dict[str, float], message: str) -> None:
    """A grid without the image itself, or with one point several times, is no attack."""
    with pytest.raises(ConfigError, match=message):
        parse(SpatialGrid, values)


def test_a_shift_out_of_the_frame() -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        spatial_robust(OnePixel(0, 0), images(1), torch.ones(1, dtype=torch.long),
                       SpatialGrid(translation=9))  # fmt: skip
