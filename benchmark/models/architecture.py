"""The contract of an architecture: its options, and the call that makes a network of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor

from benchmark.core.config import Config
from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry

# A class or function that gives a network, with all of its arguments.
Call: TypeAlias = partial[Any]

# Keys beside the options under ``model:`` of a suite.
_TAKEN = {"name", "normalization", "options"}


class ArchitectureOptions(Config):
    """Base of an architecture's options. Each field is a key under ``model:`` in a suite, checked
    by its type and recorded with its value. Without fields, the architecture has no options."""


@dataclass(frozen=True)
class Architecture:
    """One architecture. Its entry point (group ``generalist_bench.models``) gives it its name.

    Attributes:
        description: the line that ``list models`` prints.
        call: called as ``call(num_classes, image_size=, channels=, mean=, std=, **options)``, with
            every option; gives the call that makes the network, a ``functools.partial`` of plain
            values, which can be repeated (submissions write it out as source). The network maps
            images [n, channels, image_size, image_size] in [0, 1] to logits [n, num_classes].
            ``mean`` and ``std`` (per channel, or both None) are the normalisation to do inside the
            network, see ``models.normalization.Normalized``. Raises ConfigError: a size that
            cannot be.
        options: the class of its options.
        told_by: the options that a state dict tells by its shapes, by name.
        usual: the options that published weights have unless they are known to have others. The
            user is not asked for them where a checkpoint does not tell them.
        normalizes_itself: the normalisation is part of the architecture; mean and std are None.
        only_colour: it has no one-channel form.
        one_start: it always starts from the same weights, whatever the seed.

    Raises:
        ConfigError: an option has a name that means something else.
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
