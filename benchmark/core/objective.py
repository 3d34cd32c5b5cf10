"""The contract of a training objective: how to perturb a batch, and what to minimise on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SerializeAsAny, ValidationError, ValidationInfo
from torch import Tensor, nn

from benchmark.core.config import Config, explain
from benchmark.core.crafting import BatchNormMode
from benchmark.core.errors import ConfigError
from benchmark.core.optimizer import AuthorsRecipe
from benchmark.core.registry import Registry
from benchmark.core.search import Knob
from benchmark.core.setting import Step
from benchmark.core.threat import Threat

Displacement = AbstractContextManager[object]

# Methods and objectives by name. An entry is an ``Objective`` subclass (a method with one learner,
# and usable inside any learner of a multi-learner method) or a ``Recipe`` subclass.
METHODS: Registry[Any] = Registry("method", "generalist_bench.methods", outside=True)

__all__ = [
    "METHODS",
    "AttackObjective",
    "Objective",
    "ObjectiveRef",
    "Step",
    "is_objective",
    "make_objective",
]


class Objective(Config, ABC):
    """A perturbation of the images and a surrogate loss: (model, x, y) to a loss to minimise.

    Subclasses are immutable configurations; their fields are the method's hyper-parameters.

    Attributes:
        name: the registered name, filled in by the registry.
        family: the family of methods that it belongs to, in a word or two; reports draw the methods
            of a family in the same way.
        authors: how the method's authors train it; None if that is not known.
        search: the hyper-parameters that ``tune`` may change besides those of the optimiser.
        batchnorm: the model's mode while crafting: "eval", "batch" (BatchNorm uses the statistics
            of the batch) or "train" (as "batch", and running averages are updated); see
            ``core.crafting``.
    """

    family: ClassVar[str] = "other"
    authors: ClassVar[AuthorsRecipe | None] = None
    search: ClassVar[tuple[Knob, ...]] = ()

    name: str = ""
    batchnorm: BatchNormMode = "eval"

    @abstractmethod
    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        """Training images for ``loss``, of the shape and range of ``x`` ([n, c, h, w] in [0, 1]);
        or k of them for each image, [k * n, c, h, w]: first the n first ones, then the n second
        ones, and so on.

        ``model`` is in crafting state (``core.crafting``); it may be a faster view of the learner.
        """

    @abstractmethod
    def loss(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, step: Step) -> Tensor:
        """The scalar to minimise, a mean over the batch; ``model`` is in train mode."""

    @property
    @abstractmethod
    def crafting_passes(self) -> float:
        """Gradient passes (forward + backward) per image and step that ``perturb`` makes."""

    @property
    def training_passes(self) -> float:
        """Gradient passes per image and step that ``loss`` makes."""
        return 1

    @property
    def passes(self) -> float:
        """Gradient passes per image and step, in crafting and training together."""
        return self.crafting_passes + self.training_passes

    @property
    def draws(self) -> bool:
        """Whether it may draw random numbers. ``Generalist`` skips only steps of objectives that
        draw none, so that skipping does not change later draws."""
        return True

    @property
    def cuttable(self) -> bool:
        """Whether several processes may share a batch, each with a part of the images.

        Return True only if the loss of a batch is the mean of a loss of each image (apart from
        BatchNorm, whose statistics can be those of the whole batch), and if draws per image are
        made by ``core.draws``. Return False if images are mixed with each other, or if the number
        of draws depends on the images; the method then always gets whole batches.
        """
        return True

    def displaced(self, model: nn.Module, loss: Callable[[], Tensor], step: Step) -> Displacement:
        """A context around one optimiser step that moves the weights to the point at which the
        gradient of the loss is taken.

        Args:
            model: the model in train mode, with the learner's weights.
            loss: computes this step's loss at the present weights of ``model``.
        """
        return nullcontext()

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, step: Step | None = None) -> Tensor:
        """Perturb and compute the loss on the same model, in the mode that it is in."""
        step = step or Step()
        return self.loss(model, x, self.perturb(model, x, y, step), y, step)


class AttackObjective(Objective):
    """An objective that trains on attacked images.

    Attributes:
        threat: training threat model; a name ("linf", "l2", "l1") means the suite's of that name.
    """

    threat: Threat = "linf"  # type: ignore[assignment]  # resolved against the suite

    @property
    def crafting_passes(self) -> float:
        """One gradient pass per step of the attack."""
        return self.threat.steps


def make_objective(value: Any, info: ValidationInfo) -> Any:
    """An objective from its name, or from a mapping with ``name`` and hyper-parameters.

    Raises:
        ValueError: unknown name, or a method that is not an objective (it has several learners).
    """
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        return value
    if not value.get("name"):
        raise ValueError("an objective needs a name")
    try:
        cls = METHODS.get(value["name"])
        value = {**value, "name": METHODS.recorded(value["name"])}
    except ConfigError as error:
        raise ValueError(str(error)) from error
    if not is_objective(cls):
        raise ValueError(
            f"{value['name']!r} has several learners; it cannot be a learner's objective"
        )
    try:
        # The context carries the suite's threat models. pydantic passes ``info`` only to a
        # validator whose second parameter has no default.
        return cls.model_validate(dict(value), context=info.context)
    except ValidationError as error:
        raise ValueError(explain(error, cls)) from error


def is_objective(entry: Any) -> bool:
    """Whether a registry entry is an ``Objective`` subclass."""
    return isinstance(entry, type) and issubclass(entry, Objective)


ObjectiveRef = Annotated[SerializeAsAny[Objective], BeforeValidator(make_objective)]
