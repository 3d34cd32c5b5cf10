"""What the figures say, in words: leaders, the trade-off line, and what looks wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.evaluation.statistics import (
    Paired,
    holm,
    mcnemar_exact,
    paired_contrast,
    required_n,
)
from benchmark.report.records import CellRecord, SuiteRecord, nested, outcome_matrices
from benchmark.report.tables import (
    MARK,
    limit_line,
    missing_line,
    reliability_lines,
    summarise,
    title,
)

ALPHA = 0.05
ROBUST = ("pgd20_linf", "aa_linf")

# A method's score: weights of metrics. The last is the usual one-number summary of a trade-off.
SCORES: dict[str, dict[str, float]] = {
    "natural accuracy": {"clean": 1.0},
    "PGD-20 accuracy": {"pgd20_linf": 1.0},
    "AutoAttack accuracy": {"aa_linf": 1.0},
    "mean of clean and AutoAttack accuracy": {"clean": 0.5, "aa_linf": 0.5},
}


def _points(value: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * value:.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _count(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def _common(suite: SuiteRecord, methods: Sequence[str], metrics: Sequence[str]) -> list[int]:
    """Seeds with all the metrics in all the methods."""
    sets = [
        {c.seed for c in suite.evaluated(method, metric)}
        for method in methods
        for metric in metrics
    ]
    return sorted(set.intersection(*sets)) if sets else []


def _cells(suite: SuiteRecord, method: str, seeds: Sequence[int]) -> list[CellRecord]:
    return [c for c in suite.of(method) if c.seed in seeds]


def contrast(
    suite: SuiteRecord, terms: Sequence[tuple[float, str, str]]
) -> tuple[Paired, list[np.ndarray]] | None:
    """Paired contrast of (weight, method, metric) terms over their common seeds and images.

    None if the methods share no seed or per-image outcomes are absent.
    """
    seeds = sorted(
        set.intersection(*({c.seed for c in suite.evaluated(m, x)} for _, m, x in terms))
    )
    if not seeds:
        return None
    matrices = outcome_matrices([(_cells(suite, m, seeds), x) for _, m, x in terms])
    if matrices is None:
        return None
    weights = [w for w, _, _ in terms]
    return paired_contrast(list(zip(weights, matrices, strict=True))), matrices


def _mean_score(suite: SuiteRecord, method: str, weights: dict[str, float]) -> float | None:
    summaries = summarise(suite)
    total = 0.0
    for metric, weight in weights.items():
        summary = summaries.get((method, metric))
        if summary is None or summary.interval is None:
            return None
        total += weight * summary.interval.value
    return total


def leader(suite: SuiteRecord, what: str, weights: dict[str, float]) -> str:
    """Who has the highest score, and whether the runner-up is told apart; or an empty string."""
    scores = {m: s for m in suite.methods if (s := _mean_score(suite, m, weights)) is not None}
    if not scores:
        return ""
    ranked = sorted(scores, key=lambda m: -scores[m])
    first = ranked[0]
    sentence = f"Highest {what}: {first} with {100 * scores[first]:.1f} %"
    if len(ranked) == 1:
        return sentence + ", the only method evaluated."
    second = ranked[1]
    lead = scores[first] - scores[second]
    gap = f"{_points(lead)} points before" if lead >= 0.0005 else "level with"
    sentence += f", {gap} {second} ({100 * scores[second]:.1f} %)"
    terms = [(w, first, x) for x, w in weights.items()]
    terms += [(-w, second, x) for x, w in weights.items()]
    tested = contrast(suite, terms)
    if tested is None:
        return sentence + "; not tested, for they share no seed with per-image outcomes."
    if abs(tested[0].value - lead) >= 0.0005:
        sentence += f" and {_points(tested[0].value)} points on the seeds both have"
    return f"{sentence}; {_verdict(*tested)}."


def _verdict(result: Paired, matrices: list[np.ndarray]) -> str:
    """The outcome of a leader's test, with what it would take where nothing was detected."""
    where = _where(result, matrices)
    p, name = result.p, "paired test"
    single = len(matrices) == 2 and result.seeds == 1
    both = ~np.isnan(matrices[0][0]) & ~np.isnan(matrices[1][0])
    if single and both.any():
        p, name = mcnemar_exact(matrices[0][0][both], matrices[1][0][both]).p, "exact McNemar"
    if p <= ALPHA:
        return f"the paired difference is significant ({name}, {_p(p)}, {where})"
    text = f"no difference detected at {where} ({name}, {_p(p)}"
    if single and both.any():
        apart = matrices[0][0][both] - matrices[1][0][both]
        # As the test above, on the images that both have: those of ``result`` may be more.
        difference, discordant = float(apart.mean()), float(np.abs(apart).mean())
    if single and both.any() and difference:
        n = required_n(difference, discordant)
        text += f"; a true difference of this size needs n ≈ {_rounded(n):,} for 80 % power"
    return text + ")"


def _where(result: Paired, matrices: list[np.ndarray]) -> str:
    """ "n = 1000, 3 seeds", or "n = 1000 (400 attacked), ..." where an attack met fewer images."""
    fewest = min(int((~np.isnan(m)).all(axis=0).sum()) for m in matrices)
    n = f"n = {result.n}" + (f" ({fewest} attacked)" if fewest < result.n else "")
    return f"{n}, {_count(result.seeds)}"


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


