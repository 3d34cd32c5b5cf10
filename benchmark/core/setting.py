"""What the trainer gives to a method for building its learners."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from benchmark.core.crafting import BatchNormMode, crafting
from benchmark.core.errors import ConfigError
from benchmark.core.mesh import DataAxis, Mesh
from benchmark.core.weights import TrainedNetwork, Weights

CraftingView = AbstractContextManager[nn.Module]
T = TypeVar("T")


class PlainView:
    """The learner's own model in crafting state; entered once per step."""

    def __init__(self, model: nn.Module, batchnorm: BatchNormMode) -> None:
        self._model, self._batchnorm = model, batchnorm
        self._state: AbstractContextManager[nn.Module] | None = None

    def __enter__(self) -> nn.Module:
        self._state = crafting(self._model, self._batchnorm)
        return self._state.__enter__()

    def __exit__(self, *details: object) -> None:
        assert self._state is not None
        self._state.__exit__(None, None, None)


def _nothing() -> Iterator[Any]:
    return iter(())


def _not_loaded(model: nn.Module, weights: Weights) -> None:
    raise ConfigError(
        f"this Setting cannot load weights ({weights.place}); give it a function as its `load`"
    )


@dataclass(frozen=True)
class Step:
    """What an objective can know about the present training step.

    Several processes can share a batch; an objective then gets only a part of its images. Its
    result is still right for the whole batch if its loss is a mean over the images that it gets, if
    its draws per image come from ``core.draws``, and if everything else that is summed over images
    uses the methods below.

    Attributes:
        progress: fraction of training done.
        generator: generator of random draws; for draws per image see ``core.draws``.
        data: the processes that share the batch. ``Learner`` needs it.
        accumulate: number of turns (micro-batches) of a batch. ``Learner`` needs it.
    """

    progress: float = 0.0
    generator: torch.Generator | None = None
    data: DataAxis = field(default_factory=DataAxis)
    accumulate: int = 1

    def in_turns(self, work: Callable[[slice], T]) -> list[T]:
        """The results of ``work`` for the rows of each turn.

        Every turn starts with the generator in its present state, and ``core.draws`` returns the
        turn's rows of the numbers for the whole batch. So the numbers, and the generator
        afterwards, are the same as if the batch were not divided.
        """
        before = None if self.generator is None else self.generator.get_state()
        given = []
        for turn in self.data.turns(self.accumulate):
            if self.generator is not None and before is not None:
                self.generator.set_state(before)
            with self.data.during(turn) as rows:
                given.append(work(rows))
        return given

    def gradients(self, loss: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradients to ``weights`` of a loss that is a mean over the batch."""
        gradients = torch.autograd.grad(self.data.share * loss, weights)
        self.data.add_up_(gradients)
        return gradients

    def total(self, counts: Tensor) -> Tensor:
        """Counts over the whole batch, from the ``counts`` over this process's images."""
        total = counts.clone()
        self.data.add_up_([total])
        return total


class NewModel(Protocol):
    """Makes models; see ``Setting``."""

    def __call__(self, init: int = 0, model: Mapping[str, Any] | None = None) -> nn.Module: ...


@dataclass
class Setting:
    """Everything that a method gets from the trainer.

    Attributes:
        new_model: makes a new model on the right device. Every call with the same ``init`` gives
            the same initial weights, so that base learners start from one initialisation, as in the
            Generalist code. ``model`` describes an architecture other than the suite's.
        total_steps, steps_per_epoch: length of training in optimiser steps.
        generator: generator of the random draws made while training.
        generators: generators by number of the learner, so that learners draw independently of each
            other, in one process or several; number 0 has ``generator``. None: all share that one.
        calibration: iterator over clean training images [n, c, h, w] in [0, 1], for re-estimating
            BatchNorm statistics; the same images at every call.
        held_out: iterator over batches of images and labels that are held out for validation, for a
            method that makes a choice by them; at least one batch, the same ones at every call, and
            all of them in every process.
        crafting_view: maps (model, BatchNorm mode) to a context manager that yields the model on
            which images are crafted. The trainer sets one that is faster than ``PlainView``.
        autocast: the context of the training forward pass (reduced precision).
        load: puts trained weights into a network.
        mesh: the processes that train together.
        accumulate: number of turns (micro-batches) of a batch; see ``Learner.step_on``.
    """

    new_model: NewModel
    total_steps: int
    steps_per_epoch: int
    generator: torch.Generator | None = None
    generators: Callable[[int], torch.Generator] | None = None
    calibration: Callable[[], Iterator[Tensor]] = _nothing
    held_out: Callable[[], Iterator[tuple[Tensor, Tensor]]] = _nothing
    crafting_view: Callable[[nn.Module, BatchNormMode], CraftingView] = PlainView
    autocast: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)
    load: Callable[[nn.Module, Weights], None] = _not_loaded
    mesh: Mesh = field(default_factory=Mesh)
    accumulate: int = 1

    def step(self, progress: float) -> Step:
        """The step at ``progress`` (fraction of training done)."""
        return Step(progress, self.generator, self.mesh.data, self.accumulate)

    def trained(self, network: TrainedNetwork) -> nn.Module:
        """That network in eval mode, its weights frozen."""
        model = self.new_model(0, network.model)
        self.load(model, network)
        return model.eval().requires_grad_(False)

    def of_learner(self, number: int) -> Setting:
        """The setting of learner ``number``, with its own generator."""
        return replace(self, generator=self.generators(number)) if self.generators else self
