"""Networks from outside: files, model-zoo ids, factories and architectures with their weights."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmark.core.config import parse
from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.registry import did_you_mean
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
from benchmark.models.zoo import MODELS, build_model

StateDict = dict[str, Tensor]

# Where training scripts put the weights, and what DataParallel and wrappers put before the names.
_KEYS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.")
_ROBUSTBENCH = "robustbench:"


def load_external(
    spec: str,
    checkpoint: Path | None,
    num_classes: int,
    *,
    image_size: int = 32,
    channels: int = 3,
    settings: Mapping[str, Any] | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """A trained network for evaluation, in eval mode.

    Args:
        spec: ``package.module:factory``, also importable from the working directory; a name of
            ``MODELS``; a file of ``formats.SUFFIXES``; or ``robustbench:ID``. The factory is called
            with ``num_classes`` if it takes that argument.
        checkpoint: file of weights, bare or under one of the usual keys. It may be None for a
            factory that loads its own weights, and must be for a file or an id. Buffers ``mu`` and
            ``sigma`` in the file become the normalisation of a registered architecture.
        image_size, channels: of the images, for the check of the output shape.
        settings: options of a registered architecture that its weights do not tell; ``dataset`` and
            ``threat`` of a ``robustbench:ID``.
        device: where the network will be; default: the CPU.

    Raises:
        ConfigError: the spec cannot be used, or the network does not give [n, num_classes].
        CheckpointError: the file is missing, damaged, unsafe or of another architecture.
    """
    device = device or torch.device("cpu")
    settings = settings or {}
    from_file, from_zoo = is_model_file(spec), spec.startswith(_ROBUSTBENCH)
    _check_spec(spec, checkpoint, settings)
    state = None if checkpoint is None else read_state_dict(Path(checkpoint))
    model: nn.Module
    if from_file:
        model = load_file(Path(spec), device)
    elif from_zoo:
        model = _from_robustbench(spec.removeprefix(_ROBUSTBENCH), settings)
    elif ":" in spec:
        model = _from_factory(spec, num_classes)
    elif state is None:
        raise ConfigError(f"{spec} is an architecture without weights; name a checkpoint as well")
    else:
        model = _from_registry(spec, state, num_classes, image_size, settings)
    if state is not None:
        load_weights(model, state, str(checkpoint))
    _check_finite(model, str(checkpoint or spec))
    model.to(device).eval()
    for batch in BATCHES if from_file else BATCHES[:1]:
        images = torch.full((batch, channels, image_size, image_size), 0.5, device=device)
        _check_output(model, spec, num_classes, images, BATCH_ADVICE if from_file else "")
    return model


def _check_spec(spec: str, checkpoint: Path | None, settings: Mapping[str, Any]) -> None:
    from_file, from_zoo = is_model_file(spec), spec.startswith(_ROBUSTBENCH)
    if checkpoint is not None and (from_file or from_zoo):
        raise ConfigError(f"{spec} brings its own weights; leave --checkpoint out")
    if settings and (from_file or (":" in spec and not from_zoo)):
        raise ConfigError(
            f"model.{next(iter(settings))} is for registered architectures, and {spec} is none"
        )
    if ":" not in spec and spec not in MODELS and Path(spec).suffix and not from_file:
        raise ConfigError(
            f"{spec!r} is not a model; write module:factory, a registered name, robustbench:ID or "
            f"a file ending in {', '.join(SUFFIXES)}"
        )


def read_state_dict(path: Path) -> StateDict:
    """The tensors by name in a checkpoint; no code in the file is run.

    Raises:
        CheckpointError: missing, damaged, holding other Python objects, or without weights.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is missing or not a file; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"checkpoint {path} holds Python objects that could run code, so it is not opened; "
                "save model.state_dict() alone and use that file"
            ) from error
        raise CheckpointError(_damaged(path)) from error
    # torch reports a damaged file by whatever its parser stumbles over.
    except Exception as error:
        raise CheckpointError(_damaged(path)) from error
    for key in _KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else "none"
        raise CheckpointError(
            f"checkpoint {path} has no state dict, neither bare nor under "
            f"{', '.join(_KEYS)}; its keys: {held or 'none'}"
        )
    return {str(name): value for name, value in content.items()}


def _damaged(path: Path) -> str:
    return f"checkpoint {path} is damaged or not a PyTorch file; copy it again"


