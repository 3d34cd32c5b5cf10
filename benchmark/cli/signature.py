"""Commands that share options: a parameter whose type is a dataclass stands for all its fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_type_hints

from benchmark.core.files import at_home


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as typer takes it: options alone, and no dataclasses of them.

    The dataclass is made from the options' values when the command is called. In every path ``~``
    is the home folder, also where no shell replaces it (``--out=~/x``).
    """
    groups: dict[str, Any] = {}
    parameters = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _fields(hints[name])
        else:
            parameters.append(_option(name, hints[name], parameter.default))

    @wraps(command)
    def called(**given: Any) -> None:
        values = {name: _at_home(value) for name, value in given.items()}
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        _option(
            field.name,
            hints[field.name],
            inspect.Parameter.empty if field.default is MISSING else field.default,
        )
        for field in fields(group)
    ]


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY  # which may stand in any order, defaults or not
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return at_home(value) if isinstance(value, Path) else value
