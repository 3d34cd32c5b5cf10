"""Projected gradient descent and its variants, written once for every ``Norm``.

Sources: PGD, Madry et al. 1706.06083; momentum (MIM), Dong et al. 1710.06081; the margin loss (CW),
Carlini & Wagner 1608.04644; the KL loss, Zhang et al. (TRADES) 1901.08573; the squared distance,
Pang et al. (SCORE) 2202.10103.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks.norms import norm_of
from benchmark.core.draws import normal_like
from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import ThreatModel

Loss = Literal["ce", "kl", "cw", "squared"]
Start = Literal["uniform", "gaussian", "none"]
AttackLoss = Callable[[Tensor], Tensor]  # logits [n, k] -> summed loss to maximise

# TRADES and its descendants start this far (standard deviation, in pixel units) from the image:
# at the image itself the gradient of the KL divergence is zero.
GAUSSIAN_START = 0.001


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max over k != y of z_k, minus z_y, per example [n]: positive iff misclassified."""
    right = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - right


def is_right(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the largest logit is that of the label, bool [n]. An output with NaN is wrong:
    argmax would take the first NaN for the largest."""
    return (logits.argmax(1) == y) & ~logits.isnan().any(1)


def attack_loss(loss: Loss, y: Tensor, clean_logits: Tensor | None = None) -> AttackLoss:
    """The loss an attack maximises, summed over the batch so that no example depends on another.

    ``kl`` is KL(p_clean : p_adv) and ``squared`` is ||p_adv - p_clean||^2, with p_clean fixed; they
    need ``clean_logits``.
    """
    if loss == "ce":
        return lambda logits: F.cross_entropy(logits, y, reduction="sum")
    if loss == "cw":
        return lambda logits: margin(logits, y).sum()
    if clean_logits is None:
        raise BenchmarkError(f"the {loss} attack loss needs the logits of the clean images")
    target = clean_logits.softmax(1)
    if loss == "squared":
        return lambda logits: (logits.softmax(1) - target).square().sum()
    return lambda logits: F.kl_div(logits.log_softmax(1), target, reduction="sum")


def input_gradient(model: nn.Module, x: Tensor, loss: AttackLoss) -> Tensor:
    """The gradient of ``loss`` of the model's logits to the images ``x``, detached.

    It is set to zero if there is none (a one-hot output) or it is NaN. Such a model is attacked
    without information, and the reliability checks report it. With NaN, the image would become NaN
    and count as an adversarial example.
    """
    here = x.detach().requires_grad_()
    with torch.enable_grad():
        value = loss(model(here))
        if not value.requires_grad:
            return torch.zeros_like(here)
        (grad,) = torch.autograd.grad(value, here, allow_unused=True)
    return torch.zeros_like(here) if grad is None else grad.nan_to_num()


def random_start(
    x: Tensor, threat: ThreatModel, start: Start, generator: torch.Generator | None
) -> Tensor:
    """The first iterate: a new tensor inside the ball and inside [0, 1]; see ``pgd``."""
    norm, eps = norm_of(threat.norm), float(threat.eps)
    if start == "uniform":
        x_adv = x + norm.random_start(x, eps, generator)
    elif start == "gaussian":
        x_adv = x + norm.project(GAUSSIAN_START * normal_like(x, generator), eps)
    else:
        x_adv = x.clone()
    return x_adv.clamp_(0, 1)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    loss: Loss = "ce",
    start: Start = "uniform",
    momentum: float = 0.0,
    generator: torch.Generator | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """The last iterate of ``threat.steps`` projected gradient-ascent steps.

    The caller must put the model in the right mode (``core.crafting``).

    Args:
        model: maps [n, c, h, w] in [0, 1] to logits [n, k].
        x: images in [0, 1]; y: labels [n].
        threat: norm, eps, step size and number of gradient steps.
        start: ``uniform`` in the ball, ``gaussian`` (x + 0.001 * normal, TRADES), or ``none``.
        momentum: 0 for PGD; 1.0 for MIM, where gradients are divided by their mean size and summed.
        on_step: called after each step, for progress.

    Returns:
        x_adv of the shape of ``x``, inside the ball and inside [0, 1], without gradient history.
    """
    norm, eps, step = norm_of(threat.norm), float(threat.eps), float(threat.step)
    x = x.detach()
    target = None
    if loss in ("kl", "squared"):
        with torch.no_grad():
            target = model(x)
    objective = attack_loss(loss, y, target)
    x_adv = random_start(x, threat, start, generator)
    velocity = torch.zeros_like(x) if momentum else None
    for _ in range(threat.steps):
        grad = input_gradient(model, x_adv, objective)
        with torch.no_grad():
            if velocity is not None:
                size = grad.flatten(1).abs().mean(1).clamp_min(1e-12)
                velocity = momentum * velocity + grad / size.view(-1, 1, 1, 1)
                grad = velocity
            x_adv = norm.admit(x_adv + step * norm.ascend(grad, x_adv), x, eps)
        if on_step:
            on_step()
    return x_adv
