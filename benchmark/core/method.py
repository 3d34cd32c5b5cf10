"""The contract of a method: one or more learners, and the rule that says what is deployed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.learner import Learner, LearnerConfig, learner_names
from benchmark.core.mesh import Mesh
from benchmark.core.objective import METHODS, is_objective
from benchmark.core.optimizer import AuthorsRecipe
from benchmark.core.outside import label_of
from benchmark.core.search import Knob
from benchmark.core.setting import Setting
from benchmark.core.weights import TrainedNetwork, Weights

Batch = tuple[Tensor, Tensor]  # images [n, c, h, w] in [0, 1], labels [n]


@dataclass(frozen=True)
class Mixture:
    """How a deployed network is a moving average of mixtures of its learners' weights.

    Attributes:
        ratios: of the learners in the mixture of the last step.
        kept: the share of the average as it was after some earlier step that is still in it.
    """

    ratios: dict[str, float]
    kept: float


class Method(ABC):
    """A method in training. Subclasses fill ``learners`` and say which model is deployed.

    Attributes:
        learners: by name, in the recipe's order.
        forward_passes: passes of frozen teachers, forward alone, per image and step.
        inference_passes: forward passes that the deployed model makes per image.
        independent_learners: ``update`` steps each learner without looking at the others, so
            that several processes can divide the learners among themselves.
    """

    learners: dict[str, Learner]
    forward_passes: float = 0
    inference_passes: int = 1
    independent_learners: bool = False

    @property
    def accumulates(self) -> bool:
        """Whether a batch can take turns in memory (``train.accumulate``): ``update`` uses it for
        ``Learner.step`` alone, as the one of this class does."""
        return type(self).update is Method.update

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One step on the batch of every learner that is here.

        Returns:
            The loss of each learner, as 0-d tensors: reading them out is left to the caller, since
            on an accelerator it waits for the device.
        """
        x, y = batch
        return {
            f"loss/{name}": learner.step(x, y, progress)
            for name, learner in self.learners.items()
            if learner.here
        }

    @abstractmethod
    def deployed(self) -> nn.Module:
        """The model that is evaluated and shipped: images in [0, 1] to logits (or log-probs).

        It may share storage with the method's state, so use it before the next ``update``.
        """

    def alone(self) -> dict[str, nn.Module]:
        """By learner, the network that stands for it alone, as good as the method has it: a moving
        average if it keeps one of each, else the learner's own."""
        return {name: learner.model for name, learner in self.learners.items()}

    def mixture(self, progress: float, since: int) -> Mixture | None:
        """How the deployed network is an average of the learners'; None where it is none.

        Args:
            progress: of the last step.
            since: the number of steps after which the earlier average stood.
        """
        return None

    @property
    def passes(self) -> float:
        """Gradient passes per image and step, all learners together; a mean over training."""
        return sum(learner.passes for learner in self.learners.values())

    def passes_at(self, step: int) -> float:
        """Those of one optimiser step, counted from 0."""
        return self.passes

    def selectable(self, progress: float) -> bool:
        """Whether the model deployed after the step at ``progress`` is the method's yet; earlier
        ones are never chosen as the best."""
        return True

    @property
    def cuttable(self) -> bool:
        """Whether several processes may share a batch; see ``Objective.cuttable``."""
        return all(learner.objective.cuttable for learner in self.learners.values())

    def share(self, mesh: Mesh) -> None:
        """Bring learners that other processes step up to date here; all processes call this."""
        own = {name: item.state_dict() for name, item in self.learners.items() if item.here}
        for name, state in mesh.union(own).items():
            if not self.learners[name].here:
                self.learners[name].load_state_dict(state)

    def diagnostics(self, progress: float) -> dict[str, float]:
        """Further figures for the log, such as mixing ratios."""
        return {
            f"lr/{name}": learner.config.optimizer.lr * learner.config.schedule(progress)
            for name, learner in self.learners.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume exactly, to the bit."""
        return {"learners": {name: item.state_dict() for name, item in self.learners.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])


WhoseRecipe = Literal["common", "authors"]
RECIPES = get_args(WhoseRecipe)


class Recipe(Config, ABC):
    """The configuration of a method; ``build`` turns it into one.

    Attributes:
        recipe: whose optimiser and schedule its learners have where they state none: the suite's
            common ones, or those of the method's authors (``AuthorsRecipe``).
        authors: the latter; None if they are not known or state none.
        search: see ``Objective``.
        family: see ``Objective``; a method that is an objective states it there.
        training_free: it is ready after a single step without an optimiser, however long the suite
            trains.
        unrecorded: options that came after the first records, and their defaults, at which they are
            left out, so that the hashes of earlier records stay.
    """

    family: ClassVar[str] = "other"
    authors: ClassVar[AuthorsRecipe | None] = None
    search: ClassVar[tuple[Knob, ...]] = ()
    training_free: ClassVar[bool] = False
    unrecorded: ClassVar[Mapping[str, Any]] = {"recipe": "common"}

    name: str = ""
    recipe: WhoseRecipe = "common"

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = default(self)
        return {key: value for key, value in data.items()
                if self.unrecorded.get(key, ...) != value}  # fmt: skip

    @abstractmethod
    def build(self, setting: Setting) -> Method:
        """The method, untrained, in ``setting``."""


class SingleLearner(Recipe):
    """One learner, deployed as it is: the form of most baselines."""

    learner: LearnerConfig

    def build(self, setting: Setting) -> Method:
        """See ``Recipe.build``."""
        return _Single(self, setting)


class _Single(Method):
    def __init__(self, recipe: SingleLearner, setting: Setting) -> None:
        self.learners = build_learners((recipe.learner,), setting)

    def deployed(self) -> nn.Module:
        (learner,) = self.learners.values()
        return learner.model

    def mixture(self, progress: float, since: int) -> Mixture | None:
        return Mixture(dict.fromkeys(self.learners, 1.0), 0.0)


def build_learners(configs: tuple[LearnerConfig, ...], setting: Setting) -> dict[str, Learner]:
    """Learners by name, in order, from one initialisation; each with random draws of its own."""
    learners = {
        name: Learner(config, setting.of_learner(number))
        for number, (name, config) in enumerate(zip(learner_names(configs), configs, strict=True))
    }
    owners = setting.mesh.owners({name: item.passes for name, item in learners.items()})
    for name, learner in learners.items():
        learner.here = owners[name] == setting.mesh.learners.position
    return learners


def make_recipe(data: Mapping[str, Any], context: Mapping[str, Any] | None = None) -> Recipe:
    """A validated recipe from ``{"name": ..., hyper-parameters}``.

    For a method that is an objective, the objective's own fields and the learner's
    (optimizer, schedule, grad_clip) may be given side by side. ``init_from`` beside the fields of
    any method is where all of its learners begin that do not state their own.

    Args:
        context: ``threats`` (training threat models by name), ``learner`` (default optimizer and
            schedule) and ``weights`` (see ``core.weights``), which fill what the recipe leaves
            open; with ``recipe: authors``, the authors' take the place of ``learner``. None:
            ``data`` leaves nothing open, as recorded.

    Raises:
        ConfigError: unknown name; authors' recipe asked for where there is none, or beside an
            optimiser or schedule. pydantic.ValidationError: wrong hyper-parameters.
    """
    entry = METHODS.get(data["name"])
    name = METHODS.recorded(data["name"])
    data = {**data, "name": name}
    if context is not None and data.get("recipe") == "authors":
        context = {**context, "learner": _authors_defaults(name, entry, data)}
    context = dict(context or {})
    if "init_from" in data:
        data = dict(data)
        context["learner"] = {**context.get("learner", {}), "init_from": data.pop("init_from")}
    if is_objective(entry):
        if "learner" in data:  # the resolved form, as recorded
            return SingleLearner.model_validate(dict(data), context=context)
        learner_keys = set(LearnerConfig.model_fields) - {"name", "objective"}
        own = learner_keys | {"recipe"}
        objective = {key: value for key, value in data.items() if key not in own}
        learner = {key: value for key, value in data.items() if key in learner_keys}
        given = {key: data[key] for key in ("recipe",) if key in data}
        return SingleLearner.model_validate(
            {
                "name": name,
                **given,
                "learner": {"name": label_of(name), "objective": objective, **learner},
            },
            context=context,
        )
    if not (isinstance(entry, type) and issubclass(entry, Recipe)):
        raise ConfigError(f"method {name!r} is neither an Objective nor a Recipe: {entry!r}")
    return entry.model_validate(dict(data), context=context)


def trained_weights(config: Any) -> Iterator[tuple[Weights, Mapping[str, Any] | None]]:
    """The trained weights that ``config`` names, a recipe or a part of one, each with the
    architecture that they belong to (None: the suite's)."""
    if isinstance(config, Weights):
        yield config, config.model if isinstance(config, TrainedNetwork) else None
    elif isinstance(config, LearnerConfig) and config.init_from:
        yield config.init_from, config.model
    elif isinstance(config, BaseModel):
        for name in type(config).model_fields:
            yield from trained_weights(getattr(config, name))
    elif isinstance(config, tuple | list):
        for item in config:
            yield from trained_weights(item)


def family_of(name: str) -> str:
    """The family of the registered method ``name``.

    Raises:
        ConfigError: there is no such method.
    """
    return str(METHODS.get(name).family)


def authors_recipe(entry: Any) -> AuthorsRecipe | None:
    """How the authors of a registered method train it; None if that is not known. What a subclass
    inherits is another method's."""
    return vars(entry).get("authors") if isinstance(entry, type) else None


def _authors_defaults(name: str, entry: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What learners get in place of the suite's optimiser and schedule.

    Raises:
        ConfigError: see ``make_recipe``.
    """
    authors = authors_recipe(entry)
    if authors is None:
        known = [key for key, cls in METHODS.items() if authors_recipe(cls)]
        raise ConfigError(
            f"{name} has no authors' recipe here (these have: {', '.join(known)}); leave `recipe` "
            "out for the suite's common one, or state optimizer and schedule"
        )
    clash = next((key for key in ("optimizer", "schedule", "grad_clip") if key in data), None)
    if clash:
        raise ConfigError(
            f"{name}: `recipe: authors` states {clash} already; leave one of the two out"
        )
    defaults = {
        "optimizer": authors.optimizer.model_dump(),
        "schedule": authors.schedule,
        "grad_clip": authors.grad_clip,
    }
    return {key: value for key, value in defaults.items() if value is not None}
