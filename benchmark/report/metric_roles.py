"""Which part a metric plays in a report, from what the records say of it and never from its name.

A metric of a package of one's own takes part like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core.threat import Pixels
from benchmark.records.study import CellRecord, SuiteRecord, nested


def title(suite: SuiteRecord, metric: str) -> str:
    """A metric's heading, as its record says; that of a further checkpoint names its rule."""
    entry = suite.entry(metric)
    text, rule = str(entry.get("title", metric)), entry.get("checkpoint")
    return f"{text} ({rule})" if rule else text


def same_attack_ball(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries are of whole attacks in the same ball on the same checkpoint."""
    if any(x["role"] != "attack" or x["form"] or not x["ball"] for x in (one, other)):
        return False
    same = one["ball"][0] == other["ball"][0] and Pixels(one["ball"][1]) == Pixels(other["ball"][1])
    return same and one.get("checkpoint") == other.get("checkpoint")


def is_union(suite: SuiteRecord, metric: str) -> bool:
    """Whether a metric is an attack that is computed from others, image by image."""
    entry = suite.entry(metric)
    return bool(entry.get("role") == "attack" and nested(entry, "detail", "of"))


def clean_metric(suite: SuiteRecord) -> str:
    """The metric on unchanged images, of the first checkpoint; "clean" if none was measured."""
    return next((name for cell in suite.cells if (name := clean_metric_of(cell))), "clean")


def clean_metric_of(cell: CellRecord) -> str:
    """As ``clean_metric``, of one run; "" if it has none."""
    return next((name for name, entry in cell.metrics.items() if _plays(entry, "clean")), "")


def attacks(suite: SuiteRecord) -> list[str]:
    """Whole attacks on the first checkpoint: no screening, no estimate."""
    return [metric for metric in suite.metrics() if _plays(suite.entry(metric), "attack")]


def _plays(entry: Mapping[str, Any], role: str) -> bool:
    """Whether an entry is a share of right test images in ``role``, on the first checkpoint."""
    measured = entry["outcomes"] == "test" and entry["higher_is_better"] and not entry["form"]
    return bool(entry["role"] == role and measured and not entry.get("checkpoint"))


def main_attacks(suite: SuiteRecord) -> list[str]:
    """The attacks that words and plots are about: those in the ball of the study's first one.

    Where no attack has a ball, all that are no unions.
    """
    single = [metric for metric in attacks(suite) if not is_union(suite, metric)]
    first = next((suite.entry(metric) for metric in single if suite.entry(metric)["ball"]), None)
    if first is None:
        return single
    return [metric for metric in single if same_attack_ball(first, suite.entry(metric))]


def is_main(suite: SuiteRecord, metric: str) -> bool:
    """Whether a column is shown where there is no room for all: clean accuracy, unions, the main
    attacks, and estimates of one in their ball."""
    if metric == clean_metric(suite) or is_union(suite, metric):
        return True
    entry, main = suite.entry(metric), main_attacks(suite)
    if metric in main or entry["form"] != "estimate" or not main:
        return metric in main
    return same_attack_ball({**entry, "form": ""}, suite.entry(main[0]))


def corruption_metrics(suite: SuiteRecord) -> list[str]:
    """Metrics of the first checkpoint whose records hold accuracies corruption by corruption."""
    return [
        metric
        for metric in suite.metrics()
        if any(nested(c.metrics, metric, "detail", "per_corruption") for c in suite.cells)
        and not suite.entry(metric).get("checkpoint")
    ]
