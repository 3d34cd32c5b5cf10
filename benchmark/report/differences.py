"""How far each method of a study is from one of them, score by score."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from benchmark.records.statistics import Interval, Paired, holm
from benchmark.records.study import SuiteRecord
from benchmark.report.families import GENERALIST, family_of
from benchmark.report.leaders import scores
from benchmark.report.paired import contrast
from benchmark.report.study_model import Difference, Differences
from benchmark.report.texts import images, seeds_text
from benchmark.report.trade_off_line import find_method


def differences(suite: SuiteRecord, undertrained: Collection[str]) -> tuple[Differences, ...]:
    """The paired difference of every method from the reference, for each score of the study.

    The reference is the first Generalist; without one pgd-at, without that the first method.
    Under-trained methods are left out. Over all differences p is adjusted after Holm.
    """
    methods = [m for m in suite.methods if m not in undertrained and suite.evaluated(m)]
    reference = _reference(suite, methods)
    if reference is None:
        return ()
    others = [method for method in methods if method != reference]
    found = {
        (score.words, tuple(score.weights)): {
            m: test for m in others if (test := _difference(suite, m, reference, score.weights))
        }
        for score in scores(suite)
    }
    tests = [test for by_method in found.values() for test in by_method.values()]
    adjusted = iter(holm([test.p for test in tests]))
    return tuple(
        Differences(
            score=what,
            metrics=metrics,
            reference=reference,
            where=_where(by_method.values()),
            rows=tuple(
                Difference(m, Interval(test.value, test.low, test.high), next(adjusted))
                for m, test in by_method.items()
            ),
        )
        for (what, metrics), by_method in found.items()
        if by_method
    )


def _reference(suite: SuiteRecord, methods: list[str]) -> str | None:
    generalist = next((m for m in methods if family_of(suite.of(m)) == GENERALIST), None)
    plain = find_method(suite, "pgd-at")
    return generalist or (plain if plain in methods else next(iter(methods), None))


def _difference(
    suite: SuiteRecord, method: str, reference: str, weights: Mapping[str, float]
) -> Paired | None:
    terms = [(w, method, metric) for metric, w in weights.items()]
    terms += [(-w, reference, metric) for metric, w in weights.items()]
    found = contrast(suite, terms)
    return None if found is None else found.result


def _where(tests: Collection[Paired]) -> str:
    return f"{images(test.n for test in tests)}, {seeds_text(test.seeds for test in tests)}"
