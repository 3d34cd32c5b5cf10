"""Schedules over the fraction of training done, so that a preset fits trainings of any length."""

from __future__ import annotations

import bisect
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from benchmark.core.config import Config
from benchmark.core.threat import exact


def _number(value: Any) -> Any:
    """Accept ``1/3`` besides ordinary numbers."""
    if isinstance(value, str):
        try:
            return float(exact(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{value!r} is not a number or a fraction such as 1/3") from None
    return value


Number = Annotated[float, BeforeValidator(_number)]


class Schedule(Config):
    """A value as a function of progress in [0, 1].

    Attributes:
        points: (progress, value) pairs in rising order of progress; constant outside them.
        interpolation: ``linear`` or ``cosine`` between two points, or ``step`` (constant at the
            value of the last point).

    A bare number is a constant; a bare list is the points of a linear schedule.
    """

    points: tuple[tuple[Number, Number], ...]
    interpolation: Literal["linear", "cosine", "step"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, data: Any) -> Any:
        if isinstance(data, (int, float, str)):
            return {"points": [(0, data)]}
        if isinstance(data, (list, tuple)):
            return {"points": data}
        return data

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        where = [progress for progress, _ in self.points]
        if not where:
            raise ValueError("a schedule needs at least one point")
        if where != sorted(where) or not 0 <= where[0] <= where[-1] <= 1:
            raise ValueError(f"progress must rise within [0, 1], got {where}")
        if not all(math.isfinite(number) for point in self.points for number in point):
            raise ValueError("the numbers of a schedule must be finite")
        return self

    def __call__(self, progress: float) -> float:
        """The value at ``progress``."""
        where = [point[0] for point in self.points]
        right = bisect.bisect_right(where, progress)
        if right == 0:
            return self.points[0][1]
        (p0, v0) = self.points[right - 1]
        if right == len(where) or self.interpolation == "step":
            return v0
        (p1, v1) = self.points[right]
        share = (progress - p0) / (p1 - p0)
        if self.interpolation == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return v0 + (v1 - v0) * share


class Duration(Config):
    """A span of training: a number of epochs (fractions allowed) or a share of it (``5%``)."""

    epochs: float | None = None
    share: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, data: Any) -> Any:
        if isinstance(data, str) and data.strip().endswith("%"):
            return {"share": float(data.strip()[:-1]) / 100}
        if isinstance(data, (int, float, str)):
            return {"epochs": _number(data)}
        return data

    @model_validator(mode="after")
    def _check(self) -> Duration:
        if (self.epochs is None) == (self.share is None):
            raise ValueError("give a number of epochs, or a share of training such as 5%")
        value = self.epochs if self.epochs is not None else self.share
        if value is None or not math.isfinite(value) or value < 0:
            raise ValueError("a duration cannot be negative")
        return self

    def steps(self, total_steps: int, steps_per_epoch: int) -> int:
        """The duration in optimiser steps, rounded to the nearest."""
        if self.share is not None:
            return round(self.share * total_steps)
        assert self.epochs is not None
        return round(self.epochs * steps_per_epoch)
