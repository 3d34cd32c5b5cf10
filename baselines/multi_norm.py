"""Robustness to several norms at once: MAX, AVG, MSD and SAT."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, field_validator
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.norms import FewPixelsL1, Norm, norm_of
from benchmark.attacks.pgd import attack_loss, input_gradient
from benchmark.core.config import Config
from benchmark.core.crafting import BatchNormMode
from benchmark.core.draws import uniform_like
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.objective import Objective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat, ThreatModel

# A value of ``threats``: it means the radii, step sizes and steps of the method's code, not the
# threat models of the suite.
AUTHORS = "authors"


def _linf_and_l1(threats: Any) -> Any:
    if threats != AUTHORS:
        return threats
    return {"norm": "linf", "eps": "8/255"}, {"norm": "l1", "eps": "12"}


# The two threat models of methods that train on l_inf and l_1 only (E-AT, RAMP).
LinfAndL1 = Annotated[tuple[Threat, Threat], BeforeValidator(_linf_and_l1)]

# How the authors of the two codes train all of their methods.
_ROBUST_UNION_RECIPE = AuthorsRecipe(
    source="code of 1909.04068 (robust_union), PreAct ResNet-18",
    optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(points=((0, 0), (2 / 5, 1), (4 / 5, 0.05), (1, 0))),
    epochs=50,
    batch_size=128,
)
_MNG_AC_RECIPE = AuthorsRecipe(
    source="code of 2006.12135 (MNG-AC)",
    optimizer=OptimizerConfig(lr=0.21, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(points=((0, 0), (2 / 5, 1), (1, 0))),
    epochs=30,
    batch_size=128,
    grad_clip=0.5,
)


class _Threats(Config):
    """Several threat models: names of the suite's, explicit ones, or the authors'."""

    family: ClassVar[str] = "multi-norm"
    authors_threats: ClassVar[tuple[dict[str, Any], ...]]

    threats: tuple[Threat, ...] = ("linf", "l2", "l1")  # type: ignore[assignment]
    batchnorm: BatchNormMode = "train"

    @field_validator("threats", mode="before")
    @classmethod
    def _those_of_the_authors(cls, threats: Any) -> Any:
        return cls.authors_threats if threats == AUTHORS else threats

    @field_validator("threats")
    @classmethod
    def _at_least_one(cls, threats: tuple[ThreatModel, ...]) -> tuple[ThreatModel, ...]:
        if not threats:
            raise ValueError("give at least one threat model")
        return threats


class _MultiNorm(_Threats, Objective):
    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """CE(f(x_adv), y)."""
        return F.cross_entropy(model(x_adv), y)

    @property
    def crafting_passes(self) -> float:
        """The steps of all attacks."""
        return sum(threat.steps for threat in self.threats)


class _RobustUnion(_Threats):
    """The attacks of robust_union, the code of 1909.04068, and their options."""

    threats: tuple[Threat, ...] = ("l1", "l2", "linf")  # type: ignore[assignment]
    attack: Literal["robust-union", "pgd"] = "robust-union"
    restarts: int = Field(default=1, ge=0)
    gap: float | None = Field(default=None, ge=0)

    def attacked(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, step: Step
    ) -> Tensor:
        """``x`` attacked under one norm; see ``MAX``."""
        if self.attack == "pgd":
            return pgd(model, x, y, threat, generator=step.generator)
        if threat.norm != "l1":
            return _climb(model, x, y, threat, norm_of(threat.norm), x)
        gap = threat.step / FewPixelsL1.most if self.gap is None else self.gap
        norm = FewPixelsL1(lambda count: gap, step.generator)
        x_adv = _climb(model, x, y, threat, norm, x)
        for _ in range(self.restarts):
            start = (x + _unit_l1(x, float(threat.eps), step.generator)).clamp_(0, 1)
            again = _climb(model, x, y, threat, norm, start)
            with torch.no_grad():
                fooled = model(again).argmax(1) != y
            x_adv = torch.where(fooled.view(-1, 1, 1, 1), again, x_adv)
        return x_adv

    def steps_of(self, threat: ThreatModel) -> int:
        """Gradient passes of the attack under one norm."""
        restarts = self.restarts if self.attack != "pgd" and threat.norm == "l1" else 0
        return threat.steps * (1 + restarts)


def _climb(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, norm: Norm, start: Tensor
) -> Tensor:
    """The last of ``threat.steps`` projected steps on the cross-entropy."""
    x_adv = start
    for _ in range(threat.steps):
        grad = input_gradient(model, x_adv, attack_loss("ce", y))
        with torch.no_grad():
            moved = x_adv + float(threat.step) * norm.ascend(grad, x_adv)
            x_adv = norm.admit(moved, x, float(threat.eps))
    return x_adv


def _unit_l1(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """The start of the l_1 restarts: uniform in the cube of eps, divided by its l_1 length, or by
    eps if that is larger. So the start has a length of about 1, independent of eps."""
    noise = uniform_like(x, generator, -eps, eps)
    return noise / norm_of("l1").length(noise).clamp_min(eps).view(-1, 1, 1, 1)


class MAX(_RobustUnion, _MultiNorm):
    """MAX: E[ max_k CE(f(x + d_k), y) ], d_k from PGD under norm k, the maximum per image.

    Tramer & Boneh, 1904.13000, section 4; here as in robust_union, the code of Maini et al.
    (1909.04068), which calls it "worst". The attacks start at the image. Under l_1, a step moves
    the k coordinates with the largest gradients by step / k, with k drawn from 5 to 20, but not
    coordinates within ``gap`` of the border. A second l_1 attack, from a random point at l_1
    distance 1, replaces the first for images on which it fools the network. Images are crafted in
    train mode, so the attacks update BatchNorm's running statistics.

    Departures: radii and steps are those of the suite's threat models unless ``threats`` is
    ``authors``. The code runs the forward pass of every attack step twice, so it updates the
    running statistics twice; as soon as one image of a batch is outside of the l_1 ball, its
    projection also moves the images inside out to the surface; and it computes in half precision.
    The attacks are compared with plain loops (tests/baselines).

    Cost: each restart adds one l_1 attack.

    Attributes:
        threats: training threat models; ``authors``: l_1 12, l_2 0.3, l_inf 0.03, in 50, 50 and 40
            steps of 1, 0.05 and 0.005.
        attack: ``robust-union``, or ``pgd`` for PGD as in pgd-at: from a uniform random start, with
            steps in the largest 1 % of the coordinates under l_1, without restarts.
        restarts: random restarts of the l_1 attack.
        gap: in pixel units; None is the code's rule, a twentieth of the l_1 step.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    authors: ClassVar[AuthorsRecipe | None] = _ROBUST_UNION_RECIPE
    authors_threats = (
        {"norm": "l1", "eps": "12", "step": "1", "steps": 50},
        {"norm": "l2", "eps": "0.3", "step": "0.05", "steps": 50},
        {"norm": "linf", "eps": "0.03", "step": "0.005", "steps": 40},
    )

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """For each image, the example of the norm with the largest cross-entropy."""
        candidates = torch.stack(
            [self.attacked(model, x, y, threat, step) for threat in self.threats]
        )
        with torch.no_grad():
            losses = torch.stack([_losses(model, x_adv, y) for x_adv in candidates])
        return candidates[losses.argmax(0), torch.arange(len(x), device=x.device)]

    @property
    def crafting_passes(self) -> float:
        """The steps of all attacks, including restarts."""
        return sum(self.steps_of(threat) for threat in self.threats)


