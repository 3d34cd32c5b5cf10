"""The hyper-parameters of a method that ``tune`` may change, and their bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _as_it_is(value: float) -> Any:
    return value


@dataclass(frozen=True)
class Knob:
    """One hyper-parameter of a method, as its class declares it in ``search``.

    Attributes:
        name: its name in records and messages.
        low, high: bounds, both included.
        log: search evenly on a logarithmic scale.
        setting: the setting of the method that it changes; empty if that is called ``name`` too.
        form: turns the number into the value of that setting.
    """

    name: str
    low: float
    high: float
    log: bool = False
    setting: str = ""
    form: Callable[[float], Any] = _as_it_is

    def settings(self, value: float) -> dict[str, Any]:
        """The settings of the method, as in a suite's entry, for this value."""
        return {self.setting or self.name: self.form(value)}
