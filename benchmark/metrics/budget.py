"""AutoAttack on a budget: all images meet a cheap attack, a sample of the survivors the real one.

An image that is wrong when clean, or that the cheap attack fools, is not robust: that is final. Of
the S survivors AutoAttack takes a random sample; its share of robust ones, times S, estimates the
number that all of AutoAttack would leave, with an exact interval for a finite population. Most of
AutoAttack's cost is paid by images that survive it, and most of the uncertainty of a plain random
subset by images that any attack decides, so the same interval costs a fraction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from benchmark.attacks.folding import folded_if_same
from benchmark.attacks.norms import norm_of
from benchmark.attacks.pgd import attack_loss, input_gradient, is_right, random_start
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel
from benchmark.records.statistics import (
    Interval,
    hypergeometric_interval,
    sampling_sequence,
)

# Survivors attacked between two looks at the interval, when a half-width is asked for.
LOOK = 32
# Steps of the cheap attack, each eps / 4 long: what PGD-20 costs, on the margin, at any iterate.
CHEAP_STEPS = 20

# Indices of images to whether AutoAttack left each robust, bool [m].
Judge = Callable[[Tensor], Tensor]


def cheap_survivors(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator | None
) -> Tensor:
    """Which images no iterate of PGD on the margin fools, judged by ``model`` itself; bool [n].

    A fooled image is attacked no further. ``model`` is in crafting state.
    """
    logits = model(x)
    alive = is_right(logits, y).nonzero().squeeze(1)
    view = folded_if_same(model, x, logits)
    norm, eps, size = norm_of(threat.norm), float(threat.eps), float(threat.step)
    x_adv = random_start(x[alive], threat, "uniform", generator)
    for _ in range(threat.steps):
        if not len(alive):
            break
        grad = input_gradient(view, x_adv, attack_loss("cw", y[alive]))
        with torch.no_grad():
            x_adv = norm.admit(x_adv + size * norm.ascend(grad, x_adv), x[alive], eps)
            left = is_right(model(x_adv), y[alive])
        alive, x_adv = alive[left], x_adv[left]
    survived = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    survived[alive] = True
    return survived


def survivors_of(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor, Tensor]],
    norm: Literal["linf", "l2", "l1"],
    eps: float,
    seed: int,
    advance: Callable[[int], None],
) -> Tensor:
    """``cheap_survivors`` over batches (indices, x, y), bool [n] on the CPU."""
    threat = ThreatModel.model_validate(
        {"norm": norm, "eps": eps, "step": eps / 4, "steps": CHEAP_STEPS}
    )
    parts = []
    generator: torch.Generator | None = None
    with crafting(model), torch.no_grad():
        for _, x, y in batches:
            generator = generator or torch.Generator(device=x.device).manual_seed(seed)
            parts.append(cheap_survivors(model, x, y, threat, generator).cpu())
            advance(len(y))
    return torch.cat(parts)


@dataclass(frozen=True)
class Draw:
    """The sample so far.

    Attributes:
        order: indices of all survivors in the order in which they are drawn; a longer sample
            extends a shorter one.
        verdicts: whether AutoAttack left each of the first of them robust, bool [attacked].
        looks: sample sizes at which the interval was looked at.
    """

    order: Tensor
    verdicts: Tensor
    looks: tuple[int, ...] = ()

    @staticmethod
    def fresh(survivors: Tensor, seed: int) -> Draw:
        """Nothing drawn yet; ``survivors``: bool [n]."""
        indices = survivors.nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(seed)
        order = indices[torch.randperm(len(indices), generator=generator)]
        return Draw(order, torch.zeros(0, dtype=torch.bool))

    @staticmethod
    def recorded(detail: Mapping[str, Any], column: pd.Series) -> Draw:
        """From a record's detail and its column of outcomes."""
        order = torch.tensor(detail["order"], dtype=torch.long)
        known = column.iloc[order[: detail["attacked"]].numpy()].to_numpy(dtype=bool)
        return Draw(order, torch.from_numpy(known), tuple(detail["looks"]))

    def column(self, images: int) -> Any:
        """Outcomes of all images: null for survivors that AutoAttack did not meet."""
        column = pd.array([False] * images, dtype="boolean")
        column[self.order.numpy()] = pd.NA
        column[self.order[: len(self.verdicts)].numpy()] = self.verdicts.numpy()
        return column

    def detail(self) -> dict[str, Any]:
        """What ``recorded`` needs, as JSON values."""
        return {
            "survivors": len(self.order),
            "attacked": len(self.verdicts),
            "looks": list(self.looks),
            "order": self.order.tolist(),
        }

    def extended(self, judge: Judge, size: int) -> Draw:
        """With ``size`` survivors attacked, if there are so many."""
        done, size = len(self.verdicts), min(size, len(self.order))
        if size <= done:
            return self
        verdicts = torch.cat([self.verdicts, judge(self.order[done:size])])
        return Draw(self.order, verdicts, (*self.looks, size))

    def interval(self, images: int, fixed: bool) -> Interval:
        """Of the robust accuracy over these ``images``, in [0, 1].

        It holds the choice of the sample alone; ``statistics.population_interval`` makes of it the
        interval for new images, which is the one to compare and to rank by.
        """
        form = hypergeometric_interval if fixed else sampling_sequence
        found = form(int(self.verdicts.sum()), len(self.verdicts), len(self.order))
        share = len(self.order) / images
        return Interval(found.value * share, found.low * share, found.high * share)


def estimate(
    images: int,
    draw: Draw,
    judge: Judge,
    *,
    budget: int | None = None,
    halfwidth: float | None = None,
) -> tuple[Draw, Interval, str]:
    """Attack survivors until the budget or the half-width is reached.

    Args:
        images: n, all images.
        draw: earlier verdicts, which are kept and extended.
        judge: called with the next indices.
        budget: survivors to attack in all.
        halfwidth: of the 95 % interval for these images, as a fraction of them.

    Returns:
        The sample, the interval for these images, and what it is worth: exact for a sample drawn in
        one go, valid at every look if it was extended, or stopped by its width.
    """
    if not len(draw.order):
        return draw, Interval(0.0, 0.0, 0.0), "exact: nothing survives the cheap attack"
    if budget is not None:
        draw = draw.extended(judge, budget)
        once = len(draw.looks) == 1
        kind = "exact, fixed sample" if once else "valid at every look"
        return draw, draw.interval(images, fixed=once), kind
    assert halfwidth is not None
    while True:
        if len(draw.verdicts):
            interval = draw.interval(images, fixed=False)
            narrow = (interval.high - interval.low) / 2 <= halfwidth
            if narrow or len(draw.verdicts) == len(draw.order):
                return draw, interval, "valid at every look"
        draw = draw.extended(judge, len(draw.verdicts) + LOOK)
