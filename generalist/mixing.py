"""How base learners are weighted and averaged into the global learner."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import Field, model_validator

from benchmark.core.config import Config
from benchmark.core.schedule import Schedule


class MovingAverage(Config):
    """The decay ``a`` of theta_g <- a * theta_g + (1 - a) * sum_k gamma_k * theta_k.

    Attributes:
        decay: ``a`` itself, or None to derive it from ``horizon``.
        horizon: mean age of the weights in the average, as a fraction of training:
            a = 1 - 1 / (horizon * total_steps), so that a preset fits trainings of any length.
        warmup: use min(a, (s + 1) / (s + 10)) at step s (SEAT and the Generalist code), which
            forgets the initial weights quickly.
    """

    decay: float | None = Field(default=None, ge=0, le=1)
    horizon: float | None = Field(default=None, gt=0)
    warmup: bool = True

    @model_validator(mode="after")
    def _one_of_two(self) -> MovingAverage:
        if (self.decay is None) == (self.horizon is None):
            raise ValueError("give the moving average either a decay or a horizon")
        return self

    def at(self, step: int, total_steps: int) -> float:
        """The decay at optimiser step ``step`` (counted from 0)."""
        if self.decay is not None:
            decay = self.decay
        else:
            assert self.horizon is not None
            decay = max(0.0, 1 - 1 / max(1.0, self.horizon * total_steps))
        return min(decay, (step + 1) / (step + 10)) if self.warmup else decay


def ratios(
    schedules: Mapping[str, Schedule], names: Sequence[str], progress: float
) -> dict[str, float]:
    """gamma_k for every learner, summing to 1.

    Learners without a schedule divide the remaining ratio among them, in equal parts.
    """
    given = {name: schedule(progress) for name, schedule in schedules.items()}
    free = [name for name in names if name not in given]
    rest = (1 - sum(given.values())) / len(free) if free else 0.0
    return {name: given.get(name, rest) for name in names}


def constant_steps(schedules: Iterable[Schedule], total_steps: int) -> int:
    """The number of first optimiser steps (at progress step / total) in which no ratio changes."""
    ends = [_constant_until(schedule) for schedule in schedules]
    until = min(ends, default=math.inf)
    steps = min(total_steps, math.ceil(min(until, 1.0) * total_steps) + 1)
    while steps and (steps - 1) / total_steps >= until:  # as the trainer rounds
        steps -= 1
    return steps


def _constant_until(schedule: Schedule) -> float:
    """The progress before which a schedule has its first value."""
    for (p0, v0), (p1, v1) in itertools.pairwise(schedule.points):
        if v0 != v1:
            return p1 if schedule.interpolation == "step" else p0
    return math.inf


def first_mixed(
    gamma: Callable[[float], Mapping[str, float]], total_steps: int, constant: int
) -> int:
    """The first optimiser step at which every learner with a ratio above 0 at any time has been
    mixed in.

    Args:
        gamma: the ratios at a progress.
        constant: see ``constant_steps``.
    """
    mixed = {name for name, ratio in gamma(0.0).items() if ratio > 0}
    last = 0
    for step in range(constant, total_steps):
        new = {name for name, ratio in gamma(step / total_steps).items() if ratio > 0} - mixed
        if new:
            mixed, last = mixed | new, step
            if len(mixed) == len(gamma(0.0)):
                break
    return last


def check_ratios(schedules: Mapping[str, Schedule], names: Sequence[str]) -> None:
    """Raise ValueError unless the ratios are in [0, 1] and sum to 1 at any progress.

    They are checked at every point of a schedule and just before it, since linear schedules have
    their extremes there and ``step`` schedules jump there; and on a grid, for ``cosine`` schedules.
    """
    unknown = sorted(set(schedules) - set(names))
    if unknown:
        raise ValueError(f"mixing names {unknown}, but the learners are {list(names)}")
    points = {p for schedule in schedules.values() for p, _ in schedule.points}
    before = {max(0.0, math.nextafter(p, 0)) for p in points}
    moments = points | before | {i / 100 for i in range(101)}
    for progress in sorted(moments):
        gamma = ratios(schedules, names, progress)
        total = sum(gamma.values())
        if abs(total - 1) > 1e-6 or min(gamma.values()) < -1e-9:
            shown = {name: round(value, 4) for name, value in gamma.items()}
            raise ValueError(
                f"mixing ratios must lie in [0, 1] and sum to 1; at progress {progress:g} they "
                f"are {shown}"
            )
