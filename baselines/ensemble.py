"""Ensembles: members trained separately or together, combined by outputs or by weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.averaging import interpolated
from benchmark.core.crafting import BatchNormMode
from benchmark.core.learner import (
    LearnerConfig,
    default_learner,
    default_learners,
    descend_together,
)
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.search import Knob
from benchmark.core.setting import Setting, Step
from benchmark.core.threat import Threat, ThreatModel


class AverageProbabilities(nn.Module):
    """log( sum_k share_k * softmax(f_k(x)) ): log-probabilities [n, classes] of an ensemble.

    Log-probabilities are logits of the averaged distribution, so the cross-entropy and the margins
    that attacks use are those of the ensemble.
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


class _Pair(Recipe):
    """A natural learner, then a robust one, and the weight of the second."""

    search = (Knob("share", 0.05, 0.95),)

    learners: tuple[LearnerConfig, LearnerConfig] = default_learners(
        {"name": "natural", "objective": "natural"}, {"name": "robust", "objective": "pgd-at"}
    )
    share: float = Field(default=0.5, gt=0, lt=1)


class OutputEnsemble(_Pair):
    """Output ensemble: p(x) = share * p_robust(x) + (1 - share) * p_natural(x).

    A natural and a PGD-AT network are trained separately, and their probabilities are averaged.
    Inference costs two networks; Generalist (2303.13813) deploys one. It follows no published code.

    Attributes:
        learners: the natural learner, then the robust one.
        share: weight of the robust network; 0.5 is the plain average.
    """

    family = "ensembles"

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _OutputEnsemble(self, setting)


class _OutputEnsemble(Method):
    inference_passes = 2
    independent_learners = True

    def __init__(self, recipe: OutputEnsemble, setting: Setting) -> None:
        self.recipe = recipe
        self.learners = build_learners(recipe.learners, setting)

    def deployed(self) -> nn.Module:
        members = [learner.model for learner in self.learners.values()]
        return AverageProbabilities(members, (1 - self.recipe.share, self.recipe.share))


class WeightInterpolation(_Pair):
    """Weight interpolation: theta = share * theta_robust + (1 - share) * theta_natural.

    The same two networks are trained separately from one initialisation, and their weights are
    averaged once after training: Generalist without redistribution and without a moving average.
    BatchNorm statistics are re-estimated on clean training images, since averaged statistics do not
    fit the averaged weights of networks that differ so much (SWA, 1803.05407, section 3.2). It
    follows no published code.

    Attributes:
        learners: the natural learner, then the robust one.
        share: weight of the robust network.
    """

    family = "weight averaging"

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _WeightInterpolation(self, setting)


class _WeightInterpolation(Method):
    independent_learners = True

    def __init__(self, recipe: WeightInterpolation, setting: Setting) -> None:
        self.recipe = recipe
        self.learners = build_learners(recipe.learners, setting)
        self._setting = setting

    def deployed(self) -> nn.Module:
        natural, robust = (learner.model for learner in self.learners.values())
        return interpolated(natural, robust, self.recipe.share, self._setting.calibration())


def _members(
    learner: LearnerConfig, count: int, batchnorm: BatchNormMode | None = None
) -> tuple[LearnerConfig, ...]:
    """Copies of a learner with different initial weights, attacked in the mode ``batchnorm``."""
    if batchnorm:
        objective = learner.objective.model_copy(update={"batchnorm": batchnorm})
        learner = learner.model_copy(update={"objective": objective})
    return tuple(
        learner.model_copy(update={"name": f"member-{i}", "init": i}) for i in range(count)
    )


class SeedEnsemble(Recipe):
    """Seed ensemble: p(x) = (1/k) sum_i p_i(x), members that differ in their initial weights.

    k networks with one objective are trained separately on the same batches, and their
    probabilities are averaged (deep ensembles, 1612.01474, without their adversarial term).
    Inference costs k networks.

    Departures: PGD-AT members instead of natural ones; all members see the same batches.

    Attributes:
        learner: the form of each member; default PGD-AT.
        members: k.
    """

    family = "ensembles"

    learner: LearnerConfig = default_learner("member", "pgd-at")
    members: int = Field(default=3, ge=2)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _SeedEnsemble(_members(self.learner, self.members), setting)


class _Members(Method):
    """Members of equal weight."""

    def __init__(self, configs: tuple[LearnerConfig, ...], setting: Setting) -> None:
        self._setting = setting
        self.learners = build_learners(configs, setting)
        self.inference_passes = len(configs)

    def deployed(self) -> nn.Module:
        return _average([learner.model for learner in self.learners.values()])

    def _craft(self, x: Tensor, y: Tensor, threat: ThreatModel, step: Step) -> Tensor:
        """PGD on the cross-entropy of the ensemble."""
        with ExitStack() as stack:
            views = [stack.enter_context(item.view) for item in self.learners.values()]
            return pgd(_average(views), x, y, threat, generator=step.generator)


def _average(members: Sequence[nn.Module]) -> AverageProbabilities:
    return AverageProbabilities(members, [1 / len(members)] * len(members))


class _SeedEnsemble(_Members):
    independent_learners = True


