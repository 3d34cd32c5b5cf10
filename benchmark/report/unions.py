"""Unions of attacks, and the attacks that each consists of."""

from __future__ import annotations

from benchmark.records.study import SuiteRecord, nested
from benchmark.report.metric_roles import is_union, title
from benchmark.report.study_model import UnionBars


def unions(suite: SuiteRecord) -> tuple[UnionBars, ...]:
    """The unions of a study whose attacks are all on record, in the order of its metrics."""
    known = suite.metrics()
    found = []
    for metric in known:
        if is_union(suite, metric):
            parts = [part for part in nested(suite.entry(metric), "detail", "of") if part in known]
            found.append(
                UnionBars(metric, title(suite, metric), tuple((p, title(suite, p)) for p in parts))
            )
    return tuple(found)
