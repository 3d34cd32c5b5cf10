"""Makes networks by the name of their architecture, and remembers how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from benchmark.core.errors import ConfigError
from benchmark.models.architecture import MODELS, Call
from benchmark.models.config import ModelConfig

# Attributes of a network that copies keep; averages of networks are copies.
_MADE_BY = "made_by"
_OPTIONS = "architecture_options"


def build_model(
    config: ModelConfig,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int = 3,
) -> nn.Module:
    """The network of ``config``: images [n, c, h, w] in [0, 1] to logits [n, num_classes].

    Args:
        channels: channels of the images, 3 or 1.
        image_size: height and width of the images, in pixels.
        mean, std: statistics of the data set per channel, for ``normalization: dataset``.

    Raises:
        ConfigError: an impossible size, ``normalization: dataset`` without statistics, or a number
            of channels that the network does not take.
    """
    if num_classes < 2:
        raise ConfigError(f"a classifier needs at least 2 classes, not {num_classes}")
    if image_size < 4:
        raise ConfigError(f"images of {image_size}x{image_size} pixels are too small; 4 is least")
    architecture = MODELS.get(config.name)
    if config.normalization == "none":
        mean = std = None
    elif config.normalization == "dataset":
        if mean is None or std is None:
            raise ConfigError(
                "normalization: dataset, but the data set states no mean and std; "
                "give them as normalization: {mean: [...], std: [...]}"
            )
    else:
        mean, std = config.normalization.mean, config.normalization.std
    if mean is not None and len(mean) != channels:
        raise ConfigError(
            f"the normalisation has {len(mean)} channels, but images have {channels}; give one "
            "mean and std per channel"
        )
    if channels != 3 and architecture.only_colour:
        raise ConfigError(
            f"{config.name} takes colour images; leave dataset.channels at 3, which repeats "
            "grey, or choose another model"
        )
    call = architecture.call(
        num_classes,
        image_size=image_size,
        channels=channels,
        mean=mean,
        std=std,
        **dict(config.options),
    )
    if not isinstance(call, partial):
        raise ConfigError(
            f"model {config.name!r} must return a functools.partial that makes the network, but "
            f"returned a {type(call).__name__}"
        )
    network: nn.Module = call()
    network.__dict__[_MADE_BY] = call
    network.__dict__[_OPTIONS] = config.options.model_dump(mode="json", exclude_none=True)
    network.register_load_state_dict_pre_hook(_compare_options)
    return network


def made_by(network: nn.Module) -> Call | None:
    """The call by which ``build_model`` made ``network`` or the network that it is a copy of."""
    call: Call | None = network.__dict__.get(_MADE_BY)
    return call


def options_of(network: nn.Module) -> dict[str, Any] | None:
    """The options of ``network``, as plain values; None if ``build_model`` did not make it.

    Not everything follows from the shapes of weights (the stride of a convolution does not), so the
    options are saved with the weights (``recorded_state``), and loading the weights into a network
    with other options is an error. The normalisation is not among them: it is part of the state.
    """
    call = made_by(network)
    if call is None:
        return None
    # If an option is also an argument, the argument is taken: it is the value that was used.
    values = {
        **network.__dict__[_OPTIONS],
        **call.keywords,
        "network": call.func.__name__,
        "arguments": list(call.args),
    }
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in ("mean", "std")
    }


def recorded_state(network: nn.Module) -> dict[str, Any]:
    """The state dict of ``network``. Its ``_metadata``, which ``torch.save`` writes too, holds the
    options of every network inside that ``build_model`` made. The file stays an ordinary one."""
    state: Any = network.state_dict()
    for name, module in network.named_modules():
        options = options_of(module)
        if options is not None:
            state._metadata.setdefault(name, {})["architecture"] = options
    recorded: dict[str, Any] = state
    return recorded


def _compare_options(
    network: nn.Module,
    state: Any,
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    recorded, own = local_metadata.get("architecture"), options_of(network)
    if not recorded or own is None:
        return
    differing = [
        f"{name} = {recorded.get(name)}, not {own.get(name)}"
        for name in dict.fromkeys([*recorded, *own])
        if recorded.get(name) != own.get(name)
    ]
    if differing:
        errors.append(f"the weights were saved from a network with {'; '.join(differing)}")