class JointEnsemble(Recipe):
    """Joint ensemble: sum_i E[ CE(f_i(x'), y) ], x' crafted on the ensemble (1/k) sum_i p_i.

    The adversarial training baseline of DVERGE (2009.14720) and its code: all members train on the
    same images, which are adversarial for their averaged probabilities; each has its own optimiser.
    Images are crafted in train mode, so the attack updates BatchNorm's running statistics.

    Departure: the code clamps the averaged probability at 1e-40 before the logarithm; we take the
    logarithm of the sum of exponentials. One step is compared with plain loops (tests/baselines).

    Cost: a step of the attack is a gradient pass of every member.

    Attributes:
        learner: the form of each member; its objective is not used.
        members: k; 3 in the code.
        threat: training threat model; the code: l_inf 8/255 in 10 steps of 2/255.
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    family = "ensembles"

    learner: LearnerConfig = default_learner("member", "natural")
    members: int = Field(default=3, ge=2)
    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite
    batchnorm: BatchNormMode = "train"

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _JointEnsemble(self, setting)


class _JointEnsemble(_Members):
    def __init__(self, recipe: JointEnsemble, setting: Setting) -> None:
        super().__init__(_members(recipe.learner, recipe.members, recipe.batchnorm), setting)
        self._threat = recipe.threat

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        x_adv = self._craft(x, y, self._threat, self._setting.step(progress))
        return {
            f"loss/{name}": learner.step(x_adv, y, progress)
            for name, learner in self.learners.items()
        }

    @property
    def passes(self) -> float:
        return len(self.learners) * (self._threat.steps + 1)


class ADP(Recipe):
    """ADP: sum_i CE(f_i(x), y) - alpha * H(mean_i p_i) - beta * log det(M^T M + 1e-6 I).

    Adaptive diversity promoting (Pang et al., 1901.08846, equation 4): the columns of M are the
    members' probabilities of the classes other than y, scaled to length 1. All members train
    together. H is the Shannon entropy of the averaged probabilities.

    With a ``threat``, the sum of the members' cross-entropies on PGD examples of the ensemble,
    crafted in train mode, is added, as in the code of DVERGE (``plus_adv``).

    Departures: the code of ADP uses Adam, lr 1e-3 (DVERGE: weight decay 1e-4 too); the optimiser is
    the suite's here. ADP's own adversarial training (``adversarial: adp``) draws eps from U(0.01,
    0.05) for each batch. The loss is compared with its formula (tests/baselines).

    Cost: with a threat, a step of the attack is a gradient pass of every member.

    Attributes:
        learner: the form of each member; its objective is not used.
        members: k; 3 in the paper.
        alpha, beta: 2 and 0.5 in the paper.
        threat: None, or a training threat model; DVERGE: l_inf 8/255 in 10 steps of 2/255.
        adversarial: what is minimised with a threat: "cross-entropy" (ADP on clean images, plus
            sum_i CE(f_i(x'), y), DVERGE), "adp" (ADP on clean images plus ADP on x', the code of
            ADP) or "alone" (ADP on x').
        batchnorm: "train", or "eval" to craft in eval mode.
    """

    family = "ensembles"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="DVERGE's code of ADP, ResNet-20; its eps of 1e-7 is torch's 1e-8 here",
        optimizer=OptimizerConfig(name="adam", lr=0.001, weight_decay=1e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )

    learner: LearnerConfig = default_learner("member", "natural")
    members: int = Field(default=3, ge=2)
    alpha: float = 2.0
    beta: float = 0.5
    threat: Threat | None = None
    adversarial: Literal["cross-entropy", "adp", "alone"] = "cross-entropy"
    batchnorm: BatchNormMode = "train"

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _ADP(self, setting)


def adp_loss(logits: Sequence[Tensor], y: Tensor, alpha: float, beta: float) -> Tensor:
    """The loss of ``ADP``, a mean over the batch; logits [n, classes] of each member."""
    p = torch.stack([member.softmax(1) for member in logits], 1)  # [n, members, classes]
    mean = p.mean(1)
    entropy = -(mean * (mean + 1e-20).log()).sum(1)
    others = torch.ones_like(mean).scatter(1, y[:, None], 0).bool()
    m = p[others[:, None].expand_as(p)].view(len(y), len(logits), -1)
    m = F.normalize(m, dim=2)
    gram = m @ m.transpose(1, 2) + 1e-6 * torch.eye(len(logits), device=m.device, dtype=m.dtype)
    volume = torch.linalg.slogdet(gram).logabsdet
    fit = torch.stack([F.cross_entropy(member, y) for member in logits]).sum()
    return fit - (alpha * entropy + beta * volume).mean()


class _ADP(_Members):
    def __init__(self, recipe: ADP, setting: Setting) -> None:
        super().__init__(_members(recipe.learner, recipe.members, recipe.batchnorm), setting)
        self.recipe = recipe

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        recipe = self.recipe
        x_adv = self._craft(x, y, recipe.threat, step) if recipe.threat else None
        models = [learner.model for learner in self.learners.values()]

        def logits(images: Tensor) -> list[Tensor]:
            with self._setting.autocast():
                return [model(images) for model in models]

        def adp(images: Tensor) -> Tensor:
            return adp_loss(logits(images), y, recipe.alpha, recipe.beta)

        def loss() -> Tensor:
            if x_adv is None:
                return adp(x)
            if recipe.adversarial == "alone":
                return adp(x_adv)
            if recipe.adversarial == "adp":
                return adp(x) + adp(x_adv)
            clean = adp(x)
            return clean + torch.stack([F.cross_entropy(z, y) for z in logits(x_adv)]).sum()

        value = descend_together(list(self.learners.values()), loss, step) / len(models)
        return {f"loss/{name}": value for name in self.learners}

    @property
    def passes(self) -> float:
        training, steps = 1, 0
        if self.recipe.threat:
            steps = self.recipe.threat.steps
            training = 1 if self.recipe.adversarial == "alone" else 2
        return len(self.learners) * (steps + training)
