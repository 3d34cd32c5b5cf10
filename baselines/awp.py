"""Adversarial weight perturbation (Wu et al., 2004.05884), around any objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from benchmark.core.objective import Displacement, Objective, ObjectiveRef, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule


class AWP(Objective):
    """AWP: min_theta max_v L(theta + v), ||v_l|| <= gamma * ||theta_l|| in every layer l.

    Wu et al., 2004.05884, equations 7 to 10. One ascent step in the weights is made on the same
    adversarial images, v_l = gamma * ||theta_l|| * g_l / ||g_l|| with g the gradient of L; the
    optimiser steps with the gradient at theta + v, and then v is subtracted again. Only weights
    with more than one dimension are perturbed; the BatchNorm statistics of the ascent are
    discarded. L is any objective: AT-AWP (``pgd-at``, the default), TRADES-AWP (``trades``, gamma
    0.005 and a warm-up of 10 epochs in the code).

    Departures: the code finds v by an SGD step of a proxy network and then normalises its length;
    we normalise the gradient. The code of AT-AWP crafts in train mode, except for the first batch
    of each epoch; here the wrapped objective decides (``objective: {name: pgd-at, batchnorm:
    train}``), and ``pgd-at`` crafts in eval mode. The code of TRADES-AWP crafts in eval mode. The
    step is compared with its formula (tests/baselines).

    Attributes:
        objective: the wrapped objective.
        gamma: relative size of v; 0.01 for AT in the code.
        warmup: fraction of training before v is used.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2004.05884 (AT_AWP), PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )

    objective: ObjectiveRef = "pgd-at"  # type: ignore[assignment]  # resolved by its validator
    gamma: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _take_over_mode(self) -> AWP:
        object.__setattr__(self, "batchnorm", self.objective.batchnorm)
        return self

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """As the wrapped objective."""
        return self.objective.perturb(model, x, y, step)

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """As the wrapped objective."""
        return self.objective.loss(model, x, x_adv, y, step)

    @property
    def crafting_passes(self) -> float:
        """Those of the wrapped objective."""
        return self.objective.crafting_passes

    @property
    def training_passes(self) -> float:
        """Twice those of the wrapped objective (less during the warm-up)."""
        return 2 * self.objective.training_passes

    @property
    def cuttable(self) -> bool:
        """As the wrapped objective."""
        return self.objective.cuttable

    def displaced(self, model: nn.Module, loss: Callable[[], Tensor], step: Step) -> Displacement:
        """theta + v while the optimiser steps."""
        if step.progress < self.warmup:
            return self.objective.displaced(model, loss, step)
        return self._at_the_worst(model, loss, step)

    @contextmanager
    def _at_the_worst(
        self, model: nn.Module, loss: Callable[[], Tensor], step: Step
    ) -> Iterator[None]:
        weights = [p for name, p in model.named_parameters() if p.dim() > 1 and "weight" in name]
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        gradients = step.gradients(loss(), weights)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
            own = [weight.clone() for weight in weights]
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.add_(gradient * (self.gamma * weight.norm() / (gradient.norm() + 1e-20)))
            displaced = [weight.clone() for weight in weights]
        yield
        with torch.no_grad():
            # theta + (the step taken at theta + v). Subtracting v would leave a rounding error.
            for weight, before, worst in zip(weights, own, displaced, strict=True):
                weight.copy_(before + (weight - worst))
