"""APGD: PGD that chooses its own step sizes (Croce & Hein, 2003.01690; l_1: 2103.01208).

For training (E-AT, 2105.12508, whose code calls it ``apgd_train``) and for the cheap attack before
an AutoAttack on a budget. AutoAttack has its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks.norms import norm_of
from benchmark.core.threat import ThreatModel

# Share of the last step that is kept (momentum), share of improving steps below which a step size
# is halved, and factors of the l_1 variant: all from the papers.
_MOMENTUM = 0.75
_IMPROVING = 0.75
_SPARSER, _SMALLEST, _SHRINK = 1.5, 10.0, 0.95
# Share of the coordinates that the first l_1 step moves: in E-AT's training attack, and in
# AutoAttack.
TRAINING_DENSITY, EVALUATION_DENSITY = 0.05, 0.2


def project_l1_box(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """The point of {d : ||d||_1 <= eps, x + d in [0, 1]} nearest to ``delta`` (2103.01208).

    Where delta points, coordinate i can go u_i = x_i or 1 - x_i far; the projection is
    ``sign(delta_i) * clip(|delta_i| - t, 0, u_i)`` with the smallest t >= 0 that meets the l_1
    constraint, found by bisection on the decreasing piecewise linear sum.
    """
    sign = delta.sign()
    size = delta.flatten(1).abs()
    room = torch.where(sign > 0, 1 - x, x).flatten(1)
    low = torch.zeros(len(x), 1, device=x.device, dtype=x.dtype)
    high = size.amax(1, keepdim=True)
    outside = torch.minimum(size, room).sum(1, keepdim=True) > eps
    # 2^-40 of a pixel is below the resolution of fp32.
    for _ in range(40):
        middle = (low + high) / 2
        too_long = torch.minimum((size - middle).clamp_min(0), room).sum(1, keepdim=True) > eps
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    threshold = torch.where(outside, high, torch.zeros_like(high))
    return sign * torch.minimum((size - threshold).clamp_min(0), room).view_as(delta)


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    density: float = TRAINING_DENSITY,
    target: Tensor | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``threat.steps`` APGD steps from ``x`` on the cross-entropy, or towards a class.

    l_inf and l_2: the step size is 2 eps at first, with momentum 0.75. At a checkpoint it is
    halved, and the attack continues from the best iterate, unless three quarters of the steps
    improved the loss or a new best was found. l_1: sign steps, without momentum, on the coordinates
    with the largest gradients; their share shrinks with the sparsity of the best perturbation.
    ``threat.step`` is not used.

    Args:
        model: in crafting state, [n, c, h, w] in [0, 1] to logits.
        density: share of the coordinates that the first l_1 step moves.
        target: a wrong class per image, int64 [n]; the loss is then z_target - z_y.
        start: the first iterate, inside the ball and the box; default ``x``.

    Returns:
        The iterate with the largest loss, and whether an image was classified correctly at
        every iterate, the first included (bool [n]): the accuracy that the attack leaves.
    """
    run = _SparseAPGD(x, threat, density) if threat.norm == "l1" else _APGD(x, threat)
    x_adv = x if start is None else start
    resisted = torch.ones_like(y, dtype=torch.bool)
    for step in range(threat.steps + 1):
        here = x_adv.detach().requires_grad_()
        grad = None
        with torch.enable_grad():
            logits = model(here)
            losses = _losses(logits, y, target)
            if step < threat.steps:
                (grad,) = torch.autograd.grad(losses.sum(), here)
        resisted &= logits.detach().argmax(1) == y
        run.note(here.detach(), losses.detach(), grad)
        if step < threat.steps:
            x_adv = run.next(step)
    return run.best, resisted


