"""The contract of a signature of failure: what it is judged by, and what it reports."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from benchmark.records.schema import NetworkMeasurements

Line = Mapping[str, float]

# A difference of two accuracies counts as real if it is at least this number of standard errors.
# The standard error assumes independent validation images for each accuracy. In fact they are the
# same images, and two checkpoints of a run agree on most of them, so the true error is smaller.
# This margin allows for the fact that the present accuracy is compared with the best of many.
ERRORS = 2.5


class Unjudged(Exception):
    """Raised if a signature cannot be judged; the message says what is missing."""


@dataclass(frozen=True)
class Ball:
    """A norm and a radius, in pixel units."""

    norm: str
    eps: float


@dataclass(frozen=True)
class Attacked:
    """Accuracy on test images under an attack in a ball."""

    metric: str
    ball: Ball
    accuracy: float
    images: int


@dataclass(frozen=True)
class RunHistory:
    """What is known about a run, finished or in training.

    Attributes:
        lines: the lines of ``metrics.jsonl``, in order of steps, without empty values.
        images: number of held-out images behind each validation accuracy.
        classes: number of classes; 0 if unknown.
        tasks: for each base learner, the ball in which it is trained, or None for clean images;
            only for finished runs whose records state them.
        validated: the ball of ``val_pgd``; only for finished runs.
        attacked: the accuracies under attack on record; only for finished runs.
        measured: measurements with the networks of the checkpoint; only for finished runs that were
            diagnosed while the checkpoint existed.
    """

    lines: Sequence[Line]
    images: int
    classes: int
    tasks: Mapping[str, Ball | None] = field(default_factory=dict)
    validated: Ball | None = None
    attacked: Sequence[Attacked] = ()
    measured: NetworkMeasurements | None = None

    @property
    def validations(self) -> list[Line]:
        """The lines with validation accuracies.

        Raises:
            Unjudged: there are none, or it is not known on how many images they were measured.
        """
        points = [line for line in self.lines if {"epoch", "val_clean", "val_pgd"} <= line.keys()]
        if not points or not self.images:
            raise Unjudged("the run has no validation accuracies")
        return points

    def error(self, *accuracies: float) -> float:
        """Standard error of a sum or difference of validation accuracies."""
        return math.sqrt(sum(a * (1 - a) for a in accuracies) / self.images)

    def above_chance(self, accuracy: float, images: int = 0) -> bool:
        """Whether an accuracy is above that of always answering one class, 1 / classes.

        Args:
            images: number of images that it was measured on, if not the held-out ones.

        Raises:
            Unjudged: the number of classes is not known.
        """
        if not self.classes:
            raise Unjudged("the number of classes is not known before the run is evaluated")
        chance = 1 / self.classes
        return accuracy > chance + ERRORS * math.sqrt(
            chance * (1 - chance) / (images or self.images)
        )

    def check_mixes(self) -> None:
        """Raise Unjudged unless the method mixes base learners."""
        if not any(name.startswith("mix/") for line in self.lines for name in line):
            raise Unjudged("the method does not mix base learners")

    @property
    def checkpoint(self) -> NetworkMeasurements:
        """The measurements with the checkpoint's networks. Raises Unjudged if there are none."""
        if self.measured is None:
            raise Unjudged("it needs the weights, but there is no checkpoint")
        return self.measured


class Signature(ABC):
    """One way in which a training can fail.

    Attributes:
        name: name of the failure.
        remedy: what the user can change.
    """

    name: ClassVar[str]
    remedy: ClassVar[str]

    @abstractmethod
    def judge(self, run: RunHistory) -> str | None:
        """The evidence in numbers if ``run`` fails in this way, else None.

        Raises:
            Unjudged: too little is known about the run.
        """


def percent(accuracy: float) -> str:
    """``0.123`` as ``12.3 %``."""
    return f"{100 * accuracy:.1f} %"
