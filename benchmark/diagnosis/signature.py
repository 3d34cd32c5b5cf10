"""The contract of a failure signature: what it looks at, and what it says."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

Line = Mapping[str, float]

# A difference of two accuracies is believed from so many standard errors on, as if the validation
# images were drawn anew each time. They are the same images, on which two checkpoints of a run
# mostly agree, so the true error is smaller; and that pays for comparing with the best of many.
ERRORS = 2.5


class Unjudged(Exception):
    """A signature cannot be judged; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """What is known of a run, finished or in training.

    Attributes:
        lines: of ``metrics.jsonl``, ascending in step, without empty values.
        images: held-out images behind each validation accuracy.
        classes: how many there are.
        recipe: of the method, as recorded.
    """

    lines: Sequence[Line]
    images: int
    classes: int
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def validations(self) -> list[Line]:
        """The lines with validation accuracies.

        Raises:
            Unjudged: there are none, or it is not known on how many images they were measured.
        """
        points = [line for line in self.lines if "val_pgd" in line]
        if not points or not self.images:
            raise Unjudged("the run has no validation accuracies")
        return points

    def error(self, *accuracies: float) -> float:
        """Standard error of a sum or difference of validation accuracies."""
        return math.sqrt(sum(a * (1 - a) for a in accuracies) / self.images)

    def above_chance(self, accuracy: float) -> bool:
        """Whether a robust accuracy is more than that of always naming one class, 1 / classes.

        Raises:
            Unjudged: the number of classes is not known.
        """
        if not self.classes:
            raise Unjudged("the number of classes is not known before the run is evaluated")
        chance = 1 / self.classes
        return accuracy > chance + ERRORS * self.error(chance)


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
