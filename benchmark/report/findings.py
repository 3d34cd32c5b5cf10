"""What the figures say, in words: leaders, the trade-off line, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records.keys import images_of
from benchmark.records.statistics import (
    Paired,
    holm,
    mcnemar_exact,
    paired_contrast,
    required_n,
    selected,
)
from benchmark.records.study import (
    CellRecord,
    SuiteRecord,
    is_estimate,
    nested,
    outcome_matrices,
)
from benchmark.report import training
from benchmark.report.tables import (
    MARK,
    limit_line,
    missing_line,
    percent,
    reliability_lines,
    title,
)

ALPHA = 0.05
ROBUST = ("pgd20_linf", "aa_linf")

# A method's score: weights of metrics. The last is the usual one-number summary of a trade-off.
Weights = dict[str, float]
SCORES: dict[str, Weights] = {
    "natural accuracy": {"clean": 1.0},
    "PGD-20 accuracy": {"pgd20_linf": 1.0},
    "AutoAttack accuracy": {"aa_linf": 1.0},
    "mean of clean and AutoAttack accuracy": {"clean": 0.5, "aa_linf": 0.5},
}


def scores_of(suite: SuiteRecord) -> dict[str, Weights]:
    """What methods are ranked by. Unions of attacks come first: they are the strictest claim."""
    unions = [metric for metric in suite.metrics() if is_union(suite, metric)]
    return {f"{_in_words(title(suite, u))} accuracy": {u: 1.0} for u in unions} | SCORES


def is_union(suite: SuiteRecord, metric: str) -> bool:
    """Whether a metric is computed from others, image by image."""
    return bool(nested(suite.entry(metric), "detail", "of"))


def _in_words(heading: str) -> str:
    return heading[0].lower() + heading[1:]


def _points(value: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * value:.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _cells(suite: SuiteRecord, method: str, seeds: Sequence[int]) -> list[CellRecord]:
    return [c for c in suite.of(method) if c.seed in seeds]


Column = tuple[str, str]  # method, metric


def shared_outcomes(
    suite: SuiteRecord, columns: Sequence[Column]
) -> tuple[list[int], list[np.ndarray]] | None:
    """The seeds that all columns have, and each column's outcomes on the images that all have.

    Returns:
        Seeds, and one array (seeds, images) per column, nothing missing; None if there is no such
        seed or image, or outcomes are absent or those of a sample of survivors, or the runs were
        measured on different test sets.
    """
    seeds = sorted(set.intersection(*({c.seed for c in suite.evaluated(m, x)} for m, x in columns)))
    groups = [(_cells(suite, m, seeds), x) for m, x in columns]
    if not seeds or any(is_estimate(cell, x) for cells, x in groups for cell in cells):
        return None
    matrices = outcome_matrices(groups)
    if matrices is None:
        return None
    shared = ~np.isnan(np.stack(matrices)).any(axis=(0, 1))
    return (seeds, [matrix[:, shared] for matrix in matrices]) if shared.any() else None


def contrast(suite: SuiteRecord, terms: Sequence[tuple[float, str, str]]) -> Contrast | None:
    """Paired contrast of (weight, method, metric) terms over their common seeds and images.

    None where ``shared_outcomes`` has none.
    """
    found = shared_outcomes(suite, [(method, metric) for _, method, metric in terms])
    return None if found is None else _contrast([w for w, _, _ in terms], found[1])


def _contrast(weights: Sequence[float], parts: list[np.ndarray]) -> Contrast:
    return Contrast(paired_contrast(list(zip(weights, parts, strict=True))), parts)


@dataclass(frozen=True)
class Contrast:
    """A paired contrast and the outcomes of its terms, (seeds, images), nothing missing."""

    result: Paired
    parts: list[np.ndarray]

    @property
    def where(self) -> str:
        """ "n = 1000, 3 seeds"."""
        return f"n = {self.result.n}, {_count(self.result.seeds)}"


def _mean_score(suite: SuiteRecord, method: str, weights: Weights) -> float | None:
    """The weighted sum of a method's metrics on the images that all of them have, mean over the
    runs that have them; None if a metric is missing or the images are not on record."""
    cells = [c for c in suite.evaluated(method) if all(c.accuracy(m) is not None for m in weights)]
    if not cells:
        return None
    if len(weights) > 1:
        found = shared_outcomes(suite, [(method, metric) for metric in weights])
        if found is not None:
            pairs = zip(weights.values(), found[1], strict=True)
            return sum(w * float(part.mean()) for w, part in pairs)
        if len({int(cell.metrics[m]["n"]) for cell in cells for m in weights}) > 1:
            return None
    sums = [sum(w * (cell.accuracy(m) or 0.0) for m, w in weights.items()) for cell in cells]
    return float(np.mean(sums))


def leader(suite: SuiteRecord, what: str, weights: Weights) -> str:
    """Who has the highest score, and whether the runner-up is told apart; or an empty string.

    The p-value is corrected for the leader having been chosen among all methods with a score.
    Nothing is concluded where one of the two is under-trained, or where the difference is smaller
    than the digits that are printed.
    """
    scores = {m: s for m in suite.methods if (s := _mean_score(suite, m, weights)) is not None}
    if not scores:
        return ""
    ranked = sorted(scores, key=lambda m: -scores[m])
    first = ranked[0]
    sentence = f"Highest {what}: {first} with {percent(scores[first])} %"
    if len(ranked) == 1:
        return sentence + ", the only method evaluated."
    second = ranked[1]
    lead = scores[first] - scores[second]
    level = lead < 0.0005 or percent(scores[first]) == percent(scores[second])
    gap = "level with" if level else f"{_points(lead)} points before"
    sentence += f", {gap} {second} ({percent(scores[second])} %)"
    doubtful = training.all_undertrained(suite)
    if not doubtful.keys().isdisjoint((first, second)):
        names = " and ".join(m for m in (first, second) if m in doubtful)
        return f"{sentence}; conclusion withheld, under-trained: {names}."
    terms = [(w, first, x) for x, w in weights.items()]
    terms += [(-w, second, x) for x, w in weights.items()]
    tested = contrast(suite, terms)
    if tested is None:
        return sentence + "; not tested, for they share no seed with per-image outcomes."
    if level:
        return f"{sentence}; {tested.where}."
    if abs(tested.result.value - lead) >= 0.0005:
        sentence += f" and {_points(tested.result.value)} points on the seeds both have"
    return f"{sentence}; {_verdict(tested, len(ranked))}."


def _verdict(tested: Contrast, candidates: int) -> str:
    """The outcome of a leader's test, with what it would take where nothing was detected."""
    result, parts = tested.result, tested.parts
    p, name = result.p, "paired test"
    single = len(parts) == 2 and result.seeds == 1
    if single:
        p, name = mcnemar_exact(parts[0][0], parts[1][0]).p, "exact McNemar"
    p = selected(p, candidates)
    if p <= ALPHA and abs(result.value) >= 0.0005:
        return f"the paired difference is significant ({name}, {_p(p)}, {tested.where})"
    text = f"no difference detected at {tested.where} ({name}, {_p(p)}"
    if single and result.value:
        discordant = float(np.abs(parts[0][0] - parts[1][0]).mean())
        n = required_n(result.value, discordant)
        text += f"; a true difference of this size needs n ≈ {_rounded(n):,} for 80 % power"
    return text + ")"


