"""torch.compile for the network on which training images are crafted, where it pays."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks.pgd import input_gradient

# The compiled network must be faster by this share: the two differ in the last bits, so there
# should be a reason to prefer it.
_WORTH = 0.05
_PASSES = 5


class Compiled(nn.Module):
    """A compiled network; on CUDA devices, its passes are CUDA graphs (mode ``reduce-overhead``).

    Logits are copied, since the next pass of a CUDA graph overwrites its output.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        on_cuda = any(tensor.is_cuda for tensor in model.parameters())
        # one graph per shape of a batch: the last batch of an epoch may be smaller
        self._run = torch.compile(
            model, mode="reduce-overhead" if on_cuda else "default", dynamic=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """As the network."""
        torch.compiler.cudagraph_mark_step_begin()
        logits: Tensor = self._run(x)
        return logits.clone()


def measure(
    view: Callable[[bool], AbstractContextManager[nn.Module]], x: Tensor
) -> dict[str, str | float]:
    """Whether to compile, with the milliseconds of a gradient to the images of a batch.

    Args:
        view: the crafting view of a network, compiled or not.
        x: images [n, c, h, w] in [0, 1].

    Returns:
        ``chosen`` (``eager`` or ``compiled``), ``eager_ms`` and ``compiled_ms``; where the network
        cannot be compiled, ``failure`` in place of ``compiled_ms``.
    """
    eager = _milliseconds(view(False), x)
    # The compiler may raise any exception, such as that of a missing C++ compiler.
    try:
        fast = _milliseconds(view(True), x)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"chosen": "eager", "eager_ms": round(eager, 3), "failure": text}
    chosen = "compiled" if fast < (1 - _WORTH) * eager else "eager"
    return {"chosen": chosen, "eager_ms": round(eager, 3), "compiled_ms": round(fast, 3)}


def _milliseconds(view: AbstractContextManager[nn.Module], x: Tensor) -> float:
    """The shortest of some passes, after two that warm up."""
    taken = []
    with view as model:
        for _ in range(2 + _PASSES):
            started = time.perf_counter()
            gradient = input_gradient(model, x, _loss)
            if gradient.is_cuda:
                torch.cuda.synchronize()
            taken.append(1000 * (time.perf_counter() - started))
    return min(taken[2:])


def _loss(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, logits.argmax(1), reduction="sum")
