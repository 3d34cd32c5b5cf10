"""Two learners trained apart and joined afterwards: in output space, and in weight space."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.core.averaging import copy_state, floating_state, move_towards, reestimate_batchnorm
from benchmark.core.learner import LearnerConfig
from benchmark.core.method import Method, Recipe, build_learners
from benchmark.core.setting import Setting


class AverageProbabilities(nn.Module):
    """log( sum_k share_k * softmax(f_k(x)) ): log-probabilities [n, classes] of an ensemble.

    Log-probabilities are logits of the averaged distribution, so cross-entropy and margin attacks
    see the ensemble itself.
    """

    def __init__(self, members: Sequence[nn.Module], shares: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = tuple(shares)

    def forward(self, x: Tensor) -> Tensor:
        weighted = [
            member(x).log_softmax(1) + math.log(share)
            for member, share in zip(self.members, self.shares, strict=True)
        ]
        return torch.stack(weighted).logsumexp(0)


def _two_learners() -> tuple[Any, ...]:
    return (
        {"name": "natural", "objective": "natural"},
        {"name": "robust", "objective": "pgd-at"},
    )


class _Pair(Recipe):
    """A natural learner, then a robust one, and the weight of the second."""

    learners: tuple[LearnerConfig, LearnerConfig] = Field(default_factory=_two_learners)
    share: float = Field(default=0.5, gt=0, lt=1)


class OutputEnsemble(_Pair):
    """Output ensemble: p(x) = share * p_robust(x) + (1 - share) * p_natural(x).

    A natural and a PGD-AT network trained apart, with averaged probabilities. Inference costs two
    networks; Generalist (2303.13813) is deployed as one.

    Attributes:
        learners: the natural learner, then the robust one.
        share: weight of the second; 0.5 is the plain average.
    """

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _OutputEnsemble(self, setting)


class _OutputEnsemble(Method):
    inference_passes = 2

    def __init__(self, recipe: OutputEnsemble, setting: Setting) -> None:
        self.recipe = recipe
        self.learners = build_learners(recipe.learners, setting)

    def deployed(self) -> nn.Module:
        members = [learner.model for learner in self.learners.values()]
        return AverageProbabilities(members, (1 - self.recipe.share, self.recipe.share))


class WeightInterpolation(_Pair):
    """Weight interpolation: theta = share * theta_robust + (1 - share) * theta_natural.

    The same two networks from one initialisation, trained apart, averaged once after training:
    Generalist without redistribution and without a moving average. BatchNorm statistics are
    re-estimated on clean training images, since averaged statistics do not fit averaged weights of
    networks this far apart (SWA, 1803.05407, section 3.2).

    Attributes:
        learners: the natural learner, then the robust one.
        share: weight of the second.
    """

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _WeightInterpolation(self, setting)


class _WeightInterpolation(Method):
    def __init__(self, recipe: WeightInterpolation, setting: Setting) -> None:
        self.recipe = recipe
        self.learners = build_learners(recipe.learners, setting)
        self._setting = setting

    def deployed(self) -> nn.Module:
        natural, robust = (learner.model for learner in self.learners.values())
        model = copy.deepcopy(natural)
        target = floating_state(model)
        copy_state(target, floating_state(natural))
        # decay 1 - share: (1 - share) * natural + share * robust
        move_towards(target, [floating_state(robust)], [1.0], decay=1 - self.recipe.share)
        reestimate_batchnorm(model, self._setting.calibration())
        return model
