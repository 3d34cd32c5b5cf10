"""The contract of an architecture: its options, and the call that makes the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry

# A class or function that makes a network, with all its arguments.
Call: TypeAlias = partial[Any]

# Keys beside the options under ``model:`` of a suite.
_TAKEN = {"name", "normalization", "options"}


class ArchitectureOptions(Config):
    """Base of an architecture's options. Each field is a key under ``model:`` in a suite, checked
    by its type and recorded with its value. A class without fields means no options."""


@dataclass(frozen=True)
class Architecture:
    """One architecture. Its entry point (group ``generalist_bench.models``) gives it its name.

    Attributes:
        description: the line that ``list models`` prints.
        call: called as ``call(num_classes, image_size=, channels=, mean=, std=, **options)``, with
            every option; returns the call that makes the network, a ``functools.partial`` with
            plain values as arguments, so that the call can be repeated (a submission writes it as
            source code). The network maps images [n, channels, image_size, image_size] in [0, 1]
            to logits [n, num_classes]. ``mean`` and ``std`` (per channel, or both None) are the
            normalisation that the network does itself, see ``models.normalization.Normalized``.
            Raises ConfigError: an impossible size.
        options: the class of its options.
        told_by: finds those options that follow from the shapes in a state dict, by name.
        usual: the options that published weights normally have. The user is not asked for them
            when a checkpoint does not tell them.
        normalizes_itself: the normalisation is part of the architecture; mean and std are None.
        only_colour: it has no version for one channel.
        one_start: it always starts from the same weights, whatever the seed.

    Raises:
        ConfigError: an option has a name that is reserved.
    """

    description: str
    call: Callable[..., Call]
    options: type[ArchitectureOptions] = ArchitectureOptions
    told_by: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] = lambda state: {}
    usual: Mapping[str, Any] = field(default_factory=dict)
    normalizes_itself: bool = False
    only_colour: bool = False
    one_start: bool = False

    def __post_init__(self) -> None:
        for name in sorted(_TAKEN & self.options.model_fields.keys()):
            raise ConfigError(f"an architecture cannot have an option called {name!r}; rename it")


MODELS: Registry[Architecture] = Registry("model", "generalist_bench.models", Architecture)


def input_channels(channels: int) -> dict[str, int]:
    """The argument ``in_channels`` of this repository's networks, which is left out for colour."""
    return {} if channels == 3 else {"in_channels": channels}


def first_convolution(state: Mapping[str, Tensor]) -> Tensor | None:
    """The weight [width, channels, k, k] of the first layer that is called ``conv1``, if any."""
    names = (name for name in state if f".{name}".endswith(".conv1.weight"))
    first = next(names, None)
    return None if first is None else state[first]
