"""Networks that come as one file: TorchScript, an exported program, ONNX.

Which files to trust: TorchScript and exported programs contain code, and torch does not promise
that a malicious file is harmless (it evaluates the shape expressions of an exported program as
Python). Load such a file only if you would also run a Python module from the same source. Only
tensors are unpickled: TorchScript has its own reader, and for exported programs the fallback of
``torch.export.load``, which unpickles any object, is switched off. ONNX files contain only data.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmark.core.errors import CheckpointError, ConfigError

SUFFIXES = (".ts", ".torchscript", ".jit", ".pt2", ".onnx")
# A graph may be fixed to one batch size; the evaluation uses 1 to 256 images.
BATCHES = (2, 1, 256)
BATCH_ADVICE = (
    "the evaluation needs float32 images in batches of 1 to 256, so export the network with a "
    "dynamic batch dimension"
)
# Records of an exported program that hold more than tensors and a graph.
_OBJECTS = ("opaque_obj_", "custom_obj_")
_COMPILED = "aotinductor/"


class FileNet(nn.Module):
    """A network from a file, with ``train`` and ``eval`` as in every ``nn.Module``.

    Args:
        net: images [n, 3, h, w] to logits [n, k].
        content: the bytes of the file.
        has_modes: whether train and eval mode can be set in ``net``.

    Attributes:
        file_sha256: uint8 [32], part of the state. The state dict does not hold the graph and its
            constants, so without this hash two different graphs could seem to be one network.
    """

    file_sha256: Tensor

    def __init__(self, net: nn.Module, content: bytes, *, has_modes: bool) -> None:
        super().__init__()
        # Frozen TorchScript lacks the attribute ``training``, which every submodule must have. It
        # is kept in a tuple, so that it is no submodule; it has no tensors that could be missed.
        self._hidden = () if hasattr(net, "training") else (net,)
        if not self._hidden:
            self.net = net
        self._has_modes = has_modes
        digest = bytearray(hashlib.sha256(content).digest())
        self.register_buffer("file_sha256", torch.frombuffer(digest, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """The output of ``net`` for images [n, 3, h, w]: logits [n, k] if it is a classifier."""
        net = self._hidden[0] if self._hidden else self.net
        logits: Tensor = net(x)
        return logits

    def train(self, mode: bool = True) -> FileNet:
        """Set the mode, if the network has modes. An exported program has none, and would raise."""
        if self._has_modes:
            super().train(mode)
        self.training = mode
        return self


def is_model_file(spec: str) -> bool:
    """Whether ``spec`` names a file of these formats and no ``module:factory``."""
    return Path(spec).suffix.lower() in SUFFIXES and (":" not in spec or Path(spec).is_file())


def load_file(path: Path, device: torch.device) -> FileNet:
    """The network in a ``.ts``, ``.torchscript``, ``.jit``, ``.pt2`` or ``.onnx`` file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds objects that are not tensors.
        ConfigError: ONNX without its converter, or with an operator that it does not know.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing or not a file; check the path")
    content = path.read_bytes()
    suffix = path.suffix.lower()
    if suffix == ".pt2":
        return FileNet(_program(path, content, device), content, has_modes=False).to(device)
    if suffix == ".onnx":
        return FileNet(_onnx(path), content, has_modes=True).to(device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the format as a whole is deprecated
            net = torch.jit.load(io.BytesIO(content), map_location=device)
    # torch raises exceptions of any type for a damaged file.
    except Exception as error:
        raise CheckpointError(_unreadable(path, "TorchScript", error)) from error
    return FileNet(net, content, has_modes=True).to(device)


def _unreadable(path: Path, what: str, error: Exception) -> str:
    return (
        f"{path} is damaged, is no {what} file, or was written by a later version "
        f"({reason(error)}); copy or export it again"
    )


def reason(error: Exception) -> str:
    """One line of a foreign error: the first; the last if it contains TorchScript's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1 if "TorchScript" in lines[0] else 0] if lines else ""
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__


def _program(path: Path, content: bytes, device: torch.device) -> nn.Module:
    try:
        _refuse_objects(path, content)
        with only_tensors():
            program = torch.export.load(io.BytesIO(content))
            if device.type != "cpu":  # the graph names devices too
                # For GPUs alone; older versions of torch lack it.
                from torch.export.passes import move_to_device_pass  # noqa: PLC0415

                program = move_to_device_pass(program, device)
            return program.module()
    except CheckpointError:
        raise
    # A damaged file can make any part of the reader raise any exception.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(_holds_objects(path)) from error
        raise CheckpointError(_unreadable(path, "torch.export", error)) from error


def _refuse_objects(path: Path, content: bytes) -> None:
    try:
        reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    # The file is damaged, or was written before torch 2.8, in a form that torch.load reads whole.
    except Exception:
        return
    # The reader ignores upper and lower case in names.
    names = [name.lower() for name in reader.get_all_records()]
    if any(_COMPILED in name for name in names):
        raise CheckpointError(
            f"{path} holds compiled code without gradients; save the program by torch.export.save"
        )
    if any(kind in name for kind in _OBJECTS for name in names):
        raise CheckpointError(_holds_objects(path))


def _holds_objects(path: Path) -> str:
    return (
        f"{path} holds Python objects that could run code, so it is not opened; export a network "
        "whose state and example inputs are only tensors"
    )


@contextmanager
def only_tensors() -> Iterator[None]:
    """Inside, ``torch.load`` uses weights_only, whatever its caller asks for, and does not warn."""
    disabled = logging.root.manager.disable
    with mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}):
        os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)


def _onnx(path: Path) -> nn.Module:
    try:
        import onnx  # noqa: PLC0415 - an optional extra
        from onnx2torch import convert  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(
            f"{path} needs a converter that is not installed ({error}); "
            "pip install 'generalist-bench[onnx]'"
        ) from error
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    # Protobuf, the checker and external data files raise exceptions of different types.
    except Exception as error:
        raise CheckpointError(_unreadable(path, "ONNX", error)) from error
    _inline_aliases(model)
    try:
        net: nn.Module = convert(model)
    # The converter may raise any exception.
    except Exception as error:
        opset = max((entry.version for entry in model.opset_import), default=0)
        raise ConfigError(
            f"{path} (opset {opset}) cannot be converted ({reason(error)}); export it in eval mode "
            "with opset_version=17 or lower, or as TorchScript or .pt2"
        ) from error
    return net


def _inline_aliases(model: Any) -> None:
    """Replace aliases of weights in ``model``, an ``onnx.ModelProto``, by the weights' own names.

    Exporters keep only one of several equal tensors, and write the others as Identity nodes of it.
    The converter needs the weights of a layer to be stored tensors, not outputs of a node.
    """
    names = {weights.name: weights.name for weights in model.graph.initializer}
    outputs = {output.name for output in model.graph.output}
    for node in list(model.graph.node):
        if node.op_type == "Identity" and node.input[0] in names and node.output[0] not in outputs:
            names[node.output[0]] = names[node.input[0]]
            model.graph.node.remove(node)
        else:
            node.input[:] = [names.get(name, name) for name in node.input]
