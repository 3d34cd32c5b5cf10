"""Fast adversarial training with one attack step: FGSM-RS (2001.03994), N-FGSM (2202.01181)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.pgd import attack_loss, input_gradient
from benchmark.core.crafting import BatchNormMode
from benchmark.core.draws import uniform_like
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.threat import Pixels


class _SingleStep(AttackObjective):
    family = "fast AT"

    batchnorm: BatchNormMode = "train"

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)

    @property
    def crafting_passes(self) -> float:
        """One."""
        return 1


class FGSMRS(_SingleStep):
    """FGSM-RS: min_theta E[ CE(f(x + d), y) ], d = P(u + alpha * sign grad CE(f(x + u), y)).

    Wong et al., 2001.03994, algorithm 3: u uniform in the ball, one step of alpha = 1.25 eps,
    projection onto the ball and onto [0, 1]. Above eps of about 8/255 it can overfit
    catastrophically: robustness to PGD drops to zero while accuracy on d stays high. Images are
    crafted in train mode as in the code, so the attack updates BatchNorm's running statistics.

    Departures: the code has a cyclic learning rate and half precision. Under l_2 and l_1, which it
    does not have, the step is that of PGD. The step is compared with a plain one (tests/baselines).

    Attributes:
        alpha: step size in units of eps; 1.25 in the paper.
        threat: only its norm and eps are used, not its steps.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    alpha: float = Field(default=1.25, gt=0)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """One step from a uniform random start."""
        size = Pixels(self.alpha * self.threat.eps)
        threat = self.threat.model_copy(update={"step": size, "steps": 1})
        return pgd(model, x, y, threat, loss="ce", start="uniform", generator=step.generator)


class NFGSM(_SingleStep):
    """N-FGSM: min_theta E[ CE(f(x + d), y) ], d = u + alpha * sign grad CE(f(x + u), y).

    De Jorge et al., 2202.01181, algorithm 1: u is uniform in a cube of k times the radius, and d is
    *not* projected onto the ball, which prevents catastrophic overfitting; coordinates of d can be
    as large as k eps + alpha. It is also a cheap robust learner inside Generalist. l_inf only.

    Images are crafted in train mode as in the code, so the attack updates BatchNorm's running
    statistics.

    Departures: none known; the step is compared with a plain one (tests/baselines).

    Attributes:
        noise: k, half-width of the noise in units of eps; 2 in the paper.
        alpha: step size in units of eps; 1 in the paper.
        threat: only its eps is used, not its steps.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    noise: float = Field(default=2.0, ge=0)
    alpha: float = Field(default=1.0, gt=0)

    def model_post_init(self, context: object) -> None:
        """Raise ValueError for a norm other than l_inf."""
        if self.threat.norm != "linf":
            raise ValueError(f"n-fgsm is defined for linf, not for {self.threat.norm}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Noise and one step, clipped to [0, 1] only."""
        width = self.noise * self.threat.eps
        start = (x + uniform_like(x, step.generator, -width, width)).clamp_(0, 1)
        grad = input_gradient(model, start, attack_loss("ce", y))
        return (start + self.alpha * self.threat.eps * grad.sign()).clamp_(0, 1)
