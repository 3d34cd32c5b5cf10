"""Intervals, paired tests and sample sizes for accuracies.

Notation: ``n`` test images, ``k`` seeds, ``y[j, i]`` in {0, 1} is 1 if the model of seed j is right
on image i, ``p`` is an accuracy in [0, 1], z = Phi^-1((1 + level) / 2).
Every test here is paired, because all methods meet the same images: an unpaired test would throw
away the largest part of the power. References: Wilson (1927); Clopper and Pearson (1934); Agresti
and Coull (1998); Satterthwaite (1946); McNemar (1947); Connor (1987); Holm (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

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
    z, p = _quantile(level), correct / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
    # rounding must not push a bound past the estimate at p = 0 and p = 1
    return Interval(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))


def clopper_pearson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion; coverage is never below ``level``.

    low = Beta^-1(alpha/2; correct, n - correct + 1), high = Beta^-1(1 - alpha/2; correct + 1,
    n - correct), with low = 0 at correct = 0 and high = 1 at correct = n.

    Raises:
        ValueError: as for ``wilson``.
    """
    _check(correct, n, level)
    alpha = 1 - level
    low = 0.0 if correct == 0 else float(stats.beta.ppf(alpha / 2, correct, n - correct + 1))
    high = 1.0 if correct == n else float(stats.beta.ppf(1 - alpha / 2, correct + 1, n - correct))
    return Interval(correct / n, low, high)


