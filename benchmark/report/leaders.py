"""Who leads in each score, and whether the difference to the next is more than noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from benchmark.records.statistics import mcnemar_exact, required_n, selected
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
from benchmark.report.texts import percent


def scores(suite: SuiteRecord) -> dict[str, dict[str, float]]:
    """What methods are ranked by: a score in words to its weights of metrics.

    Unions of attacks come first, for they are the strictest claim; then the clean accuracy and that
    under each main attack; then the usual one-number summary of a trade-off, the mean of clean and
    reference attack.
    """
    clean, main = clean_metric(suite), main_attacks(suite)
    found = {
        f"{_in_words(title(suite, metric))} accuracy": {metric: 1.0}
        for metric in suite.metrics()
        if is_union(suite, metric)
    }
    found["natural accuracy"] = {clean: 1.0}
    found |= {f"{title(suite, metric)} accuracy": {metric: 1.0} for metric in main}
    for metric in main:
        if suite.entry(metric)["reference"]:
            score = f"mean of clean and {title(suite, metric)} accuracy"
            found[score] = {clean: 0.5, metric: 0.5}
    return found


def _in_words(heading: str) -> str:
    return heading[0].lower() + heading[1:]


def leaders(suite: SuiteRecord, undertrained: Collection[str]) -> list[str]:
    """A sentence for each score that a method has."""
    found = (leader(suite, what, w, undertrained) for what, w in scores(suite).items())
    return [sentence for sentence in found if sentence]


def leader(
    suite: SuiteRecord,
    what: str,
    weights: Mapping[str, float],
    undertrained: Collection[str],
) -> str:
    """Who has the highest score, and whether the runner-up is told apart; "" if nobody has one.

    The p-value is corrected for the leader having been chosen among all methods with a score.
    Nothing is concluded where one of the two is under-trained, or where the difference is smaller
    than the digits that are printed.

    Args:
        what: the score in words.
        weights: the score as weights of metrics.
        undertrained: methods of which nothing is concluded.
    """
    scored = {m: s for m in suite.methods if (s := _mean_score(suite, m, weights)) is not None}
    if not scored:
        return ""
    ranked = sorted(scored, key=lambda m: -scored[m])
    first = ranked[0]
    sentence = f"Highest {what}: {first} with {percent(scored[first])} %"
    if len(ranked) == 1:
        return sentence + ", the only method evaluated."
    second = ranked[1]
    lead = scored[first] - scored[second]
    level = lead < VISIBLE or percent(scored[first]) == percent(scored[second])
    gap = "level with" if level else f"{points(lead)} points before"
    sentence += f", {gap} {second} ({percent(scored[second])} %)"
    withheld = [method for method in (first, second) if method in undertrained]
    if withheld:
        names = " and ".join(withheld)
        return f"{sentence}; conclusion withheld, under-trained: {names}."
    terms = [(w, first, x) for x, w in weights.items()]
    terms += [(-w, second, x) for x, w in weights.items()]
    tested = contrast(suite, terms)
    if tested is None:
        return sentence + "; not tested, for they share no seed with per-image outcomes."
    if level:
        return f"{sentence}; {tested.where}."
    if abs(tested.result.value - lead) >= VISIBLE:
        sentence += f" and {points(tested.result.value)} points on the seeds both have"
    return f"{sentence}; {_verdict(tested, len(ranked))}."


def _mean_score(suite: SuiteRecord, method: str, weights: Mapping[str, float]) -> float | None:
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


def _verdict(tested: Contrast, candidates: int) -> str:
    """The outcome of a leader's test, with what it would take where nothing was detected."""
    result, parts = tested.result, tested.parts
    p, name = result.p, "paired test"
    single = len(parts) == 2 and result.seeds == 1
    if single:
        p, name = mcnemar_exact(parts[0][0], parts[1][0]).p, "exact McNemar"
    p = selected(p, candidates)
    if p <= ALPHA and abs(result.value) >= VISIBLE:
        return f"the paired difference is significant ({name}, {p_text(p)}, {tested.where})"
    text = f"no difference detected at {tested.where} ({name}, {p_text(p)}"
    if single and result.value:
        discordant = float(np.abs(parts[0][0] - parts[1][0]).mean())
        n = required_n(result.value, discordant)
        text += f"; a true difference of this size needs n ≈ {_rounded(n):,} for 80 % power"
    return text + ")"


def _rounded(n: int) -> int:
    """Two significant digits: the design figure is no more precise than that."""
    digits = max(0, len(str(n)) - 2)
    return int(round(n, -digits))
