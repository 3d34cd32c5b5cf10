"""Plain fp32 loops, with which our loops are compared, written as in usual reference code: the
network is contiguous, and the attack calls ``loss.backward()``, which also computes gradients of
the weights that are not used.

Crafting is in eval mode, as in the Generalist code and in TRADES'.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from benchmark.core.threat import ThreatModel


def natural_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor
) -> Tensor:
    """One step on the cross-entropy of a batch (x [n, 3, h, w] in [0, 1], y [n]); the loss."""
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.detach()


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The last l_inf PGD iterate from a uniform start (Madry et al., 1706.06083)."""
    eps, step = float(threat.eps), float(threat.step)
    model.eval()
    x_adv = x + torch.empty_like(x).uniform_(-eps, eps, generator=generator)
    x_adv = torch.clamp(x_adv, 0, 1)
    for _ in range(threat.steps):
        x_adv.requires_grad_()
        loss = F.cross_entropy(model(x_adv), y)
        loss.backward()
        assert x_adv.grad is not None
        x_adv = x_adv.detach() + step * x_adv.grad.sign()
        x_adv = x + torch.clamp(x_adv - x, -eps, eps)
        x_adv = torch.clamp(x_adv, 0, 1).detach()
    return x_adv


def pgd_at_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step of PGD adversarial training; the loss."""
    return natural_step(model, optimizer, pgd(model, x, y, threat, generator), y)


def trades_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    beta: float = 6.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step of TRADES (1901.08573), in the order of its released code: the clean images pass
    through the network at every attack step, and the attack takes ``autograd.grad``; the loss."""
    eps, step = float(threat.eps), float(threat.step)
    model.eval()
    x_adv = x + 0.001 * torch.empty_like(x).normal_(generator=generator)
    for _ in range(threat.steps):
        x_adv.requires_grad_()
        loss = F.kl_div(F.log_softmax(model(x_adv), 1), F.softmax(model(x), 1), reduction="sum")
        (grad,) = torch.autograd.grad(loss, [x_adv])
        x_adv = x_adv.detach() + step * grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
        x_adv = torch.clamp(x_adv, 0, 1).detach()
    model.train()
    optimizer.zero_grad()
    logits = model(x)
    robust = F.kl_div(F.log_softmax(model(x_adv), 1), F.softmax(logits, 1), reduction="batchmean")
    loss = F.cross_entropy(logits, y) + beta * robust
    loss.backward()
    optimizer.step()
    return loss.detach()


def right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the largest logit is the label's, bool [n]."""
    with torch.no_grad():
        return model.eval()(x).argmax(1) == y


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    batch_size: int,
    attack: str | None = None,
) -> Tensor:
    """Verdicts of the bare library under l_inf, bool [n], as its README calls it; seed 0.

    Args:
        model: in eval mode.
        attack: only this one.
    """
    library = AutoAttack(model, norm="Linf", eps=eps, seed=0, device=x.device)
    if attack:
        library.attacks_to_run = [attack]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        _, predicted = library.run_standard_evaluation(x, y, batch_size=batch_size)
    return predicted == y
