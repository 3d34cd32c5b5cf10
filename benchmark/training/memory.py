"""Advice when a device's memory is too small for a step of training."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.core.errors import DeviceMemoryError
from benchmark.core.mesh import Mesh
from benchmark.core.method import Batch, Method

# BatchNorm cannot train on fewer images.
_FEWEST = 2


def update_within_memory(
    method: Method, batch: Batch, progress: float, *, mesh: Mesh, accumulate: int
) -> dict[str, Tensor]:
    """``method.update``; if memory is too small, an error says which settings would fit.

    To find them, the step is tried with fewer images, which changes the method's state: it must not
    be used afterwards.

    Args:
        accumulate: the number of parts of a batch, one after another (``train.accumulate``).

    Raises:
        DeviceMemoryError: the memory is too small; the message says what to set.
    """
    try:
        return method.update(batch, progress)
    except torch.OutOfMemoryError:
        pass  # the exception holds the tensors of the step; they are freed only after this block

    x, y = batch
    whole = mesh.data.total

    def fits(count: int) -> bool:
        gc.collect()
        if x.device.type == "cuda":
            torch.cuda.empty_cache()
        mesh.data.take(count)
        try:
            method.update((x[:count], y[:count]), progress)
        except torch.OutOfMemoryError:
            return False
        return True

    # Several processes must do every step together, so one process cannot try alone.
    most = None if mesh.ranks.world > 1 else largest(fits, whole - 1)
    raise DeviceMemoryError(_advice(method, x.device, whole, most, accumulate))


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number of images up to ``most`` for which ``fits`` holds, by bisection; 0 if it
    does not hold for the fewest that can be trained on."""
    low, high = _FEWEST - 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low if low >= _FEWEST else 0


def _advice(
    method: Method, device: torch.device, whole: int, most: int | None, accumulate: int
) -> str:
    turns = f" in {accumulate} parts" if accumulate > 1 else ""
    found = f"the memory of {device} is too small for a step with {whole} images{turns}"
    if most == 0:
        return f"{found}, even with {_FEWEST}; choose a smaller model or a larger device"
    found += "" if most is None else f"; {most} is the largest batch that fits"
    smaller = f"train.batch_size={whole // 2 if most is None else most}"
    if not (method.accumulates and method.cuttable):
        return f"{found}. Set {smaller} (--set {smaller})"
    at_once = whole / accumulate / 2 if most is None else max(1, most // accumulate)
    more = f"train.accumulate={-int(-whole // at_once)}"
    return (
        f"{found}. Set {more} (--set {more}), which trains on the same batches in so many parts, "
        f"one after another (BatchNorm sees one part at a time), or {smaller}"
    )
