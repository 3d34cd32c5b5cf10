"""Robustness to several norms at once: MAX, AVG, MSD and SAT."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.norms import L1, norm_of
from benchmark.attacks.pgd import attack_loss, input_gradient
from benchmark.core.learner import AuthorsRecipe, LearnerConfig, OptimizerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.objective import Objective, Step
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat, ThreatModel

# The usual radii: 8/255, 128/255 and 12 (threat models of the suite).
_ALL = ("linf", "l2", "l1")


class _MultiNorm(Objective):
    threats: tuple[Threat, ...] = _ALL  # type: ignore[assignment]  # resolved against the suite

    @field_validator("threats")
    @classmethod
    def _at_least_one(cls, threats: tuple[ThreatModel, ...]) -> tuple[ThreatModel, ...]:
        if not threats:
            raise ValueError("give at least one threat model")
        return threats

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)

    @property
    def crafting_passes(self) -> float:
        """The steps of all attacks."""
        return sum(threat.steps for threat in self.threats)


class MAX(_MultiNorm):
    """MAX: E[ max_k CE(f(x + d_k), y) ], d_k from PGD under norm k, the maximum per image.

    Tramer & Boneh, 1904.13000, section 4 (robust_union calls it "worst"). Departures: the radii of
    training are those of evaluation (robust_union trains l_2 at 0.3).

    Attributes:
        threats: training threat models; robust_union: l_inf 8/255, l_2 0.3, l_1 12, 40 to 50 steps.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 1909.04068 (robust_union), PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 0), (2 / 5, 1), (4 / 5, 0.05), (1, 0))),
        epochs=50,
        batch_size=128,
    )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """For each image, the example of the norm with the largest cross-entropy."""
        candidates = torch.stack(
            [pgd(model, x, y, threat, generator=step.generator) for threat in self.threats]
        )
        with torch.no_grad():
            losses = torch.stack([_losses(model, x_adv, y) for x_adv in candidates])
        return candidates[losses.argmax(0), torch.arange(len(x), device=x.device)]


class AVG(_MultiNorm):
    """AVG: E[ mean_k CE(f(x + d_k), y) ], d_k from PGD under norm k; one step on the mean loss.

    Tramer & Boneh, 1904.13000, section 4, and the "avg" of MNG-AC (2006.12135). The other method of
    that name, one optimiser step per norm, is ``avg-sequential``. Departures: none known.

    Attributes:
        threats: training threat models.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2006.12135 (MNG-AC)",
        optimizer=OptimizerConfig(lr=0.21, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 0), (2 / 5, 1), (1, 0))),
        epochs=30,
        batch_size=128,
        grad_clip=0.5,
    )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The examples of all norms, one norm after the other."""
        return torch.cat(
            [pgd(model, x, y, threat, generator=step.generator) for threat in self.threats]
        )

    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """The mean cross-entropy over norms; BatchNorm sees one norm at a time."""
        parts = x_adv.chunk(len(self.threats))
        return torch.stack([F.cross_entropy(model(part), y) for part in parts]).mean()

    @property
    def training_passes(self) -> float:
        """One for each norm."""
        return len(self.threats)


