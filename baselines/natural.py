"""Natural training: empirical risk minimisation on clean images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core.objective import Objective, Step


class Natural(Objective):
    """Natural training: min_theta E[ CE(f(x), y) ].

    It has the highest natural accuracy and the lowest robustness. It is also the natural base
    learner of Generalist (2303.13813).

    Departures: none known; the loss is compared with its formula (tests/baselines).
    """

    family = "natural"

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The clean images."""
        return x

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x), y)."""
        return F.cross_entropy(model(x), y)

    @property
    def crafting_passes(self) -> float:
        """None."""
        return 0

    @property
    def draws(self) -> bool:
        """No."""
        return False
