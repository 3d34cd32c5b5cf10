"""Adversarial training with smoothed labels: a method in a package of its own."""

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.objective import Objective, Step
from benchmark.core.threat import Threat


class SmoothAT(Objective):
    """Smooth AT: E[ CE(f(x'), (1 - s) * onehot(y) + s / classes) ], x' from PGD.

    Label smoothing (Szegedy et al., 1512.00567, section 7) in adversarial training (1706.06083).
    Departures: none known.

    Attributes:
        smoothing: s.
        threat: training threat model; a name refers to the suite's.
    """

    family = "adversarial training"

    smoothing: float = Field(default=0.1, ge=0, le=1)
    threat: Threat = "linf"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        return pgd(model, x, y, self.threat, generator=step.generator)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        return F.cross_entropy(model(x_adv), y, label_smoothing=self.smoothing)

    @property
    def crafting_passes(self) -> float:
        return self.threat.steps
