"""Who leads in each score, and whether the difference to the next is more than noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records.statistics import (
    Interval,
    mcnemar_exact,
    paired_contrast,
    required_n,
    selected,
    selected_level,
)
from benchmark.records.study import SuiteRecord
from benchmark.report.metric_roles import clean_metric, is_union, main_attacks, title
from benchmark.report.paired import (
    ALPHA,
    VISIBLE,
    Contrast,
    contrast,
    p_text,
    points,
    shared_outcomes,
)
from benchmark.report.study_model import Certainty, Lead, Score
from benchmark.report.texts import percent


@dataclass(frozen=True)
class Scored:
    """A score that methods are ranked by: in words, and as weights of metrics."""

    words: str
    kind: Score
    weights: Mapping[str, float]


def scores(suite: SuiteRecord) -> list[Scored]:
    """What methods are ranked by.

    Unions of attacks come first, for they are the strictest claim; then the clean accuracy and that
    under each main attack; then the usual one-number summary of a trade-off, the mean of clean and
    reference attack.
    """
    clean, main = clean_metric(suite), main_attacks(suite)
    found = [
        Scored(f"{_in_words(title(suite, metric))} accuracy", "union", {metric: 1.0})
        for metric in suite.metrics()
        if is_union(suite, metric)
    ]
    found.append(Scored("natural accuracy", "clean", {clean: 1.0}))
    found += [Scored(f"{title(suite, m)} accuracy", "attack", {m: 1.0}) for m in main]
    for metric in main:
        if suite.entry(metric)["reference"]:
            score = f"mean of clean and {title(suite, metric)} accuracy"
            found.append(Scored(score, "sum", {clean: 0.5, metric: 0.5}))
    return found


def _in_words(heading: str) -> str:
    return heading[0].lower() + heading[1:]


def leads(suite: SuiteRecord, undertrained: Collection[str]) -> list[Lead]:
    """The leader of each score that a method has."""
    found = (lead(suite, score, undertrained) for score in scores(suite))
    return [one for one in found if one]


def lead(suite: SuiteRecord, score: Scored, undertrained: Collection[str]) -> Lead | None:
    """Who has the highest score, and whether the runner-up is told apart; None if nobody has one.

    The p-value is corrected for the leader having been chosen among all methods with a score.
    Nothing is concluded where one of the two is under-trained, or where the difference is smaller
    than the digits that are printed.

    Args:
        undertrained: methods of which nothing is concluded.
    """
    weights = score.weights
    scored = {m: s for m in suite.methods if (s := mean_score(suite, m, weights)) is not None}
    if not scored:
        return None
    ranked = sorted(scored, key=lambda m: -scored[m])
    first, second = ranked[0], ranked[1] if ranked[1:] else ""
    withheld = tuple(method for method in (first, second) if method in undertrained)
    terms = [(w, first, x) for x, w in weights.items()]
    terms += [(-w, second, x) for x, w in weights.items()]
    tested = contrast(suite, terms) if second and not withheld else None
    certainty, words = _certainty(scored, ranked, withheld, tested)
    return Lead(
        score=score.words,
        kind=score.kind,
        metrics=tuple(weights),
        first=first,
        value=scored[first],
        second=second,
        certainty=certainty,
        margin=_margin(tested, weights, len(ranked)) if tested else None,
        n=tested.result.n if tested else 0,
        seeds=tested.result.seeds if tested else 0,
        withheld=withheld,
        sentence=f"Highest {score.words}: {first} with {percent(scored[first])} %{words}",
    )


def _certainty(
    scored: Mapping[str, float],
    ranked: Sequence[str],
    withheld: Sequence[str],
    tested: Contrast | None,
) -> tuple[Certainty, str]:
    """How sure it is that the first of ``ranked`` is ahead of the second, and the same in words."""
    if len(ranked) == 1:
        return "alone", ", the only method evaluated."
    first, second = ranked[:2]
    ahead = scored[first] - scored[second]
    level = ahead < VISIBLE or percent(scored[first]) == percent(scored[second])
    gap = "level with" if level else f"{points(ahead)} points ahead of"
    words = f", {gap} {second} ({percent(scored[second])} %)"
    if withheld:
        names = " and ".join(withheld)
        return "withheld", f"{words}; conclusion withheld, under-trained: {names}."
    if tested is None:
        return "untested", words + "; not tested, for they share no seed with per-image outcomes."
    if level:
        return "level", f"{words}; {tested.where}."
    if abs(tested.result.value - ahead) >= VISIBLE:
        words += f" and {points(tested.result.value)} points on the seeds both have"
    sure, verdict = _verdict(tested, len(ranked))
    return ("sure" if sure else "unsure"), f"{words}; {verdict}."


def _margin(tested: Contrast, weights: Mapping[str, float], candidates: int) -> Interval:
    """The lead with its interval, corrected for the choice of the leader as its p-value is."""
    signed = [*weights.values(), *(-w for w in weights.values())]
    parts = list(zip(signed, tested.parts, strict=True))
    found = paired_contrast(parts, selected_level(candidates, 1 - ALPHA))
    return Interval(found.value, found.low, found.high)


def mean_score(suite: SuiteRecord, method: str, weights: Mapping[str, float]) -> float | None:
    """The weighted sum of a method's metrics on the images that all of them have, mean over the
    runs that have them; None if a metric is missing or the images are not on record."""
    cells = [c for c in suite.evaluated(method) if all(c.accuracy(m) is not None for m in weights)]
    if not cells:
        return None
    if len(weights) > 1:
        found = shared_outcomes(suite, [(method, metric) for metric in weights])
        if found is not None:
            pairs = zip(weights.values(), found, strict=True)
            return sum(w * float(part.mean()) for w, part in pairs)
        if len({int(cell.metrics[m]["n"]) for cell in cells for m in weights}) > 1:
            return None
    sums = [sum(w * (cell.accuracy(m) or 0.0) for m, w in weights.items()) for cell in cells]
    return float(np.mean(sums))


def _verdict(tested: Contrast, candidates: int) -> tuple[bool, str]:
    """Whether a leader is told apart from the next, and the outcome of the test in words, with what
    it would take where nothing was detected."""
    result, parts = tested.result, tested.parts
    p, name = result.p, "paired test"
    single = len(parts) == 2 and result.seeds == 1
    if single:
        p, name = mcnemar_exact(parts[0][0], parts[1][0]).p, "exact McNemar"
    p = selected(p, candidates)
    if p <= ALPHA and abs(result.value) >= VISIBLE:
        words = f"the paired difference is significant ({name}, {p_text(p)}, {tested.where})"
        return True, words
    text = f"no difference detected at {tested.where} ({name}, {p_text(p)}"
    if single and result.value:
        discordant = float(np.abs(parts[0][0] - parts[1][0]).mean())
        n = required_n(result.value, discordant)
        text += f"; a true difference of this size needs n ≈ {_rounded(n):,} for 80 % power"
    return False, text + ")"


def _rounded(n: int) -> int:
    """Two significant digits: the design figure is no more precise than that."""
    digits = max(0, len(str(n)) - 2)
    return int(round(n, -digits))
