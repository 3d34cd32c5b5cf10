"""The contract of a method: one or more learners, and the rule that decides what is deployed."""

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
    """A method in training. Subclasses fill ``learners`` and define which model is deployed.

    Attributes:
        learners: the learners by name, in the recipe's order.
        forward_passes: forward passes of frozen teachers, without backward pass, per image and
            step.
        inference_passes: forward passes that the deployed model makes per image.
        independent_learners: whether ``update`` steps each learner without using the others, so
            that several processes can divide the learners among themselves.
    """

    learners: dict[str, Learner]
    forward_passes: float = 0
    inference_passes: int = 1
    independent_learners: bool = False

    @property
    def accumulates(self) -> bool:
        """Whether a batch can be divided into micro-batches (``train.accumulate``). It can if
        ``update`` gives the batch only to ``Learner.step``, as in this class."""
        return type(self).update is Method.update

    def update(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One step on the batch for every learner that this process trains.

        Returns:
            The loss of each learner as a 0-d tensor, not as a number, since reading a number waits
            for the accelerator.
        """
        x, y = batch
        return {
            f"loss/{name}": learner.step(x, y, progress)
            for name, learner in self.learners.items()
            if learner.here
        }

    @abstractmethod
    def deployed(self) -> nn.Module:
        """The model that is evaluated and deployed: it maps images in [0, 1] to logits (or
        log-probabilities).

        It may share memory with the method's state, so use it before the next ``update``.
        """

    def alone(self) -> dict[str, nn.Module]:
        """For each learner, the best network that the method has of this learner without the
        others: its moving average if the method keeps one, else the learner's own network."""
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
        """Gradient passes per image and step, over all learners; a mean over training."""
        return sum(learner.passes for learner in self.learners.values())

    def passes_at(self, step: int) -> float:
        """Gradient passes per image of optimiser step number ``step``, counted from 0."""
        return self.passes

    def selectable(self, progress: float) -> bool:
        """Whether the model that would be deployed after the step at ``progress`` may be selected.
        False before the method has a model of its own to deploy."""
        return True

    @property
    def cuttable(self) -> bool:
        """Whether several processes may share a batch; see ``Objective.cuttable``."""
        return all(learner.objective.cuttable for learner in self.learners.values())

    def share(self, mesh: Mesh) -> None:
        """Copy the learners that other processes train to this process. All processes call this."""
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
        """Everything that is needed to resume with bit-identical results."""
        return {"learners": {name: item.state_dict() for name, item in self.learners.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])


WhoseRecipe = Literal["common", "authors"]
RECIPES = get_args(WhoseRecipe)


class Recipe(Config, ABC):
    """The configuration of a method; ``build`` makes the method.

    Attributes:
        recipe: where learners that set no optimiser and schedule get theirs from: the suite
            (``common``), or the method's authors (``authors``, see ``AuthorsRecipe``).
        authors: the authors' recipe; None if it is not known.
        search: see ``Objective``.
        family: see ``Objective``; a method that is an objective states it there.
        training_free: it is ready after a single step without an optimiser, however long the suite
            trains.
        unrecorded: options that were added after the first records, with their defaults. An option
            at its default is not recorded, so that the hashes of earlier records stay the same.
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
    """One learner, whose network is deployed unchanged: the form of most baselines."""

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
    """Learners by name, in order. They start from one initialisation, and each has its own random
    draws."""
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

    For a method that is an objective, the objective's own fields and those of the learner
    (optimizer, schedule, grad_clip) are given side by side. For every method, ``init_from`` beside
    its fields gives the trained weights for all learners that do not set ``init_from`` themselves.

    Args:
        context: defaults for what the recipe does not set: ``threats`` (training threat models by
            name), ``learner`` (optimizer and schedule; with ``recipe: authors`` those of the
            authors are used instead) and ``weights`` (see ``core.weights``). None: ``data`` sets
            everything, as a record does.

    Raises:
        ConfigError: unknown name; the authors' recipe is asked for but not known, or together with
            an optimiser or schedule. pydantic.ValidationError: wrong hyper-parameters.
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
        if "learner" in data:  # the resolved form, from a record
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
    """The trained weights that ``config`` (a recipe or a part of one) names, each with their
    architecture (None: the suite's)."""
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
    """How the authors of a registered method train it; None if that is not known. A recipe that a
    class inherits does not count, since it belongs to another method."""
    return vars(entry).get("authors") if isinstance(entry, type) else None


def _authors_defaults(name: str, entry: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' settings, which learners get instead of the suite's optimiser and schedule.

    Raises:
        ConfigError: see ``make_recipe``.
    """
    authors = authors_recipe(entry)
    if authors is None:
        known = [key for key, cls in METHODS.items() if authors_recipe(cls)]
        raise ConfigError(
            f"{name} has no authors' recipe here (these have: {', '.join(known)}); remove `recipe` "
            "to use the suite's common one, or set optimizer and schedule"
        )
    clash = next((key for key in ("optimizer", "schedule", "grad_clip") if key in data), None)
    if clash:
        raise ConfigError(f"{name}: `recipe: authors` already sets {clash}; remove one of the two")
    defaults = {
        "optimizer": authors.optimizer.model_dump(),
        "schedule": authors.schedule,
        "grad_clip": authors.grad_clip,
    }
    return {key: value for key, value in defaults.items() if value is not None}