def _plane_point(suite: SuiteRecord, method: str, metric: str, seeds: Sequence[int]) -> np.ndarray:
    cells = _cells(suite, method, seeds)
    return np.array(
        [np.mean([c.accuracy(x) or 0.0 for c in cells]) for x in ("clean", metric)], dtype=float
    )


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
    seeds = _common(suite, [method, first, second], ["clean", metric])
    if not seeds:
        return "no common seed was evaluated"
    a, j, g = (_plane_point(suite, m, metric, seeds) for m in (first, second, method))
    along = j - a
    if along[0] * along[1] >= 0:
        return f"{first} and {second} do not trade off (one is at least as good on both axes)"
    length = float(np.hypot(*along))
    normal = np.array([-along[1], along[0]]) / length
    normal *= np.sign(normal[0])  # both entries have one sign because the anchors trade off
    t = float((g - a) @ along) / length**2
    terms = [
        (float(normal[axis]) * weight, label, x)
        for axis, x in enumerate(("clean", metric))
        for weight, label in ((1.0, method), (t - 1, first), (-t, second))
    ]
    tested = contrast(suite, terms)
    if tested is None:
        return "per-image outcomes are absent or come from different test sets"
    return LineTest(method, anchors, metric, tested[0], t, _where(*tested))


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
    tests: list[LineTest] = []
    failures: list[str] = []
    for metric in ROBUST:
        if metric not in suite.metrics():
            continue
        for method in generalists:
            if not _has_natural_learner(suite, method):
                continue
            if not suite.evaluated(method, metric):
                failures.append(f"{method} has no {title(metric)} result.")
                continue
            reasons = []
            for anchor in anchors:
                result = line_test(suite, method, (base, anchor), metric)
                if isinstance(result, LineTest):
                    tests.append(result)
                    break
                reasons.append(result)
            else:
                why = "; ".join(dict.fromkeys(reasons)) or "neither joint nor natural was run"
                failures.append(
                    f"{method} in the clean/{title(metric)} plane: no line to compare with: {why}."
                )
    failures += [
        f"{method} has no natural learner: it trades one norm against another, which this line "
        "does not measure."
        for method in generalists
        if not _has_natural_learner(suite, method)
    ]
    adjusted = holm([t.distance.p for t in tests])
    return [_line_sentence(t, p) for t, p in zip(tests, adjusted, strict=True)] + failures


def _has_natural_learner(suite: SuiteRecord, method: str) -> bool:
    """Whether a base learner trains on natural images; True if the record does not say."""
    for cell in suite.of(method):
        learners = nested(cell.config, "method", "recipe", "learners")
        if learners:
            return any(nested(item, "objective", "name") == "natural" for item in learners)
    return True


def _line_sentence(test: LineTest, p: float) -> str:
    d = test.distance
    line = f"the line through {test.anchors[0]} and {test.anchors[1]}"
    figures = f"{_points(d.value)} [{_points(d.low)}, {_points(d.high)}], {_p(p)}"
    if not 0 <= test.share <= 1:
        figures += ", line extrapolated"
    plane = f"{test.method}, clean/{title(test.metric)}"
    if p <= ALPHA:
        side = "above" if d.value >= 0 else "below"
        return f"{plane}: lies {side} {line} ({figures}; {test.where})."
    return f"{plane}: no difference detected from {line} at {test.where} ({figures})."


# --- warnings -------------------------------------------------------------------------------------


def warnings(suite: SuiteRecord) -> list[str]:
    """What should stop a reader: limits, gaps, results that cannot be right."""
    lines = [line for line in (limit_line(suite), missing_line(suite)) if line]
    fingerprints = {
        str(f)
        for c in suite.cells
        if (f := nested(c.evaluation, "dataset", "fingerprint")) is not None
    }
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
    lines += _attack_warnings(suite)
    for method in suite.methods:
        lines += _weak_attack(suite, method)
        for metric in ROBUST:
            test = contrast(suite, [(1.0, method, metric), (-1.0, method, "clean")])
            if test and test[0].value > 0 and test[0].low > 0:
                lines.append(f"{method}: {title(metric)} accuracy is above clean accuracy.")
    return lines


def _attack_warnings(suite: SuiteRecord) -> list[str]:
    """What AutoAttack and its adapter warned of."""
    said: dict[str, list[str]] = {}
    for cell in suite.cells:
        for name, entry in cell.metrics.items():
            detail = entry.get("detail") or {}
            for text in detail.get("warnings") or []:
                said.setdefault(f"{title(name)}: {text}", []).append(
                    f"{cell.label} seed {cell.seed}"
                )
    return [f"{text} ({', '.join(runs)})" for text, runs in said.items()]


def _weak_attack(suite: SuiteRecord, method: str) -> list[str]:
    """AutoAttack must not leave more images right than PGD-20 on the same images."""
    seeds = _common(suite, [method], list(ROBUST))
    cells = _cells(suite, method, seeds)
    if not cells:
        return []
    matrices = outcome_matrices([(cells, "pgd20_linf"), (cells, "aa_linf")])
    if matrices is None:
        pgd, aa = (summarise(suite)[method, metric].interval for metric in ROBUST)
        higher = pgd is not None and aa is not None and aa.low > pgd.high
        compared = "intervals do not overlap"
    else:
        both = ~np.isnan(matrices[0]).any(axis=0) & ~np.isnan(matrices[1]).any(axis=0)
        if not both.any():
            return []
        gap = paired_contrast([(1, matrices[1][:, both]), (-1, matrices[0][:, both])])
        higher = gap.value > 0 and gap.p <= ALPHA
        compared = f"{_points(gap.value)} points on the same {gap.n} images, {_p(gap.p)}"
    if not higher:
        return []
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
    leaders = [s for what, weights in SCORES.items() if (s := leader(suite, what, weights))]
    if not leaders:
        return Findings(found, [], [], [])
    line = trade_off(suite)
    caveats = [
        "Leaders were chosen on the images they are tested on, so their p-values flatter them."
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
