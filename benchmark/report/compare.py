"""Two runs, metric by metric, on the images that both were measured on. Reads records only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.core.errors import BenchmarkError
from benchmark.records.keys import images_of
from benchmark.records.statistics import (
    McNemar,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    required_n,
)
from benchmark.records.study import (
    CellRecord,
    is_estimate,
    nested,
    outcome_matrices,
    read_cell,
    the_run,
)
from benchmark.report.metric_roles import same_attack_ball
from benchmark.report.paired import ALPHA
from benchmark.report.texts import percent
from benchmark.report.training_data import training_data
from benchmark.report.undertrained import undertrained


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of two runs on the same images.

    Attributes:
        n: images that both runs were measured on.
        first, second: accuracies on those, in [0, 1].
        difference, low, high: first minus second with its 95 % bootstrap interval over images.
        only_first, only_second: numbers of images that only one run classifies correctly.
            These and the interval are None for a metric without one outcome per test image.
        p: exact McNemar test, adjusted (Holm) over the metrics of the comparison; None for a
            row that repeats another on fewer images, for comparison with the next row.
        verdict: a sentence, with the n that a difference of this size would need.
        limit: the fewest images that a trial run was restricted to; None if neither was.
    """

    metric: str
    n: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    only_first: int | None
    only_second: int | None
    p: float | None
    verdict: str
    limit: int | None = None


def read_run(path: Path) -> CellRecord:
    """An evaluated run, or the evaluation of a model of one's own.

    Raises:
        BenchmarkError: no record, or one without outcomes.
    """
    path = the_run(path)
    cell = read_cell(path)
    if cell.status != "evaluated" or cell.outcomes is None:
        raise BenchmarkError(f"{path} is not evaluated; run: generalist-bench evaluate {path}")
    return cell


def compare(first: Path, second: Path) -> list[ComparedMetric]:
    """The metrics that both runs hold with one outcome per test image, tested on shared images;
    then all others, side by side.

    Raises:
        BenchmarkError: a run without records, other test images, or no metric in common.
    """
    a, b = read_run(first), read_run(second)
    if images_of(a.evaluation) != images_of(b.evaluation):
        raise BenchmarkError(f"{first} and {second} were evaluated on different test images")
    found: dict[str, tuple[Any, Any]] = {}
    whole: list[str] = []
    for metric in a.metrics:
        if metric not in b.metrics or is_estimate(a, metric) or is_estimate(b, metric):
            continue
        if _settings(a, metric) != _settings(b, metric):
            raise BenchmarkError(
                f"{metric} was measured under other settings in {first} than in {second}"
            )
        pair = _shared(a, b, metric)
        if pair is not None:
            found[metric] = pair
        elif not all(_judges_once(run, metric) for run in (a, b)):
            whole.append(metric)
    if not found and not whole:
        raise BenchmarkError(f"{first} and {second} have no metric in common")
    tests = [mcnemar_exact(one, other) for one, other in found.values()]
    adjusted = dict(zip(found, holm([test.p for test in tests]), strict=True))
    doubts = [f"{place} is under-trained: {why}" for place, why in _undertrained(a, b)]
    limit = min((n for n in (limit_of(a), limit_of(b)) if n is not None), default=None)
    rows = []
    for metric, (one, other) in found.items():
        beside = _weaker_beside(a, metric, found)
        if beside is not None:
            p_one, p_other = _shared(a, b, beside, metric) or (one, other)
            rows.append(
                _row(f"{beside} on the images of {metric}", p_one, p_other, None, [], limit)
            )
        rows.append(_row(metric, one, other, adjusted[metric], doubts, limit))
    return rows + [_untested(a, b, metric, limit) for metric in whole]


def _judges_once(cell: CellRecord, metric: str) -> bool:
    """Whether each test image has one outcome, so that it can be paired with another run's."""
    return cell.outcomes is not None and metric in cell.outcomes


