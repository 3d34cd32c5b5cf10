"""CFA: class-wise calibrated fair adversarial training (Wei et al., 2303.14460)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.weight_averaging import AveragedMethod
from benchmark.attacks import pgd
from benchmark.attacks.norms import norm_of
from benchmark.attacks.pgd import attack_loss, input_gradient, is_right
from benchmark.core.averaging import copy_state, floating_state, move_towards
from benchmark.core.crafting import crafting
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Threat, ThreatModel


class CFA(Recipe):
    """CFA: E[ CE(f(x'), y) ], ||x' - x|| <= (lambda + r_y) eps, r_y the robust accuracy of class y.

    Wei et al., 2303.14460 (CVPR 2023), sections 4.1 and 4.3, and its code, AT + CFA. *Class-wise
    margins*: the radius of an image depends on the robust training accuracy r of its class in the
    last epoch, so that hard classes are attacked less; the step size stays the same.
    *Fairness-aware weight average*: after each epoch, the weights and BatchNorm statistics enter a
    moving average if the lowest robust accuracy of any class on held-out images is at least
    ``threshold``. The average starts with the first such weights, and it is deployed. x' is crafted
    in train mode from a uniform start; r is counted on the predictions of training; the held-out
    images are attacked in eval mode with the unchanged threat model.

    Departures: the code has a clean forward pass in train mode after each step, which updates
    BatchNorm's running statistics. Its accuracies assume classes of equal size; ours divide by the
    size. The paper's class-wise weights of TRADES (section 4.2) are not implemented. Radii, loss
    and average are compared with plain computations (tests/baselines).

    Cost: does not include the attack on the held-out images once per epoch (in the code, a fiftieth
    of the training images).

    Attributes:
        margin: lambda; 0.5 in the code.
        begin: until then, every radius is eps; epoch 10 of 200 in the code.
        threshold: lowest worst-class accuracy with which weights enter the average; 0.2 in the
            command of the code. Classes without held-out images are ignored. With 0, all weights
            enter and no held-out image is attacked.
        decay: decay of the average, per epoch; 0.88 in the code.
        threat: training threat model, 8/255 with 10 steps of 2/255 in the code.
        learner: the network. Of its objective, only ``batchnorm`` is used, the mode of crafting.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2303.14460, PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )

    margin: float = Field(default=0.5, gt=0)
    begin: Duration = Duration(share=10 / 200)
    threshold: float = Field(default=0.2, ge=0, le=1)
    decay: float = Field(default=0.88, ge=0, lt=1)
    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite
    learner: LearnerConfig = default_learner("cfa", {"name": "natural", "batchnorm": "train"})

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _CFA(self, setting)


def craft(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    share: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """PGD on the cross-entropy from a uniform start, with the radius of each image multiplied by
    its ``share`` [n]. Balls of one norm differ only in scale, so the perturbation is scaled."""
    norm, eps = norm_of(threat.norm), float(threat.eps)
    share = share.to(x).view(-1, 1, 1, 1)
    x_adv = (x + share * norm.random_start(x, eps, generator)).clamp_(0, 1)
    for _ in range(threat.steps):
        grad = input_gradient(model, x_adv, attack_loss("ce", y))
        with torch.no_grad():
            moved = x_adv + float(threat.step) * norm.ascend(grad, x_adv)
            x_adv = (x + share * norm.project((moved - x) / share, eps)).clamp_(0, 1)
    return x_adv


class _CFA(AveragedMethod):
    def __init__(self, recipe: CFA, setting: Setting) -> None:
        super().__init__(recipe.learner, setting)
        self.recipe = recipe
        self.averaged = 0
        # For each class: numbers of right predictions and of images in this epoch [2, K], and the
        # robust accuracy in the last epoch [K]. Empty before the first batch, since K is unknown.
        self.counts = torch.empty(0)
        self.accuracy = torch.empty(0)
        self._begin = recipe.begin.steps(setting.total_steps, setting.steps_per_epoch)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        with self._learner.view as view:
            x_adv = craft(view, x, y, self.recipe.threat, self.shares(y), step.generator)
        seen: dict[str, Tensor] = {}

        def loss() -> Tensor:
            with self._setting.autocast():
                seen["logits"] = self._learner.model(x_adv)
                return F.cross_entropy(seen["logits"], y)

        value = self._learner.descend(loss, step)
        counts = _by_class(seen["logits"].detach(), y)
        if not len(self.counts):
            self.counts = torch.zeros_like(counts)
        self.counts += step.total(counts)
        self.steps += 1
        if self.steps % self._setting.steps_per_epoch == 0:
            self.accuracy = self.counts[0] / self.counts[1].clamp_min(1)
            self.counts = torch.zeros_like(self.counts)
            self._follow()
        return {f"loss/{self._learner.config.name}": value}

    def shares(self, y: Tensor) -> Tensor:
        """The radius for images of the classes ``y``, as a share of eps."""
        if self.steps < self._begin or not len(self.accuracy):
            return torch.ones_like(y)
        return self.recipe.margin + self.accuracy[y]

    def _follow(self) -> None:
        """Add the weights to the average if no class has too low an accuracy."""
        if self.recipe.threshold and self.worst_class() < self.recipe.threshold:
            return
        average, source = floating_state(self.average), floating_state(self._learner.model)
        if self.averaged:
            move_towards(average, [source], [1.0], self.recipe.decay)
        else:
            copy_state(average, source)
        self.averaged += 1

    def worst_class(self) -> float:
        """The lowest robust accuracy of a class on the held-out images."""
        # A separate generator, since every process attacks all of these images.
        device = next(self._learner.model.parameters()).device
        generator = torch.Generator(device).manual_seed(0)
        parts = []
        with crafting(self._learner.model) as model:
            for x, y in self._setting.held_out():
                x_adv = pgd(model, x, y, self.recipe.threat, generator=generator)
                with torch.no_grad():
                    parts.append(_by_class(model(x_adv), y))
        counts = torch.stack(parts).sum(0)
        right, images = counts[:, counts[1] > 0]
        return float((right / images).min())

    @property
    def passes(self) -> float:
        return self.recipe.threat.steps + self._learner.objective.training_passes

    def diagnostics(self, progress: float) -> dict[str, float]:
        values = {**super().diagnostics(progress), "averaged/epochs": float(self.averaged)}
        if len(self.accuracy):
            values["robust/worst-class"] = float(self.accuracy.min())
        return values

    @property
    def begun(self) -> bool:
        return bool(self.averaged)

    def state_dict(self) -> dict[str, Any]:
        own = {"averaged": self.averaged, "counts": self.counts, "accuracy": self.accuracy}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        device = next(self._learner.model.parameters()).device
        self.counts, self.accuracy = (state[name].to(device) for name in ("counts", "accuracy"))
        self.averaged = int(state["averaged"])


def _by_class(logits: Tensor, y: Tensor) -> Tensor:
    """Numbers of right predictions and of images of each class, [2, K]."""
    of_class = F.one_hot(y, logits.shape[1]).float()
    right = is_right(logits, y).float()
    return torch.stack([right @ of_class, of_class.sum(0)])
