"""Mixing ratios and the decay of the moving average."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tiny_learners import recipe

from benchmark.core.schedule import Schedule
from generalist.framework import Generalist
from generalist.mixing import MovingAverage, check_ratios, ratios
from generalist.presets import late_stage_decay

DENSE = [i / 997 for i in range(998)]
PRESETS = ["generalist-d", "generalist-d-norms", "generalist-t", "generalist-official"]


def schedules(**data: Any) -> dict[str, Schedule]:
    return {name: Schedule.model_validate(value) for name, value in data.items()}


@pytest.mark.parametrize(
    "mixing",
    [
        {},
        {"a": 0.2},
        {"a": [(0, 1), (0.5, 0.3), (1, 0)]},
        {"a": [(0, 0.5), (1, 0.1)], "b": {"points": [(0, 0.5), (0.7, 0)], "interpolation": "step"}},
        {"a": "1/3", "b": "1/3", "c": "1/3"},
        {"a": {"points": [(0, 0), (1, 1)], "interpolation": "cosine"}},
    ],
)
def test_ratios_sum_to_one_at_all_times(mixing: dict) -> None:
    """Else the global learner's weights would shrink or grow; the unnamed share the rest."""
    given = schedules(**mixing)
    check_ratios(given, ["a", "b", "c"])
    for progress in DENSE:
        gamma = ratios(given, ["a", "b", "c"], progress)
        assert list(gamma) == ["a", "b", "c"]
        assert sum(gamma.values()) == pytest.approx(1, abs=1e-9)
        assert all(-1e-9 <= value <= 1 + 1e-9 for value in gamma.values())
        free = [gamma[name] for name in gamma if name not in mixing]
        assert len(set(free)) <= 1


STEP = {"points": [(0, 0.8), (0.5, 0.2)], "interpolation": "step"}


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"a": 0.6, "b": 0.6}, "sum to 1"),  # both learners named
        ({"a": 1.2}, "must lie in"),
        ({"a": -0.1}, "must lie in"),
        ({"a": [(0, 0.5), (0.3, 1.1), (1, 0.5)]}, "at progress 0.26"),  # first of the grid
        ({"z": 0.5}, r"mixing names \['z'\]"),
        # Right at every point of both schedules, wrong between them.
        ({"a": STEP, "b": [(0, 0.2), (0.5, 0.8)]}, "sum to 1"),
        ({"a": {"points": [(0, 0), (1, 1)], "interpolation": "cosine"}, "b": [(0, 1), (1, 0)]},
         "sum to 1"),
        ({"a": [(0, 0), (0.503, 1.5), (0.503, 1)]}, "must lie in"),  # wrong just before a jump
    ],
)  # fmt: skip
def test_wrong_ratios_are_refused(mixing: dict, message: str) -> None:
    """At the door, with the moment at which they are wrong."""
    with pytest.raises(ValueError, match=message):
        check_ratios(schedules(**mixing), ["a", "b"])
    learners = [{"name": name, "objective": "natural"} for name in "ab"]
    with pytest.raises(ValidationError, match=message):
        recipe("generalist", learners=learners, mixing=mixing)


@pytest.mark.parametrize(("progress", "value"), [(0, 1), (2 / 3, 1), (5 / 6, 0.7), (1, 0.4)])
def test_late_stage_decay(progress: float, value: float) -> None:
    """1 until epoch 80 of 120, then linearly to 0.4: the released code's beta."""
    assert late_stage_decay(1.0, 0.4)(progress) == pytest.approx(value)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_valid_ratios(name: str) -> None:
    """And c = 5 and t' = 75 of 120 epochs, as shares."""
    given = recipe(name)
    assert isinstance(given, Generalist)
    names = [learner.name for learner in given.learners]
    for progress in DENSE:
        gamma = ratios(given.mixing, names, progress)
        assert sum(gamma.values()) == pytest.approx(1)
        assert min(gamma.values()) >= 0
    assert given.warmup.steps(1200, 10) == 750
    assert given.every.steps(1200, 10) == 50


@pytest.mark.parametrize(
    ("data", "step", "decay"),
    [
        ({"decay": 0.9, "warmup": False}, 0, 0.9),
        ({"decay": 0.9}, 0, 1 / 10),
        ({"decay": 0.9}, 10, 11 / 20),
        ({"decay": 0.9}, 79, 80 / 89),
        ({"decay": 0.9}, 80, 0.9),  # 81/90
        ({"horizon": 0.02, "warmup": False}, 0, 1 - 1 / 20),  # 20 of 1000 steps
        ({"horizon": 0.02}, 10**6, 1 - 1 / 20),
        ({"horizon": 0.0005, "warmup": False}, 5, 0.0),  # less than a step
        ({"decay": 1, "warmup": False}, 5, 1.0),
        ({"decay": 0}, 5, 0.0),
    ],
)
def test_decay(data: dict, step: int, decay: float) -> None:
    """min(a, (s + 1) / (s + 10)), and a = 1 - 1 / (horizon * total steps)."""
    average = MovingAverage.model_validate(data)
    assert average.at(step, 1000) == pytest.approx(decay, rel=1e-12)


@pytest.mark.parametrize(
    "data", [{}, {"decay": 0.9, "horizon": 0.1}, {"decay": 1.1}, {"decay": -1}, {"horizon": 0}]
)
def test_decay_refused(data: dict) -> None:
    """One of the two, in range."""
    with pytest.raises(ValidationError):
        MovingAverage.model_validate(data)
