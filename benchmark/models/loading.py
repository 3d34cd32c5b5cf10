"""Loads networks of other code: files, model-zoo ids, factories, architectures with weights."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from benchmark.core.config import parse
from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.outside import import_module
from benchmark.core.registry import did_you_mean
from benchmark.models.adapt import adapted, add_notes
from benchmark.models.architecture import MODELS, first_convolution
from benchmark.models.config import ModelConfig
from benchmark.models.formats import (
    BATCH_ADVICE,
    BATCHES,
    SUFFIXES,
    is_model_file,
    load_file,
    only_tensors,
    reason,
)
from benchmark.models.weights import (
    StateDict,
    few,
    load_weights,
    read_state_dict,
    recorded_options,
)
from benchmark.models.zoo import build_model

_ROBUSTBENCH = "robustbench:"
# Sizes of the batches that every network is tried on: an ordinary one, one image, an odd number.
TRIED_BATCHES = (2, 1, 7)


def load_external(
    spec: str,
    checkpoint: Path | None,
    num_classes: int,
    *,
    image_size: int = 32,
    channels: int = 3,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
    batch: int | None = None,
) -> nn.Module:
    """A trained network for evaluation, in eval mode, in the form that attacks need (``adapted``).

    ``notes_of`` says what was done to the network and its weights.

    Args:
        spec: ``package.module:factory``, also importable from the working directory; a name of
            ``MODELS``; a file of ``formats.SUFFIXES``; or ``robustbench:ID``. The factory is called
            with ``num_classes`` if it takes that argument.
        checkpoint: file of weights, at its top level or under one of the usual keys. It may be None
            for a factory that loads its own weights, and must be None for a file or an id. Buffers
            ``mu`` and ``sigma`` in the file become the normalisation of a registered architecture.
        image_size, channels: of the images, to check the shape of the output.
        settings: options of a registered architecture that do not follow from its weights;
            ``dataset`` and ``threat`` of a ``robustbench:ID``; ``checkpoint_key``, see
            ``read_state_dict``.
        device: where the network will be; default: the CPU.
        batch: size of the evaluation's largest batch, on which the network is tried too.

    Raises:
        ConfigError: the spec cannot be used, or the network does not return [n, num_classes] for
            every batch size that is tried.
        CheckpointError: the file is missing, damaged, unsafe or for another architecture.
    """
    device = device or torch.device("cpu")
    settings = dict(settings or {})
    key = settings.pop("checkpoint_key", None)
    from_file, from_zoo = is_model_file(spec), spec.startswith(_ROBUSTBENCH)
    check_spec(spec, checkpoint, settings)
    if key is not None and checkpoint is None:
        raise ConfigError("model.checkpoint_key needs a checkpoint; give --checkpoint too")
    state = None
    if checkpoint is not None:
        state = read_state_dict(Path(checkpoint), None if key is None else str(key))
    model: nn.Module
    if from_file:
        model = load_file(Path(spec), device)
    elif from_zoo:
        model = _from_robustbench(spec.removeprefix(_ROBUSTBENCH), settings)
    elif ":" in spec:
        model = _unwrapped(_from_factory(spec, num_classes))
    elif state is None:
        raise ConfigError(f"{spec} is an architecture without weights; add --checkpoint FILE")
    else:
        model = _from_registry(spec, state, num_classes, image_size, channels, settings)
    shape = (channels, image_size, image_size)
    notes = _initialised(model, spec, shape)
    if notes and state is None:
        notes.append("the lazy layers have random weights, since there is no checkpoint")
    if state is not None:
        notes += load_weights(model, state, str(checkpoint))
        notes += _unverified(spec, state, settings)
    _check_finite(model, str(checkpoint or spec))
    model.to(device)
    add_notes(model, notes)
    largest = (batch,) if batch else ()
    batches = BATCHES if from_file else dict.fromkeys((*TRIED_BATCHES, *largest))
    advice = BATCH_ADVICE if from_file else ""
    return adapted(model, spec, num_classes, shape, tuple(batches), device, advice)


def check_spec(spec: str, checkpoint: Path | None, settings: Mapping[str, Any]) -> None:
    """Refuse what can be no network, before anything is read.

    Raises:
        ConfigError: an unknown form or name, or options that contradict each other.
    """
    from_file, from_zoo = is_model_file(spec), spec.startswith(_ROBUSTBENCH)
    if checkpoint is not None and (from_file or from_zoo):
        raise ConfigError(f"{spec} brings its own weights; leave --checkpoint out")
    if settings and (from_file or (":" in spec and not from_zoo)):
        raise ConfigError(
            f"model.{next(iter(settings))} is for registered architectures, and {spec} is none"
        )
    if spec not in MODELS and Path(spec).is_dir():
        raise ConfigError(
            f"{spec} is a folder; use evaluate for a trained run, evaluate-model for a network"
        )
    if ":" not in spec and spec not in MODELS and Path(spec).suffix and not from_file:
        raise ConfigError(
            f"{spec!r} is not a model; write module:factory, a registered name, robustbench:ID or "
            f"a file ending in {', '.join(SUFFIXES)}"
        )
    if ":" not in spec and spec not in MODELS and not from_file:
        raise ConfigError(
            f"unknown model {spec!r}; write module:factory for a network of your own, such as "
            f"my_file:{spec}. Listed ones: {did_you_mean(spec, MODELS.names())}"
        )


def _unwrapped(network: nn.Module) -> nn.Module:
    """``network`` without wrappers that change nothing about its function: DataParallel, the
    averages of ``torch.optim.swa_utils``, ``torch.compile``."""
    while not (network._forward_hooks or network._forward_pre_hooks):
        if isinstance(network, DataParallel | DistributedDataParallel | AveragedModel):
            network = network.module
        elif type(network).__name__ == "OptimizedModule" and "_orig_mod" in network._modules:
            network = network.get_submodule("_orig_mod")
        else:
            break
    return network


def _initialised(network: nn.Module, spec: str, shape: tuple[int, int, int]) -> list[str]:
    """Give lazy layers their shapes by one forward pass.

    Returns:
        A note if there were any.

    Raises:
        ConfigError: weights on the meta device, which have no values; lazy layers that fail.
    """
    tensors = [*network.parameters(), *network.buffers()]
    if any(tensor.is_meta for tensor in tensors):
        raise ConfigError(
            f"{spec} makes its weights on torch's meta device, where they have no values; change "
            "it to make them on the CPU"
        )
    if not any(is_lazy(tensor) for tensor in tensors):
        return []
    try:
        network.eval()
        with torch.no_grad():
            network(torch.rand(2, *shape))
    except Exception as error:  # foreign code may raise anything
        raise ConfigError(
            f"{spec} has lazy layers and fails on images of shape {[2, *shape]}: {reason(error)}"
        ) from error
    return ["lazy layers got their shapes from one forward pass"]


def _from_registry(
    spec: str,
    state: StateDict,
    num_classes: int,
    image_size: int,
    channels: int,
    settings: Mapping[str, Any],
) -> nn.Module:
    architecture = MODELS.get(spec)
    recorded = recorded_options(state) or {}
    plain = {name.rpartition(".")[2]: value for name, value in state.items() if "mu" in name}
    plain |= {name.rpartition(".")[2]: value for name, value in state.items() if "sigma" in name}
    stem = first_convolution(state)
    config: dict[str, Any] = {"name": spec}
    if {"mu", "sigma"} <= plain.keys() and not architecture.normalizes_itself:
        config["normalization"] = {
            "mean": plain["mu"].flatten().tolist(),
            "std": plain["sigma"].flatten().tolist(),
        }
    told = architecture.told_by(state)
    for name, field in architecture.options.model_fields.items():
        if name in told:
            config[name] = told[name]
        elif name in recorded:
            config[name] = recorded[name]
        elif name in architecture.usual:
            config[name] = architecture.usual[name]
        elif name not in settings:
            values = [f"={value}" for value in _choices(field.annotation)] or ["=VALUE"]
            raise ConfigError(
                f"the {name} of {spec} cannot be read from its weights, but the network depends on "
                f"it: add --set model.{name}{' or '.join(values)} (in a trained run, see "
                "config.json)"
            )
    config |= settings
    return build_model(
        parse(ModelConfig, config, "checkpoint"),
        num_classes=num_classes,
        image_size=image_size,
        channels=channels if stem is None else stem.shape[1],
    )


def _unverified(spec: str, state: StateDict, settings: Mapping[str, Any]) -> list[str]:
    """A note if the user gave options of a registered architecture that weights cannot confirm."""
    if spec not in MODELS or recorded_options(state):
        return []
    architecture = MODELS.get(spec)
    told = architecture.told_by(state)
    options = architecture.options.model_fields
    given = sorted(name for name in settings if name in options and name not in told)
    if not given:
        return []
    stated = ", ".join(f"{name} = {settings[name]}" for name in given)
    are = "is" if len(given) == 1 else "are"
    return [
        f"the checkpoint does not record its architecture's options, so {stated} {are} taken as "
        "given and could not be checked"
    ]


def _choices(annotation: Any) -> list[Any]:
    """The values that an option of a ``Literal`` type can have, without None."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in _choices(part)]


