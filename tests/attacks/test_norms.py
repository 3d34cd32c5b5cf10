"""Norm balls: projections, ascent directions and random starts against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.attacks.norms import L1, NORMS, Norm, norm_of
from benchmark.core.errors import ConfigError

EPS = {"linf": 0.3, "l2": 2.0, "l1": 9.0}
ALL = sorted(NORMS)
# Images away from 0 and 1, where every pixel can move.
GREY = torch.full((1, 3, 8, 8), 0.5)


def normals(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)


def by_definition(name: str, delta: np.ndarray) -> float:
    """The length of one flat perturbation."""
    return {
        "linf": np.max(np.abs(delta)),
        "l2": np.sqrt(np.sum(delta**2)),
        "l1": np.sum(np.abs(delta)),
    }[name]


def nearest(name: str, delta: np.ndarray, eps: float) -> np.ndarray:
    """The projection of one flat perturbation; l_1 by bisection on the soft threshold."""
    if name == "linf":
        return np.minimum(np.maximum(delta, -eps), eps)
    length = by_definition(name, delta)
    if length <= eps:
        return delta
    if name == "l2":
        return delta * (eps / length)
    low, high = 0.0, float(np.abs(delta).max())
    for _ in range(200):
        middle = (low + high) / 2
        if np.maximum(np.abs(delta) - middle, 0).sum() > eps:
            low = middle
        else:
            high = middle
    return np.sign(delta) * np.maximum(np.abs(delta) - high, 0)


@pytest.mark.parametrize("name", ALL)
def test_length_is_the_norm(name: str) -> None:
    """A wrong length would let an attack out of its ball unnoticed."""
    delta = normals(4)
    expected = [by_definition(name, row) for row in delta.flatten(1).numpy()]
    np.testing.assert_allclose(norm_of(name).length(delta).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [0.001, 0.1, 1.0, 50.0])
def test_projection_is_the_known_optimum(name: str, scale: float) -> None:
    """Protects the radius of every attack: inside points unmoved, outside ones to the optimum."""
    delta, eps = scale * normals(6), EPS[name]
    projected = norm_of(name).project(delta, eps)
    expected = np.stack([nearest(name, row, eps) for row in delta.flatten(1).numpy()])
    np.testing.assert_allclose(projected.flatten(1).numpy(), expected, rtol=1e-9, atol=1e-9)
    assert (norm_of(name).length(projected) <= eps * (1 + 1e-12)).all()
    torch.testing.assert_close(norm_of(name).project(projected, eps), projected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_projection_is_nearest_in_euclidean_distance(name: str) -> None:
    """No other point of the ball is nearer: <d - P(d), z - P(d)> <= 0 for every z in the ball."""
    norm, eps = norm_of(name), EPS[name]
    delta = normals(1)
    projected = norm.project(delta, eps)
    generator = torch.Generator().manual_seed(1)
    others = norm.random_start(normals(500), eps, generator)
    # Points of the boundary near the projection are the ones that could be better.
    near = norm.project(projected + 0.05 * normals(500, seed=2), eps)
    for z in (others, near):
        inner = ((delta - projected) * (z - projected)).flatten(1).sum(1)
        assert inner.max() <= 1e-9
        assert ((delta - z).flatten(1).norm(dim=1) >= (delta - projected).norm() - 1e-12).all()


@pytest.mark.parametrize(("name", "dual"), [("linf", 1), ("l2", 2)])
def test_ascent_is_steepest(name: str, dual: int) -> None:
    """The step maximises <g, d> over the unit ball, where the maximum is the dual norm of g."""
    norm, grad = norm_of(name), normals(5)
    direction = norm.ascend(grad, GREY)
    gain = (grad * direction).flatten(1).sum(1)
    torch.testing.assert_close(gain, torch.linalg.vector_norm(grad.flatten(1), dual, 1))
    torch.testing.assert_close(norm.length(direction), torch.ones(5, dtype=torch.float64))
    for seed in range(20):
        other = norm.random_start(grad, 1.0, torch.Generator().manual_seed(seed))
        assert ((grad * other).flatten(1).sum(1) <= gain).all()


@pytest.mark.parametrize("sparsity", [0.99, 0.9, 0.0])
def test_l1_ascent_moves_the_largest_coordinates_equally(sparsity: float) -> None:
    """SLIDE: top (1 - sparsity) share, equal amounts, signs of the gradient, l_1 length 1."""
    grad = normals(4)
    direction = L1(sparsity).ascend(grad, GREY).flatten(1)
    count = max(1, round((1 - sparsity) * 192))
    for row, g in zip(direction.numpy(), grad.flatten(1).numpy(), strict=True):
        top = np.argsort(-np.abs(g))[:count]
        expected = np.zeros(192)
        expected[top] = np.sign(g[top]) / count
        np.testing.assert_allclose(row, expected, rtol=1e-12)
    torch.testing.assert_close(direction.abs().sum(1), torch.ones(4, dtype=torch.float64))


def test_l1_ascent_with_fewer_gradients_than_places() -> None:
    """A gradient with one entry still gives a step of length 1, on that entry alone."""
    grad = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    grad[0, 1, 2, 3] = -4.0
    grad[1, 0] = 2.0  # 64 equal entries: a tie is shared
    direction = L1(0.9).ascend(grad, GREY)
    assert float(direction[0, 1, 2, 3]) == -1
    assert int((direction[0] != 0).sum()) == 1
    torch.testing.assert_close(direction.abs().flatten(1).sum(1), torch.ones(2).double())


@pytest.mark.parametrize("name", ALL)
def test_zero_gradient_does_not_move(name: str) -> None:
    """A saturated example must not turn into NaN, nor disturb its neighbours."""
    grad = normals(3)
    alone = norm_of(name).ascend(grad[:1], GREY)
    grad[1] = 0
    direction = norm_of(name).ascend(grad, GREY)
    assert torch.isfinite(direction).all()
    assert not direction[1].any()
    assert torch.equal(direction[:1], alone)
    zero = torch.zeros_like(grad)
    assert torch.equal(norm_of(name).project(zero, EPS[name]), zero)


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e-13, 1e30])
def test_l2_ascent_does_not_depend_on_the_size_of_the_gradient(scale: float) -> None:
    """Protects: large logits make gradients tiny, and a tiny step would look like robustness."""
    grad = normals(3).float()
    direction = norm_of("l2").ascend(grad, GREY)
    torch.testing.assert_close(
        norm_of("l2").ascend(grad * scale, GREY), direction, rtol=1e-5, atol=1e-5
    )


def test_l1_ascent_leaves_out_pixels_that_cannot_move() -> None:
    """Protects: in an image of 0s and 1s the step was spent on pixels at their bounds."""
    grad, x = normals(2), (normals(2, seed=1) > 0).double()
    x[:, 0, 0] = 0.5
    direction = L1(0.9).ascend(grad, x)
    assert (direction != 0).flatten(1).sum(1).tolist() == [19, 19]
    torch.testing.assert_close((x + 0.1 * direction).clamp(0, 1), x + 0.1 * direction)
    movable = ((x + grad.sign()) - 0.5).abs() <= 1
    movable |= x == 0.5
    weakest = grad.abs().where(direction != 0, torch.inf).flatten(1).amin(1)
    left_out = grad.abs().where(movable & (direction == 0), 0).flatten(1).amax(1)
    assert (left_out <= weakest).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_random_starts_fill_the_ball(name: str, dtype: torch.dtype) -> None:
    """Inside, different for every example, without a preferred sign, up to the boundary."""
    norm: Norm = norm_of(name)
    like, eps = torch.empty(400, 3, 8, 8, dtype=dtype), EPS[name]
    start = norm.random_start(like, eps, torch.Generator().manual_seed(0))
    again = norm.random_start(like, eps, torch.Generator().manual_seed(0))
    assert start.dtype == dtype
    assert torch.equal(start, again)
    length = norm.length(start)
    assert length.max() <= eps * (1 + 1e-5)
    assert length.max() > 0.97 * eps
    assert abs(float(start.mean())) < 0.02 * float(start.abs().max())
    assert not torch.equal(start[0], start[1])
    # linf: uniform in the cube; the others: radius uniform in [0, eps].
    size = start.abs() if name == "linf" else length
    assert float(size.mean()) == pytest.approx(eps / 2, rel=0.06)
    if name == "linf":
        assert float(start.std()) == pytest.approx(eps / 3**0.5, rel=0.02)
    else:
        assert float(length.std()) == pytest.approx(eps / 12**0.5, rel=0.1)


def test_unknown_norm_names_the_near_miss() -> None:
    """A typing error is answered with the name that was meant."""
    with pytest.raises(ConfigError, match="unknown norm 'linff'; did you mean 'linf'"):
        norm_of("linff")