# MNG-AC, train_pgd.py.
_MNG_AC = (
    {"norm": "linf", "eps": "8/255", "step": "1/255", "steps": 10},
    {"norm": "l2", "eps": "128/255", "step": "30/255", "steps": 10},
    {"norm": "l1", "eps": "2000/255", "step": "1", "steps": 20},
)


class AVG(_MultiNorm):
    """AVG: E[ mean_k CE(f(x + d_k), y) ], d_k from PGD under norm k; one step on the mean loss.

    Tramer & Boneh, 1904.13000, section 4, and the "avg_loss" of MNG-AC (2006.12135), whose code
    crafts in train mode, so that the attacks update BatchNorm's running statistics. Another method
    with the same name, one optimiser step per norm, is ``avg-sequential``.

    Departures from that code: its l_2 and l_1 attacks start at length 1, with a bias towards one
    sign, ours uniformly in the ball; its l_1 steps may select pixels that are at their limit and
    cannot move, and its l_1 projection is that of the code of ``max``; it clips gradients at 0.5
    (``grad_clip: 0.5``). Radii and steps are those of the suite unless ``threats`` is ``authors``.
    The loss is compared with its formula (tests/baselines), not with runs of the code.

    Attributes:
        threats: training threat models; ``authors``: l_inf 8/255, l_2 128/255, l_1 2000/255, in 10,
            10 and 20 steps of 1/255, 30/255 and 1.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    authors: ClassVar[AuthorsRecipe | None] = _MNG_AC_RECIPE
    authors_threats = _MNG_AC

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

    Stochastic adversarial training (MNG-AC, 2006.12135, section 3.2), crafted in train mode as in
    its code.

    Departures: those of ``avg``.

    Cost: the mean over norms.

    Attributes:
        threats: training threat models; for ``authors`` see ``avg``.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    authors: ClassVar[AuthorsRecipe | None] = _MNG_AC_RECIPE
    authors_threats = _MNG_AC

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

    Multi steepest descent (Maini et al., 1909.04068, algorithm 1) as in its code, robust_union: at
    each step, the projected steepest step of each norm is tried from the present perturbation, and
    each image takes the one with the largest cross-entropy; d is the best iterate. There is no
    random start. The l_1 step moves the k coordinates with the largest gradients by size / k each,
    with k drawn from 5 to 20 per step. It does not move coordinates that are closer than that to
    the border (0 or 1) ahead of them, nor coordinates at 0 or 1 in any direction. Images are
    crafted in train mode, so all passes update BatchNorm's running statistics.

    Departures: radii are those of the suite's threat models unless ``threats`` is ``authors``. As
    soon as one image of a batch is outside of the l_1 ball, the code's projection also moves the
    images inside out to the surface; the code computes in half precision. The attack is compared
    with a plain loop (tests/baselines).

    Attributes:
        threats: only their radii are used. ``authors``: l_1 12, l_2 0.3, l_inf 0.03.
        steps: 50 in the code.
        sizes: step sizes by norm in pixel units; 0.003, 0.05 and 1 (0.05 * 20 / k for each of k
            coordinates) in the code.
        gap: least distance from the border, in pixel units, at which a coordinate is moved; None is
            the code's rule, size / k. With few large steps, that rule excludes most of an image.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    authors: ClassVar[AuthorsRecipe | None] = _ROBUST_UNION_RECIPE

    authors_threats = (
        {"norm": "l1", "eps": "12"},
        {"norm": "l2", "eps": "0.3"},
        {"norm": "linf", "eps": "0.03"},
    )

    threats: tuple[Threat, ...] = ("l1", "l2", "linf")  # type: ignore[assignment]
    steps: int = Field(default=50, ge=1)
    sizes: dict[str, float] = Field(default={"linf": 0.003, "l2": 0.05, "l1": 1.0})
    gap: float | None = Field(default=None, ge=0)

    def model_post_init(self, context: object) -> None:
        """Raise ValueError for a norm without a step size."""
        missing = [threat.norm for threat in self.threats if threat.norm not in self.sizes]
        if missing:
            raise ValueError(f"sizes has no step size for {missing[0]}")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """The iterate with the largest cross-entropy."""
        norms = [self._norm(threat.norm, step) for threat in self.threats]
        x_adv, best = x, x.clone()
        best_loss = torch.zeros(len(x), device=x.device, dtype=x.dtype)
        for _ in range(self.steps):
            grad = input_gradient(model, x_adv, attack_loss("ce", y))
            with torch.no_grad():
                moves = [
                    norm.admit(
                        x_adv + self.sizes[norm.name] * norm.ascend(grad, x_adv),
                        x,
                        float(threat.eps),
                    )
                    for norm, threat in zip(norms, self.threats, strict=True)
                ]
                candidates = torch.stack(moves)
                losses = torch.stack([_losses(model, candidate, y) for candidate in candidates])
                largest = losses.max(0)
                rows = torch.arange(len(x), device=x.device)
                x_adv = candidates[largest.indices, rows]
                better = largest.values > best_loss
                best_loss = torch.where(better, largest.values, best_loss)
                best[better] = x_adv[better]
        return best

    def _norm(self, name: str, step: Step) -> Norm:
        if name != "l1":
            return norm_of(name)
        size, gap = self.sizes[name], self.gap
        return FewPixelsL1(lambda count: size / count if gap is None else gap, step.generator)

    @property
    def crafting_passes(self) -> float:
        """One for each step (and a forward pass for each norm)."""
        return self.steps


def _losses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of each image, shape [n]."""
    return F.cross_entropy(model(x), y, reduction="none")


