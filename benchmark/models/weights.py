"""Weights in checkpoint files: finds them in the file and matches their names to the network's."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.errors import CheckpointError
from benchmark.models.normalization import NORMALIZATION, Normalized

# Tensors by name, and the extra state of modules.
StateDict = OrderedDict[str, Any]

# Keys under which training scripts store weights and averaged weights.
_PLAIN_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "net_state_dict",
    "network",
    "weights",
    "params",
)
_AVERAGE_KEYS = (
    "ema",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "model_ema_state_dict",
    "ema_model",
    "net_ema",
    "params_ema",
    "swa_state_dict",
    "shadow",
)
KEYS = _PLAIN_KEYS + _AVERAGE_KEYS
# Parts that wrappers insert into a name: DataParallel, torch.compile, FSDP.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# Counters of averaging (swa_utils, ema-pytorch) and of profilers (thop, ptflops).
_COUNTERS = frozenset(
    {"n_averaged", "num_updates", "initted", "step", "total_ops", "total_params", "__flops__"}
)
# May be missing in a checkpoint: torch has a default for the first, the network for the second.
_OPTIONAL = ("num_batches_tracked", "_extra_state")
_CHOOSE = "--set model.checkpoint_key=NAME chooses"
# First parts of names if the network was an attribute of the object that was saved; "0" comes from
# nn.Sequential(network).
_HOLDERS = frozenset({"model", "net", "network", "ema_model", "online_model", "0"})
# Classes of harmless values that checkpoints hold beside weights; unpickling them runs no code.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.float64(0).__reduce__()[0],  # the function that unpickles a NumPy scalar
    *{type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")},
]


def read_state_dict(path: Path, key: str | None = None) -> StateDict:
    """The tensors by name in a checkpoint; no code in the file is run.

    They are looked for at the top level and under ``KEYS``, also nested.

    Args:
        key: the place of the tensors in a file with several state dicts: keys joined by dots, or
            the beginning of the tensors' names.

    Returns:
        A state dict with torch's ``_metadata``, if the file has it.

    Raises:
        CheckpointError: missing, damaged, holding other Python objects, without weights, or with
            several state dicts.
    """
    content = _read(path)
    if key is not None:
        found = _under(content, key)
        if found is None:
            raise CheckpointError(
                f"checkpoint {path} has no state dict under {key!r}; its keys: {_keys(content)}"
            )
        return found
    bare = _state_dict(content)
    if bare is not None:
        return bare
    candidates = dict(_candidates(content))
    states = {name: state for name, state in candidates.items() if state is not None}
    lists = [name for name, state in candidates.items() if state is None]
    if isinstance(content, list | tuple) and any(_state_dict(item) for item in content):
        lists.append("at the top")
    if len(states) > 1:
        first, *others = states.values()
        if not all(_equal(first, other) for other in others):
            raise CheckpointError(
                f"checkpoint {path} holds several state dicts ({', '.join(states)}), which are "
                f"different networks; {_CHOOSE} one"
            )
    if states:
        return next(iter(states.values()))
    if lists:
        raise CheckpointError(
            f"checkpoint {path} has no state dict but a list of them ({', '.join(lists)}); save "
            "only the one that belongs to this network"
        )
    raise CheckpointError(
        f"checkpoint {path} has no state dict, neither at the top level nor under "
        f"{', '.join(KEYS)}; its keys: {_keys(content)}; {_CHOOSE} another"
    )


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} is missing or not a file; check the path")
    try:
        allowed = getattr(torch.serialization, "safe_globals", None)  # since torch 2.5
        with allowed(_HARMLESS) if allowed else nullcontext():
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"checkpoint {path} holds Python objects that could run code, so it is not opened; "
                "save only model.state_dict() and use that file"
            ) from error
        raise CheckpointError(_damaged(path)) from error
    # torch raises exceptions of any type for a damaged file.
    except Exception as error:
        if _is_program(path):
            raise CheckpointError(
                f"checkpoint {path} is a whole network in TorchScript or of torch.export, not "
                "weights; name it with the ending .ts or .pt2 and give it as the model itself"
            ) from error
        raise CheckpointError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"checkpoint {path} is damaged or not a PyTorch file; copy it again"


def _is_program(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return any("/code/" in name or name.endswith("models/model.json") for name in names)


def _keys(content: Any) -> str:
    return ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else "none"


def _state_dict(content: Any) -> StateDict | None:
    """``content`` as a state dict, if it is one."""
    if not isinstance(content, Mapping) or not content:
        return None
    for name, value in content.items():
        if not isinstance(value, Tensor) and not str(name).endswith("_extra_state"):
            return None
    if not any(isinstance(value, Tensor) for value in content.values()):
        return None
    state: StateDict = OrderedDict((str(name), value) for name, value in content.items())
    state._metadata = getattr(content, "_metadata", {})  # type: ignore[attr-defined]
    return state


def _candidates(content: Any, depth: int = 3) -> Iterator[tuple[str, StateDict | None]]:
    """State dicts under the usual keys, each with its path; None in place of a list of them."""
    if not isinstance(content, Mapping):
        return
    for key in KEYS:
        value = content.get(key)
        state = _state_dict(value)
        if state is not None:
            yield key, state
        elif isinstance(value, list | tuple) and any(_state_dict(item) for item in value):
            yield key, None
        elif depth > 1:
            yield from ((f"{key}.{name}", found) for name, found in _candidates(value, depth - 1))


def _under(content: Any, key: str) -> StateDict | None:
    """The state dict at a path of keys, or of the tensors whose names begin with ``key``."""
    here, rest = content, key
    while isinstance(here, Mapping) and rest:
        fitting = [k for k in here if rest == str(k) or rest.startswith(f"{k}.")]
        if not fitting:
            break
        longest = max(fitting, key=lambda k: len(str(k)))
        here, rest = here[longest], rest[len(str(longest)) + 1 :]
    state = _state_dict(here)
    if state is None and isinstance(here, Mapping) and rest:
        nested = [found for _, found in _candidates(here) if found is not None]
        state = nested[0] if len(nested) == 1 else None
    if state is None or not rest:
        return state
    prefix = rest.rstrip(".") + "."
    part: StateDict = OrderedDict(
        (name.removeprefix(prefix), value)
        for name, value in state.items()
        if name.startswith(prefix)
    )
    part._metadata = {  # type: ignore[attr-defined]
        name.removeprefix(prefix[:-1]).lstrip("."): value
        for name, value in state._metadata.items()  # type: ignore[attr-defined]
        if f"{name}.".startswith(prefix)
    }
    return part or None


def _equal(one: StateDict, other: StateDict) -> bool:
    return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other) if not isinstance(one, Tensor | dict) else False


def recorded_options(state: StateDict) -> dict[str, Any] | None:
    """The architecture's options, if the weights were saved with them (see ``zoo.options_of``)."""
    found = [
        entry["architecture"]
        for entry in getattr(state, "_metadata", {}).values()
        if isinstance(entry, Mapping) and isinstance(entry.get("architecture"), dict)
    ]
    return found[0] if len(found) == 1 else None