def load_weights(model: nn.Module, state: StateDict, source: str) -> None:
    """Load ``state`` strictly, without the prefixes that wrappers add.

    Raises:
        CheckpointError: keys are missing or unexpected, or shapes differ.
    """
    own = model.state_dict()
    state = {_unwrapped(name, own): value for name, value in state.items()}
    differing = [
        f"{name} is {list(value.shape)} in the file and {list(own[name].shape)} in the network"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    if differing:
        raise CheckpointError(f"{source} is of another architecture: {_few(differing)}")
    outcome = model.load_state_dict(state, strict=False)
    problems = []
    if outcome.missing_keys:
        problems.append(f"missing {_few(outcome.missing_keys)}")
    if outcome.unexpected_keys:
        problems.append(f"unexpected {_few(outcome.unexpected_keys)}")
    if problems:
        raise CheckpointError(f"{source} is of another architecture: {'; '.join(problems)}")


def _unwrapped(name: str, own: Mapping[str, Any]) -> str:
    """``name`` without wrapper prefixes, unless the network itself has such a name."""
    while name not in own:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return name
        name = name.removeprefix(prefix)
    return name


def _few(items: list[str]) -> str:
    more = len(items) - 3
    return ", ".join(items[:3]) + (f" and {more} more" if more > 0 else "")


def _from_registry(
    spec: str, state: StateDict, num_classes: int, image_size: int, settings: Mapping[str, Any]
) -> nn.Module:
    architecture = MODELS.get(spec)
    plain = {_unwrapped(name, {"mu": 0, "sigma": 0}): value for name, value in state.items()}
    config: dict[str, Any] = {"name": spec}
    if {"mu", "sigma"} <= plain.keys() and not architecture.normalizes_itself:
        config["normalization"] = {
            "mean": plain["mu"].flatten().tolist(),
            "std": plain["sigma"].flatten().tolist(),
        }
    if "width" in architecture.options and plain.get("conv1.weight") is not None:
        config["width"] = plain["conv1.weight"].shape[0]
    if "stem_stride" in architecture.options and "stem_stride" not in settings:
        raise ConfigError(
            f"the weights of {spec} do not tell its stem_stride, and another one is another "
            "network: add --set model.stem_stride=1 or =2 (in a trained run, see config.json)"
        )
    config |= settings
    stem = plain.get("conv1.weight")
    return build_model(
        parse(ModelConfig, config, "checkpoint"),
        num_classes=num_classes,
        image_size=image_size,
        channels=3 if stem is None else stem.shape[1],
    )


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
        CheckpointError: its file cannot be had, or not be read with weights_only.
    """
    from benchmark.models.robustbench import import_robustbench  # pyautoattack takes a second

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
        # It prints, and stdout may be JSON.
        with only_tensors(), contextlib.redirect_stdout(sys.stderr):
            model: nn.Module = robustbench.load_model(
                name, model_dir="models", dataset=dataset, threat_model=threat
            )
    except Exception as error:  # of the network, of the file or of the zoo's code
        remedy = f"{file} may be damaged" if file.exists() else f"put its weights at {file}"
        raise CheckpointError(
            f"cannot load robustbench:{name} ({reason(error)}); {remedy} in the working directory"
        ) from error
    return model


def _import(spec: str) -> Callable[..., Any]:
    module_name, _, attribute = spec.partition(":")
    # Last, so that a file beside the user's data cannot hide an installed package.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        factory: Any = importlib.import_module(module_name)
    except Exception as error:  # foreign code may raise anything
        raise ConfigError(
            f"cannot import {module_name!r} of {spec!r}: {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        factory = getattr(factory, part, None)
    if not callable(factory):
        raise ConfigError(f"{module_name} has no callable {attribute!r}; check {spec!r}")
    return cast("Callable[..., Any]", factory)


def _check_finite(model: nn.Module, source: str) -> None:
    bad = [
        name
        for name, value in model.state_dict().items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    if bad:
        raise CheckpointError(f"{source} has weights that are not finite: {_few(bad)}")


def _check_output(
    model: nn.Module, spec: str, num_classes: int, images: Tensor, advice: str
) -> None:
    advice = f"; {advice}" if advice else ""
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:  # foreign code may raise anything
        raise ConfigError(
            f"{spec} fails on images of shape {list(images.shape)}: {reason(error)}{advice}"
        ) from error
    if not isinstance(logits, Tensor):
        raise ConfigError(f"{spec} returns {type(logits).__name__}, not a tensor of logits")
    if logits.shape != (len(images), num_classes):
        advice = advice if logits.shape[1:] == (num_classes,) else "; is num_classes right?"
        raise ConfigError(
            f"{spec} maps {list(images.shape)} to {list(logits.shape)}, "
            f"not to {[len(images), num_classes]}{advice}"
        )
