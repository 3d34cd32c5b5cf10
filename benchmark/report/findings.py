"""What the figures say, in words: what looks wrong, who leads, and the trade-off line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmark.records.keys import images_of
from benchmark.records.study import SuiteRecord
from benchmark.report.failures import failure_lines
from benchmark.report.fronts import front_sentences
from benchmark.report.leaders import leads
from benchmark.report.metric_roles import attacks, clean_metric, same_attack_ball, title
from benchmark.report.notes import limit_warning, missing_line, reliability_lines
from benchmark.report.paired import ALPHA, VISIBLE, contrast, p_text, points
from benchmark.report.study_model import DOUBTFUL, Findings, FrontPlane
from benchmark.report.trade_off_line import line_sentences
from benchmark.report.undertrained import undertrained_lines


def findings_of(
    suite: SuiteRecord, undertrained: Mapping[str, str], fronts: Sequence[FrontPlane] = ()
) -> Findings:
    """All findings of a suite.

    Args:
        undertrained: method to reason, for methods of which nothing is concluded.
        fronts: the suite's fronts, which take the place of the trade-off line.
    """
    found = tuple(w.removeprefix("WARNING: ") for w in warnings(suite, undertrained))
    ahead = tuple(leads(suite, undertrained))
    if not ahead:
        return Findings(found, (), (), ())
    words = [lead.sentence for lead in ahead]
    line = tuple(front_sentences(fronts) if fronts else line_sentences(suite, undertrained))
    caveats = [
        "Leaders were chosen on the images they are tested on, so their p-values are corrected for "
        "the number of methods that could have led (Bonferroni)."
    ]
    if any("1 seed" in sentence for sentence in (*found, *words, *line)):
        caveats.append(
            "A test on 1 seed compares these trained networks, not the methods; another seed may "
            "turn the order."
        )
    return Findings(found, ahead, line, tuple(caveats), fronts=bool(fronts))


def warnings(suite: SuiteRecord, undertrained: Mapping[str, str]) -> list[str]:
    """What should stop a reader: limits, gaps, results that cannot be right."""
    lines = [line for line in (limit_warning(suite), missing_line(suite)) if line]
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
    lines += [line for line in reliability_lines(suite) if line.startswith(DOUBTFUL)]
    lines += undertrained_lines(undertrained)
    lines += failure_lines(suite)
    lines += _attack_warnings(suite)
    for method in suite.methods:
        lines += _weak_attacks(suite, method)
        lines += _above_clean(suite, method)
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


def _weak_attacks(suite: SuiteRecord, method: str) -> list[str]:
    """A reference attack must not leave more images right than a weaker one in the same ball."""
    lines = []
    for strong in attacks(suite):
        for weak in attacks(suite):
            one, other = suite.entry(strong), suite.entry(weak)
            if one["reference"] and not other["reference"] and same_attack_ball(one, other):
                lines += _weaker(suite, method, strong, weak)
    return lines


def _weaker(suite: SuiteRecord, method: str, strong: str, weak: str) -> list[str]:
    test = contrast(suite, [(1.0, method, strong), (-1.0, method, weak)])
    if test is None:  # whole columns tell nothing, unless both are of the same images
        return []
    gap = test.result
    if gap.value < VISIBLE or gap.p > ALPHA:
        return []
    compared = f"{points(gap.value)} points on the same {gap.n} images, {p_text(gap.p)}"
    strong, weak = title(suite, strong), title(suite, weak)
    return [
        f"{method}: {strong} accuracy is above {weak} accuracy by more than noise ({compared}). "
        f"{strong} should be the stronger attack: suspect a wrong eps, a BatchNorm mode or a "
        "gradient that is masked."
    ]


def _above_clean(suite: SuiteRecord, method: str) -> list[str]:
    """No attack can leave more images right than there were before it."""
    lines = []
    for metric in attacks(suite):
        test = contrast(suite, [(1.0, method, metric), (-1.0, method, clean_metric(suite))])
        if test and test.result.value >= VISIBLE and test.result.low > 0:
            lines.append(f"{method}: {title(suite, metric)} accuracy is above clean accuracy.")
    return lines
