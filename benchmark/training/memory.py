"""What to do when a device's memory does not hold a step of training."""

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
    """``method.update``, whose lack of memory is answered with what would fit.

    To find that out, the step is tried with fewer images. So the method's state is of no use
    afterwards.

    Args:
        accumulate: in how many turns the batch passes (``train.accumulate``).

    Raises:
        DeviceMemoryError: the memory does not suffice; says what to set.
    """
    try:
        return method.update(batch, progress)
    except torch.OutOfMemoryError:
        pass  # the exception holds the tensors of the step, so it must be gone before a try

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

    # Several processes must make every step together, so none can try on its own.
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
    turns = f" in {accumulate} turns" if accumulate > 1 else ""
    found = f"the memory of {device} does not hold a step with {whole} images{turns}"
    if most == 0:
        return f"{found}, nor one with {_FEWEST}; choose a smaller model or a larger device"
    found += "" if most is None else f"; {most} is the largest batch that fits"
    smaller = f"train.batch_size={whole // 2 if most is None else most}"
    if not (method.accumulates and method.cuttable):
        return f"{found}. Set {smaller} (--set {smaller})"
    at_once = whole / accumulate / 2 if most is None else max(1, most // accumulate)
    more = f"train.accumulate={-int(-whole // at_once)}"
    return (
        f"{found}. Set {more} (--set {more}), which trains on the same batches in so many turns "
        f"(BatchNorm sees a turn at a time), or {smaller}"
    )
