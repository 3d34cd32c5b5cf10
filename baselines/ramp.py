"""RAMP: robustness against several norms, with a natural copy mixed in (Jiang & Singh)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.multi_norm import LinfAndL1
from benchmark.attacks.apgd import apgd
from benchmark.core.averaging import copy_state, floating_state, projected
from benchmark.core.learner import LearnerConfig, default_learners
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.objective import Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting


class RAMP(Recipe):
    """RAMP: E[ max_k CE(f(x_k), y) + lambda * [f(x_s) = y] KL(p(x_s) : p(x_t)) ], k in {s, t}.

    Jiang & Singh, 2402.06827 (NeurIPS 2024), and its code. x_s and x_t are APGD examples under a
    source and a target norm, l_inf and l_1; the maximum is taken image by image. The divergence
    ("logit pairing") is a mean over the images that are classified correctly at x_s, and gradient
    flows through both of its sides. A second copy of the network is trained on natural images. Both
    copies start every epoch with the weights theta, and after it, *gradient projection* mixes the
    two, tensor by tensor, BatchNorm statistics too:

        theta <- theta + beta * max(cos(D_n, D_r), 0) * D_n + (1 - beta) * D_r,

    with D_n and D_r the changes of the natural and of the robust copy in that epoch. Both copies
    continue from the mixture. This is Generalist's idea with other ratios: they depend on the
    weights, and the mixture is redistributed after every epoch. The mixing rule by itself is
    available as ``project_onto`` of ``generalist``.

    Between two mixtures, the robust copy is deployed.

    Departures: the code updates the learning rate of its first parameter group only, so that
    BatchNorm and biases, which have no weight decay, keep a rate of 1. It first trains the natural
    copy for the whole epoch, with batches in another order; here both copies step on the same
    batches. Its network has softplus activations, and its WRN another loss (TRADES instead of the
    maximum). Loss, gradient and mixture are compared with plain computations (tests/baselines).

    Attributes:
        weight: lambda; 5 in the code, 2 for its WRN.
        beta: share of the natural copy.
        every: time from one mixture to the next; there is one after the last step too.
        threats: source, then target; step sizes are not used. ``authors``: 8/255 and 12 with 10
            steps.
        learners: the natural copy, with its objective, then the robust copy, whose objective is not
            used.
    """

    family = "multi-norm"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2402.06827, PreAct ResNet-18 from scratch",
        optimizer=OptimizerConfig(lr=0.05, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 1), (70 / 80, 0.1)), interpolation="step"),
        epochs=80,
        batch_size=128,
    )

    weight: float = Field(default=5.0, ge=0)
    beta: float = Field(default=0.5, ge=0, le=1)
    every: Duration = Duration(epochs=1)
    threats: LinfAndL1 = ("linf", "l1")  # type: ignore[assignment]
    learners: tuple[LearnerConfig, LearnerConfig] = default_learners(
        {"name": "natural", "objective": "natural"}, {"name": "robust", "objective": "natural"}
    )

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _RAMP(self, setting)


class _RAMP(Method):
    def __init__(self, recipe: RAMP, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners(recipe.learners, setting)
        self._natural, self._robust = self.learners.values()
        self._every = max(1, recipe.every.steps(setting.total_steps, setting.steps_per_epoch))
        self.steps = 0
        # The weights after the last mixture, when both copies had the same.
        self.start = [tensor.clone() for tensor in floating_state(self._robust.model)]

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        natural = self._natural.step(x, y, progress)
        source, target, worst = self._craft(x, y)
        model = self._robust.model

        def loss() -> Tensor:
            with self._setting.autocast():
                at_target, at_source = model(target), model(source)
                paired = _paired(at_source, at_target, y, step)
                return F.cross_entropy(model(worst), y) + self.recipe.weight * paired

        robust = self._robust.descend(loss, step)
        self.steps += 1
        if self.steps % self._every == 0 or self.steps == self._setting.total_steps:
            self._mix()
        return {
            f"loss/{self._natural.config.name}": natural,
            f"loss/{self._robust.config.name}": robust,
        }

    def _craft(self, x: Tensor, y: Tensor) -> Sequence[Tensor]:
        """x_s, x_t, and for each image the one of them with the larger cross-entropy."""
        with self._robust.view as view:
            attacked = [apgd(view, x, y, threat)[0] for threat in self.recipe.threats]
            with torch.no_grad():
                losses = [F.cross_entropy(view(z), y, reduction="none") for z in attacked]
        source, target = attacked
        from_source = (losses[0] > losses[1]).view(-1, 1, 1, 1)
        return source, target, torch.where(from_source, source, target)

    def _mix(self) -> None:
        """Gradient projection; both copies get the mixture."""
        natural, robust = self._natural.model, self._robust.model
        states, beta = [floating_state(natural), floating_state(robust)], self.recipe.beta
        self.start = projected(self.start, states, [beta, 1 - beta], onto=1)
        for model in (natural, robust):
            copy_state(floating_state(model), self.start)
        for mine, theirs in zip(natural.buffers(), robust.buffers(), strict=True):
            mine.copy_(theirs)  # counts of batches too

    @property
    def passes(self) -> float:
        attacks = sum(threat.steps for threat in self.recipe.threats)
        return self._natural.passes + attacks + 3

    def deployed(self) -> nn.Module:
        return self._robust.model

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "start": self.start, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        copy_state(self.start, [tensor.to(self.start[0].device) for tensor in state["start"]])
        self.steps = int(state["steps"])


def _paired(source: Tensor, target: Tensor, y: Tensor, step: Step) -> Tensor:
    """KL(p_s : p_t), a mean over the images that are right under the source norm; logits [n, k]."""
    right = (source.argmax(1) == y).float()
    divergence = F.kl_div(target.log_softmax(1), source.softmax(1), reduction="none").sum(1)
    # Written as a mean over this process's images, since a step sums the losses of processes by
    # their shares of the batch.
    count, images = step.total(torch.stack([right.sum(), torch.ones_like(right).sum()]))
    return (right * divergence).mean() * images / count.clamp_min(1)
