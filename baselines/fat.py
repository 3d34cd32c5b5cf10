"""Friendly adversarial training (Zhang et al., 2002.11242)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.trades import TRADES
from benchmark.attacks.norms import norm_of
from benchmark.attacks.pgd import Start, attack_loss, random_start
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.threat import ThreatModel


def early_stopped_pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    loss_on: Callable[[Tensor, Tensor], Tensor],
    *,
    tau: int,
    omega: float,
    start: Start,
    generator: torch.Generator | None,
) -> Tensor:
    """PGD that stops ``tau`` steps after an image is first misclassified (algorithm 1).

    Images keep their order (the released code returns them re-ordered, with their labels).

    Args:
        loss_on: (logits, rows) to the summed loss of those rows of the batch.
        tau: further steps after the first misclassification.
        omega: standard deviation, in pixel units, of the noise added at each step.
    """
    norm, eps, size = norm_of(threat.norm), float(threat.eps), float(threat.step)
    x_adv = random_start(x, threat, start, generator)
    left = torch.full_like(y, tau)
    active = torch.arange(len(x), device=x.device)
    for _ in range(threat.steps):
        here = x_adv[active].requires_grad_()
        with torch.enable_grad():
            logits = model(here)
            (grad,) = torch.autograd.grad(loss_on(logits, active), here)
        wrong = logits.argmax(1) != y[active]
        done = wrong & (left[active] == 0)
        left[active] -= (wrong & ~done).long()
        active, grad, here = active[~done], grad[~done], here.detach()[~done]
        if not len(active):
            break
        moved = here + size * norm.ascend(grad, here)
        if omega:
            moved += omega * torch.empty_like(moved).normal_(generator=generator)
        x_adv[active] = norm.admit(moved, x[active], eps)
    return x_adv


class FAT(AttackObjective):
    """FAT: E[ CE(f(x'), y) ], x' the least adversarial of the images that are misclassified.

    Zhang et al., 2002.11242: PGD stops tau steps after the first misclassification, so that x' is
    friendly; tau grows during training. The attack has a uniform start and noise omega * N(0, I) at
    each step as in the released code; images are crafted in eval mode.

    Departures: tau depends on the fraction of training (0 until epoch 50 of 120, 1 until 90, then
    2); images keep their order. The attack is compared with plain PGD that is stopped image by
    image (tests/baselines).

    Cost: at most steps + 1 passes; images that stop early cost less.

    Attributes:
        threat: training threat model; the code uses eps 0.031, step 0.007, 10 steps.
        tau: further steps by progress.
        omega: noise in pixel units; 0.001 in the code.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2002.11242 (FAT.py), WRN-32-10",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(
            points=((0, 1), (59 / 120, 0.1), (89 / 120, 0.01), (109 / 120, 0.005)),
            interpolation="step",
        ),
        epochs=120,
        batch_size=128,
    )

    tau: Schedule = Schedule(points=((0, 0), (50 / 120, 1), (90 / 120, 2)), interpolation="step")
    omega: float = Field(default=0.001, ge=0)

    @property
    def cuttable(self) -> bool:
        """No: the amount of noise that is drawn depends on the images."""
        return False

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Early-stopped PGD on the cross-entropy."""
        return early_stopped_pgd(
            model,
            x,
            y,
            self.threat,
            lambda logits, rows: F.cross_entropy(logits, y[rows], reduction="sum"),
            tau=round(self.tau(step.progress)),
            omega=self.omega,
            start="uniform",
            generator=step.generator,
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)


class FATTRADES(TRADES):
    """FAT for TRADES: E[ CE(f(x), y) + beta * KL(p(x) : p(x')) ], x' friendly.

    The TRADES loss (1901.08573) on early-stopped PGD examples (2002.11242, section 4.2): the attack
    climbs the divergence from x + 0.001 * N(0, I) and stops tau steps after the first
    misclassification. See ``fat`` and ``trades``.

    Departures: those of ``fat`` and ``trades``. tau depends on the fraction of training (0 until
    epoch 30 of 85, 1 until 50, 2 until 70, then 3).

    Cost: at most steps + 2 passes.

    Attributes:
        beta: weight of the divergence; 6 in the code.
        threat: training threat model.
        tau: further steps by progress.
        omega: noise in pixel units; 0 in the code.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2002.11242 (FAT_for_TRADES.py); it ends before its drop at epoch 90",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=2e-4),
        schedule=Schedule(points=((0, 1), (74 / 85, 0.1)), interpolation="step"),
        epochs=85,
        batch_size=128,
    )

    tau: Schedule = Schedule(
        points=((0, 0), (30 / 85, 1), (50 / 85, 2), (70 / 85, 3)), interpolation="step"
    )
    omega: float = Field(default=0.0, ge=0)

    @property
    def cuttable(self) -> bool:
        """No: the amount of noise that is drawn depends on the images."""
        return False

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Early-stopped PGD on KL(p(x) : p(x_adv))."""
        with torch.no_grad():
            clean = model(x)
        return early_stopped_pgd(
            model,
            x,
            y,
            self.threat,
            lambda logits, rows: attack_loss("kl", y[rows], clean[rows])(logits),
            tau=round(self.tau(step.progress)),
            omega=self.omega,
            start="gaussian",
            generator=step.generator,
        )
