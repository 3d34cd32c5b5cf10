"""The contract of a failure signature: what it looks at, and what it says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from benchmark.records.schema import Measured

Line = Mapping[str, float]

# A difference of two accuracies is believed from so many standard errors on, as if the validation
# images were drawn anew each time. They are the same images, on which two checkpoints of a run
# mostly agree, so the true error is smaller; and that pays for comparing with the best of many.
ERRORS = 2.5


class Unjudged(Exception):
    """A signature cannot be judged; the message says what is missing."""


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
class Run:
    """What is known of a run, finished or in training.

    Attributes:
        lines: of ``metrics.jsonl``, ascending in step, without empty values.
        images: held-out images behind each validation accuracy.
        classes: how many there are; 0 if unknown.
        tasks: by base learner, the ball that it is trained in, None for clean images; of finished
            runs that state them.
        validated: the ball of ``val_pgd``; of finished runs.
        attacked: on record; of finished runs.
        measured: with the networks of the checkpoint; of finished runs that were diagnosed while
            it was there.
    """

    lines: Sequence[Line]
    images: int
    classes: int
    tasks: Mapping[str, Ball | None] = field(default_factory=dict)
    validated: Ball | None = None
    attacked: Sequence[Attacked] = ()
    measured: Measured | None = None

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
        """Whether an accuracy is more than that of always naming one class, 1 / classes.

        Args:
            images: that it was measured on, if not those of validations.

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
    def checkpoint(self) -> Measured:
        """What was measured with the checkpoint's networks. Raises Unjudged if nothing was."""
        if self.measured is None:
            raise Unjudged("it takes the weights, and no checkpoint is there")
        return self.measured


class Signature(ABC):
    """One way in which a training fails.

    Attributes:
        name: of the failure.
        remedy: what to change.
    """

    name: ClassVar[str]
    remedy: ClassVar[str]

    @abstractmethod
    def judge(self, run: Run) -> str | None:
        """The evidence in numbers if ``run`` fails in this way, else None.

        Raises:
            Unjudged: what is known of the run does not suffice.
        """


def percent(accuracy: float) -> str:
    """``0.123`` as ``12.3 %``."""
    return f"{100 * accuracy:.1f} %"
