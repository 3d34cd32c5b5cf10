"""Networks that are given in Python become architectures, which a suite can name."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.models.architecture import Architecture, Call


def given_architecture(network: nn.Module | Callable[..., nn.Module]) -> tuple[str, Architecture]:
    """An architecture that makes ``network``, for temporary use in ``MODELS``, and its name, which
    contains a hash.

    Args:
        network: a network, whose weights are the start of every training; or a function that makes
            one, with initial weights from torch's global generator, so that they depend on the
            seed. The function is called with ``num_classes`` if it takes that argument.
    """
    if isinstance(network, nn.Module):
        digest, word = tensors_hash(network.state_dict())[:10], type(network).__name__
    else:
        word = getattr(network, "__name__", type(network).__name__)
        digest = hashlib.sha256(_source(network).encode()).hexdigest()[:10]

    def make(num_classes: int, image_size: int, channels: int) -> nn.Module:
        if isinstance(network, nn.Module):
            made = copy.deepcopy(network).cpu().train()
        else:
            takes_classes = "num_classes" in inspect.signature(network).parameters
            made = network(num_classes=num_classes) if takes_classes else network()
        if not isinstance(made, nn.Module):
            raise ConfigError(f"{word} returned {type(made).__name__}, not a torch.nn.Module")
        _check_output(made, word, num_classes, (2, channels, image_size, image_size))
        return made

    def call(num_classes: int, *, image_size: int, channels: int, **_: Any) -> Call:
        return partial(make, num_classes, image_size, channels)

    plain = "".join(letter if letter.isalnum() else "-" for letter in word).strip("-") or "network"
    return f"memory-{plain}-{digest}", Architecture(
        f"{word}, given in Python",
        call,
        normalizes_itself=True,
        one_start=isinstance(network, nn.Module),
    )


def _check_output(network: nn.Module, word: str, classes: int, shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng(devices=[]), crafting(network), torch.no_grad():
        try:
            logits: Any = network(torch.rand(shape))
        except Exception as error:  # foreign code may raise anything
            raise ConfigError(f"{word} fails on images of shape {list(shape)}: {error}") from error
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != [shape[0], classes]:
        raise ConfigError(
            f"{word} maps {list(shape)} to {found}, but training needs logits [n, {classes}], one "
            "for each class of the data set"
        )


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # typed into an interpreter, or made at run time: no source
        return repr(getattr(function, "__qualname__", type(function).__qualname__))
