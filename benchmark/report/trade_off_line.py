"""Generalist methods against the straight line between two others, clean versus robust."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records.statistics import Paired, holm
from benchmark.records.study import SuiteRecord, nested
from benchmark.report.families import GENERALIST, family_of
from benchmark.report.metric_roles import clean_metric, main_attacks, title
from benchmark.report.paired import (
    ALPHA,
    VISIBLE,
    contrast_of,
    p_text,
    points,
    shared_outcomes,
    shared_seeds,
)


@dataclass(frozen=True)
class LineTest:
    """A method against the straight line through two others in the clean-versus-robust plane.

    Attributes:
        distance: perpendicular distance in accuracy, positive on the better (upper right) side.
        share: where the foot of the perpendicular lies; 0 at the first anchor, 1 at the second.
        where: numbers of images and seeds, as text.
    """

    method: str
    anchors: tuple[str, str]
    metric: str
    distance: Paired
    share: float
    where: str


def find_method(suite: SuiteRecord, name: str) -> str | None:
    """The label equal to ``name``, else the first label of a row with the method ``name``."""
    if name in suite.methods:
        return name
    return next((c.label for c in suite.cells if c.method == name), None)


def line_test(
    suite: SuiteRecord, method: str, anchors: tuple[str, str], metric: str
) -> LineTest | str:
    """Signed distance of ``method`` from the line through ``anchors``, with its interval.

    With anchors A, J and unit normal v of J - A pointing to the upper right, the distance is
    d = v . (G - A). To first order its error is that of v . (G - (1 - t) A - t J), t the foot of
    the perpendicular, so one paired contrast over the same images and seeds gives interval and p
    (delta method); the errors of all three points are in it.

    Returns:
        The test, or the reason why no test is possible.
    """
    first, second = anchors
    columns = [
        (label, x) for label in (first, second, method) for x in (clean_metric(suite), metric)
    ]
    if not shared_seeds(suite, columns):
        return "no common seed was evaluated"
    found = shared_outcomes(suite, columns)
    if found is None:
        return "per-image outcomes are absent or come from different test sets"
    # all three points on the same images, since an attack may have been run on fewer than there are
    a, j, g = np.array([part.mean() for part in found]).reshape(3, 2)
    along = j - a
    if along[0] * along[1] >= 0:
        return f"{first} and {second} do not trade off (one is at least as good on both axes)"
    length = float(np.hypot(*along))
    normal = np.array([-along[1], along[0]]) / length
    normal *= np.sign(normal[0])  # both entries have one sign because the anchors trade off
    t = float((g - a) @ along) / length**2
    weights = [float(normal[axis]) * weight for weight in (t - 1, -t, 1.0) for axis in range(2)]
    tested = contrast_of(weights, found)
    return LineTest(method, anchors, metric, tested.result, t, tested.where)


def line_sentences(suite: SuiteRecord, undertrained: Collection[str]) -> list[str]:
    """A sentence for every Generalist method and every main attack."""
    base = find_method(suite, "pgd-at")
    generalists = [m for m in suite.methods if family_of(suite.of(m)) == GENERALIST]
    if base is None or not generalists:
        return []
    # joint is the fair anchor; natural stands in where joint is absent or does not trade off
    anchors = [a for a in (find_method(suite, n) for n in ("joint", "natural")) if a is not None]
    tests: list[LineTest] = []
    failures: list[str] = []
    for metric in main_attacks(suite):
        for method in generalists:
            if not _has_natural_learner(suite, method):
                continue
            if not suite.evaluated(method, metric):
                failures.append(f"{method} has no {title(suite, metric)} result.")
                continue
            result = _first_line(suite, method, base, anchors, metric)
            plane = f"{method}, clean/{title(suite, metric)}"
            if not isinstance(result, LineTest):
                failures.append(f"{plane}: no line to compare with: {result}.")
                continue
            untrained = [m for m in (method, *result.anchors) if m in undertrained]
            if untrained:
                names = " and ".join(untrained)
                failures.append(f"{plane}: conclusion withheld, under-trained: {names}.")
            elif not 0 <= result.share <= 1:
                end = result.anchors[result.share > 1]
                failures.append(
                    f"{plane}: beyond the end of {_line(result)} at {end}, so it cannot be "
                    f"compared with the line ({result.where})."
                )
            else:
                tests.append(result)
    failures += [
        f"{method} has no natural learner: it trades one norm against another, which this line "
        "does not measure."
        for method in generalists
        if not _has_natural_learner(suite, method)
    ]
    adjusted = holm([t.distance.p for t in tests])
    return [_line_sentence(suite, t, p) for t, p in zip(tests, adjusted, strict=True)] + failures


def _first_line(
    suite: SuiteRecord, method: str, base: str, anchors: Sequence[str], metric: str
) -> LineTest | str:
    """The test against the line to the first of ``anchors`` with which one is possible, or the
    reasons why none is."""
    reasons = []
    for anchor in anchors:
        result = line_test(suite, method, (base, anchor), metric)
        if isinstance(result, LineTest):
            return result
        reasons.append(result)
    return "; ".join(dict.fromkeys(reasons)) or "neither joint nor natural was run"


def _line(test: LineTest) -> str:
    return f"the line through {test.anchors[0]} and {test.anchors[1]}"


def _has_natural_learner(suite: SuiteRecord, method: str) -> bool:
    """Whether a base learner trains on natural images; True if the record does not say."""
    for cell in suite.of(method):
        learners = nested(cell.config, "method", "recipe", "learners")
        if learners:
            return any(nested(item, "objective", "name") == "natural" for item in learners)
    return True


def _line_sentence(suite: SuiteRecord, test: LineTest, p: float) -> str:
    d = test.distance
    figures = f"{points(d.value)} [{points(d.low)}, {points(d.high)}], {p_text(p)}"
    plane = f"{test.method}, clean/{title(suite, test.metric)}"
    if p <= ALPHA and abs(d.value) >= VISIBLE:
        side = "above" if d.value >= 0 else "below"
        away = f"{points(abs(d.value))} points {side} {_line(test)}"
        return f"{plane}: {away} (perpendicular distance {figures}; {test.where})."
    return (
        f"{plane}: no difference detected from {_line(test)} (perpendicular distance {figures}; "
        f"{test.where})."
    )