def seed_interval(accuracies: Sequence[float], n: int, level: float = 0.95) -> Interval:
    """Interval of the mean accuracy over k seeds that were evaluated on the same n images.

    It answers "what would new seeds give on new images?", so both spreads enter. With the mean m
    of the k accuracies, their sample variance s^2, and the Agresti-Coull values
    n~ = n + z^2, p~ = (n m + z^2/2) / n~:

        A = s^2 / k                 spread over seeds,    k - 1 degrees of freedom
        B = p~ (1 - p~) / n~        choice of images,     n - 1 degrees of freedom, never zero
        df = (A + B)^2 / (A^2/(k-1) + B^2/(n-1))          Welch-Satterthwaite
        interval = p~ -+ t_df sqrt(A + B), cut to [0, 1]

    B is not divided by k: seeds share the images, and images hard for one seed are hard for the
    next. It is an upper bound (reached when all seeds agree on every image), so the interval is
    conservative. With one seed it is the Wilson interval and says nothing about seeds.

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
    seeds = float(values.var(ddof=1)) / k
    images = p * (1 - p) / n_adjusted
    df = (seeds + images) ** 2 / (seeds**2 / (k - 1) + images**2 / max(n - 1, 1))
    half = float(stats.t.ppf((1 + level) / 2, df)) * math.sqrt(seeds + images)
    return Interval(mean, max(0.0, min(mean, p - half)), min(1.0, max(mean, p + half)))


def seed_spread(accuracies: Sequence[float], level: float = 0.95) -> float:
    """Half-width of the t interval of a mean over seeds: t_{k-1} s / sqrt(k).

    Raises:
        ValueError: fewer than two seeds.
    """
    _check_level(level)
    k = len(accuracies)
    if k < 2:
        raise ValueError("a spread needs at least two seeds")
    t = float(stats.t.ppf((1 + level) / 2, k - 1))
    return t * float(np.std(accuracies, ddof=1)) / math.sqrt(k)


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
    p = min(1.0, 2 * float(stats.binom.cdf(min(x, y), x + y, 0.5)))
    return McNemar(x, y, first.size, p)


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
) -> Paired:
    """Percentile bootstrap of mean(a) - mean(b); images, and seeds if several, drawn jointly.

    One draw takes the same images (and the same seeds) from a and b. p = 2 min(share of draws
    <= 0, share >= 0), at least 2 / (resamples + 1) and at most 1. Resampling k seeds misses a
    factor (k - 1) / k of their variance: below about five seeds use ``paired_contrast``.

    Args:
        a, b: outcomes or scores, shape (n,) or (seeds, n), paired in both axes.

    Raises:
        ValueError: shapes differ or are empty.
    """
    _check_level(level)
    first, second = (np.atleast_2d(np.asarray(v, dtype=float)) for v in (a, b))
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"paired arrays of one shape needed, got {first.shape}, {second.shape}")
    gap = first - second
    k, n = gap.shape
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for r in range(resamples):
        images = generator.integers(n, size=n)
        seeds = generator.integers(k, size=k)
        draws[r] = gap[np.ix_(seeds, images)].mean()
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    share = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (share + 1) / (resamples + 1))
    return Paired(float(gap.mean()), float(low), float(high), p, n, k)


def paired_contrast(parts: Sequence[tuple[float, ArrayLike]], level: float = 0.95) -> Paired:
    """Interval and test of a weighted sum of accuracies that share seeds and images.

    The estimate is d = sum_m w_m mean(y_m). Over seeds its spread is that of d_j (the sum for seed
    j alone); over images that of e_i = sum_m w_m (mean_j y_m[j, i] - mean y_m) / n_m, where an
    image that attack m did not meet adds nothing to part m:

        A = var(d_j) / k  (k - 1 df; absent with one seed)     B = n/(n-1) sum_i e_i^2  (n - 1 df)

    and t with Welch-Satterthwaite degrees of freedom as in ``seed_interval``. A difference of two
    methods is the case w = (1, -1). Weights taken from the data (the distance to a line) are
    allowed if the estimate is smooth in them: this is then the delta method.

    Args:
        parts: (weight, outcomes of shape (seeds, n)); NaN where an image was not attacked.

    Raises:
        ValueError: no parts, different shapes, or a part without any outcome.
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
    k = shape[0]
    per_seed = np.zeros(k)
    per_image = np.zeros(shape[1])
    used = np.zeros(shape[1], dtype=bool)
    for weight, y in arrays:
        present = ~np.isnan(y).any(axis=0)
        if not present.any():
            raise ValueError("a part of the contrast has no image in common over its seeds")
        kept = y[:, present]
        per_seed += weight * kept.mean(axis=1)
        per_image[present] += weight * (kept.mean(axis=0) - kept.mean()) / kept.shape[1]
        used |= present
    value, n = float(per_seed.mean()), int(used.sum())
    images = float((per_image**2).sum()) * n / max(n - 1, 1)
    seeds = float(per_seed.var(ddof=1)) / k if k > 1 else 0.0
    if images + seeds <= 1e-18:  # all outcomes agree: nothing speaks for a difference but itself
        return Paired(value, value, value, 1.0 if abs(value) < 1e-12 else 0.0, n, k)
    df = (seeds + images) ** 2 / (seeds**2 / max(k - 1, 1) + images**2 / max(n - 1, 1))
    error = math.sqrt(seeds + images)
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, df))
    return Paired(value, value - half, value + half, p, n, k)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject where the result is <= alpha.

    Sorted p_(1) <= ... <= p_(m): adjusted_(i) = max over j <= i of min(1, (m - j + 1) p_(j)).
    """
    values: Any = np.asarray(pvalues, dtype=float)
    if ((values < 0) | (values > 1) | np.isnan(values)).any():
        raise ValueError("p-values must lie in [0, 1]")
    m = values.size
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1.0, (m - np.arange(m)) * values[order]))
    adjusted = np.empty(m)
    adjusted[order] = stepped
    return [float(v) for v in adjusted]


def hypergeometric_interval(right: int, drawn: int, total: int, level: float = 0.95) -> Interval:
    """Exact interval of the number of right images among ``total``, ``drawn`` of them looked at.

    The sample is drawn without replacement, so the count is hypergeometric; the interval holds all
    totals K for which neither tail, P_K(X >= right) nor P_K(X <= right), is alpha/2 or less
    (Clopper and Pearson's construction). Its ends are whole numbers of images. Valid for a sample
    size that was fixed in advance; for one that was extended see ``sampling_sequence``.

    Returns:
        Estimate and ends as fractions of ``total``.

    Raises:
        ValueError: counts that cannot be.
    """
    _check_sample(right, drawn, total, level)
    alpha = 1 - level
    counts = np.arange(right, total - (drawn - right) + 1)
    at_least = stats.hypergeom.sf(right - 1, total, counts, drawn)
    at_most = stats.hypergeom.cdf(right, total, counts, drawn)
    kept = counts[(at_least > alpha / 2) & (at_most > alpha / 2)]
    value = right / drawn
    # With tiny samples the estimate itself can fall between two whole numbers.
    low, high = kept.min() / total, kept.max() / total
    return Interval(value, min(low, value), max(high, value))


def sampling_sequence(
    right: int, drawn: int, total: int, level: float = 0.95, prior: tuple[float, float] = (9, 1)
) -> Interval:
    """Interval of the same number, valid at *every* sample size at once.

    However often one looks and extends the sample, all intervals of the sequence hold the truth
    with probability ``level`` or more: the prior-posterior ratio of a beta-binomial prior is a
    martingale at the true K, so by Ville's inequality it passes 1 / alpha with probability alpha at
    most (Waudby-Smith and Ramdas, 2006.04347, theorem 2). K is kept while

        prior(K) / posterior(K | data) < 1 / alpha.

    The prior must not depend on the sample. Its default expects nine of ten images that survive a
    cheap attack to survive AutoAttack; it moves the width, never the coverage.

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


def _check_sample(right: int, drawn: int, total: int, level: float) -> None:
    _check_level(level)
    if not 0 <= right <= drawn <= total or drawn < 1:
        raise ValueError(f"right = {right} of drawn = {drawn} of total = {total} cannot be")
