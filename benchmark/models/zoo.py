"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry
from benchmark.models.external import ResNet2B
from benchmark.models.resnet import PreActResNet, ResNet
from benchmark.models.wide_resnet import WideResNet

if TYPE_CHECKING:
    from benchmark.models.config import ModelConfig

Call: TypeAlias = partial[Any]


@dataclass(frozen=True)
class Architecture:
    """What a name stands for.

    Attributes:
        constructor: called as ``constructor(num_classes, image_size=, mean=, std=, **options)``;
            gives the call that makes the network, a class or function with its arguments.
        description: one line for listings.
        options: the keys of ModelConfig, beyond name and normalization, that it takes.
        only_colour: it has no one-channel form.
        normalizes_itself: the normalisation is part of the architecture; mean and std stay None.
    """

    constructor: Callable[..., Call]
    description: str
    options: frozenset[str] = frozenset()
    normalizes_itself: bool = False
    only_colour: bool = False


MODELS: Registry[Architecture] = Registry("model")

# A network's attribute that survives copies, which averages of networks are.
_MADE_BY = "made_by"


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
        channels: of the images, 3 or 1.
        image_size: height and width of the images, in pixels.
        mean, std: statistics of the data set per channel, for ``normalization: dataset``.

    Raises:
        ConfigError: a size that cannot be, ``normalization: dataset`` without statistics, or
            another number of channels than the network takes.
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
                "write them out as normalization: {mean: [...], std: [...]}"
            )
    else:
        mean, std = config.normalization.mean, config.normalization.std
    options = {name: getattr(config, name) for name in architecture.options}
    given = {name: value for name, value in options.items() if value is not None}
    if mean is not None and len(mean) != channels:
        raise ConfigError(
            f"the normalisation has {len(mean)} channels, but images have {channels}; write one "
            "mean and std per channel"
        )
    if channels != 3:
        if architecture.only_colour:
            raise ConfigError(
                f"{config.name} takes colour images; leave dataset.channels at 3, which repeats "
                "grey, or choose another model"
            )
        given["in_channels"] = channels
    call = architecture.constructor(num_classes, image_size=image_size, mean=mean, std=std, **given)
    network = call()
    network.__dict__[_MADE_BY] = call
    network.register_load_state_dict_pre_hook(_compare_options)
    return network


def made_by(network: nn.Module) -> Call | None:
    """The call by which ``build_model`` made ``network``, or the network it is a copy of."""
    call: Call | None = network.__dict__.get(_MADE_BY)
    return call


def options_of(network: nn.Module) -> dict[str, Any] | None:
    """What ``network`` was made with, as plain values; None if ``build_model`` did not make it.

    The shapes of weights do not tell everything (the stride of a convolution, for one), so this
    travels with the weights that we write (``recorded_state``), and loading them into a network
    with other options is an error. The normalisation is left out: it is part of the state.
    """
    call = made_by(network)
    if call is None:
        return None
    values = {"network": call.func.__name__, "arguments": list(call.args), **call.keywords}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in ("mean", "std")
    }


def recorded_state(network: nn.Module) -> dict[str, Any]:
    """The state dict of ``network``, with the options of every network of ``build_model`` in it in
    torch's ``_metadata``, where ``torch.save`` keeps them. A file of it is an ordinary one."""
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


def _small_resnet(
    num_classes: int,
    *,
    image_size: int,
    width: int = 16,
    stem_stride: int | None = None,
    **kwargs: Any,
) -> Call:
    if stem_stride is None:
        stem_stride = 2 if image_size >= 32 else 1
    form: dict[str, Any] = {"width": width, "blocks": (1, 1, 1), "stem_stride": stem_stride}
    return partial(ResNet, num_classes, **form, **kwargs)


def _any_size(
    network: Callable[..., nn.Module], num_classes: int, *, image_size: int, **kwargs: Any
) -> Call:
    """For networks that end in global pooling and so do not ask for the image size."""
    return partial(network, num_classes, **kwargs)


def _torchvision(network: str, num_classes: int, *, image_size: int, **kwargs: Any) -> Call:
    from benchmark.models.imagenet import torchvision_resnet  # importing torchvision takes a second

    return partial(torchvision_resnet, network, num_classes, **kwargs)


def _resnet2b(num_classes: int, *, image_size: int, mean: None, std: None) -> Call:
    if image_size != 32:
        raise ConfigError(f"resnet2b takes 32x32 images, not {image_size}x{image_size}")
    return partial(ResNet2B, num_classes)


for _name, _architecture in {
    "resnet18": Architecture(partial(_any_size, ResNet), "ResNet-18, CIFAR form, 11.17 M"),
    "resnet18-w16": Architecture(
        partial(_any_size, partial(ResNet, width=16)), "ResNet-18 of width 16, 0.70 M"
    ),
    "small-resnet": Architecture(
        _small_resnet,
        "ResNet-8: 3 stages of 1 block, width 16 unless given, 0.08 M",
        options=frozenset({"width", "stem_stride"}),
    ),
    "preactresnet18": Architecture(
        partial(_any_size, PreActResNet), "pre-activation ResNet-18, last BN, 11.17 M"
    ),
    "preactresnet18-fastat": Architecture(
        partial(_any_size, partial(PreActResNet, paper_form=False)),
        "pre-activation ResNet-18 of Fast AT, no last BN, 11.17 M",
    ),
    "wrn-28-10": Architecture(
        partial(_any_size, partial(WideResNet, blocks=4)), "WideResNet-28-10, 36.48 M"
    ),
    "wrn-32-10": Architecture(
        partial(_any_size, partial(WideResNet, blocks=5)),
        "WideResNet-32-10 in Madry's counting (the tensors of wrn-34-10), 46.16 M",
    ),
    "wrn-34-10": Architecture(
        partial(_any_size, partial(WideResNet, blocks=5)), "WideResNet-34-10, 46.16 M"
    ),
    "torchvision-resnet18": Architecture(
        partial(_torchvision, "resnet18"),
        "torchvision ResNet-18 for ImageNet, 11.69 M",
        only_colour=True,
    ),
    "torchvision-resnet50": Architecture(
        partial(_torchvision, "resnet50"),
        "torchvision ResNet-50 for ImageNet, 25.56 M",
        only_colour=True,
    ),
    "resnet2b": Architecture(
        _resnet2b,
        "external reference ResNet-2B (VNN-COMP 2021), 0.11 M",
        normalizes_itself=True,
        only_colour=True,
    ),
}.items():
    MODELS.register(_name, _architecture)
