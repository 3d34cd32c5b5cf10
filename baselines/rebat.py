"""ReBAT and ReBAT++: rebalanced adversarial training (Wang et al., 2310.19360)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.weight_averaging import AveragedMethod
from benchmark.core.averaging import copy_state, floating_state, move_towards
from benchmark.core.learner import LearnerConfig, default_learner
from benchmark.core.method import Batch, Method, Recipe
from benchmark.core.objective import AttackObjective, Step
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Duration, Schedule
from benchmark.core.setting import Setting
from benchmark.core.threat import Pixels


def _authors(divisor: float) -> AuthorsRecipe:
    return AuthorsRecipe(
        source=f"code of 2310.19360, PreAct ResNet-18 (learning rate divided by {divisor:g} twice)",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (100 / 200, 1 / divisor), (150 / 200, 1 / divisor**2)),
            interpolation="step",
        ),
        epochs=200,
        batch_size=128,
    )


class ReBAT(Recipe):
    """ReBAT: E[ CE(f(x'), y) + beta * KL(p_a(x') : p(x')) ], a the moving average of theta.

    Wang et al., 2310.19360 (NeurIPS 2023), section 5.1 ("BoAT loss"), and its code. The paper
    explains robust overfitting as follows: when the learning rate falls, the trainer becomes too
    strong for the attacker. Therefore the learning rate falls only a little (``recipe: authors``),
    and the network is kept near its moving average theta_a <- decay * theta_a + (1 - decay) *
    theta, with BatchNorm statistics averaged in the same way. Average and divergence start
    together, soon after the first fall of the learning rate; theta_a is deployed. x' is crafted as
    in PGD-AT, in train mode.

    Departures: the code has a clean forward pass in train mode after each step, and one more on x'
    after the attack, which update BatchNorm's running statistics; its theta_a is in train mode in
    the first epoch of averaging, until it is validated, ours is always in eval mode; it omits the
    divergence where it is above 1e10. The loss is compared with its formula (tests/baselines).

    Attributes:
        beta: weight of the divergence; 1 in the code, 2 for WRN-34-10 with CutMix.
        decay: decay of the average.
        since: when average and divergence start; epoch 105 of 200 in the code.
        learner: the network. Its objective crafts x'; the objective's loss is not used.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = _authors(1.5)

    beta: float = Field(default=1.0, ge=0)
    decay: float = Field(default=0.999, ge=0, lt=1)
    since: Duration = Duration(share=105 / 200)
    learner: LearnerConfig = default_learner("rebat", {"name": "pgd-at", "batchnorm": "train"})

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _ReBAT(self, setting)


class ReBATPlusPlus(ReBAT):
    """ReBAT++: ReBAT with an attack that becomes stronger when the learning rate falls.

    Wang et al., 2310.19360, section 5.2 (ReBAT[strong]): from epoch 100 of 200 on, the attack makes
    12 steps within 10/255 instead of 10 steps within 8/255, with the same step size. Here this is
    given as a factor of the threat model's radius and a number of further steps. Everything else is
    as in ``rebat``.

    Departures: those of ``rebat``.

    Cost: a mean over training; the further steps count from ``stronger_since`` on.

    Attributes:
        beta, decay, since: see ``rebat``.
        learner: the network. Its objective crafts x', and must have a ``threat``.
        stronger_since: when the attack becomes stronger.
        radius_factor: factor of the radius from then on; 10 / 8 in the code.
        further_steps: number of further steps from then on; 2 in the code.
    """

    authors: ClassVar[AuthorsRecipe | None] = _authors(1.7)

    learner: LearnerConfig = default_learner(
        "rebat-plus-plus", {"name": "pgd-at", "batchnorm": "train"}
    )
    stronger_since: Duration = Duration(share=100 / 200)
    radius_factor: float = Field(default=1.25, ge=1)
    further_steps: int = Field(default=2, ge=0)

    def model_post_init(self, context: object) -> None:
        """Raise ValueError if the learner's objective has no attack that can be made stronger."""
        if not isinstance(self.learner.objective, AttackObjective):
            raise ValueError(
                f"objective {self.learner.objective.name!r} has no threat model that could become "
                "stronger; use pgd-at"
            )

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _ReBATPlusPlus(self, setting)

    def stronger(self) -> AttackObjective:
        """The objective with the stronger attack."""
        objective = self.learner.objective
        assert isinstance(objective, AttackObjective)
        threat = objective.threat
        more = {
            "eps": Pixels(threat.eps * self.radius_factor),
            "steps": threat.steps + self.further_steps,
        }
        return objective.model_copy(update={"threat": threat.model_copy(update=more)})


class _ReBAT(AveragedMethod):
    def __init__(self, recipe: ReBAT, setting: Setting) -> None:
        super().__init__(recipe.learner, setting)
        self.recipe = recipe
        self._since = recipe.since.steps(setting.total_steps, setting.steps_per_epoch)

    def craft(self, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """x' of the present step."""
        return self._learner.craft(x, y, step)

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        averages = self.steps >= self._since
        if self.steps == self._since:
            copy_state(floating_state(self.average), floating_state(self._learner.model))
        x_adv = self.craft(x, y, step)

        def loss() -> Tensor:
            with self._setting.autocast():
                logits = self._learner.model(x_adv)
                value = F.cross_entropy(logits, y)
                if not averages:
                    return value
                with torch.no_grad():
                    target = self.average(x_adv).softmax(1)
                divergence = F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
                return value + self.recipe.beta * divergence

        value = self._learner.descend(loss, step)
        if averages:
            source = floating_state(self._learner.model)
            move_towards(floating_state(self.average), [source], [1.0], self.recipe.decay)
        self.steps += 1
        return {f"loss/{self._learner.config.name}": value}

    @property
    def passes(self) -> float:
        return self._learner.objective.crafting_passes + 1

    @property
    def begun(self) -> bool:
        return self.steps > self._since


class _ReBATPlusPlus(_ReBAT):
    def __init__(self, recipe: ReBATPlusPlus, setting: Setting) -> None:
        super().__init__(recipe, setting)
        self._stronger = recipe.stronger()
        length = setting.total_steps, setting.steps_per_epoch
        self._stronger_since = recipe.stronger_since.steps(*length)

    def craft(self, x: Tensor, y: Tensor, step: Step) -> Tensor:
        if self.steps < self._stronger_since:
            return super().craft(x, y, step)
        with self._learner.view as view:
            return self._stronger.perturb(view, x, y, step)

    @property
    def passes(self) -> float:
        total = self._setting.total_steps
        later = max(0, total - self._stronger_since) / total
        return super().passes + later * self._further

    def passes_at(self, step: int) -> float:
        return super().passes + (self._further if step >= self._stronger_since else 0)

    @property
    def _further(self) -> float:
        return self._stronger.crafting_passes - self._learner.objective.crafting_passes
