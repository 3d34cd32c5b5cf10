"""The table's figures: one summary for each method and metric, what is marked, and the costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.records.statistics import (
    Interval,
    population_interval,
    seed_interval,
    seed_spread,
)
from benchmark.records.study import (
    CellRecord,
    SuiteRecord,
    accuracy_on,
    is_estimate,
    measured_on,
)
from benchmark.report.families import family_of
from benchmark.report.metric_roles import is_main, same_attack_ball, title
from benchmark.report.study_model import Column, Cost, Mark, Row, Summary, Table
from benchmark.report.texts import percent


def table_of(suite: SuiteRecord, undertrained: Mapping[str, str]) -> Table:
    """The comparison table; methods in ``undertrained`` are compared, but never marked."""
    columns = columns_of(suite)
    found = {
        column.key: _marked([_figure(suite, method, column) for method in suite.methods],
                            column, undertrained)
        for column in columns
    }  # fmt: skip
    rows = tuple(
        Row(
            method=method,
            family=family_of(suite.of(method)),
            planned=len(suite.of(method)),
            evaluated=len(suite.evaluated(method)),
            doubts=tuple(
                dict.fromkeys(f"{n}: {t}" for c in suite.of(method) for n, t in c.findings)
            ),
            undertrained=undertrained.get(method, ""),
            summaries={key: summaries[i] for key, summaries in found.items()},
        )
        for i, method in enumerate(suite.methods)
    )
    return Table(columns, costs_of(suite), rows)


def _figure(suite: SuiteRecord, method: str, column: Column) -> Summary:
    if column.on_images_of is None:
        return _summary(suite, method, column.key)
    return replace(same_images(suite, method, *column.on_images_of), metric=column.key)


def _marked(summaries: Sequence[Summary], column: Column, withheld: Iterable[str]) -> list[Summary]:
    """The summaries of a column with what depends on the others: largest n, and marks."""
    most = max((summary.n for summary in summaries), default=0)
    marks = ranks(summaries, withheld, column.higher_is_better)
    return [replace(s, most=most, mark=marks.get(s.method, "")) for s in summaries]


def columns_of(suite: SuiteRecord) -> tuple[Column, ...]:
    """The table's columns, in order.

    A reference attack (AutoAttack) is often measured on fewer images than a weaker one (PGD). The
    two must not be compared then, so a column with the weaker attack on the reference attack's
    images stands before the latter.
    """
    found = []
    for metric in suite.metrics():
        weaker = _weaker_on_more_images(suite, metric)
        if weaker:
            heading = f"{title(suite, weaker)} (n = {_fewest(suite, metric)})"
            on, ball = (weaker, metric), _ball(suite, weaker)
            found.append(Column(f"{weaker}_on_{metric}", heading, True, on, ball=ball))
        higher = bool(suite.entry(metric).get("higher_is_better", True))
        main, ball = is_main(suite, metric), _ball(suite, metric)
        found.append(Column(metric, title(suite, metric), higher, main=main, ball=ball))
    return tuple(found)


def _ball(suite: SuiteRecord, metric: str) -> tuple[str, str] | None:
    ball = suite.entry(metric)["ball"]
    return None if ball is None else (str(ball[0]), str(ball[1]))


def _weaker_on_more_images(suite: SuiteRecord, attack: str) -> str | None:
    """The first weaker attack in the ball of a reference attack that met more images than it."""
    own = suite.entry(attack)
    if not own["reference"] or own["form"]:
        return None
    for weaker in suite.metrics():
        other = suite.entry(weaker)
        fewer = _fewest(suite, attack) < _fewest(suite, weaker)
        if fewer and not other["reference"] and same_attack_ball(own, other):
            return weaker
    return None


def _fewest(suite: SuiteRecord, metric: str) -> int:
    counts = [int(c.metrics[metric]["n"]) for c in suite.cells if metric in c.metrics]
    return min(counts, default=0)


def _summary(suite: SuiteRecord, method: str, metric: str) -> Summary:
    cells = suite.evaluated(method, metric)
    values = [v for c in cells if (v := c.accuracy(metric)) is not None]
    # Seeds share their images; if a run saw fewer, the smaller n is the honest one.
    n = min((int(c.metrics[metric]["n"]) for c in cells), default=0)
    interval, these = _intervals(cells, metric, values, n)
    return Summary(
        method=method,
        metric=metric,
        seeds=len(values),
        n=n,
        interval=interval,
        sd=_deviation(values),
        of=len(suite.evaluated(method)),
        these=these,
        by_seed=tuple(values),
    )


def same_images(suite: SuiteRecord, method: str, metric: str, other: str) -> Summary:
    """``metric`` on the images that ``other`` was measured on too, by the runs that have both."""
    found = [shared_accuracy(c, metric, other) for c in suite.evaluated(method, metric)]
    values = [value for value, _ in filter(None, found)]
    counts = [n for _, n in filter(None, found)]
    whole = _summary(suite, method, metric)
    if values and min(counts) == whole.n and len(values) == whole.seeds:
        return whole  # with the interval of its kind
    return Summary(
        method=method,
        metric=metric,
        seeds=len(values),
        n=min(counts, default=0),
        interval=seed_interval(values, min(counts)) if values else None,
        sd=_deviation(values),
        of=len(suite.evaluated(method)),
        by_seed=tuple(values),
    )


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def shared_accuracy(cell: CellRecord, metric: str, other: str) -> tuple[float, int] | None:
    """A run's accuracy by ``metric`` on the images that ``other`` was measured on too, and how many
    these are.

    None if a metric is missing, or if the numbers of images differ and the record does not say
    which they are. A shifted test set has images of its own, and some figures are no means over
    images, so nothing is left out beside those.
    """
    value = cell.accuracy(metric)
    if value is None or cell.accuracy(other) is None:
        return None
    n = int(cell.metrics[metric]["n"])
    own, theirs = measured_on(cell, metric), measured_on(cell, other)
    if any(cell.metrics[m]["outcomes"] != "test" for m in (metric, other)):
        return value, n
    if own is None or theirs is None:
        return (value, n) if n == int(cell.metrics[other]["n"]) else None
    shared = own[own.isin(theirs)]
    value = accuracy_on(cell, metric, shared)
    return None if value is None else (value, len(shared))


def _intervals(
    cells: Sequence[CellRecord], metric: str, values: Sequence[float], n: int
) -> tuple[Interval | None, Interval | None]:
    """Of the mean over seeds: for new images, and of an estimate also for these images.

    A figure that is no share of images has no interval over images: its ends are those over seeds,
    and not a number if there is one seed.
    """
    if not values:
        return None, None
    if any(cell.metrics[metric]["outcomes"] == "none" for cell in cells):
        mean = sum(values) / len(values)
        spread = seed_spread(values) if len(values) > 1 else math.nan
        return Interval(mean, mean - spread, mean + spread), None
    if not all(is_estimate(cell, metric) for cell in cells):
        return seed_interval(values, n), None
    ends = [cell.metrics[metric].get("detail") or {} for cell in cells]
    own = [
        Interval(v, min(v, float(d["low"])), max(v, float(d["high"])))
        for v, d in zip(values, ends, strict=True)
    ]
    return _over_seeds([population_interval(i, n) for i in own]), _over_seeds(own)


def _over_seeds(intervals: Sequence[Interval]) -> Interval:
    """Of the mean: the widest on either side, with the spread over seeds added in squares."""
    values = [i.value for i in intervals]
    mean = sum(values) / len(values)
    below = max(i.value - i.low for i in intervals)
    above = max(i.high - i.value for i in intervals)
    if len(values) > 1:
        spread = seed_spread(values)
        below, above = math.hypot(below, spread), math.hypot(above, spread)
    return Interval(mean, max(0.0, mean - below), min(1.0, mean + above))


def ranks(
    summaries: Iterable[Summary], withheld: Iterable[str] = (), highest: bool = True
) -> dict[str, Mark]:
    """Method to "best" or "tied" for the highest mean of a column, or for the lowest.

    "best": its interval overlaps no other method's. "tied": highest mean, but overlapped, or the
    same as another's to the digit that is printed. A column with one method has no best; methods
    in ``withheld`` are compared, but never marked.
    """
    found = [(s.method, s.interval) for s in summaries if s.interval is not None]
    if len(found) < 2:
        return {}
    top = percent((max if highest else min)(i.value for _, i in found))
    best = [(m, i) for m, i in found if percent(i.value) == top]
    known = not any(math.isnan(i.low) for _, i in found)
    overlapped = any(i.overlaps(best[0][1]) for m, i in found if m != best[0][0])
    mark: Mark = "best" if len(best) == 1 and known and not overlapped else "tied"
    return {m: mark for m, _ in best if m not in set(withheld)}


# --- cost -----------------------------------------------------------------------------------------


def costs_of(suite: SuiteRecord) -> tuple[Cost, ...]:
    """The cost columns that any method can fill."""
    inference = {
        m: _mean(c.training.get("inference_passes") for c in suite.of(m)) for m in suite.methods
    }
    memory = {m: _mean(_gigabytes(c) for c in suite.of(m)) for m in suite.methods}
    # Seconds are not shown: wall time on a shared machine, which says more about what else ran.
    costs = (
        Cost("training", "Grad. passes", relative_cost(suite), 1),
        Cost("inference", "Infer. passes", inference, 0),
        Cost("memory", "Memory (GB)", memory, 2),
    )
    return tuple(cost for cost in costs if any(v is not None for v in cost.values.values()))


def _gigabytes(cell: CellRecord) -> float | None:
    peak = cell.training.get("peak_memory")
    return None if peak is None else peak / 1e9


def relative_cost(suite: SuiteRecord) -> dict[str, float | None]:
    """Gradient passes per training image over those of natural training.

    Natural training needs one, which stands in where the suite has no natural run.
    """
    natural = _passes_per_image(
        c for m in suite.methods for c in suite.of(m) if c.method == "natural"
    )
    own = {m: _passes_per_image(suite.of(m)) for m in suite.methods}
    return {m: None if v is None else v / (natural or 1) for m, v in own.items()}


def _passes_per_image(cells: Iterable[CellRecord]) -> float | None:
    return _mean(cell.training.get("passes_per_image") for cell in cells)


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known else None