class SAT(_MultiNorm):
    """SAT: E[ CE(f(x + d_k), y) ], k drawn uniformly for each batch.

    Stochastic adversarial training (MNG-AC, 2006.12135, section 3.2). The code clips gradients at
    0.5: set ``grad_clip: 0.5`` to follow it.

    Cost: the mean over norms.

    Attributes:
        threats: training threat models; the code: l_inf 8/255, l_2 128/255, l_1 2000/255.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2006.12135 (MNG-AC)",
        optimizer=OptimizerConfig(lr=0.21, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 0), (2 / 5, 1), (1, 0))),
        epochs=30,
        batch_size=128,
        grad_clip=0.5,
    )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """PGD under the norm that was drawn."""
        drawn = torch.randint(len(self.threats), (), generator=step.generator, device=x.device)
        return pgd(model, x, y, self.threats[int(drawn)], generator=step.generator)

    @property
    def crafting_passes(self) -> float:
        """The steps of the attacks, on average."""
        return super().crafting_passes / len(self.threats)


class MSD(_MultiNorm):
    """MSD: E[ CE(f(x + d), y) ], every step of d the steepest of several norms.

    Multi steepest descent (Maini et al., 1909.04068, algorithm 1): from one perturbation, the
    projected steepest step of each norm is tried, and each image takes the one with the largest
    cross-entropy; d is the best iterate. No random start. The l_1 step moves the k largest
    coordinates by size / k each, k drawn from 5 to 20 per step.

    Departures: the radii of training are those of evaluation; the code computes in half precision.

    Attributes:
        threats: radii, in the suite's threat models; their own steps are not used.
        steps: 50 in the code.
        sizes: step sizes by norm in pixel units; 0.003, 0.05 and 1 (0.05 * 20 / k for each of k
            coordinates) in the code.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 1909.04068 (robust_union), PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 0), (2 / 5, 1), (4 / 5, 0.05), (1, 0))),
        epochs=50,
        batch_size=128,
    )

    steps: int = Field(default=50, ge=1)
    sizes: dict[str, float] = Field(default={"linf": 0.003, "l2": 0.05, "l1": 1.0})

    def model_post_init(self, context: object) -> None:
        """Raise ValueError for a norm without a step size."""
        missing = [threat.norm for threat in self.threats if threat.norm not in self.sizes]
        if missing:
            raise ValueError(f"sizes has no step size for {missing[0]}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The iterate with the largest cross-entropy."""
        x_adv, best = x, x.clone()
        best_loss = torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
        for _ in range(self.steps):
            grad = input_gradient(model, x_adv, attack_loss("ce", y))
            with torch.no_grad():
                candidates = torch.stack(
                    [self._step(threat, x, x_adv, grad, step) for threat in self.threats]
                )
                losses = torch.stack([_losses(model, candidate, y) for candidate in candidates])
                largest = losses.max(0)
                rows = torch.arange(len(x), device=x.device)
                x_adv = candidates[largest.indices, rows]
                better = largest.values > best_loss
                best_loss = torch.where(better, largest.values, best_loss)
                best[better] = x_adv[better]
        return best

    def _step(
        self, threat: ThreatModel, x: Tensor, here: Tensor, grad: Tensor, step: Step
    ) -> Tensor:
        norm = norm_of(threat.norm)
        if threat.norm == "l1":
            count = int(torch.randint(5, 21, (), generator=step.generator, device=x.device))
            norm = L1(sparsity=1 - count / x[0].numel())
        moved = here + self.sizes[threat.norm] * norm.ascend(grad, here)
        return norm.admit(moved, x, float(threat.eps))

    @property
    def crafting_passes(self) -> float:
        """One for each step (and a forward pass for each norm)."""
        return self.steps


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each image, shape [n]."""
    return F.cross_entropy(model(x), y, reduction="none")


class AVGSequential(Recipe):
    """AVG, sequential: for each norm k in turn, an optimiser step on E[ CE(f(x + d_k), y) ].

    robust_union's (1909.04068) meaning of AVG ("triple"): every batch gives as many optimiser steps
    as there are norms, each on examples crafted on the weights that the last one left. ``avg``
    averages the losses in one step. Departures: none known.

    Attributes:
        learner: the network; its objective's threat model is replaced by each of ``threats``.
        threats: training threat models, in order.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 1909.04068 (robust_union), PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 0), (2 / 5, 1), (4 / 5, 0.05), (1, 0))),
        epochs=50,
        batch_size=128,
    )

    learner: LearnerConfig = default_learner("avg", "pgd-at")
    threats: tuple[Threat, ...] = _ALL  # type: ignore[assignment]  # resolved against the suite

    @field_validator("learner")
    @classmethod
    def _has_a_threat(cls, learner: LearnerConfig) -> LearnerConfig:
        if not hasattr(learner.objective, "threat"):
            raise ValueError(f"objective {learner.objective.name!r} has no threat model to replace")
        return learner

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _Sequential(self, setting)


class _Sequential(Method):
    def __init__(self, recipe: AVGSequential, setting: Setting) -> None:
        self.learners = build_learners((recipe.learner,), setting)
        (self._learner,) = self.learners.values()
        objective = recipe.learner.objective
        self._objectives = [
            objective.model_copy(update={"threat": threat}) for threat in recipe.threats
        ]

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        losses = []
        for objective in self._objectives:
            self._learner.objective = objective
            losses.append(self._learner.step(*batch, progress))
        return {f"loss/{self._learner.config.name}": torch.stack(losses).mean()}

    @property
    def passes(self) -> float:
        return sum(objective.passes for objective in self._objectives)

    def deployed(self) -> nn.Module:
        return self._learner.model
