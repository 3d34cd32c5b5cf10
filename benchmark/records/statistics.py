"""Intervals, paired tests and sample sizes for accuracies.

Notation: ``n`` test images, ``k`` seeds, ``y[j, i]`` in {0, 1} is 1 if the model of seed j is right
on image i, ``p`` is an accuracy in [0, 1], z = Phi^-1((1 + level) / 2).
Every test here is paired, because all methods meet the same images: an unpaired test would throw
away the largest part of the power. References: Wilson (1927); Clopper and Pearson (1934); Agresti
and Coull (1998); Banerjee (1960); McNemar (1947); Connor (1987); Holm (1979).

Wilson's and Clopper and Pearson's intervals, McNemar's test and Holm's correction are those of
statsmodels, the bootstrap is scipy's. Computed here is what neither has: intervals of a mean over
seeds that share images, sample sizes for McNemar's test, intervals of a finite population, and
intervals that hold at every look.

Two independent errors, of the choice of seeds and of the choice of images, are combined by adding
the squares of the half-widths that each of them would have alone. Adding variances first and
looking up one quantile afterwards (Satterthwaite's degrees of freedom) makes intervals of two or
three seeds too narrow; the sum of squared half-widths holds its level for normal errors whatever
their sizes (Banerjee, Sankhya 22, 1960), and tests show it for accuracies by simulation.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval; low <= value <= high."""

    value: float
    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """True if the two intervals share a point."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Paired:
    """A paired comparison: the estimate, its interval and the two-sided p-value against zero.

    Attributes:
        n: images that enter it.
        seeds: seeds that enter it; with one, the interval covers the choice of images only.
    """

    value: float
    low: float
    high: float
    p: float
    n: int
    seeds: int


@dataclass(frozen=True)
class McNemar:
    """Counts of discordant images and the exact two-sided p-value."""

    only_a: int
    only_b: int
    n: int
    p: float

    @property
    def difference(self) -> float:
        """Accuracy of a minus accuracy of b."""
        return (self.only_a - self.only_b) / self.n


def _check(correct: float, n: int, level: float) -> None:
    if n < 1:
        raise ValueError(f"n = {n} must be at least 1")
    if not 0 <= correct <= n:
        raise ValueError(f"correct = {correct} must lie in [0, n = {n}]")
    _check_level(level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level = {level} must lie strictly between 0 and 1")


def _quantile(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))


def wilson(correct: float, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion p = correct / n.

        (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    ``correct`` may be a fraction: the mean of scores in [0, 1] (corruption accuracy of an image)
    has variance at most p(1-p), so the interval is then conservative.

    Raises:
        ValueError: n < 1, correct outside [0, n], level outside (0, 1).
    """
    _check(correct, n, level)
    return _proportion(correct, n, level, "wilson")


def _proportion(correct: float, n: int, level: float, method: str) -> Interval:
    low, high = proportion_confint(correct, n, alpha=1 - level, method=method)
    p = correct / n
    # rounding must not push a bound past the estimate at p = 0 and p = 1
    return Interval(p, max(0.0, min(p, float(low))), min(1.0, max(p, float(high))))


