"""Mean ranks of methods over seeds, for critical-difference diagrams (Demsar, JMLR 7, 2006)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, rankdata

from benchmark.records.study import SuiteRecord
from benchmark.report.leaders import scores
from benchmark.report.paired import ALPHA, shared_outcomes
from benchmark.report.study_model import MethodRanks

# Fewer methods or blocks (seeds, studies) than these have no ranks worth a test.
FEWEST = 3


def mean_ranks(suite: SuiteRecord, undertrained: Collection[str]) -> tuple[MethodRanks, ...]:
    """The mean ranks in each score of the methods that have the most seeds in common.

    A seed is a block: it ranks the methods by their score in it, on the same images. Seeds of one
    data set say how far the order depends on initialisation and the order of images, and nothing
    about other data. Under-trained methods are left out.
    """
    methods = [m for m in suite.methods if m not in undertrained]
    found = (_ranks(suite, score.words, methods, score.weights) for score in scores(suite))
    return tuple(one for one in found if one is not None)


def _ranks(
    suite: SuiteRecord, what: str, methods: list[str], weights: Mapping[str, float]
) -> MethodRanks | None:
    most = max((len(suite.evaluated(m)) for m in methods), default=0)
    methods = [m for m in methods if len(suite.evaluated(m)) == most]
    methods = [m for m in methods if all(suite.evaluated(m, metric) for metric in weights)]
    if most < FEWEST or len(methods) < FEWEST:
        return None
    outcomes = shared_outcomes(suite, [(m, metric) for m in methods for metric in weights])
    if outcomes is None or len(outcomes[0]) < FEWEST:
        return None
    by_seed = np.array([part.mean(axis=1) for part in outcomes])
    share = np.array(list(weights.values()))
    score = np.tensordot(by_seed.reshape(len(methods), len(weights), -1), share, ([1], [0]))
    table = pd.DataFrame(score.T, columns=methods)
    return ranks_of(table, what, tuple(weights), n=outcomes[0].shape[1])


def ranks_of(table: pd.DataFrame, what: str, metrics: tuple[str, ...], n: int) -> MethodRanks:
    """The mean ranks of the columns of a table of scores; each row (block) ranks them once."""
    each = rankdata(-table.to_numpy(), axis=1)
    found = zip(table.columns, map(float, each.mean(axis=0)), strict=True)
    mean = dict(sorted(found, key=_second))
    pairs = _nemenyi(table)
    return MethodRanks(
        score=what,
        metrics=metrics,
        n=n,
        seeds=len(table),
        mean=mean,
        friedman=float(friedmanchisquare(*table.to_numpy().T).pvalue),
        pairs=pairs,
        groups=_groups(list(mean), pairs),
    )


def _second(item: tuple[str, float]) -> float:
    return item[1]


def _groups(
    ranked: list[str], pairs: Mapping[tuple[str, str], float]
) -> tuple[tuple[str, ...], ...]:
    """The largest sets of two and more methods no two of which are told apart.

    Nemenyi's p falls as ranks move apart, so a set is a stretch of the methods in their order, and
    its first and last are the least alike.
    """
    found: list[tuple[str, ...]] = []
    reached = 0
    for i, first in enumerate(ranked):
        end = i + 1
        while end < len(ranked) and _p(pairs, first, ranked[end]) > ALPHA:
            end += 1
        if end - i > 1 and end > reached:
            found.append(tuple(ranked[i:end]))
            reached = end
    return tuple(found)


def _p(pairs: Mapping[tuple[str, str], float], first: str, second: str) -> float:
    return pairs[(first, second)] if (first, second) in pairs else pairs[(second, first)]


def _nemenyi(table: pd.DataFrame) -> dict[tuple[str, str], float]:
    """p for each two columns of a table whose rows are blocks."""
    from scikit_posthocs import posthoc_nemenyi_friedman  # noqa: PLC0415 - start-up time

    p = posthoc_nemenyi_friedman(table)
    return {(a, b): float(p.loc[a, b]) for a, b in combinations(table.columns, 2)}
