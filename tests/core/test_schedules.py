"""Schedules and durations: values by formula, shorthand, and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from benchmark.core.schedule import Duration, Schedule


def schedule(data: Any) -> Schedule:
    return Schedule.model_validate(data)


@pytest.mark.parametrize(
    ("data", "at", "value"),
    [
        (0.3, 0.7, 0.3),
        ("1/3", 0.0, 1 / 3),
        ([(0, 1), (1, 0)], 0.25, 0.75),
        ([("1/3", 1), ("2/3", 0.1)], 0.5, 0.55),
        ([(0.2, 5), (0.4, 6)], 0.0, 5),  # constant outside the points
        ([(0.2, 5), (0.4, 6)], 1.0, 6),
        ([(0.2, 5), (0.4, 6)], -3.0, 5),
        ([(0.2, 5), (0.4, 6)], 7.0, 6),
        ([(0, 1), (0.5, 1), (0.5, 0.1), (1, 0.1)], 0.5, 0.1),  # a jump: the later value
        ([(0, 1), (0.5, 1), (0.5, 0.1), (1, 0.1)], 0.4999, 1),
        ({"points": [(0, 1), (1, 0)], "interpolation": "cosine"}, 0.5, 0.5),
        (
            {"points": [(0, 1), (1, 0.2)], "interpolation": "cosine"},
            0.25,
            0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2,
        ),
        ({"points": [(0, 1), (0.5, 0.1)], "interpolation": "step"}, 0.49, 1),
        ({"points": [(0, 1), (0.5, 0.1)], "interpolation": "step"}, 0.5, 0.1),
        ({"points": [(0, 1), (0.5, 0.1)], "interpolation": "step"}, 1.0, 0.1),
    ],
)
def test_value(data: Any, at: float, value: float) -> None:
    """A wrong learning rate or mixing ratio would look like a worse method."""
    assert schedule(data)(at) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one point"),
        ([(0.5, 1), (0.2, 0)], "progress must rise"),
        ([(0, 1), (1.5, 0)], "progress must rise"),
        ([(-0.1, 1)], "progress must rise"),
        ([(0, math.inf)], "finite"),
        ([(0, 1), (math.nan, 1), (1, 1)], "finite"),
        ("fast", "not a number or a fraction"),
        ("1/0", "not a number or a fraction"),
        ("8/255/2", "not a number or a fraction"),
        ({"points": [(0, 1)], "interpolation": "cubic"}, "interpolation"),
    ],
)
def test_refused(data: Any, message: str) -> None:
    """Typing errors are refused at the door, not met in epoch 80."""
    with pytest.raises(ValidationError, match=message):
        schedule(data)


@pytest.mark.parametrize(
    ("data", "steps"),
    [
        (0, 0),
        (5, 50),
        (2.5, 25),
        ("2.54", 25),
        ("2.56", 26),
        ("1/2", 5),
        ("5%", 15),
        ("0.5 %", 2),  # 1.5 of 300 steps
        ("62.5%", 188),  # 187.5
        ({"share": 5 / 120}, 12),  # 12.5: ties to even
        ({"epochs": 1.5}, 15),
    ],
)
def test_duration_in_steps(data: Any, steps: int) -> None:
    """Epochs (10 steps here) and shares of the whole (300 steps), to the nearest step."""
    assert Duration.model_validate(data).steps(300, 10) == steps


@pytest.mark.parametrize(
    "data",
    [-1, "-5%", math.nan, math.inf, "x%", "soon", {}, {"epochs": 1, "share": 0.1}],
)
def test_duration_refused(data: Any) -> None:
    """Neither negative, nor infinite, nor two things at once."""
    with pytest.raises(ValidationError):
        Duration.model_validate(data)
