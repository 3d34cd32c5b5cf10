"""Radii in the right unit, exact fractions, and the default step."""

from __future__ import annotations

import copy
import json
import pickle
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from benchmark.core.threat import DEFAULT_THREATS, Pixels, ThreatModel


def threat(**data: Any) -> ThreatModel:
    return ThreatModel.model_validate(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", Fraction(8, 255)),
        ("2.5/255", Fraction(5, 510)),
        (" 8 / 255", Fraction(8, 255)),
        ("0.031", Fraction(31, 1000)),
        (1e-05, Fraction(1, 100000)),
        (12, 12),
    ],
)
def test_pixels_are_exact(text: Any, value: Fraction) -> None:
    """8/255 is the nearest float to the fraction, not a product of roundings."""
    assert float(Pixels(text)) == float(value)


@pytest.mark.parametrize("text", ["8/", "a/b", "8/0", "-1", "nan", "inf", "", "8/255/2", "8/2/5/5"])
def test_pixels_refused(text: str) -> None:
    """Only a number or one fraction of two numbers; "8/" is a typing error, not 8."""
    with pytest.raises(ValueError, match="not a number|not negative"):
        Pixels(text)


def test_pixels_keep_their_text() -> None:
    """Reports say 8/255, after JSON, pickling and copying too."""
    eps = Pixels("2.5/255")
    for again in (pickle.loads(pickle.dumps(eps)), copy.deepcopy(eps), Pixels(eps)):
        assert again == eps
        assert again.text == "2.5/255"
    given = threat(eps="8/255", step="2/255", steps=7)
    data = json.loads(given.model_dump_json())
    assert data == {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 7}
    for other in (threat(**data), pickle.loads(pickle.dumps(given)), given.model_copy(deep=True)):
        assert other == given
        assert str(other) == "linf eps=8/255 step=2/255 steps=7"


@pytest.mark.parametrize("step", [{}, {"step": 0}, {"step": "0"}, {"step": None}])
@pytest.mark.parametrize(
    ("eps", "steps", "expected"),
    [("8/255", 10, Fraction(2, 255)), ("2.5/255", 5, Fraction(5, 1020)), (0.5, 20, 1 / 16)],
)
def test_default_step(step: dict, eps: Any, steps: int, expected: float) -> None:
    """2.5 * eps / steps, however "no step" is written; a step of 0 would be no attack at all."""
    assert float(threat(eps=eps, steps=steps, **step).step) == float(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"eps": 8}, "did you mean 8/255"),
        ({"norm": "l2", "eps": 128}, "too large for l2.*did you mean 128/255"),
        ({"norm": "l1", "eps": 2000}, "did you mean 2000/255"),
        ({"eps": 0}, "must be positive"),
        ({"eps": "-8/255"}, "not negative"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None}, "steps"),
        ({"step": "-1/255"}, "not negative"),
        ({"norm": "linfinity"}, "norm"),
        ({"epsilon": "8/255"}, "epsilon"),
    ],
)
def test_refused(data: dict, message: str) -> None:
    """The classic unit mistake, and other values that no attack can use."""
    with pytest.raises(ValidationError, match=message):
        threat(**data)


@pytest.mark.parametrize("name", sorted(DEFAULT_THREATS))
def test_defaults_can_reach_their_boundary(name: str) -> None:
    """From the mean random start (half-way out) the steps must be able to reach the boundary."""
    given = DEFAULT_THREATS[name]
    assert given.norm == name
    assert given.steps * given.step >= given.eps / 2