def _losses(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """What ``apgd`` maximises, per image [n]."""
    if target is None:
        return F.cross_entropy(logits, y, reduction="none")
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


class _APGD:
    """The state of the l_inf and l_2 attack."""

    first_size = 2.0

    def __init__(self, x: Tensor, threat: ThreatModel) -> None:
        self.x, self.norm, self.eps = x, norm_of(threat.norm), float(threat.eps)
        self.steps = threat.steps
        n = len(x)
        self.best = x.clone()
        self.best_loss = torch.full((n,), -torch.inf, device=x.device, dtype=x.dtype)
        self.best_grad = torch.zeros_like(x)
        self.size = torch.full((n,), self.first_size * self.eps, device=x.device, dtype=x.dtype)
        self.here = self.before = x
        self.grad = torch.zeros_like(x)
        # The loss with which the next one is compared. The start does not count as an improvement.
        # The step after it does unless its loss is 0, since the code compares it with 0, not with
        # the loss at the start.
        self.loss = torch.full_like(self.best_loss, torch.inf)
        self.started = False
        # Since the last checkpoint: improving steps, steps, and the best loss then.
        self.improved = torch.zeros(n, device=x.device, dtype=torch.long)
        self.since = 0
        self.best_before = self.best_loss
        self.reduced_before = torch.ones(n, device=x.device, dtype=torch.bool)
        self.period = max(int(0.22 * threat.steps), 1)
        self.least = max(int(0.06 * threat.steps), 1)
        self.shorten = max(int(0.03 * threat.steps), 1)

    def note(self, here: Tensor, loss: Tensor, grad: Tensor | None) -> None:
        """Record the iterate that was just evaluated."""
        self.improved += (loss > self.loss).long()
        better = loss > self.best_loss
        self.best[better] = here[better]
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.before, self.here = self.here, here
        self.loss = loss if self.started else torch.zeros_like(loss)
        self.started = True
        if grad is not None:
            self.grad = grad
            self.best_grad[better] = grad[better]

    def next(self, step: int) -> Tensor:
        """The next iterate after ``step`` (from 0)."""
        if step > 0:
            self._checkpoint(step)
        size = self.size.view(-1, 1, 1, 1)
        moved = self._project(self.here + size * self.norm.ascend(self.grad, self.here))
        if step == 0:
            return moved
        mixed = self.here + _MOMENTUM * (moved - self.here)
        return self._project(mixed + (1 - _MOMENTUM) * (self.here - self.before))

    def _project(self, x_adv: Tensor) -> Tensor:
        return self.norm.admit(x_adv, self.x, self.eps)

    def _checkpoint(self, step: int) -> None:
        """Halve the step size of images without progress, and continue from their best iterate."""
        self.since += 1
        if self.since < self.period:
            return
        oscillates = self.improved <= _IMPROVING * self.period
        stuck = ~self.reduced_before & (self.best_before >= self.best_loss)
        halve = oscillates | stuck
        self.reduced_before = halve
        self.best_before = self.best_loss
        self.size = torch.where(halve, self.size / 2, self.size)
        self.here = torch.where(halve.view(-1, 1, 1, 1), self.best, self.here)
        self.grad = torch.where(halve.view(-1, 1, 1, 1), self.best_grad, self.grad)
        self.since = 0
        self.improved.zero_()
        self.period = max(self.period - self.shorten, self.least)


class _SparseAPGD(_APGD):
    """The state of the l_1 attack."""

    first_size = 1.0

    def __init__(self, x: Tensor, threat: ThreatModel, density: float) -> None:
        super().__init__(x, threat)
        self.pixels = x[0].numel()
        self.density = torch.full((len(x),), density, device=x.device, dtype=x.dtype)
        self.moved_before = torch.full_like(self.density, self.pixels)
        self.period = max(int(0.04 * threat.steps), 1)

    def next(self, step: int) -> Tensor:
        if step > 0:
            self._checkpoint(step)
        size = self.grad.flatten(1).abs()
        rank = ((1 - self.density) * self.pixels).clamp(0, self.pixels - 1).long()
        smallest = size.sort(1).values.gather(1, rank[:, None])
        signs = torch.where(size >= smallest, self.grad.flatten(1).sign(), 0.0)
        direction = signs / (signs.abs().sum(1, keepdim=True) + 1e-10)
        delta = self.here - self.x + (self.size[:, None] * direction).view_as(self.x)
        return self.x + project_l1_box(self.x, delta, self.eps)

    def _checkpoint(self, step: int) -> None:
        """Make the step sparser, and also shorter unless the perturbation has become sparser."""
        self.since += 1
        if self.since < self.period:
            return
        self.since = 0
        moved = ((self.best - self.x).abs() > 1e-12).flatten(1).sum(1).to(self.x.dtype)
        sparser = moved / self.moved_before < _SHRINK
        self.density = moved / self.pixels / _SPARSER
        largest = self.first_size * self.eps
        shorter = (self.size / _SPARSER).clamp(largest / _SMALLEST, largest)
        self.size = torch.where(sparser, torch.full_like(self.size, largest), shorter)
        self.moved_before = moved
        again = sparser.view(-1, 1, 1, 1)
        self.here = torch.where(again, self.best, self.here)
        self.grad = torch.where(again, self.best_grad, self.grad)