def load_weights(model: nn.Module, state: StateDict, source: str) -> list[str]:
    """Load ``state`` strictly, but ignore the parts of names that wrappers add on either side.

    Returns:
        Sentences on harmless differences: what was ignored or missing.

    Raises:
        CheckpointError: keys are missing or unexpected, shapes differ, the weights were saved from
            a network with other options, or one name fits several tensors.
    """
    own = model.state_dict()
    bare = _bare if len({_bare(name) for name in own}) == len(own) else str
    names = {bare(name): name for name in own}
    file = _without_wrappers(state, bare, source)
    prefix = _prefix(names, file, source)
    renamed: StateDict = OrderedDict()
    dropped = []
    for name, value in file.items():
        inner = name.removeprefix(prefix)
        if name.startswith(prefix) and inner in names:
            renamed[names[inner]] = value
        elif name.rpartition(".")[2] in _COUNTERS and value.numel() == 1:
            dropped.append(name)
        else:
            renamed[inner] = value
    differing = [
        f"{name} is {list(value.shape)} in the file and {list(own[name].shape)} in the network"
        for name, value in renamed.items()
        if isinstance(value, Tensor)
        and isinstance(own.get(name), Tensor)
        and own[name].shape != value.shape
    ]
    if differing:
        raise CheckpointError(f"{source} is for another architecture: {few(differing)}")
    options = recorded_options(state)
    renamed._metadata = {"": {"architecture": options}} if options else {}  # type: ignore[attr-defined]
    try:
        outcome = model.load_state_dict(renamed, strict=False)
    except Exception as error:  # a module that refuses its extra state, or other options
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"{source} does not fit the network: {lines[-1] if lines else type(error).__name__}"
        ) from error
    missing = [name for name in outcome.missing_keys if not name.endswith("_extra_state")]
    # A registered network has these buffers only if the file or the user gives a normalisation.
    stated = [name for name in missing if isinstance(model, Normalized) and name in NORMALIZATION]
    missing = [name for name in missing if name not in stated]
    problems = []
    if missing:
        problems.append(f"missing {few(missing)}")
    if outcome.unexpected_keys:
        problems.append(f"unexpected {few(outcome.unexpected_keys)}")
    if problems:
        raise CheckpointError(f"{source} is for another architecture: {'; '.join(problems)}")
    notes = []
    if prefix:
        notes.append(f"names in the checkpoint begin with {prefix!r}, which is removed")
    if dropped:
        notes.append(f"counters in the checkpoint are ignored: {few(dropped)}")
    if stated:
        notes.append("the checkpoint has no normalisation; that of model.normalization is used")
    if len(missing) + len(stated) < len(outcome.missing_keys):
        notes.append("the checkpoint lacks extra state of the network, which keeps its own")
    return notes


