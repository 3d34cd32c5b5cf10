"""Two teachers and an average of weights: KD-SWA (Chen et al., 2010.01279)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from baselines.weight_averaging import SWA, SWAMethod
from benchmark.core.method import Batch, Method
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting
from benchmark.core.weights import TrainedNetwork


class KDSWA(SWA):
    """KD-SWA: E[ a CE(f(x'), y) + b KD(f(x'), n(x')) + c KD(f(x'), r(x')) ], its average deployed.

    "Robust overfitting may be mitigated by properly learned smoothening" (Chen et al., 2010.01279,
    ICLR 2021) and its code: a naturally trained network n and an adversarially trained network r,
    both frozen, are teachers by KD(z, t) = -T^2 sum p(t / T) log p(z / T) on x'; x' is crafted as
    in PGD-AT, in train mode; the weights are averaged as in ``swa``. The teachers of the code are
    its best checkpoints, of the same architecture.

    Departures: those of ``swa``. The default teachers are the last checkpoints of the rows
    ``natural`` and ``pgd-at`` of the same suite. The loss is compared with its formula
    (tests/baselines).

    Cost: does not include the training of the teachers.

    Attributes:
        natural, robust: n and r.
        weights: a, b and c; 0.3, 0.1 and 0.6 in the code.
        temperature: T; 2 in the code.
        learner: the network. Its objective crafts x'; the objective's loss is not used.
        since, every: see ``swa``.
    """

    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2010.01279, PreAct ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 1), (50 / 200, 0.1), (150 / 200, 0.01)), interpolation="step"
        ),
        epochs=200,
        batch_size=128,
    )
    default_objective: ClassVar[Any] = {"name": "pgd-at", "batchnorm": "train"}

    natural: TrainedNetwork = TrainedNetwork(method="natural")
    robust: TrainedNetwork = TrainedNetwork(method="pgd-at")
    weights: tuple[float, float, float] = (0.3, 0.1, 0.6)
    temperature: float = Field(default=2.0, gt=0)

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _KDSWA(self, setting)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KD of ``KDSWA``, a mean over the batch; logits [n, classes] of both."""
    target = (teacher / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(logits / temperature, target)


class _KDSWA(SWAMethod):
    forward_passes = 2

    def __init__(self, recipe: KDSWA, setting: Setting) -> None:
        super().__init__(recipe, setting)
        self.recipe = recipe
        self._teachers = [setting.trained(recipe.natural), setting.trained(recipe.robust)]

    def _step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        x_adv = self._learner.craft(x, y, step)
        with torch.no_grad(), self._setting.autocast():
            taught = [teacher(x_adv) for teacher in self._teachers]
        own, *shares = self.recipe.weights

        def loss() -> Tensor:
            with self._setting.autocast():
                logits = self._learner.model(x_adv)
                value = own * F.cross_entropy(logits, y)
                for share, target in zip(shares, taught, strict=True):
                    value = value + share * distillation(logits, target, self.recipe.temperature)
                return value

        return {f"loss/{self._learner.config.name}": self._learner.descend(loss, step)}

    @property
    def passes(self) -> float:
        return self._learner.objective.crafting_passes + 1