def _untested(a: CellRecord, b: CellRecord, metric: str, limit: int | None) -> ComparedMetric:
    """Two figures that cannot be compared by a test over images."""
    one, other = a.metrics[metric], b.metrics[metric]
    better = "larger" if one["higher_is_better"] else "smaller"
    return ComparedMetric(
        metric=metric,
        n=min(one["n"], other["n"]),
        first=one["mean"],
        second=other["mean"],
        difference=one["mean"] - other["mean"],
        low=None,
        high=None,
        only_first=None,
        only_second=None,
        p=None,
        verdict=f"not one outcome per test image, so not tested; {better} is better",
        limit=limit,
    )


def _shared(a: CellRecord, b: CellRecord, *metrics: str) -> tuple[Any, Any] | None:
    """Outcomes of the first of ``metrics`` in both runs on the images that both have by all of
    them; None without such images, or for a mean over several outcomes per image."""
    matrices = outcome_matrices([([run], metric) for metric in metrics for run in (a, b)])
    if matrices is None:
        return None
    both = ~np.isnan(np.stack(matrices)).any(axis=(0, 1))
    return (matrices[0][0][both], matrices[1][0][both]) if both.any() else None


def _weaker_beside(
    cell: CellRecord, attack: str, found: Mapping[str, tuple[Any, Any]]
) -> str | None:
    """The weaker attack that AutoAttack on fewer images must be read beside."""
    own = cell.metrics[attack]
    for metric, (one, _) in found.items():
        other = cell.metrics[metric]
        if own["reference"] and not other["reference"] and same_attack_ball(own, other):
            return metric if len(one) > len(found[attack][0]) else None
    return None


def _row(
    metric: str, one: Any, other: Any, p: float | None, doubts: list[str], limit: int | None
) -> ComparedMetric:
    test, spread = mcnemar_exact(one, other), paired_bootstrap(one, other)
    if p is None:
        verdict = "for comparison with the next row"
    elif doubts:
        verdict = f"withheld: {'; '.join(doubts)}"
    else:
        verdict = _verdict(p, float(one.mean()), float(other.mean()), test)
    return ComparedMetric(
        metric=metric,
        n=test.n,
        first=float(one.mean()),
        second=float(other.mean()),
        difference=test.difference,
        low=spread.low,
        high=spread.high,
        only_first=test.only_a,
        only_second=test.only_b,
        p=p,
        verdict=verdict,
        limit=limit,
    )


def _undertrained(a: CellRecord, b: CellRecord) -> list[tuple[str, str]]:
    """("first", why), ("second", why) for runs from which no conclusion is drawn."""
    found = (("first", undertrained([a])), ("second", undertrained([b])))
    return [(place, why) for place, why in found if why]


def limit_of(cell: CellRecord) -> int | None:
    """How many images a trial run was restricted to by ``--limit``."""
    limit = nested(cell.config, "dataset", "limit")
    return limit if limit is not None else nested(cell.evaluation, "dataset", "limit")


def warnings(first: Path, second: Path) -> list[str]:
    """What a reader of the comparison must know about each run: whether it is a trial run, had
    other training data or is under-trained, and findings of the reliability checks."""
    lines = []
    for path in dict.fromkeys((first, second)):
        cell = read_run(path)
        if (limit := limit_of(cell)) is not None:
            lines.append(f"{path.name}: limit = {limit}, a trial run, not a result")
        if data := training_data(cell):
            lines.append(f"{path.name} was trained with {data}")
        if why := undertrained([cell]):
            lines.append(f"{path.name} is under-trained: {why}")
        lines += [f"{path.name} is doubtful: {name}: {text}" for name, text in cell.findings]
    return lines


def _settings(cell: CellRecord, metric: str) -> dict[str, Any]:
    """All settings except the choice of images, since only shared images are compared."""
    settings = cell.metrics[metric]["settings"]
    return {key: value for key, value in settings.items() if key not in ("n", "seed", "name")}


def _verdict(p: float, first: float, second: float, test: McNemar) -> str:
    if p <= ALPHA:
        if percent(first) == percent(second):
            return "no difference within the digits shown"
        return "first is better" if first > second else "second is better"
    text = f"no difference detected at n = {test.n}"
    if test.difference:
        needed = required_n(test.difference, (test.only_a + test.only_b) / test.n)
        text += f", would need n = {needed:,}"
    return text


def as_records(rows: list[ComparedMetric]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [asdict(row) for row in rows]