def _bare(name: str) -> str:
    """``name`` without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _without_wrappers(state: StateDict, bare: Any, source: str) -> StateDict:
    """The tensors under names without the parts that wrappers add.

    Raises:
        CheckpointError: two different tensors get the same name.
    """
    found: StateDict = OrderedDict()
    origin: dict[str, str] = {}
    for name, value in state.items():
        short = bare(name)
        if short in found and not _same(found[short], value):
            raise CheckpointError(
                f"{source} holds two different values of {short}: {origin[short]} and {name}; save "
                "the state dict of one network only"
            )
        if short not in found:
            found[short], origin[short] = value, name
    return found


def _prefix(names: Mapping[str, str], file: StateDict, source: str) -> str:
    """The prefix that every name of the network has in the file, such as ``model.``.

    Raises:
        CheckpointError: the file holds the whole network several times, with different values.
    """
    needed = [name for name in names if name.rpartition(".")[2] not in _OPTIONAL]
    if not needed:
        return ""
    prefixes = {""}
    for name in file:
        parts = name.split(".")
        held = next((i for i, part in enumerate(parts) if part not in _HOLDERS), len(parts))
        prefixes |= {".".join([*parts[:i], ""]) for i in range(1, held + 1)}
    counts = {
        prefix: sum(prefix + name in file for name in needed)
        for prefix in sorted(prefixes, key=len)
    }
    whole = [prefix for prefix, count in counts.items() if count == len(needed)]
    first, *others = whole or [max(counts, key=lambda prefix: counts[prefix])]
    for other in others:
        if any(not _same(file[first + name], file[other + name]) for name in needed):
            shown = " and ".join(f"{p}* " if p else "bare names " for p in (first, other))
            raise CheckpointError(
                f"{source} holds the network twice with different values, as {shown.strip()}; save "
                f"only one, or {_CHOOSE} the beginning of the names"
            )
    return first


def few(items: list[str]) -> str:
    """The first three, and how many more there are."""
    more = len(items) - 3
    return ", ".join(items[:3]) + (f" and {more} more" if more > 0 else "")
