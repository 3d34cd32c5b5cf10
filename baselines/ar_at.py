"""AR-AT: asymmetrically representation-regularised adversarial training (Waseda et al.)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.core.batchnorm import synchronise_batchnorm
from benchmark.core.errors import ConfigError
from benchmark.core.learner import (
    Learner,
    LearnerConfig,
    default_learner,
    descend_together,
)
from benchmark.core.method import Batch, Method, Recipe, build_learners
from benchmark.core.optimizer import AuthorsRecipe, OptimizerConfig
from benchmark.core.schedule import Schedule
from benchmark.core.setting import Setting

# Parts of the names of layers on shortcuts, which the code does not align.
_SHORTCUTS = ("shortcut", "downsample")


class ARAT(Recipe):
    """AR-AT: E[ a CE(f(x'), y) + (1 - a) CE(g(x), y) + w mean_l (1 - cos(h_l(z'_l), sg z_l)) ].

    Waseda et al., 2402.14648 (ICLR 2025), section 4, and its code. f and g share all weights except
    those of BatchNorm, of which there are two sets: the adversarial one (f) and the clean one (g).
    z'_l and z_l are features of layer l at x' under f and at x under g: the output of a BatchNorm
    layer, after ReLU, averaged over the image. Only f is moved towards g (sg: no gradient to z_l),
    through a predictor h_l of two layers, with width / 4 hidden units and BatchNorm between them. a
    is the accuracy of g on the training images of the last epoch. x' is crafted as in PGD-AT, on f
    in train mode. f is deployed.

    Departures: the code adds the attack's random start to the batch in place, so that g is trained
    on x plus uniform noise of eps, and x' is within eps of that, up to 2 eps from x; here g is
    trained on x, and x' is within eps of x. The code measures a at the end of each epoch in eval
    mode, on 1,000 images; here it is counted during the epoch, on the predictions of training, and
    is 1 / K (K classes) in the first epoch. The code names the layers; here the last ones are
    taken. The loss is compared with its formula (tests/baselines).

    Attributes:
        weight: w; 30 for ResNet-18, 100 for WRN-34-10.
        layers: how many BatchNorm layers are aligned, the last ones outside of shortcuts; 4 for
            ResNet-18 (all of layer4), 11 for WRN-34-10.
        hidden: width of the predictors' hidden layer, as a share of the features.
        learner: f. Its objective crafts x'; the objective's loss is not used. A second learner,
            ``clean``, holds the clean BatchNorm set and the predictors, and is trained in the same
            way.
    """

    family = "adversarial training"
    authors: ClassVar[AuthorsRecipe | None] = AuthorsRecipe(
        source="code of 2402.14648, ResNet-18",
        optimizer=OptimizerConfig(lr=0.1, momentum=0.9, weight_decay=5e-4),
        schedule=Schedule(
            points=((0, 0.2), (1 / 100, 1), (76 / 100, 0.1), (91 / 100, 0.01)), interpolation="step"
        ),
        epochs=100,
        batch_size=128,
    )

    weight: float = Field(default=30.0, ge=0)
    layers: int = Field(default=4, ge=1)
    hidden: float = Field(default=0.25, gt=0)
    learner: LearnerConfig = default_learner("ar-at", {"name": "pgd-at", "batchnorm": "train"})

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _ARAT(self, setting)


class _Companion(nn.Module):
    """The clean BatchNorm set of a network, and a predictor for each aligned layer.

    Attributes:
        aligned: names of the layers of the network whose outputs are aligned.
    """

    def __init__(self, model: nn.Module, recipe: ARAT, generator: torch.Generator | None) -> None:
        super().__init__()
        found = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
        if not found:
            raise ConfigError("ar-at trains two sets of BatchNorm layers, but the model has none")
        self._names = list(found)
        main = [name for name in found if not any(word in name for word in _SHORTCUTS)]
        self.aligned = main[-recipe.layers :]
        self.norms = nn.ModuleList(copy.deepcopy(norm) for norm in found.values())
        weight = next(model.parameters())
        self.predictors = nn.ModuleList(
            _predictor(found[name].num_features, recipe.hidden, weight, generator)
            for name in self.aligned
        )

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers of the clean set, under their names in the network."""
        return {
            f"{name}.{key}": tensor
            for name, norm in zip(self._names, self.norms, strict=True)
            for key, tensor in chain(norm.named_parameters(), norm.named_buffers())
        }

    def apart(self, adversarial: list[Tensor], clean: list[Tensor]) -> Tensor:
        """The mean over layers of 1 - cos(h(z'), z), with no gradient to z; features [n, d]."""
        terms = [
            1 - F.cosine_similarity(predict(z_adv[:, :, None, None]).flatten(1), z.detach()).mean()
            for predict, z_adv, z in zip(self.predictors, adversarial, clean, strict=True)
        ]
        return torch.stack(terms).mean()