def _rounded(n: int) -> int:
    """Two significant digits: the design figure is no more precise than that."""
    digits = max(0, len(str(n)) - 2)
    return int(round(n, -digits))


LINE_TITLE = "Generalist against the trade-off line"
LINE_HEAD = (
    "In brackets: distance from the line at right angles in "
    "percentage points, positive = better, with its 95 % interval, and p adjusted after Holm over "
    "these tests."
)

# --- the trade-off line ---------------------------------------------------------------------------


@dataclass(frozen=True)
class LineTest:
    """A method against the straight line through two others in the clean-versus-robust plane.

    Attributes:
        distance: right-angled distance in accuracy, positive on the better (upper right) side.
        share: where the foot of the perpendicular lies; 0 at the first anchor, 1 at the second.
        where: images and seeds in words.
    """

    method: str
    anchors: tuple[str, str]
    metric: str
    distance: Paired
    share: float
    where: str


def find_method(suite: SuiteRecord, name: str) -> str | None:
    """The label equal to ``name``, else the first label of the method of that name."""
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
        The test, or the reason why there is none.
    """
    first, second = anchors
    columns = [(label, x) for label in (first, second, method) for x in ("clean", metric)]
    if not set.intersection(*({c.seed for c in suite.evaluated(m, x)} for m, x in columns)):
        return "no common seed was evaluated"
    found = shared_outcomes(suite, columns)
    if found is None:
        return "per-image outcomes are absent or come from different test sets"
    # all three points on the same images, although an attack may have met fewer than there are
    a, j, g = np.array([part.mean() for part in found[1]]).reshape(3, 2)
    along = j - a
    if along[0] * along[1] >= 0:
        return f"{first} and {second} do not trade off (one is at least as good on both axes)"
    length = float(np.hypot(*along))
    normal = np.array([-along[1], along[0]]) / length
    normal *= np.sign(normal[0])  # both entries have one sign because the anchors trade off
    t = float((g - a) @ along) / length**2
    weights = [float(normal[axis]) * weight for weight in (t - 1, -t, 1.0) for axis in range(2)]
    tested = _contrast(weights, found[1])
    return LineTest(method, anchors, metric, tested.result, t, tested.where)


def trade_off(suite: SuiteRecord) -> list[str]:
    """A sentence for every Generalist method and every robust metric."""
    base = find_method(suite, "pgd-at")
    generalists = [
        m for m in suite.methods if any(c.method.startswith("generalist") for c in suite.of(m))
    ]
    if base is None or not generalists:
        return []
    # joint is the fair anchor; natural stands in where joint is absent or does not trade off
    anchors = [a for a in (find_method(suite, n) for n in ("joint", "natural")) if a is not None]
    doubtful = training.all_undertrained(suite)
    tests: list[LineTest] = []
    failures: list[str] = []
    for metric in ROBUST:
        if metric not in suite.metrics():
            continue
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
            untrained = [m for m in (method, *result.anchors) if m in doubtful]
            if untrained:
                names = " and ".join(untrained)
                failures.append(f"{plane}: conclusion withheld, under-trained: {names}.")
            elif not 0 <= result.share <= 1:
                end = result.anchors[result.share > 1]
                failures.append(
                    f"{plane}: lies beyond the end of {_line(result)} at {end}, where there is "
                    f"nothing to compare with ({result.where})."
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
    """The test against the line to the first of ``anchors`` that makes one, or why none does."""
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
    figures = f"{_points(d.value)} [{_points(d.low)}, {_points(d.high)}], {_p(p)}"
    plane = f"{test.method}, clean/{title(suite, test.metric)}"
    if p <= ALPHA and abs(d.value) >= 0.0005:
        side = "above" if d.value >= 0 else "below"
        return f"{plane}: lies {side} {_line(test)} ({figures}; {test.where})."
    return f"{plane}: no difference detected from {_line(test)} at {test.where} ({figures})."


# --- warnings -------------------------------------------------------------------------------------


def warnings(suite: SuiteRecord) -> list[str]:
    """What should stop a reader: limits, gaps, results that cannot be right."""
    lines = [line for line in (limit_line(suite), missing_line(suite)) if line]
    fingerprints = {str(f) for c in suite.cells if (f := images_of(c.evaluation))}
    if len(fingerprints) > 1:
        lines.append(
            f"The cells were evaluated on {len(fingerprints)} different test sets "
            f"({', '.join(sorted(fingerprints))}); they cannot be compared."
        )
    if suite.stale:
        lines.append(
            "Measured under other settings than the suite's, so not shown; run the suite again: "
            + ", ".join(suite.stale)
            + "."
        )
    lines += [line for line in reliability_lines(suite) if line.startswith(MARK.strip())]
    lines += training.undertrained_lines(suite)
    lines += _attack_warnings(suite)
    for method in suite.methods:
        lines += _weak_attack(suite, method)
        for metric in ROBUST:
            test = contrast(suite, [(1.0, method, metric), (-1.0, method, "clean")])
            if test and test.result.value >= 0.0005 and test.result.low > 0:
                lines.append(f"{method}: {title(suite, metric)} accuracy is above clean accuracy.")
    return lines


def _attack_warnings(suite: SuiteRecord) -> list[str]:
    """What AutoAttack and its adapter warned of."""
    said: dict[str, list[str]] = {}
    for cell in suite.cells:
        for name, entry in cell.metrics.items():
            detail = entry.get("detail") or {}
            for text in detail.get("warnings") or []:
                said.setdefault(f"{title(suite, name)}: {text}", []).append(
                    f"{cell.label} seed {cell.seed}"
                )
    return [f"{text} ({', '.join(runs)})" for text, runs in said.items()]


def _weak_attack(suite: SuiteRecord, method: str) -> list[str]:
    """AutoAttack must not leave more images right than PGD-20 on the same images."""
    pgd, attack = ROBUST
    test = contrast(suite, [(1.0, method, attack), (-1.0, method, pgd)])
    if test is None:  # whole columns tell nothing, unless both are of the same images
        return []
    gap = test.result
    if gap.value < 0.0005 or gap.p > ALPHA:
        return []
    compared = f"{_points(gap.value)} points on the same {gap.n} images, {_p(gap.p)}"
    return [
        f"{method}: AutoAttack accuracy is above PGD-20 accuracy by more than noise ({compared}). "
        "AutoAttack should be the stronger attack: suspect a wrong eps, a BatchNorm mode or a "
        "gradient that is masked."
    ]


@dataclass(frozen=True)
class Findings:
    """What the figures say, sentence by sentence.

    Attributes:
        warnings: what should stop a reader.
        leaders: who is ahead in each score; empty if nothing has been evaluated.
        line: Generalist methods against the trade-off line.
        caveats: how to read the tests.
    """

    warnings: list[str]
    leaders: list[str]
    line: list[str]
    caveats: list[str]


def find(suite: SuiteRecord) -> Findings:
    """All findings of a suite."""
    found = [w.removeprefix("WARNING: ") for w in warnings(suite)]
    leaders = [
        s for what, weights in scores_of(suite).items() if (s := leader(suite, what, weights))
    ]
    if not leaders:
        return Findings(found, [], [], [])
    line = trade_off(suite)
    caveats = [
        "Leaders were chosen on the images they are tested on, so their p-values are corrected for "
        "the number of methods that could have led (Bonferroni)."
    ]
    if any("1 seed" in sentence for sentence in (*found, *leaders, *line)):
        caveats.append(
            "A test on 1 seed compares these trained networks, not the methods; another seed may "
            "turn the order."
        )
    return Findings(found, leaders, line, caveats)


NOTHING = "No cell has been evaluated yet."


def words(suite: SuiteRecord) -> str:
    """The findings as Markdown: warnings, leaders, the trade-off line, how to read them."""
    found = find(suite)
    parts = []
    if found.warnings:
        parts.append("\n".join(f"> **Warning.** {w}\n>" for w in found.warnings)[:-2])
    if not found.leaders:
        parts.append(NOTHING)
        return "\n\n".join(parts) + "\n"
    parts.append(" ".join(found.leaders))
    if found.line:
        parts.append(f"{LINE_TITLE}. {LINE_HEAD}\n\n" + "\n".join(f"- {s}" for s in found.line))
    parts.append(" ".join(found.caveats))
    return "\n\n".join(parts) + "\n"
