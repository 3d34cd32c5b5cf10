"""What a user can configure about a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from benchmark.core.config import Config, explain
from benchmark.core.errors import ConfigError
from benchmark.core.registry import did_you_mean
from benchmark.models.architecture import MODELS, Architecture, ArchitectureOptions

Channels = tuple[float, float, float] | tuple[float]  # of colour or of grey images

# Every record of a cell holds these keys, with null where the architecture has no such option, so
# they are part of the cell's hash.
_ALWAYS_RECORDED = ("width", "stem_stride")


class Normalization(Config):
    """Mean and standard deviation per channel, of pixels in [0, 1]."""

    mean: Channels
    std: Channels

    @model_validator(mode="after")
    def _check_range(self) -> Normalization:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std need one value per channel each")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean = {list(self.mean)}: pixels are in [0, 1]; divide by 255?")
        if not all(0 < value <= 1 for value in self.std):
            raise ValueError(f"std = {list(self.std)}: each must be in (0, 1]; divide by 255?")
        return self


class ModelConfig(Config):
    """An architecture and its options, which are keys beside ``name``: ``{name: small-resnet,
    width: 8}``.

    Attributes:
        name: a name of ``benchmark.models.architecture.MODELS``, as ``list models`` prints them.
        normalization: ``none`` (the network gets pixels in [0, 1], as in the released Generalist
            code), ``dataset`` (it uses the statistics of the data set), or mean and std.
        options: the architecture's options, checked by its own class. ``small-resnet`` has
            ``width`` and ``stem_stride``; null means the default.

    Raises:
        ValueError: unknown name, an option that the architecture does not have, a wrong value.
    """

    name: str = "resnet18"
    normalization: Literal["none", "dataset"] | Normalization = "none"
    options: SerializeAsAny[ArchitectureOptions] = ArchitectureOptions()

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        own = {key: data[key] for key in ("name", "normalization") if key in data}
        name = own.get("name", cls.model_fields["name"].default)
        if not isinstance(name, str):
            return own
        try:
            architecture = MODELS.get(name)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        given = {key: value for key, value in data.items() if key not in own}
        return {**own, "options": _options(name, architecture, given)}

    @model_validator(mode="after")
    def _check_normalization(self) -> ModelConfig:
        if MODELS.get(self.name).normalizes_itself and self.normalization != "none":
            raise ValueError(f"{self.name} has its own normalisation; leave normalization at none")
        return self

    @model_serializer(mode="wrap")
    def _flat(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = default(self)
        options = data.pop("options")
        return {**dict.fromkeys(_ALWAYS_RECORDED), **options, **data}


def _options(
    name: str, architecture: Architecture, given: Mapping[Any, Any]
) -> ArchitectureOptions:
    """The options of an architecture. Raises ValueError: an unknown option, or a wrong value."""
    fields = architecture.options.model_fields
    for key, value in given.items():
        if key in fields or (key in _ALWAYS_RECORDED and value is None):
            continue
        takers = MODELS.where(lambda other: key in other.options.model_fields)  # noqa: B023
        if takers:
            raise ValueError(f"{key} is fixed in {name}; only {takers} take it")
        raise ValueError(
            f"unknown key {key!r}; {did_you_mean(str(key), ['name', 'normalization', *fields])}"
        )
    stated = {key: value for key, value in given.items() if value is not None}
    try:
        return architecture.options.model_validate(stated)
    except ValidationError as error:
        raise ValueError(explain(error, architecture.options)) from error