def _predictor(
    width: int, hidden: float, like: Tensor, generator: torch.Generator | None
) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, linear. The linear layers are written as 1x1 convolutions, so that
    several processes can share the BatchNorm between them. They are initialised as torch's linear
    layers, from ``generator``."""
    inner = max(1, int(width * hidden))
    layers = nn.Sequential(
        nn.Conv2d(width, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, width, 1),
    ).to(like)
    for layer, inputs in ((layers[0], width), (layers[3], inner)):
        bound = 1 / math.sqrt(inputs)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layers


class _ARAT(Method):
    def __init__(self, recipe: ARAT, setting: Setting) -> None:
        self.recipe, self._setting = recipe, setting
        self.learners = build_learners((recipe.learner,), setting)
        (self._learner,) = self.learners.values()
        self._companion = _Companion(self._learner.model, recipe, setting.generator)
        if setting.mesh.data.size > 1 and setting.mesh.data.statistics == "synchronised":
            synchronise_batchnorm(self._companion, setting.mesh.data)
        config = recipe.learner.model_copy(update={"name": "clean"})
        self._clean = Learner(config, setting, self._companion)
        self.learners["clean"] = self._clean
        self.steps = 0
        # Numbers of right predictions of g and of images in the present epoch; a (None at first).
        self.counts = [0.0, 0.0]
        self.accuracy: float | None = None

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        x, y = batch
        step = self._setting.step(progress)
        x_adv = self._learner.craft(x, y, step)
        terms: dict[str, Tensor] = {}

        def loss() -> Tensor:
            with self._setting.autocast():
                logits, clean = self._forward(x, self._companion.tensors())
                adversarial_logits, adversarial = self._forward(x_adv, {})
                a = 1 / logits.shape[1] if self.accuracy is None else self.accuracy
                terms["clean"] = (1 - a) * F.cross_entropy(logits, y)
                terms["adversarial"] = a * F.cross_entropy(adversarial_logits, y)
                if len(x) > 1:  # BatchNorm in the predictors needs more than one image
                    apart = self._companion.apart(adversarial, clean)
                    terms["adversarial"] = terms["adversarial"] + self.recipe.weight * apart
                terms["right"] = (logits.argmax(1) == y).sum()
                return terms["clean"] + terms["adversarial"]

        descend_together([self._learner, self._clean], loss, step)
        self._count(step.total(torch.stack([terms["right"], torch.ones_like(y).sum()])))
        return {
            f"loss/{self._learner.config.name}": terms["adversarial"].detach(),
            "loss/clean": terms["clean"].detach(),
        }

    def _forward(self, x: Tensor, tensors: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Logits and the features of the aligned layers, with ``tensors`` in place of the network's
        own."""
        model = self._learner.model
        with _outputs(model, self._companion.aligned) as outputs:
            logits = torch.func.functional_call(model, dict(tensors), (x,))
        features = [F.relu(outputs[name]).mean((2, 3)) for name in self._companion.aligned]
        return logits, features

    def _count(self, counts: Tensor) -> None:
        right, seen = counts.tolist()
        self.counts = [self.counts[0] + right, self.counts[1] + seen]
        self.steps += 1
        if self.steps % self._setting.steps_per_epoch == 0:
            self.accuracy = self.counts[0] / self.counts[1]
            self.counts = [0.0, 0.0]

    @property
    def passes(self) -> float:
        return self._learner.objective.crafting_passes + 2

    def diagnostics(self, progress: float) -> dict[str, float]:
        share = {} if self.accuracy is None else {"share/adversarial": self.accuracy}
        return {**super().diagnostics(progress), **share}

    def deployed(self) -> nn.Module:
        return self._learner.model

    def state_dict(self) -> dict[str, Any]:
        own = {"steps": self.steps, "counts": self.counts, "accuracy": self.accuracy}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = int(state["steps"])
        self.counts = [float(count) for count in state["counts"]]
        self.accuracy = None if state["accuracy"] is None else float(state["accuracy"])


@contextmanager
def _outputs(model: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the layers with these names, by name, in the last forward pass inside."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
