"""Norm balls as objects: an attack is written once against ``project``, ``ascend`` and
``random_start``.

Perturbations ``delta`` and gradients have shape [n, c, h, w]; lengths are in pixel units, images in
[0, 1]. The attack itself clips images to [0, 1]: this only shrinks ``delta``, so the result stays
in the ball.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.core.draws import exponential_like, normal_like, uniform_like
from benchmark.core.errors import ConfigError
from benchmark.core.registry import did_you_mean

# Keeps a division by the length of a zero perturbation finite.
_TINY = 1e-12


def _per_example(value: Tensor, like: Tensor) -> Tensor:
    """[n] to [n, 1, 1, 1] so that it broadcasts over ``like``."""
    return value.view(-1, *[1] * (like.dim() - 1))


def _unit(delta: Tensor) -> Tensor:
    """Each example scaled to l_2 length 1; zero stays zero.

    The perturbation is first divided by its largest entry: a network with large logits has
    gradients whose squares underflow in fp32, and an attack that treated them as zero would find
    the network robust.
    """
    largest = delta.flatten(1).abs().amax(1)
    scaled = delta / _per_example(torch.where(largest > 0, largest, 1.0), delta)
    return scaled / _per_example(scaled.flatten(1).norm(dim=1).clamp_min(0.5), delta)


def _radius(like: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Uniform in [0, eps] for each example, [n, 1, 1, 1]."""
    return _per_example(uniform_like(like.new_empty(len(like)), generator, 0, eps), like)


class Norm(ABC):
    """One norm: its length, its ball and its steepest ascent direction."""

    name: str

    @abstractmethod
    def length(self, delta: Tensor) -> Tensor:
        """The norm of each example's perturbation, shape [n]."""

    @abstractmethod
    def project(self, delta: Tensor, eps: float) -> Tensor:
        """The nearest point of the ball of radius ``eps`` (Euclidean projection)."""

    def admit(self, x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """``x_adv`` brought into the ball around the images ``x`` and into [0, 1]."""
        return (x + self.project(x_adv - x, eps)).clamp_(0, 1)

    @abstractmethod
    def ascend(self, grad: Tensor, x: Tensor) -> Tensor:
        """A direction of norm 1 along which the linearised loss grows; zero where ``grad`` is.

        ``x``: the images [n, c, h, w] in [0, 1] that ``grad`` was taken at.
        """

    @abstractmethod
    def random_start(self, like: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """A random perturbation inside the ball, of the shape, dtype and device of ``like``."""


class Linf(Norm):
    """Largest absolute change of a pixel channel."""

    name = "linf"

    def length(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        return delta.clamp(-eps, eps)

    def ascend(self, grad: Tensor, x: Tensor) -> Tensor:
        return grad.sign()

    def random_start(self, like: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """Uniform in the cube (Madry et al., 1706.06083)."""
        return uniform_like(like, generator, -eps, eps)


class L2(Norm):
    """Euclidean length."""

    name = "l2"

    def length(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).norm(dim=1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        factor = (eps / self.length(delta).clamp_min(_TINY)).clamp_max(1.0)
        return delta * _per_example(factor, delta)

    def ascend(self, grad: Tensor, x: Tensor) -> Tensor:
        return _unit(grad)

    def random_start(self, like: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """Normal direction, radius uniform in [0, eps] (robust_overfitting, 2002.11569)."""
        return _unit(normal_like(like, generator)) * _radius(like, eps, generator)


class L1(Norm):
    """Sum of absolute changes.

    The steepest l_1 step moves a single coordinate, which is far too slow. Therefore ``ascend``
    moves the top ``1 - sparsity`` share of the coordinates by equal amounts, as the SLIDE attack
    does (Tramer & Boneh, 1904.13000, section 2; default sparsity 0.99). Pixels at 0 or 1 that the
    step would push out of [0, 1] are excluded, since in a dark or bright image the largest
    gradients often belong to pixels that cannot move. (MSD's code excludes more of them; see
    ``FewPixelsL1``.)
    """

    name = "l1"

    def __init__(self, sparsity: float = 0.99) -> None:
        self.sparsity = sparsity

    def length(self, delta: Tensor) -> Tensor:
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Tensor, eps: float) -> Tensor:
        """Soft-thresholding by the simplex projection of Duchi et al. (ICML 2008, figure 1)."""
        flat = delta.flatten(1)
        magnitude = flat.abs()
        ordered = magnitude.sort(dim=1, descending=True).values
        excess = ordered.cumsum(1) - eps
        rank = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
        active = (ordered * rank > excess).sum(1, keepdim=True).clamp_min(1)
        threshold = excess.gather(1, active - 1) / active
        shrunk = flat.sign() * (magnitude - threshold.clamp_min(0)).clamp_min(0)
        inside = magnitude.sum(1, keepdim=True) <= eps
        return torch.where(inside, flat, shrunk).view_as(delta)

    def ascend(self, grad: Tensor, x: Tensor) -> Tensor:
        stuck = ((x <= 0) & (grad < 0)) | ((x >= 1) & (grad > 0))
        flat = grad.masked_fill(stuck, 0).flatten(1)
        count = max(1, round((1 - self.sparsity) * flat.shape[1]))
        smallest = flat.abs().topk(count, dim=1).values[:, -1:]
        sparse = torch.where(flat.abs() >= smallest, flat.sign(), torch.zeros_like(flat))
        return (sparse / sparse.abs().sum(1, keepdim=True).clamp_min(1)).view_as(grad)

    def random_start(self, like: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """Laplace direction (uniform on the l_1 sphere's faces), radius uniform in [0, eps]."""
        sign = uniform_like(like, generator, -1, 1).sign()
        size = exponential_like(like, generator)
        direction = sign * size / _per_example(self.length(size).clamp_min(_TINY), size)
        return direction * _radius(like, eps, generator)


class FewPixelsL1(L1):
    """The l_1 steps of robust_union, the code of MSD (Maini et al., 1909.04068).

    A step moves the k coordinates with the largest gradients by 1/k of its length each, with k
    drawn uniformly from 5 to 20, once per step for the whole batch. It does not move coordinates
    within ``gap`` of the border (0 or 1) ahead of them, nor coordinates at 0 or 1 in any direction.

    Args:
        gap: maps k to a distance in pixel units.
        generator: the generator that draws k.
    """

    fewest, most = 5, 20

    def __init__(
        self, gap: Callable[[int], float], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self._gap, self._generator = gap, generator

    def ascend(self, grad: Tensor, x: Tensor) -> Tensor:
        """As in ``L1``. The step is shorter than 1 if fewer than k coordinates have a gradient, and
        longer if more than k have equal ones, as in the code, which moves each coordinate by 1/k.
        """
        drawn = torch.randint(
            self.fewest, self.most + 1, (), generator=self._generator, device=grad.device
        )
        count = min(int(drawn), grad[0].numel())
        gap = self._gap(count)
        left_out = (x <= 0) | (x >= 1) | ((x <= gap) & (grad < 0)) | ((x >= 1 - gap) & (grad > 0))
        flat = grad.masked_fill(left_out, 0).flatten(1)
        smallest = flat.abs().topk(count, dim=1).values[:, -1:]
        moved = torch.where(flat.abs() >= smallest, flat.sign(), torch.zeros_like(flat))
        return (moved / count).view_as(grad)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (Linf(), L2(), L1())}


def norm_of(name: str) -> Norm:
    """The norm of that name. Raises ConfigError: unknown name; the message suggests others."""
    if name not in NORMS:
        raise ConfigError(f"unknown norm {name!r}; {did_you_mean(name, NORMS)}")
    return NORMS[name]
