"""What a figure was measured on: the weights, the function that the code computes, and the images.

Weights alone do not determine what a network computes, since its code may have been corrected. So
a few fixed images are passed through it, and its output and gradient are recorded. Two machines
round differently, so these probes are compared with a tolerance and not by a hash.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.core.config import config_hash
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError
from benchmark.core.hashing import tensors_hash
from benchmark.data.dataset import Dataset, Split

# Images and random directions per image that a probe consists of; its batch is that of the check of
# the output's shape, so no network meets a batch size here first.
_IMAGES, _DIRECTIONS = 4, 4
# Largest difference that rounding makes, relative to the largest value: fp32 on two machines. A
# gradient may also pass a kink of a ReLU on the other side.
_SAME_LOGITS, _SAME_GRADIENT = 1e-4, 1e-3
# Streamed test images of which the pixels are looked at.
_SAMPLED = 16
# Code whose changes only the probe has to tell: torch's layers and our own networks.
_KNOWN_CODE = ("torch", "benchmark", "baselines", "generalist")

Probe = dict[str, Any]


def probe(model: nn.Module, image_size: int, device: torch.device, channels: int = 3) -> Probe:
    """The outputs of ``model`` on fixed images, and the source code of its classes.

    The model and the global generators are unchanged afterwards.

    Args:
        model: images [n, c, s, s] in [0, 1] to logits [n, k].
        channels: c.

    Returns:
        ``weights`` and ``source``: hashes; ``logits`` and ``gradient``: random projections of the
        logits, and of the gradient of their sum with respect to the images. ``gradient`` is empty
        where there is none, and None stands for values that are not finite.

    Raises:
        BenchmarkError: the model fails on these images.
    """
    draw = torch.Generator().manual_seed(0)
    half = _IMAGES // 2
    noise = torch.rand(half, channels, image_size, image_size, generator=draw)
    coarse = torch.rand(half, channels, 4, 4, generator=draw)
    smooth = F.interpolate(coarse, size=(image_size, image_size), mode="bilinear")
    x = torch.cat([noise, smooth]).to(device)
    state = {n: v.clone() for n, v in model.state_dict().items() if isinstance(v, Tensor)}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)), crafting(model):
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                logits = model(x.clone()).double()
        except Exception as error:  # foreign forward code may raise anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BenchmarkError(
                f"the network fails on {_IMAGES} images of noise ({reason}); it must take any "
                "images in [0, 1]"
            ) from error
        onto = torch.randn(logits.shape[1], _DIRECTIONS, generator=draw, dtype=torch.float64)
        onto = onto.to(device) / math.sqrt(len(onto))
        torch.manual_seed(0)
        gradient = _gradient(model, x, onto[:, 0])
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in state and not torch.equal(value, state[name]):
                value.copy_(state[name])  # such as statistics of a layer that stays in train mode
    return {
        "weights": tensors_hash(model.state_dict()),
        "source": _source(model),
        "logits": _numbers(logits @ onto),
        "gradient": [] if gradient is None else _numbers(_projected(gradient, draw)),
    }


def _gradient(model: nn.Module, x: Tensor, direction: Tensor) -> Tensor | None:
    """Of the logits along ``direction``, summed; None where the model has none."""
    images = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            # A copy, since some networks change their input in place.
            total = (model(images.clone()).double() @ direction).sum()
        (gradient,) = torch.autograd.grad(total, images)
    except Exception:  # no gradient, or any exception of foreign code
        return None
    return gradient.double()


def _projected(gradient: Tensor, draw: torch.Generator) -> Tensor:
    """[n, c, s, s] onto a few random directions: [n, d]."""
    flat = gradient.flatten(1)
    onto = torch.randn(flat.shape[1], _DIRECTIONS, generator=draw, dtype=torch.float64)
    return flat @ onto.to(flat.device) / math.sqrt(len(onto))


def _numbers(values: Tensor) -> list[float | None]:
    """To seven digits, for JSON."""
    found = values.flatten().tolist()
    return [float(f"{value:.7g}") if math.isfinite(value) else None for value in found]


def _source(model: nn.Module) -> str:
    """A hash over the source of the classes in ``model`` that are neither torch's nor ours, and of
    the code that TorchScript and exported programs bring.

    The source is needed because a probe cannot detect a difference that affects only other inputs,
    such as a branch on the size of the batch.
    """
    texts = set()
    for cls in {type(module) for module in model.modules()}:
        if cls.__module__.partition(".")[0] not in _KNOWN_CODE:
            try:
                texts.add(inspect.getsource(cls))
            except (OSError, TypeError):  # made at run time; the probe is all there is
                texts.add(cls.__qualname__)
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule):
            texts.add(str(getattr(module, "code", "")))
    return config_hash(sorted(texts)) if texts else ""


def same_function(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two probes have the same weights, source and function, up to rounding."""
    return (
        all(one[key] == other[key] for key in ("weights", "source"))
        and _close(one["logits"], other["logits"], _SAME_LOGITS)
        and _close(one["gradient"], other["gradient"], _SAME_GRADIENT)
    )


def _close(one: Sequence[float | None], other: Sequence[float | None], tolerance: float) -> bool:
    if [value is None for value in one] != [value is None for value in other]:
        return False
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    scale = max((max(abs(a), abs(b)) for a, b in pairs), default=0.0)
    return all(abs(a - b) <= tolerance * scale for a, b in pairs)


def function_id(found: Probe, known: Mapping[str, Mapping[str, Any]]) -> str:
    """The name under which ``known`` holds the function of a probe, or a new one."""
    for name, other in known.items():
        if same_function(found, other):
            return name
    return config_hash(found)


def images_hash(data: Dataset) -> str:
    """Sixteen hexadecimal digits over the test images as a network is given them, and labels.

    In memory that is every pixel. Of streamed sets it is the fingerprint of the files, the size,
    all labels and the pixels of 16 evenly spaced images after decoding and resizing.
    """
    split = data.test
    digest = hashlib.sha256(f"{data.num_classes} classes".encode())
    if isinstance(split, Split):
        images = split.images
    else:
        digest.update(f"{data.fingerprint}, {len(split)} at {split.image_size}".encode())
        chosen = torch.linspace(0, len(split) - 1, min(_SAMPLED, len(split))).round().long()
        images = torch.from_numpy(np.stack([split.eval_image(int(i)) for i in chosen]))
    digest.update(repr(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().data)
    digest.update(split.labels.contiguous().numpy().data)
    return digest.hexdigest()[:16]
