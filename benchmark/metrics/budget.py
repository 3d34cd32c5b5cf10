"""AutoAttack on a budget: cheap attacks on all images, AutoAttack on a part of those that survive.

The *lead* of an image is its margin: the logit of the label minus the largest other logit. A
*break* is an image that survives the cheap attacks but not AutoAttack.

**Cheap attacks.** Every image is attacked by PGD on the margin. If PGD has reduced the lead enough,
a few steps of APGD towards each of the nearest classes follow, since PGD mostly tries the nearest
class only, and the second or third may succeed. An image that is misclassified when clean, or
fooled by either attack, counts as not robust.

**Strata.** The S survivors are ordered by their remaining lead. The T images with the smallest
leads form the thin stratum, of which AutoAttack attacks all images, so its result is exact. Of the
other S - T images, AutoAttack attacks a simple random sample. T is chosen from the results of the
cheap attacks and the first budget, before AutoAttack has attacked any image (``thin_stratum``).

**Interval for these images.** Given the cheap attacks, each survivor either withstands AutoAttack
or does not; only the sample is random. The robust images of the thin stratum are counted. The
number of robust images among the other S - T is estimated from the sample, which is drawn without
replacement, by ``statistics.looks_interval``. A look is the computation of an interval. The first
look has a sample size that is set in advance; it uses exact hypergeometric limits with four fifths
of alpha. All later looks, whose sample sizes may depend on earlier results, use a confidence
sequence with the last fifth. Proof of coverage: each of the two fails with at most its share of
alpha, for *every* number of robust images; by the union bound, both hold together with 95 % or
more; and adding a known count shifts both ends and the true value equally. The result does not
depend on which of the S - T images are breaks, since the distribution of a simple random sample
does not, and margins are not used. A bad choice in ``thin_stratum`` makes the interval wider but
does not reduce its coverage.

Two strata are enough: if few breaks are left, the upper limit for the number of unseen ones depends
on the smallest sampling rate of any stratum, so different sampling rates for the other images would
make the interval wider.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from benchmark.attacks.apgd import EVALUATION_DENSITY, apgd
from benchmark.attacks.folding import folded_if_same
from benchmark.attacks.norms import norm_of
from benchmark.attacks.pgd import attack_loss, input_gradient, is_right, margin, random_start
from benchmark.core.crafting import crafting
from benchmark.core.threat import ThreatModel
from benchmark.metrics.metric import FORWARD
from benchmark.records.statistics import (
    FIRST_LOOK,
    FIRST_LOOK_BELOW,
    Interval,
    looks_interval,
)

# Number of survivors attacked between two looks at the interval, if a half-width is asked for.
LOOK = 32
# Steps of PGD, each eps / 4 long: what PGD-20 costs, on the margin, at any iterate.
PGD_STEPS = 20
# APGD: steps towards each class, and how many of the nearest classes. Networks attacked in full
# show that one class is not enough and that more steps find nothing more (docs/evaluation.md).
APGD_STEPS, APGD_CLASSES = 10, 3
# APGD is skipped if the remaining lead is more than this many times the reduction by PGD.
HOPELESS = 2.0
CHEAP = (
    f"PGD-{PGD_STEPS} on the margin, step eps/4, then APGD-{APGD_STEPS} towards the "
    f"{APGD_CLASSES} nearest classes, any iterate"
)
# Of an image that survives it all, in input-gradient passes; forward passes judge every iterate.
CHEAP_PASSES = PGD_STEPS * (1 + FORWARD) + 3 * FORWARD + APGD_CLASSES * (APGD_STEPS + 1 + FORWARD)
# What ``thin_stratum`` expects AutoAttack to break beyond the cheap attacks, as a share of what
# APGD broke beyond PGD: 1 image against 26 on four networks attacked in full, taken with caution.
STILL_TO_COME = 0.1

# Indices of images to whether AutoAttack left each robust, bool [m].
Judge = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cheap:
    """The result of the cheap attacks on n images.

    Attributes:
        survived: not fooled, and right when clean; bool [n].
        lead: the smallest lead that any iterate had, float [n]. It is meaningful only for
            survivors.
        after_pgd: the smallest lead that an iterate of PGD had, float [n].
        late: fooled by APGD after PGD had failed; bool [n].
    """

    survived: Tensor
    lead: Tensor
    after_pgd: Tensor
    late: Tensor

    @staticmethod
    def joined(parts: Iterable[Cheap]) -> Cheap:
        """The images of all ``parts``, in order, on the CPU."""
        columns = zip(*((p.survived, p.lead, p.after_pgd, p.late) for p in parts), strict=True)
        return Cheap(*(torch.cat(column).cpu() for column in columns))


def cheap_attack(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator | None
) -> Cheap:
    """PGD, then APGD where it may help, every success judged by ``model`` itself.

    An image fooled by any iterate of PGD is attacked no further. ``model`` is in crafting state.
    ``threat`` is PGD's.
    """
    logits = model(x)
    view = folded_if_same(model, x, logits)
    norm, eps, size = norm_of(threat.norm), float(threat.eps), float(threat.step)
    lead, best = -margin(logits, y), x.clone()
    at_first = lead.clone()
    alive = is_right(logits, y).nonzero().squeeze(1)
    x_adv = random_start(x[alive], threat, "uniform", generator)
    for _ in range(threat.steps):
        if not len(alive):
            break
        grad = input_gradient(view, x_adv, attack_loss("cw", y[alive]))
        with torch.no_grad():
            x_adv = norm.admit(x_adv + size * norm.ascend(grad, x_adv), x[alive], eps)
            left = _note(model, x_adv, y, alive, lead, best)
        alive, x_adv = alive[left], x_adv[left]
    survived = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    survived[alive] = True
    withstood_pgd, after_pgd = survived.clone(), lead.clone()
    rows = (survived & (lead <= HOPELESS * (at_first - lead))).nonzero().squeeze(1)
    if len(rows):
        start = best[rows]
        wrong = model(start).scatter(1, y[rows, None], -torch.inf)
        classes = wrong.topk(min(APGD_CLASSES, wrong.shape[1] - 1), dim=1).indices
        steps = threat.model_copy(update={"steps": APGD_STEPS})
        for target in classes.unbind(1):
            found, _ = apgd(
                view, x[rows], y[rows], steps,
                density=EVALUATION_DENSITY, target=target, start=start,
            )  # fmt: skip
            survived[rows] &= _note(model, found, y, rows, lead, best)
    return Cheap(survived, lead, after_pgd, withstood_pgd & ~survived)


def _note(
    model: nn.Module, x_adv: Tensor, y: Tensor, rows: Tensor, lead: Tensor, best: Tensor
) -> Tensor:
    """Judge the attacked images ``rows``: keep smaller leads, and return which are right still."""
    logits = model(x_adv)
    now = -margin(logits, y[rows])
    smaller = now < lead[rows]
    lead[rows[smaller]], best[rows[smaller]] = now[smaller], x_adv[smaller]
    return is_right(logits, y[rows])


def cheap_attacks(
    model: nn.Module,
    batches: Iterable[tuple[Any, Tensor, Tensor]],
    norm: Literal["linf", "l2", "l1"],
    eps: float,
    seed: int,
    advance: Callable[[int], None],
) -> Cheap:
    """``cheap_attack`` over batches (indices, x, y)."""
    threat = ThreatModel.model_validate(
        {"norm": norm, "eps": eps, "step": eps / 4, "steps": PGD_STEPS}
    )
    parts = []
    generator: torch.Generator | None = None
    with crafting(model), torch.no_grad():
        for _, x, y in batches:
            generator = generator or torch.Generator(device=x.device).manual_seed(seed)
            parts.append(cheap_attack(model, x, y, threat, generator))
            advance(len(y))
    return Cheap.joined(parts)


def thin_stratum(cheap: Cheap, budget: int) -> int:
    """The size of the thin stratum, of which AutoAttack attacks all images.

    Among none, an eighth, a quarter and half of the budget, it is the size that should give the
    narrowest interval if there are ``STILL_TO_COME`` times as many breaks as APGD found beyond PGD,
    with the same distribution over leads. This assumption affects only the allocation of the
    budget; intervals do not depend on it.
    """
    survivors = int(cheap.survived.sum())
    budget = min(budget, survivors)
    leads = cheap.after_pgd[cheap.survived].sort().values
    places = torch.searchsorted(leads, cheap.after_pgd[cheap.late])  # among the survivors

    def width(thin: int) -> float:
        outside = STILL_TO_COME * int((places >= thin).sum())
        return _expected_width(outside, budget - thin, survivors - thin)

    return min((budget * share // 8 for share in (0, 1, 2, 4)), key=width)


def _expected_width(breaks: float, drawn: int, total: int) -> float:
    """Of the interval, in images, if about ``breaks`` of ``total`` images are not robust and
    ``drawn`` are looked at: Poisson limits, shrunk by what the sample leaves unseen."""
    if drawn < 1:
        return float(total)
    rate, alpha = drawn / total, 0.05 * FIRST_LOOK
    seen = np.arange(int(4 * breaks * rate) + 10)
    most = stats.gamma.ppf(1 - FIRST_LOOK_BELOW * alpha, seen + 1)
    least = np.where(seen, stats.gamma.ppf((1 - FIRST_LOOK_BELOW) * alpha, np.maximum(seen, 1)), 0)
    chance = stats.poisson.pmf(seen, breaks * rate)
    return float(chance @ (most - least) / rate * (1 - rate))


def _smallest_sample(images: float, total: int) -> int:
    """The smallest first sample of ``total`` whose interval, if every drawn image is robust, is at
    most ``images`` wide."""
    low, high = 1, total
    while low < high:
        middle = (low + high) // 2
        found = looks_interval([(middle, middle)], total)
        if (found.high - found.low) * total <= images:
            high = middle
        else:
            low = middle + 1
    return low


@dataclass(frozen=True)
class Draw:
    """The survivors in the order in which AutoAttack attacks them, and its results so far.

    Attributes:
        order: indices of all survivors: the thin stratum, then the others at random. A longer
            sample extends a shorter one.
        thin: size of the thin stratum.
        verdicts: whether AutoAttack left each of the first of them robust, bool [attacked].
        looks: numbers of attacked images at which the interval was looked at.
    """

    order: Tensor
    thin: int
    verdicts: Tensor
    looks: tuple[int, ...] = ()

    @staticmethod
    def fresh(cheap: Cheap, seed: int, thin: int) -> Draw:
        """Nothing attacked yet."""
        indices = cheap.survived.nonzero().squeeze(1)
        indices = indices[cheap.lead[indices].argsort(stable=True)]
        generator = torch.Generator().manual_seed(seed)
        others = indices[thin:].sort().values
        others = others[torch.randperm(len(others), generator=generator)]
        return Draw(torch.cat([indices[:thin], others]), thin, torch.zeros(0, dtype=torch.bool))

    @staticmethod
    def recorded(detail: Mapping[str, Any], column: pd.Series) -> Draw:
        """From a record's detail and its column of outcomes."""
        order = torch.tensor(detail["order"], dtype=torch.long)
        known = column.iloc[order[: detail["attacked"]].numpy()].to_numpy(dtype=bool)
        return Draw(order, detail["thin"], torch.from_numpy(known), tuple(detail["looks"]))

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
            "thin": self.thin,
            "looks": list(self.looks),
            "order": self.order.tolist(),
        }

    def extended(self, judge: Judge, size: int) -> Draw:
        """With ``size`` survivors attacked, if there are so many."""
        done, size = len(self.verdicts), min(size, len(self.order))
        if size <= done:
            return self
        verdicts = torch.cat([self.verdicts, judge(self.order[done:size])])
        return Draw(self.order, self.thin, verdicts, (*self.looks, size))

    def interval(self, images: int) -> Interval:
        """Of the robust accuracy over these ``images``, in [0, 1].

        It covers only the choice of the sample. ``statistics.population_interval`` turns it into
        the interval for new images, by which networks are compared and ranked.
        """
        sure = int(self.verdicts[: self.thin].sum())
        sampled, others = self.verdicts[self.thin :], len(self.order) - self.thin
        if not others:
            return Interval(sure / images, sure / images, sure / images)
        right = [0, *sampled.cumsum(0).tolist()]
        sizes = [look - self.thin for look in self.looks]
        found = looks_interval([(right[size], size) for size in sizes], others)
        ends = (found.value, found.low, found.high)
        return Interval(*((sure + end * others) / images for end in ends))


