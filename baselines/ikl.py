"""IKL: the improved (decoupled) Kullback-Leibler loss (Cui et al., 2305.13948)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Pixels, Threat, ThreatModel


class IKL(Recipe):
    """IKL-AT: E[ CE(f(x), y) + alpha * H(sg p(x), p(x')) + beta / 4 * sum_jk w_j w_k D_jk^2 ].

    Cui et al., "Decoupled Kullback-Leibler divergence loss", 2305.13948 (NeurIPS 2024), section
    3.3, and its code (DKLv1). H(p, q) = -sum_k p_k log q_k with no gradient to p, sg for "stop
    gradient"; D_jk = (z_j - z_k) - (z'_j - z'_k) compares differences of logits at x and x', with
    gradient to both (the KL divergence has no gradient to x). The weights w are not the prediction
    for the image but the mean prediction for its class: row y of the mean softmax(f(x) / T) by
    class over the previous epoch (in the first epoch, 1 / K for each of K classes). x' is the
    TRADES example, within a radius that grows over the epochs.

    Departures: the code makes 5 steps of half the present radius (it means to use 2 to 5 steps,
    growing with training, but the last of its conditions overwrites that; with ``train_budget low``
    it makes 2 steps of the whole radius); here steps and step size are the threat model's, and the
    step size grows with the radius. The code's settings are ``{norm: linf, eps: 8/255, step: 4/255,
    steps: 5}``. The code adds AWP (``learner: {name: ikl, objective: {name: awp, objective:
    natural, gamma: 0.005, warmup: 4.5%}}``) and averages the weights of its epochs after training
    with decay 0.9; here AWP is off and the last weights are deployed. Loss, class means and radius
    are compared with their formulas (tests/baselines).

    Attributes:
        alpha: weight of the soft cross-entropy.
        beta: weight of the squared differences.
        temperature: T.
        growth: share of the radius at the end of each epoch, as a function of progress.
        threat: training threat model at full radius.
        learner: the network; of its objective, only the displacement of the weights (AWP) is used.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2305.13948 (DKLv1), WRN-34-10",
        optimizer=OptimizerConfig(lr=0.2, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(points=((0, 1), (1, 0)), interpolation="cosine"),
        epochs=200,
        batch_size=128,
    )

    alpha: float = Field(default=4.0, ge=0)
    beta: float = Field(default=20.0, ge=0)
    temperature: float = Field(default=4.0, gt=0)
    growth: Schedule = Schedule(points=((0, 0), (1, 1)))
    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite
    learner: LearnerConfig = default_learner("ikl", "natural")

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _IKL(self, setting)


def squared_differences(clean: Tensor, adversarial: Tensor, weights: Tensor) -> Tensor:
    """sum_jk w_j w_k ((z_j - z_k) - (z'_j - z'_k))^2 of each image, [n] from logits [n, K] and
    weights [n, K]: with e = z - z', W = sum_j w_j and the mean m = sum_j w_j e_j / W it is
    2 W sum_j w_j (e_j - m)^2.
    """
    e = clean - adversarial
    total = weights.sum(1, keepdim=True)
    centred = e - (weights * e).sum(1, keepdim=True) / total
    return 2 * (total * weights * centred.square()).sum(1)


class _IKL(Method):
    def __init__(self, recipe: IKL, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners((recipe.learner,), setting)
        (self._learner,) = self.learners.values()
        self.steps = 0
        # Mean softmax by class in the last epoch; sums and counts in the present epoch. Empty
        # before the first batch, since the number of classes is unknown.
        self.weights = torch.empty(0)
        self.sums = torch.empty(0)

    def threat(self) -> ThreatModel:
        """The attack of the present epoch."""
        per_epoch, threat = self._setting.steps_per_epoch, self.recipe.threat
        end = (self.steps // per_epoch + 1) * per_epoch / self._setting.total_steps
        share = self.recipe.growth(min(1.0, end))
        size = {"eps": Pixels(threat.eps * share), "step": Pixels(threat.step * share)}
        return threat.model_copy(update=size)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        with self._learner.view as view:
            x_adv = pgd(
                view, x, y, self.threat(), loss="kl", start="gaussian", generator=step.generator
            )
        model = self._learner.model
        seen: dict[str, Tensor] = {}

        def loss() -> Tensor:
            with self._setting.autocast():
                adversarial, clean = model(x_adv), model(x)
                seen["clean"] = clean.detach()
                weights = self._class_means(clean)[y]
                soft = -(clean.detach().softmax(1) * adversarial.log_softmax(1)).sum(1).mean()
                differences = squared_differences(clean, adversarial, weights).mean()
                value = F.cross_entropy(clean, y) + self.recipe.alpha * soft
                return value + self.recipe.beta / 4 * differences

        value = self._learner.descend(loss, step)
        p = (seen["clean"] / self.recipe.temperature).softmax(1).to(self.sums)
        right = F.one_hot(y, p.shape[1]).to(p)
        self.sums += step.total(right.T @ p)
        self.steps += 1
        if self.steps % self._setting.steps_per_epoch == 0:
            self._end_epoch()
        return {f"loss/{self._learner.config.name}": value}

    def _class_means(self, logits: Tensor) -> Tensor:
        if not len(self.weights):
            classes = logits.shape[1]
            dtype = torch.promote_types(logits.dtype, torch.float32)
            self.weights = logits.new_full((classes, classes), 1 / classes, dtype=dtype)
            self.sums = torch.zeros_like(self.weights)
        return self.weights

    def _end_epoch(self) -> None:
        """Set row y of ``weights`` to the mean over images of class y; if there was none, row y
        stays unchanged."""
        total = self.sums.sum(1, keepdim=True)  # each image adds 1 to its class's row
        self.weights = torch.where(total > 0, self.sums / total.clamp_min(1e-12), self.weights)
        self.sums = torch.zeros_like(self.weights)

    @property
    def passes(self) -> float:
        return self.recipe.threat.steps + 2 * self._learner.objective.training_passes

    def deployed(self) -> nn.Module:
        return self._learner.model

    def state_dict(self) -> dict[str, Any]:
        own = {"weights": self.weights, "sums": self.sums, "steps": self.steps}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        device = next(self._learner.model.parameters()).device
        self.weights, self.sums = (state[name].to(device) for name in ("weights", "sums"))
        self.steps = int(state["steps"])
