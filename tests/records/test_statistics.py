"""The statistics behind every interval: against scipy, hand-computed values and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmark.records.statistics import (
    Interval,
    clopper_pearson,
    holm,
    hypergeometric_interval,
    looks_interval,
    mcnemar_exact,
    paired_bootstrap,
    paired_contrast,
    population_interval,
    required_n,
    sampling_sequence,
    seed_interval,
    selected,
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
    seeds = stats.t.ppf(0.975, 1) * math.sqrt(0.005 / 2)
    images = stats.t.ppf(0.975, 99) * math.sqrt(p * (1 - p) / (n + z**2))
    half = math.hypot(seeds, images)
    got = seed_interval(values, n)
    assert half > 0.6  # two seeds ten points apart say next to nothing about a third
    assert (got.low, got.high) == (0, 1)
    got = seed_interval([0.5, 0.51], n)
    p = (50.5 + z**2 / 2) / (n + z**2)
    half = math.hypot(seeds / 10, stats.t.ppf(0.975, 99) * math.sqrt(p * (1 - p) / (n + z**2)))
    assert (got.low, got.high) == pytest.approx((p - half, p + half))


def test_seed_interval_of_one_seed_is_wilson() -> None:
    assert seed_interval([0.44], 450) == wilson(0.44 * 450, 450)


def test_seed_interval_is_never_empty_when_all_seeds_are_perfect() -> None:
    interval = seed_interval([1.0, 1.0, 1.0], 100)
    assert interval.high == 1
    assert interval.low < 0.98


# Which of the two errors rules: the spread over seeds (a standard deviation), images, and how alike
# seeds are on each image (of Beta(a, a); where a is small they agree on nearly all images).
REGIMES = {"seeds": (0.08, 400, 3.0), "both": (0.03, 300, 3.0), "images": (0.0, 300, 0.05)}


def outcomes(rng: np.random.Generator, k: int, regime: str) -> np.ndarray:
    """Bool [k, n] of seeds that share images of unequal difficulty; the mean over both is 0.5."""
    sigma, n, a = REGIMES[regime]
    difficulty = rng.beta(a, a, size=n)
    shift = sigma * rng.standard_normal((k, 1))
    return np.asarray(rng.random((k, n)) < difficulty + shift)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("regime", REGIMES)
def test_seed_interval_covers(k: int, regime: str) -> None:
    """Protects: the coverage of the printed intervals, with few seeds too. With degrees of freedom
    after Satterthwaite two seeds covered 0.90 where the spread of seeds rules."""
    rng = np.random.default_rng([k, *regime.encode()])
    trials, hits = 600, 0
    for _ in range(trials):
        right = outcomes(rng, k, regime)
        interval = seed_interval(list(right.mean(axis=1)), right.shape[1])
        hits += interval.low <= 0.5 <= interval.high
    assert hits / trials >= 0.94


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("regime", REGIMES)
def test_contrast_covers_and_rejects_at_its_level(k: int, regime: str) -> None:
    """Protects: two equal methods are told apart in one case of twenty at most, with two seeds
    too, whichever error rules; and the p-value says the same as the interval."""
    rng = np.random.default_rng([7, k, *regime.encode()])
    trials, hits = 600, 0
    for _ in range(trials):
        # two methods whose seeds are unlike each other's, on images that are hard for both
        right = outcomes(rng, 2 * k, regime)
        result = paired_contrast([(1, right[:k]), (-1, right[k:])])
        covers = result.low <= 0 <= result.high
        assert covers == (result.p >= 0.05)
        hits += covers
    assert hits / trials >= 0.94


def test_the_leader_of_equal_methods_is_seldom_called_better() -> None:
    """Protects: a leader's p-value counts that it was chosen. Without the correction one of ten
    equal methods would be called better than the next too often."""
    rng = np.random.default_rng(3)
    trials, k, n, plain, corrected = 400, 10, 400, 0, 0
    for _ in range(trials):
        right = rng.random((k, n)) < 0.5
        first, second = np.argsort(-right.mean(axis=1), kind="stable")[:2]
        p = paired_contrast([(1, right[first]), (-1, right[second])]).p
        plain += p <= 0.05
        corrected += selected(p, k) <= 0.05
    assert corrected / trials <= 0.05
    assert corrected < plain or plain == 0
    assert [selected(0.01, k) for k in (1, 2, 10)] == [0.01, 0.01, 0.05]
    assert selected(0.3, 10) == 1.0


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
    by_hand = [(a[i].mean() - b[i].mean()) for i in rng.integers(800, size=(2000, 800))]
    assert (boot.low, boot.high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=0.003)
    exact = paired_contrast([(1, a), (-1, b)])
    assert boot.value == pytest.approx(exact.value)
    assert boot.low == pytest.approx(exact.low, abs=0.004)
    assert boot.high == pytest.approx(exact.high, abs=0.004)
    assert exact.p < 1e-6
    assert boot == paired_bootstrap(a, b)
    assert paired_bootstrap(a, a) == Interval(0.0, 0.0, 0.0)
    # one image says nothing about others
    assert paired_bootstrap([1.0], [0.0]) == Interval(1.0, -1.0, 1.0)


def test_contrast_of_one_part_is_the_t_interval_of_its_mean() -> None:
    y = np.array([1, 0, 1, 1, 0, 1, 1, 1.0])
    got = paired_contrast([(1, y)])
    low, high = stats.t.interval(0.95, 7, loc=y.mean(), scale=stats.sem(y))
    assert (got.low, got.high) == pytest.approx((low, high))


def test_contrast_uses_only_images_that_all_parts_have() -> None:
    """Protects: a difference between two columns that comes from different images."""
    clean = np.array([[1, 1, 0, 1.0]])
    robust = np.array([[1, 0, np.nan, np.nan]])
    got = paired_contrast([(0.5, clean), (0.5, robust)])
    assert got.value == pytest.approx(0.5 * 1.0 + 0.5 * 0.5)
    assert (got.n, got.seeds) == (2, 1)
    with pytest.raises(ValueError, match="no image in common"):
        paired_contrast([(1, robust), (1, [[np.nan, np.nan, 1, 1]])])


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


@pytest.mark.parametrize(("total", "truth", "drawn"), [(60, 57, 12), (300, 299, 60), (50, 10, 9)])
def test_one_look_covers_by_enumeration(total: int, truth: int, drawn: int) -> None:
    """Unequal tails and a fifth of alpha kept for later looks: never below the level."""
    coverage = 0.0
    for right in range(max(0, drawn - (total - truth)), min(drawn, truth) + 1):
        found = looks_interval([(right, drawn)], total)
        if found.low - 1e-12 <= truth / total <= found.high + 1e-12:
            coverage += float(stats.hypergeom.pmf(right, total, truth, drawn))
    assert coverage >= 0.96 - 1e-9


def test_looks_by_hand() -> None:
    """Nothing wrong among the first m: K is kept while P_K(none wrong) > 0.9 * 0.04."""
    found = looks_interval([(30, 30)], 100)
    kept = [k for k in range(30, 101) if stats.hypergeom.pmf(30, 100, k, 30) > 0.036]
    assert (found.low, found.high) == (min(kept) / 100, 1.0)
    further = looks_interval([(30, 30), (60, 60)], 100)
    assert found.low < further.low
    assert looks_interval([(30, 30), (100, 100)], 100).low == 1.0
    # two looks that cannot both be right: the later one counts
    torn = looks_interval([(40, 40), (40, 400)], 1000)
    assert torn.low <= 0.1 <= torn.high
    with pytest.raises(ValueError, match="at least one look"):
        looks_interval([], 10)
    with pytest.raises(ValueError, match="lower"):
        hypergeometric_interval(1, 2, 3, lower=1.0)


def test_population_interval_holds_both_errors() -> None:
    """All n images looked at: what is left is the choice of images, as for any other accuracy."""
    whole = clopper_pearson(217, 1000)
    found = population_interval(Interval(0.217, 0.217, 0.217), 1000)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high))
    sampled = population_interval(Interval(0.217, 0.2, 0.23), 1000)
    assert sampled.low < whole.low
    assert sampled.high > whole.high
    nothing = population_interval(Interval(0.0, 0.0, 0.0), 100)
    assert (nothing.low, nothing.high) == pytest.approx((0, 1 - 0.025 ** (1 / 100)))


@pytest.mark.parametrize(("right", "drawn", "total"), [(3, 2, 5), (1, 0, 5), (2, 6, 5), (-1, 2, 5)])
def test_samples_that_cannot_be(right: int, drawn: int, total: int) -> None:
    for interval in (hypergeometric_interval, sampling_sequence):
        with pytest.raises(ValueError, match="cannot be"):
            interval(right, drawn, total)