def _from_factory(spec: str, num_classes: int) -> nn.Module:
    factory = _import(spec)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    takes_classes = "num_classes" in parameters or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    try:
        model = factory(num_classes=num_classes) if takes_classes else factory()
    except Exception as error:  # foreign code may raise anything
        raise ConfigError(f"{spec} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{spec} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _from_robustbench(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """A network of RobustBench's model zoo, downloaded unless its file is there.

    Raises:
        ConfigError: the zoo has no such data set, threat model or network.
        CheckpointError: its file cannot be downloaded, or cannot be read with weights_only.
    """
    # Start-up time: pyautoattack takes a second.
    from benchmark.models.robustbench import import_robustbench  # noqa: PLC0415

    robustbench = import_robustbench()
    for key in settings:
        if key not in ("dataset", "threat"):
            raise ConfigError(f"robustbench:{name} has no model.{key}, only dataset and threat")
    dataset, threat = settings.get("dataset", "cifar10"), settings.get("threat", "Linf")
    zoo = {
        (of.value, under.value): networks
        for of, threats in robustbench.model_zoo.model_dicts.items()
        for under, networks in threats.items()
    }
    if (dataset, threat) not in zoo:
        known = ", ".join(f"{of} {under}" for of, under in zoo)
        raise ConfigError(f"RobustBench has no zoo for {dataset} {threat}; known: {known}")
    networks = zoo[dataset, threat]
    if name not in networks:
        raise ConfigError(
            f"RobustBench has no {name!r} for {dataset} {threat}; {did_you_mean(name, networks)}"
        )
    parts = isinstance(networks[name].get("gdrive_id"), list)
    file = Path("models", dataset, threat, f"{name}_m0.pt" if parts else f"{name}.pt")
    try:
        # RobustBench prints to stdout, which may have to be JSON.
        with only_tensors(), contextlib.redirect_stdout(sys.stderr):
            model: nn.Module = robustbench.load_model(
                name, model_dir="models", dataset=dataset, threat_model=threat
            )
    except Exception as error:  # the connection, the file or the zoo's code may fail
        remedy = f"{file} may be damaged" if file.exists() else f"put its weights at {file}"
        raise CheckpointError(
            f"cannot load robustbench:{name} ({reason(error)}); {remedy} in the working directory"
        ) from error
    return model


def _import(spec: str) -> Callable[..., Any]:
    module_name, _, attribute = spec.partition(":")
    factory: Any = import_module(module_name, spec)
    for part in attribute.split("."):
        factory = getattr(factory, part, None)
    if not callable(factory):
        raise ConfigError(f"{module_name} has no callable {attribute!r}; check {spec!r}")
    return cast("Callable[..., Any]", factory)


def _check_finite(model: nn.Module, source: str) -> None:
    bad = [
        name
        for name, value in model.state_dict().items()
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and not bool(value.isfinite().all())
    ]
    if bad:
        raise CheckpointError(f"{source} has weights that are not finite: {few(bad)}")