def begin(
    cheap: Cheap, seed: int, *, budget: int | None = None, halfwidth: float | None = None
) -> Draw:
    """Choose strata and order, before AutoAttack has attacked any image.

    Args:
        seed: of the order in which the images outside the thin stratum are drawn.
        budget, halfwidth: see ``estimate``.
    """
    if budget is None:
        assert halfwidth is not None
        survivors = int(cheap.survived.sum())
        budget = _smallest_sample(2 * halfwidth * len(cheap.survived), survivors)
    return Draw.fresh(cheap, seed, thin_stratum(cheap, budget))


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
        The sample, the interval for these images, and how often it was looked at.
    """
    if not len(draw.order):
        return draw, Interval(0.0, 0.0, 0.0), "exact: nothing survives the cheap attacks"
    if budget is not None:
        draw = draw.extended(judge, budget)
    else:
        assert halfwidth is not None
        if not len(draw.verdicts):
            others = len(draw.order) - draw.thin
            first = draw.thin + _smallest_sample(2 * halfwidth * images, others)
            draw = draw.extended(judge, first)
        while len(draw.verdicts) < len(draw.order):
            interval = draw.interval(images)
            if (interval.high - interval.low) / 2 <= halfwidth:
                break
            draw = draw.extended(judge, len(draw.verdicts) + LOOK)
    looks = len(draw.looks)
    return draw, draw.interval(images), f"exact, {looks} look{'s' if looks > 1 else ''}"