class _OneNorm(_RobustUnion, _MultiNorm):
    """The part of ``AVGSequential`` for one threat model."""

    authors_threats = ()

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        return self.attacked(model, x, y, self.threats[0], step)

    @property
    def crafting_passes(self) -> float:
        return self.steps_of(self.threats[0])


class AVGSequential(_RobustUnion, Recipe):
    """AVG, sequential: for each norm k in turn, an optimiser step on E[ CE(f(x + d_k), y) ].

    This is what robust_union (1909.04068) calls AVG ("triple"): for every batch there is one
    optimiser step per norm, l_1, l_2, then l_inf, each on examples that are crafted on the weights
    after the previous step. The attacks are those of ``max``, in train mode. ``avg`` averages the
    losses in one step.

    Departures: those of ``max``.

    Attributes:
        learner: the network; its objective is not used.
        threats: training threat models, in order; ``authors``: as in ``max``, but with l_inf steps
            of 0.003.
        attack, restarts, gap, batchnorm: see ``max``.
    """

    authors: ClassVar[AuthorsRecipe | None] = _ROBUST_UNION_RECIPE

    authors_threats = (*MAX.authors_threats[:2], {**MAX.authors_threats[2], "step": "0.003"})

    learner: LearnerConfig = default_learner("avg", "natural")

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _Sequential(self, setting)


class _Sequential(Method):
    def __init__(self, recipe: AVGSequential, setting: Setting) -> None:
        options = recipe.model_dump(include={"attack", "restarts", "gap", "batchnorm"})
        self._objectives = [_OneNorm(threats=(threat,), **options) for threat in recipe.threats]
        config = recipe.learner.model_copy(update={"objective": self._objectives[0]})
        self.learners = build_learners((config,), setting)
        (self._learner,) = self.learners.values()

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
