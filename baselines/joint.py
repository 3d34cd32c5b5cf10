"""The plain joint loss: natural and adversarial cross-entropy in one network."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.search import Knob


class Joint(AttackObjective):
    """Joint training: min_theta E[ (1 - share) * CE(f(x), y) + share * CE(f(x + d), y) ].

    Half natural, half adversarial, as in Goodfellow et al. (1412.6572, section 6), with PGD instead
    of FGSM. A method that mixes separate learners must beat this baseline: it has the same two
    tasks in one network.

    Departures: PGD instead of FGSM; images are crafted in eval mode, as in ``pgd-at``. It follows
    no published code; the loss is compared with its formula (tests/baselines).

    Attributes:
        share: weight of the adversarial term.
        threat: training threat model; d is the last PGD iterate on the cross-entropy.
    """

    family = "joint objectives"
    search = (Knob("share", 0.1, 0.95),)

    share: float = Field(default=0.5, ge=0, le=1)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The last PGD iterate."""
        return pgd(model, x, y, self.threat, loss="ce", start="uniform", generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """(1 - share) * CE(f(x), y) + share * CE(f(x_adv), y)."""
        natural = F.cross_entropy(model(x), y)
        adversarial = F.cross_entropy(model(x_adv), y)
        return (1 - self.share) * natural + self.share * adversarial

    @property
    def training_passes(self) -> float:
        """A clean and an adversarial pass."""
        return 2
