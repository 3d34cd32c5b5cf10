"""What a tuner may change of a method, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _as_it_is(value: float) -> Any:
    return value


@dataclass(frozen=True)
class Knob:
    """One hyper-parameter of a method, as its class states it in ``search``.

    Attributes:
        name: what records and people call it.
        low, high: bounds, both included.
        log: search evenly on a logarithmic scale.
        setting: the setting of the method that it changes; empty for its name.
        form: from the number to the value of that setting.
    """

    name: str
    low: float
    high: float
    log: bool = False
    setting: str = ""
    form: Callable[[float], Any] = _as_it_is

    def settings(self, value: float) -> dict[str, Any]:
        """What a suite's entry of the method says for this value."""
        return {self.setting or self.name: self.form(value)}
