"""Per-image outcomes of a model: right or wrong, clean and under attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.attacks.folding import FoldedView
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import AnySplit
from benchmark.data.loader import evaluation_batches

Advance = Callable[[int], None]


def sample(total: int, n: int | None, seed: int) -> Tensor:
    """Sorted indices of a seeded random sample of ``n`` of ``total`` images; all for None.

    Samples of one seed are nested: a larger one contains a smaller one. Folders are ordered by
    class, so the first n images would not do.
    """
    if n is None or n >= total:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:n].sort().values


def clean_outcomes(
    model: nn.Module,
    split: AnySplit,
    indices: Tensor,
    *,
    batch_size: int,
    device: torch.device,
    advance: Advance | None = None,
) -> Tensor:
    """Whether each image of ``indices`` is classified correctly, bool [len(indices)]."""
    right = torch.zeros(len(indices), dtype=torch.bool)
    done = 0
    with crafting(model), torch.no_grad():
        for _, x, y in evaluation_batches(split, batch_size, indices=indices, device=device):
            right[done : done + len(y)] = (model(x).argmax(1) == y).cpu()
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
    momentum: float = 0.0,
    restarts: int = 1,
    view: nn.Module | None = None,
    advance: Advance | None = None,
) -> Tensor:
    """Whether each image is right when clean and at the last PGD iterate of every restart.

    Images wrong when clean are not attacked and count as not robust. Examples are crafted on a
    folded copy (same function up to rounding) and judged by ``model`` itself.

    Args:
        view: the folded copy, if the caller has one that is up to date.
    """
    outcome = torch.zeros(len(indices), dtype=torch.bool)
    generator = torch.Generator(device=device).manual_seed(seed)
    crafted_on = view if view is not None else FoldedView(model)
    done = 0
    with crafting(model):
        for _, x, y in evaluation_batches(split, batch_size, indices=indices, device=device):
            with torch.no_grad():
                robust = model(x).argmax(1) == y
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
                    momentum=momentum,
                    generator=generator,
                )
                with torch.no_grad():
                    robust[left] = model(x_adv).argmax(1) == y[left]
            outcome[done : done + len(y)] = robust.cpu()
            done += len(y)
            if advance:
                advance(len(y))
    return outcome
