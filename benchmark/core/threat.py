"""Threat models: a norm, a radius, and the steps of the attack that approximates it.

Everything is in pixel units: images lie in [0, 1]^d, so eps is written ``8/255``, never ``8``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, ValidationInfo, model_validator
from pydantic_core import core_schema

from benchmark.core.config import Config
from benchmark.core.registry import did_you_mean

NormName = Literal["linf", "l2", "l1"]


def exact(text: str) -> Fraction:
    """``8/255``, ``2.5/255`` or ``0.03`` as an exact number.

    Raises:
        ValueError: it is no such text, or its size is above 1e100 or below 1e-100.
        ZeroDivisionError: the denominator is 0.
    """
    numerator, slash, denominator = text.partition("/")
    if "/" in denominator:  # Fraction would read "1/2/3" as 1 / (2 / 3)
        raise ValueError(f"{text!r} has more than one division")
    for part in (numerator, denominator) if slash else (numerator,):
        # An exact 1e999999999 would need memory for all its digits.
        try:
            exponent = Decimal(part).adjusted()
        except InvalidOperation as error:
            raise ValueError(f"{text!r} is not a number") from error
        if abs(exponent) > 100:
            raise ValueError(f"{text!r} is out of range")
    return Fraction(numerator) / Fraction(denominator if slash else 1)


# Above these radii, an adversarial example is no longer a small change of an image in [0, 1], so
# the value is almost certainly in units of 0..255. For l_1, robust_union uses 12.
LARGEST_EPS = {"linf": 0.99, "l2": 16.0, "l1": 255.0}


class Pixels(float):
    """A length in pixel units that keeps its original text (``8/255``)."""

    text: str

    def __new__(cls, value: str | float) -> Pixels:
        text = str(value).replace(" ", "")
        try:
            number = float(exact(text))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is not a number or a fraction such as 8/255") from error
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"{value!r} must be finite and not negative")
        self = super().__new__(cls, number)
        self.text = text
        return self

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Pixels({self.text!r})"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.text, when_used="always"
            ),
        )

    # pickle would lose the attributes of a float's subclass
    def __reduce__(self) -> tuple[type[Pixels], tuple[str]]:
        return (type(self), (self.text,))


class ThreatModel(Config):
    """Norm ball of radius ``eps`` around an image, and the PGD that searches it.

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: radius in pixel units ([0, 1]); ``8/255`` or a number.
        step: step size in pixel units. Default: 2.5 * eps / steps (Madry et al., 1706.06083, use
            2/255 for 8/255 and 7 steps, near this rule).
        steps: number of gradient steps.

    Raises:
        ValueError: eps in the wrong unit (8 where 8/255 was meant), or not positive.
    """

    norm: NormName = "linf"
    eps: Pixels = Pixels("8/255")
    step: Pixels = Field(default=Pixels(0), description="0 means 2.5 * eps / steps")
    steps: int = Field(default=10, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _default_step(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and not (data.get("step") and Pixels(data["step"])):
            eps, steps = Pixels(data.get("eps", "8/255")), str(data.get("steps", 10))
            # If it is no positive whole number, the field's own check reports that.
            if steps.isdecimal() and int(steps) >= 1:
                default = exact(eps.text) * Fraction(5, 2) / int(steps)
                data = {**data, "step": Pixels(str(default))}
        return data

    @model_validator(mode="after")
    def _check_units(self) -> ThreatModel:
        check_eps(self.eps, self.norm)
        if self.step <= 0:
            raise ValueError(f"step = {self.step} must be positive")
        # The default for a single step is 2.5 eps; a larger value must be in other units.
        if self.step > 2.5 * self.eps * (1 + 1e-9):
            raise ValueError(
                f"step = {self.step} is too large for eps = {self.eps}: pixels are in [0, 1]; did "
                f"you mean {self.step}/255?"
            )
        return self

    def __str__(self) -> str:
        return f"{self.norm} eps={self.eps} step={self.step} steps={self.steps}"


def check_eps(eps: Pixels, norm: str) -> None:
    """Raise ValueError if ``eps`` cannot be a radius in [0, 1] pixel units under ``norm``."""
    if eps <= 0:
        raise ValueError(f"eps = {eps} must be positive")
    if eps > LARGEST_EPS[norm]:
        raise ValueError(
            f"eps = {eps} is too large for {norm}: pixels are in [0, 1]; did you mean {eps}/255?"
        )


def _by_name(value: Any, info: ValidationInfo) -> Any:
    """Replace a name by the suite's training threat model of that name."""
    if not isinstance(value, str):
        return value
    threats = (info.context or {}).get("threats") or DEFAULT_THREATS
    if value not in threats:
        raise ValueError(f"unknown threat model {value!r}; {did_you_mean(value, threats)}")
    return threats[value]


# A threat model in a method's configuration: written out, or the name of one of the suite's.
Threat = Annotated[ThreatModel, BeforeValidator(_by_name)]

# The usual training threat models (robust_overfitting, 2002.11569). For l_1: the radius of E-AT
# (2105.12508) with the default step, since ten steps of size 1, as in robust_union, would not reach
# that radius.
DEFAULT_THREATS = {
    "linf": ThreatModel(norm="linf", eps=Pixels("8/255"), step=Pixels("2/255"), steps=10),
    "l2": ThreatModel(norm="l2", eps=Pixels("128/255"), step=Pixels("15/255"), steps=10),
    "l1": ThreatModel(norm="l1", eps=Pixels("12"), step=Pixels("3"), steps=10),
}