def clopper_pearson(correct: float, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion; coverage is never below ``level``.

    ``correct`` may be a fraction, as for ``wilson``.

    Raises:
        ValueError: as for ``wilson``.
    """
    _check(correct, n, level)
    return _proportion(correct, n, level, "beta")


def seed_interval(accuracies: Sequence[float], n: int, level: float = 0.95) -> Interval:
    """Interval of the mean accuracy over k seeds that were evaluated on the same n images.

    It answers "what would new seeds give on new images?", so both spreads enter. With the mean m
    of the k accuracies, their sample variance s^2, and the Agresti-Coull values
    n~ = n + z^2, p~ = (n m + z^2/2) / n~:

        A = s^2 / k                 spread over seeds,    k - 1 degrees of freedom
        B = p~ (1 - p~) / n~        choice of images,     n - 1 degrees of freedom, never zero
        interval = p~ -+ sqrt(t_{k-1}^2 A + t_{n-1}^2 B), cut to [0, 1]

    B is not divided by k: seeds share the images, and images hard for one seed are hard for the
    next. It is an upper bound, reached when all seeds agree on every image. With two seeds
    t_{k-1} is 12.7: two runs say little about a third, and the interval says so. With one seed it
    is the Wilson interval and says nothing about seeds.

    Raises:
        ValueError: no accuracy, or one outside [0, 1].
    """
    values = np.asarray(accuracies, dtype=float)
    if values.size == 0:
        raise ValueError("seed_interval needs at least one accuracy")
    mean = float(values.mean())
    _check(mean * n, n, level)
    if values.min() < 0 or values.max() > 1:
        raise ValueError("accuracies must be fractions in [0, 1]")
    k = values.size
    if k == 1:
        return wilson(mean * n, n, level)
    z = _quantile(level)
    n_adjusted = n + z * z
    p = (mean * n + z * z / 2) / n_adjusted
    images = _t(1 - level, n - 1) * math.sqrt(p * (1 - p) / n_adjusted)
    half = math.hypot(seed_spread(accuracies, level), images)
    return Interval(mean, max(0.0, min(mean, p - half)), min(1.0, max(mean, p + half)))


def _t(alpha: float, df: int) -> float:
    """The two-sided quantile: Student's t with ``df`` degrees of freedom exceeds it in size with
    probability ``alpha``."""
    return -float(special.stdtrit(max(df, 1), alpha / 2))


def seed_spread(accuracies: Sequence[float], level: float = 0.95) -> float:
    """Half-width of the t interval of a mean over seeds: t_{k-1} s / sqrt(k).

    Raises:
        ValueError: fewer than two seeds.
    """
    _check_level(level)
    k = len(accuracies)
    if k < 2:
        raise ValueError("a spread needs at least two seeds")
    return _t(1 - level, k - 1) * float(np.std(accuracies, ddof=1)) / math.sqrt(k)


def mcnemar_exact(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Exact McNemar test of two models on the same images.

    With x = images only a has right and y = images only b has right, under equal accuracies
    x ~ Binomial(x + y, 1/2); p = min(1, 2 P(X <= min(x, y))). No discordant image: p = 1.

    Args:
        a, b: one boolean per image, in the same order, shape (n,).

    Raises:
        ValueError: different lengths, no image, or values that are not boolean.
    """
    first, second = _booleans(a), _booleans(b)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(f"paired booleans of one length needed, got {first.shape}, {second.shape}")
    x, y = int((first & ~second).sum()), int((second & ~first).sum())
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    return McNemar(x, y, first.size, float(mcnemar([[both, x], [y, neither]], exact=True).pvalue))


def _booleans(values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError("outcomes must be booleans without missing values")
    return array.astype(bool)


def required_n(
    difference: float, discordant: float, power: float = 0.8, level: float = 0.95
) -> int:
    """Images needed to detect a paired accuracy difference by McNemar's test (Connor, 1987).

        n = (z_{(1+level)/2} sqrt(psi) + z_power sqrt(psi - d^2))^2 / d^2

    Args:
        difference: d, the true difference of the accuracies, as a fraction.
        discordant: psi, the fraction of images on which exactly one of the two is right.
        power: chance of detecting it.

    Raises:
        ValueError: d = 0, psi outside ``[|d|, 1]``, power or level outside (0, 1).
    """
    _check_level(level)
    if not 0 < power < 1:
        raise ValueError(f"power = {power} must lie strictly between 0 and 1")
    d = abs(difference)
    if d == 0:
        raise ValueError("a difference of zero cannot be detected with any n")
    if math.isclose(d, discordant):  # one model alone is ever right; the two differ by rounding
        discordant = d
    if not d <= discordant <= 1:
        raise ValueError(f"discordant = {discordant} must lie in [|difference| = {d}, 1]")
    z_power = float(stats.norm.ppf(power))
    root = _quantile(level) * math.sqrt(discordant) + z_power * math.sqrt(discordant - d * d)
    return math.ceil(root * root / (d * d))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of mean(a) - mean(b) over images, which are drawn for both at once.

    Args:
        a, b: outcomes or scores of one model each, in the same order of images, shape (n,).

    Returns:
        The interval; from -1 to 1 for a single image, which says nothing about others.

    Raises:
        ValueError: shapes differ or are empty.
    """
    _check_level(level)
    first, second = (np.asarray(v, dtype=float) for v in (a, b))
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise ValueError(f"paired arrays of one length needed, got {first.shape}, {second.shape}")
    gap = first - second
    if gap.size == 1:
        return Interval(float(gap[0]), -1.0, 1.0)
    found = stats.bootstrap(
        (gap,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
        batch=100, rng=seed,
    ).confidence_interval  # fmt: skip
    return Interval(float(gap.mean()), float(found.low), float(found.high))


def paired_contrast(parts: Sequence[tuple[float, ArrayLike]], level: float = 0.95) -> Paired:
    """Interval and test of a weighted sum of accuracies that share seeds and images.

    Only images that every part has for every seed enter, so that no difference between parts comes
    from different images. The estimate is d = sum_m w_m mean(y_m). Over seeds its spread is that of
    d_j (the sum for seed j alone), over images that of e_i = sum_m w_m mean_j y_m[j, i]:

        A = var(d_j) / k  (k - 1 df; absent with one seed)      B = var(e_i) / n  (n - 1 df)
        interval = d -+ sqrt(t_{k-1}^2 A + t_{n-1}^2 B)

    p is the smallest 1 - level whose interval leaves out zero. A difference of two methods is the
    case w = (1, -1). Weights taken from the data (the distance to a line) are allowed if the
    estimate is smooth in them: this is then the delta method.

    Args:
        parts: (weight, outcomes of shape (seeds, n)); NaN where an image was not attacked.

    Raises:
        ValueError: no parts, different shapes, or no image that all parts have.
    """
    _check_level(level)
    if not parts:
        raise ValueError("a contrast needs at least one part")
    arrays: list[tuple[float, Array]] = [
        (float(w), np.atleast_2d(np.asarray(y, dtype=float))) for w, y in parts
    ]
    shape = arrays[0][1].shape
    if any(y.shape != shape for _, y in arrays):
        raise ValueError("all parts of a contrast need one shape (seeds, images)")
    total = np.sum([w * y for w, y in arrays], axis=0)  # NaN where any part lacks the image
    total = total[:, ~np.isnan(total).any(axis=0)]
    k, n = total.shape
    if n == 0:
        raise ValueError("the parts of the contrast have no image in common over their seeds")
    value = float(total.mean())
    images = float(total.mean(axis=0).var(ddof=1)) / n if n > 1 else 0.0
    seeds = float(total.mean(axis=1).var(ddof=1)) / k if k > 1 else 0.0
    if images + seeds <= 1e-18:  # all outcomes agree: nothing speaks for a difference but itself
        return Paired(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0, n, k)

    def half(alpha: float) -> float:
        return math.hypot(_t(alpha, k - 1) * math.sqrt(seeds), _t(alpha, n - 1) * math.sqrt(images))

    return Paired(
        value, value - half(1 - level), value + half(1 - level), _p_value(abs(value), half), n, k
    )


# Below it, quantiles lose their digits; it is printed as "< 0.001" anyhow.
_SMALLEST_P = 1e-12


def _p_value(value: float, half: Callable[[float], float]) -> float:
    """The alpha at which the half-width ``half(alpha)`` is ``value``, at least ``_SMALLEST_P``."""
    if half(_SMALLEST_P) <= value:
        return _SMALLEST_P
    if value == 0:
        return 1.0
    return float(optimize.brentq(lambda alpha: half(alpha) - value, _SMALLEST_P, 1.0))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where the result is <= alpha.

    Sorted p_(1) <= ... <= p_(m): adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    if not len(pvalues):
        return []
    return [float(p) for p in multipletests(pvalues, method="holm")[1]]


def selected(p: float, candidates: int) -> float:
    """Two-sided ``p`` of the best of ``candidates`` against the next, corrected for having been
    chosen.

    Bonferroni over the methods that could have led: whoever leads must lead, so p / 2, times their
    number. Were all equal, one would be called better than the next with probability alpha at most,
    since a leader that is told apart from the next is told apart from any given other as well.
    """
    return min(1.0, p / 2 * candidates) if candidates > 2 else p


def selected_level(candidates: int, level: float = 0.95) -> float:
    """The level of an interval that leaves out zero where ``selected`` gives 1 - ``level`` at most:
    that of the best of ``candidates`` minus the next."""
    return 1 - (1 - level) * 2 / candidates if candidates > 2 else level


def hypergeometric_interval(
    right: int, drawn: int, total: int, level: float = 0.95, lower: float = 0.5
) -> Interval:
    """Exact interval of the number of right images among ``total``, ``drawn`` of them looked at.

    The sample is drawn without replacement, so the count is hypergeometric; the interval holds all
    totals K for which P_K(X >= right) is above ``lower`` times alpha and P_K(X <= right) above the
    rest of alpha (Clopper and Pearson's construction). Its ends are whole numbers of images. Valid
    for a sample size that was fixed in advance; for one that was extended see ``looks_interval``.

    Args:
        lower: the share of alpha that the lower end may err by; a half gives equal tails.

    Returns:
        Estimate and ends as fractions of ``total``.

    Raises:
        ValueError: counts that cannot be, or a share outside (0, 1).
    """
    _check_sample(right, drawn, total, level)
    if not 0 < lower < 1:
        raise ValueError(f"lower = {lower} must lie strictly between 0 and 1")
    alpha = 1 - level
    counts = range(right, total - (drawn - right) + 1)
    # The first tail grows with K and the second shrinks.
    first = bisect_right(
        counts, lower * alpha, key=lambda k: stats.hypergeom.sf(right - 1, total, k, drawn)
    )
    after = bisect_left(
        counts, -(1 - lower) * alpha, key=lambda k: -stats.hypergeom.cdf(right, total, k, drawn)
    )
    value = right / drawn
    # With tiny samples the estimate itself can fall between two whole numbers.
    low, high = counts[first] / total, counts[after - 1] / total
    return Interval(value, min(low, value), max(high, value))


def sampling_sequence(
    right: int, drawn: int, total: int, level: float = 0.95, prior: tuple[float, float] = (50, 0.5)
) -> Interval:
    """Interval of the same number, valid at *every* sample size at once.

    However often one looks and extends the sample, all intervals of the sequence hold the truth
    with probability ``level`` or more: the prior-posterior ratio of a beta-binomial prior is a
    martingale at the true K, so by Ville's inequality it passes 1 / alpha with probability alpha at
    most (Waudby-Smith and Ramdas, 2006.04347, theorem 2). K is kept while

        prior(K) / posterior(K | data) < 1 / alpha.

    The prior is a set of weights over K that says where the interval is to be narrow. It must not
    depend on the sample. Coverage holds for every single K, so no weights can spoil it; the default
    makes the interval narrow where about one image of a hundred is wrong.

    Raises:
        ValueError: counts that cannot be.
    """
    _check_sample(right, drawn, total, level)
    a, b = prior
    counts = np.arange(right, total - (drawn - right) + 1)
    before = stats.betabinom.logpmf(counts, total, a, b)
    after = stats.betabinom.logpmf(counts - right, total - drawn, a + right, b + drawn - right)
    kept = counts[before - after < -math.log(1 - level)]
    value = right / drawn
    return Interval(value, min(kept.min() / total, value), max(kept.max() / total, value))


# How ``looks_interval`` spends its alpha: on the first look, and within it on the lower end. Where
# nearly every drawn image is right the upper end is close to 1 anyhow, and the doubt lies below.
FIRST_LOOK, FIRST_LOOK_BELOW = 0.8, 0.9


def looks_interval(looks: Sequence[tuple[int, int]], total: int, level: float = 0.95) -> Interval:
    """Interval of the number of right images among ``total`` from a sample that may have grown.

    The size of the first sample was fixed before anything was seen, so ``hypergeometric_interval``
    is exact there; it gets four fifths of alpha. Whether the sample then grew, and how far, may
    depend on what was seen. So later looks take ``sampling_sequence``, which holds at all sizes at
    once, with the last fifth. By the union bound all of these intervals hold together with
    probability ``level`` or more, and so does what they have in common, which is the result.

    Args:
        looks: (right, drawn) at each look, counts of the whole sample so far.

    Returns:
        Estimate from the last look, and ends, as fractions of ``total``.

    Raises:
        ValueError: no look, or counts that cannot be.
    """
    if not looks:
        raise ValueError("an interval needs at least one look")
    alpha = 1 - level
    found = hypergeometric_interval(*looks[0], total, 1 - FIRST_LOOK * alpha, FIRST_LOOK_BELOW)
    low, high, value = found.low, found.high, found.value
    for right, drawn in looks[1:]:
        found = sampling_sequence(right, drawn, total, 1 - (1 - FIRST_LOOK) * alpha)
        low, high, value = max(low, found.low), min(high, found.high), found.value
    if low > high:  # one of the intervals missed; the latest one has seen most
        low, high = found.low, found.high
    return Interval(value, min(low, value), max(high, value))


def population_interval(sampled: Interval, n: int, level: float = 0.95) -> Interval:
    """Interval for new images of an accuracy that a sample of ``n`` test images estimated.

    Two errors are in it: which of the n images were looked at (the interval ``sampled``, for these
    images and no others) and which n images there are (Clopper and Pearson's interval, as if all n
    had been looked at). They are uncorrelated, so the squares of their distances from the estimate
    are added, below and above; each is exact or wider by itself. The result is never narrower than
    that of looking at all n images.

    Args:
        sampled: estimate and interval for the n images, fractions of n.
    """
    images = clopper_pearson(sampled.value * n, n, level)
    value = sampled.value
    low = value - math.hypot(value - sampled.low, value - images.low)
    high = value + math.hypot(sampled.high - value, images.high - value)
    return Interval(value, max(0.0, low), min(1.0, high))


def _check_sample(right: int, drawn: int, total: int, level: float) -> None:
    _check_level(level)
    if not 0 <= right <= drawn <= total or drawn < 1:
        raise ValueError(f"right = {right} of drawn = {drawn} of total = {total} cannot be")
