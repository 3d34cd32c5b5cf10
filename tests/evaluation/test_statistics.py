"""The statistics behind every interval: against scipy, hand-computed values and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmark.evaluation.statistics import (
    clopper_pearson,
    holm,
    hypergeometric_interval,
    mcnemar_exact,
    paired_bootstrap,
    paired_contrast,
    required_n,
    sampling_sequence,
    seed_interval,
    wilson,
)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (7, 20), (440, 450), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_proportion_intervals_agree_with_scipy(correct: int, n: int, level: float) -> None:
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = stats.binomtest(correct, n).proportion_ci(level, method=method)
        got = ours(correct, n, level)
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert got.value == correct / n


@given(st.integers(1, 5000), st.floats(0, 1), st.integers(1, 6), st.floats(0, 0.05))
def test_seed_interval_holds_its_mean_and_stays_in_range(
    n: int, p: float, k: int, spread: float
) -> None:
    values = [min(1.0, max(0.0, p + spread * (j - k / 2))) for j in range(k)]
    interval = seed_interval(values, n)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


def test_seed_interval_by_hand() -> None:
    z = stats.norm.ppf(0.975)
    n, values = 100, [0.5, 0.6]
    p = (55 + z**2 / 2) / (n + z**2)
    a, b = 0.005 / 2, p * (1 - p) / (n + z**2)
    df = (a + b) ** 2 / (a**2 / 1 + b**2 / 99)
    half = stats.t.ppf(0.975, df) * math.sqrt(a + b)
    got = seed_interval(values, n)
    assert (got.low, got.high) == pytest.approx((p - half, p + half))


def test_seed_interval_of_one_seed_is_wilson() -> None:
    assert seed_interval([0.44], 450) == wilson(0.44 * 450, 450)


def test_seed_interval_is_never_empty_when_all_seeds_are_perfect() -> None:
    interval = seed_interval([1.0, 1.0, 1.0], 100)
    assert interval.high == 1
    assert interval.low < 0.98


@pytest.mark.parametrize(("k", "sigma"), [(2, 0.0), (3, 0.01), (5, 0.03)])
def test_seed_interval_covers(k: int, sigma: float) -> None:
    """Seeds share images of unequal difficulty; the truth is the mean over seeds and images."""
    rng = np.random.default_rng(1)
    n, trials, hits = 300, 600, 0
    for _ in range(trials):
        difficulty = rng.beta(1.2, 0.8, size=n)  # mean 0.6
        shift = sigma * rng.standard_normal(k)
        right = rng.random((k, n)) < np.clip(difficulty + shift[:, None], 0, 1)
        interval = seed_interval(list(right.mean(axis=1)), n)
        hits += interval.low <= 0.6 <= interval.high
    assert hits / trials >= 0.94


def test_mcnemar_agrees_with_the_binomial_test() -> None:
    a = np.array([1] * 30 + [1] * 9 + [0] * 2 + [0] * 5, dtype=bool)
    b = np.array([1] * 30 + [0] * 9 + [1] * 2 + [0] * 5, dtype=bool)
    result = mcnemar_exact(a, b)
    assert (result.only_a, result.only_b, result.n) == (9, 2, 46)
    assert result.p == pytest.approx(stats.binomtest(9, 11, 0.5).pvalue)
    assert result.difference == pytest.approx(7 / 46)
    assert mcnemar_exact(a, a).p == 1
    assert mcnemar_exact(b, a).p == result.p


def test_mcnemar_refuses_missing_outcomes() -> None:
    with pytest.raises(ValueError, match="missing"):
        mcnemar_exact([1.0, float("nan")], [1.0, 0.0])
    with pytest.raises(ValueError, match="one length"):
        mcnemar_exact([True], [True, False])


def test_required_n_where_one_model_alone_is_ever_right() -> None:
    """Protects: difference and discordant share are then equal but for rounding."""
    assert required_n(0.16666666666666669, 0.16666666666666666) == required_n(1 / 6, 1 / 6)


def test_required_n_by_hand_and_by_simulation() -> None:
    n = required_n(0.05, 0.10)
    assert n == 312  # ceil((1.959964 sqrt(.1) + .841621 sqrt(.1 - .0025))^2 / .0025)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        x, y, _rest = rng.multinomial(n, [0.075, 0.025, 0.9])
        z = (x - y) / math.sqrt(x + y)
        found += abs(z) > 1.96
    assert found / 400 == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize(
    "wrong", [{"difference": 0.0, "discordant": 0.1}, {"difference": 0.2, "discordant": 0.1}]
)
def test_required_n_refuses_the_impossible(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="difference"):
        required_n(**wrong)


def test_bootstrap_and_contrast_agree_on_a_difference() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(800)
    a, b = base < 0.75, base < 0.70
    boot = paired_bootstrap(a, b)
    exact = paired_contrast([(1, a), (-1, b)])
    assert boot.value == pytest.approx(exact.value)
    assert boot.low == pytest.approx(exact.low, abs=0.004)
    assert boot.high == pytest.approx(exact.high, abs=0.004)
    assert exact.p < 1e-6
    assert boot == paired_bootstrap(a, b)
    assert paired_bootstrap(a, a).p == 1


def test_contrast_of_one_part_is_the_t_interval_of_its_mean() -> None:
    y = np.array([1, 0, 1, 1, 0, 1, 1, 1.0])
    got = paired_contrast([(1, y)])
    low, high = stats.t.interval(0.95, 7, loc=y.mean(), scale=stats.sem(y))
    assert (got.low, got.high) == pytest.approx((low, high))


def test_contrast_covers_and_rejects_at_its_level_with_few_seeds() -> None:
    rng = np.random.default_rng(2)
    trials, hits, n, k = 500, 0, 200, 3
    for _ in range(trials):
        difficulty = rng.beta(1, 1, size=n)
        parts = []
        for sign in (1, -1):
            shift = 0.02 * rng.standard_normal((k, 1))
            y = (rng.random((k, n)) < np.clip(difficulty + shift, 0, 1)).astype(float)
            parts.append((sign, y))
        result = paired_contrast(parts)
        hits += result.low <= 0 <= result.high
    assert hits / trials >= 0.93


def test_contrast_uses_only_attacked_images_of_each_part() -> None:
    clean = np.array([[1, 1, 0, 1.0]])
    robust = np.array([[1, 0, np.nan, np.nan]])
    got = paired_contrast([(0.5, clean), (0.5, robust)])
    assert got.value == pytest.approx(0.5 * 0.75 + 0.5 * 0.5)
    assert (got.n, got.seeds) == (4, 1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("total", "truth", "drawn"), [(60, 50, 12), (480, 460, 50), (40, 40, 5)])
def test_hypergeometric_interval_covers_by_enumeration(total: int, truth: int, drawn: int) -> None:
    """Exact coverage, summed over every possible sample, is never below the level."""
    coverage = 0.0
    for right in range(max(0, drawn - (total - truth)), min(drawn, truth) + 1):
        found = hypergeometric_interval(right, drawn, total)
        assert found.low <= right / drawn <= found.high
        if found.low - 1e-12 <= truth / total <= found.high + 1e-12:
            coverage += float(stats.hypergeom.pmf(right, total, truth, drawn))
    assert coverage >= 0.95


def test_hypergeometric_interval_by_hand() -> None:
    """2 of 2 right among 4: all totals whose chance of that is above 2.5 %."""
    # P(both right) is 0, 0, 1/6, 1/2, 1 for K = 0 ... 4
    found = hypergeometric_interval(2, 2, 4)
    assert (found.value, found.low, found.high) == (1.0, 0.5, 1.0)
    # the whole population: no doubt is left
    whole = hypergeometric_interval(7, 10, 10)
    assert (whole.low, whole.high) == (0.7, 0.7)


def test_hypergeometric_interval_is_narrower_than_the_binomial_one() -> None:
    """Looking at most of a finite set leaves less doubt than sampling from an infinite one."""
    finite, infinite = hypergeometric_interval(90, 100, 120), clopper_pearson(90, 100)
    assert finite.high - finite.low < 0.6 * (infinite.high - infinite.low)


def test_sampling_sequence_holds_at_all_looks_at_once() -> None:
    """Protects: looking after every ten images and stopping when it suits must stay valid.

    2,000 shuffles of 120 images, 100 of them right; misses at *any* look are counted.
    """
    draw = np.random.default_rng(0)
    total, truth, missed = 120, 100, 0
    cache: dict[tuple[int, int], bool] = {}
    for _ in range(2000):
        right = np.cumsum(draw.permutation(total) < truth)
        for drawn in range(5, total + 1, 5):
            key = (int(right[drawn - 1]), drawn)
            if key not in cache:
                found = sampling_sequence(*key, total)
                cache[key] = found.low - 1e-12 <= truth / total <= found.high + 1e-12
            if not cache[key]:
                missed += 1
                break
    assert missed / 2000 < 0.05


def test_sampling_sequence_narrows_to_the_truth() -> None:
    widths = []
    for drawn, right in ((20, 18), (60, 54), (200, 180)):
        found = sampling_sequence(right, drawn, 200)
        fixed = hypergeometric_interval(right, drawn, 200)
        assert found.low <= fixed.low
        assert found.high >= fixed.high  # validity at every look costs width
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0


@pytest.mark.parametrize(("right", "drawn", "total"), [(3, 2, 5), (1, 0, 5), (2, 6, 5), (-1, 2, 5)])
def test_samples_that_cannot_be(right: int, drawn: int, total: int) -> None:
    for interval in (hypergeometric_interval, sampling_sequence):
        with pytest.raises(ValueError, match="cannot be"):
            interval(right, drawn, total)
