"""The base class of all configurations, with hashing and clear error messages."""

from __future__ import annotations

import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.core.errors import ConfigError
from benchmark.core.registry import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

C = TypeVar("C", bound="Config")
# The most values that a YAML document may hold; an alias counts each time it is used.
_MOST_VALUES = 100_000


class Config(BaseModel):
    """Base of all configurations: immutable, with finite numbers; an unknown key is an error."""

    # JSON has no infinity. It would be recorded as null, and then the record could not be read.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


def parse(cls: type[C], data: Mapping[str, Any], where: str = "", **context: Any) -> C:
    """Validate ``data`` as ``cls``; ``where`` names the source in the error message.

    Raises:
        ConfigError: names every wrong key and, for an unknown one, keys with a similar name.
    """
    try:
        return cls.model_validate(dict(data), context=context or None)
    except ValidationError as error:
        found = problems(error, cls)
        if len(found) > 1:  # the command line keeps these lines apart
            head = f"{where} has {len(found)} errors:" if where else f"{len(found)} errors:"
            raise ConfigError("\n- ".join([head, *found])) from error
        raise ConfigError(explain(error, cls, where)) from error


def parse_yaml(text: str, where: str) -> Any:
    """The plain values in a YAML document; ``where`` names the source in the error message.

    Raises:
        ConfigError: it is no valid YAML, has a key twice, or holds more values than any
            configuration needs.
    """
    try:
        value = _plain_values(text)
        count = _count(value, {})
    except _GivenTwice as error:
        raise ConfigError(f"{where}: {error}") from error
    # Text that looks like a date, number or tag can make YAML's constructors raise any exception.
    except Exception as error:
        raise ConfigError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if count > _MOST_VALUES:  # a few lines of aliases can stand for more than fits into memory
        raise ConfigError(f"{where} has more than {_MOST_VALUES:,} values; use fewer aliases")
    return value


class _GivenTwice(ValueError):
    """A key that a YAML mapping holds twice."""


def _plain_values(text: str) -> Any:
    """As ``yaml.safe_load``, but equal keys are an error; ``safe_load`` silently keeps the last.

    Raises:
        _GivenTwice: there are equal keys; the message names both lines.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_keys(loader, node, set())  # before merging ("<<") adds to the nodes
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _check_keys(loader: yaml.SafeLoader, node: yaml.Node, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(loader, item, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[Any, int] = {}
    for key, value in node.value:
        _check_keys(loader, value, seen)
        # YAML itself refuses a key that is no scalar, and the merge key "<<" may occur twice.
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = loader.construct_object(key), key.start_mark.line + 1
        if name in lines:
            where = f"lines {lines[name]} and {line}" if line > lines[name] else f"line {line}"
            raise _GivenTwice(f"the key {key.value!r} is given twice, in {where}; keep one of them")
        lines[name] = line


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values ``value`` holds; infinite if it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in inner)
    return known[id(value)]


class Problems(ValueError):
    """Several wrong values that one check found, each in words."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__("; ".join(texts))
        self.texts = tuple(texts)


def explain(error: ValidationError, cls: type[BaseModel], where: str = "") -> str:
    """All problems in one line, in the words of a user rather than of the validator."""
    prefix = f"{where}: " if where else ""
    return prefix + "; ".join(problems(error, cls))


def problems(error: ValidationError, cls: type[BaseModel]) -> list[str]:
    """What is wrong with each wrong key."""
    found = []
    items = error.errors()
    for item in items:
        if item["type"] == "too_short" and any(
            other["loc"][: len(item["loc"])] == item["loc"] and other is not item for other in items
        ):
            continue  # the values are there, and wrong
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            found.append(f"unknown key {key!r}; {_advice(cls, item['loc'])}")
            continue
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, Problems):
            found += cause.texts
        else:
            found.append(f"{key}: {_words(item)}" if key else _words(item))
    return list(dict.fromkeys(found))


# What a value is not, by the beginning of the validator's type of error.
_IS_NOT = {
    "int_": "a whole number",
    "float_": "a number",
    "bool_": "true or false",
    "string_": "a text",
    "dict_": "a group of settings",
    "model_": "a group of settings",
    "tuple_": "a list",
    "list_": "a list",
}
_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _words(item: ErrorDetails) -> str:
    kind, given, limits = item["type"], item["input"], item.get("ctx", {})
    shown = repr(given) if len(repr(given)) <= 60 else f"{repr(given)[:57]}..."
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"{shown} must be {words} {limits[limit]:g}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error" and isinstance(given, str):
        known = re.findall(r"'([^']*)'", str(limits.get("expected", "")))
        return f"{shown} is unknown; {did_you_mean(given, known)}"
    if kind in ("too_short", "finite_number"):
        return (
            "needs at least one value" if kind == "too_short" else f"{shown} is not a finite number"
        )
    what = next((what for start, what in _IS_NOT.items() if kind.startswith(start)), None)
    if what == "a list" and isinstance(given, str | int | float):
        return f"{shown} is not a list; write [{given}]"
    if what:
        return f"{shown} is not {what}"
    return item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _advice(cls: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """What is valid in place of the unknown key at ``path`` below ``cls``: the same key one group
    further down (``train.epochs`` for ``epochs``), or similar ones beside it."""
    *above, last = path
    current: type[BaseModel] | None = cls
    for part in above:
        if current is not None and part in current.model_fields:
            current = _model_in(current.model_fields[str(part)].annotation)
    if current is None:
        return did_you_mean(str(last), ())
    groups = {name: _model_in(one.annotation) for name, one in current.model_fields.items()}
    below = [f"{name}.{last}" for name, group in groups.items()
             if group is not None and last in group.model_fields]  # fmt: skip
    if below:
        return f"did you mean {' or '.join(map(repr, below))}?"
    return did_you_mean(str(last), current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) is not None or isinstance(annotation, types.UnionType):
        for argument in typing.get_args(annotation):
            found = _model_in(argument)
            if found:
                return found
    return None


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal configurations give equal text."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def config_hash(value: Any) -> str:
    """The first 10 hexadecimal digits of the SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:10]
