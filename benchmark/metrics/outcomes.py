"""Per-image outcomes of a model: right or wrong, clean and under attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.folding import Autocast, folded_if_same
from benchmark.attacks.pgd import Start, is_right
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import AnySplit
from benchmark.data.loader import evaluation_batches

Advance = Callable[[int], None]


def sample(total: int, n: int | None, seed: int) -> Tensor:
    """Sorted indices of a seeded random sample of ``n`` of ``total`` images; all for None.

    Samples with the same seed are nested: a larger one contains a smaller one. The first n images
    would be no good sample, since images in folders are ordered by class.
    """
    if n is None or n >= total:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:n].sort().values


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return is_right(model(x), y)


def clean_outcomes(
    model: nn.Module,
    split: AnySplit,
    indices: Tensor,
    *,
    batch_size: int,
    device: torch.device,
    advance: Advance | None = None,
) -> Tensor:
    """Whether each image of ``indices`` is classified correctly, bool [len(indices)] on the CPU."""
    right = torch.zeros(len(indices), dtype=torch.bool)
    done = 0
    with crafting(model):
        for _, x, y in evaluation_batches(split, batch_size, indices=indices, device=device):
            right[done : done + len(y)] = _right(model, x, y).cpu()
            done += len(y)
            if advance:
                advance(len(y))
    return right


def pgd_outcomes(
    model: nn.Module,
    split: AnySplit,
    indices: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    loss: Literal["ce", "cw"] = "ce",
    start: Start = "uniform",
    momentum: float = 0.0,
    restarts: int = 1,
    precision: Literal["fp32", "bf16"] = "fp32",
    advance: Advance | None = None,
) -> Tensor:
    """Whether each image is right when clean and at the last PGD iterate of every restart.

    Images wrong when clean are not attacked and count as not robust. Examples are crafted on a
    folded copy if that computes the same function (see ``FoldedView``) and judged by ``model``.

    Args:
        precision: bf16 crafts on a copy in reduced precision: a screening, judged in fp32 too.

    Returns:
        bool [len(indices)], on the CPU.
    """
    outcome = torch.zeros(len(indices), dtype=torch.bool)
    generator = torch.Generator(device=device).manual_seed(seed)
    crafted_on: nn.Module | None = None
    done = 0
    with crafting(model):
        for _, x, y in evaluation_batches(split, batch_size, indices=indices, device=device):
            with torch.no_grad():
                logits = model(x)
            robust = is_right(logits, y)
            if crafted_on is None:
                crafted_on = folded_if_same(model, x, logits)
                if precision == "bf16":
                    crafted_on = Autocast(crafted_on, device.type)
            for _ in range(restarts):
                left = robust.nonzero().squeeze(1)
                if not len(left):
                    break
                x_adv = pgd(
                    crafted_on,
                    x[left],
                    y[left],
                    threat,
                    loss=loss,
                    start=start,
                    momentum=momentum,
                    generator=generator,
                )
                robust[left] = _right(model, x_adv, y[left])
            outcome[done : done + len(y)] = robust.cpu()
            done += len(y)
            if advance:
                advance(len(y))
    return outcome
