"""Clean against robust accuracy: the points of each attack, their front, and what is off scale."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from benchmark.records.study import CellRecord, SuiteRecord
from benchmark.report.metric_roles import attacks, clean_metric, main_attacks, title
from benchmark.report.study_model import Point, Table, TradeOff, TradeOffs
from benchmark.report.summary import same_images, shared_accuracy


def trade_offs_of(suite: SuiteRecord, table: Table, undertrained: Collection[str]) -> TradeOffs:
    """The trade-offs of all metrics but the clean one; methods in ``undertrained`` are on no
    front."""
    clean = clean_metric(suite)
    own = [
        metric
        for metric in suite.metrics()
        if suite.entry(metric)["role"] != "clean" and suite.entry(metric)["outcomes"] != "none"
    ]
    main = main_attacks(suite)
    return TradeOffs(
        of={m: _trade_off(suite, clean, m, m in main, undertrained) for m in own},
        first=_first(suite, table, main) or next(iter(own), None),
        beside_published=_beside_published(suite),
    )


def _trade_off(
    suite: SuiteRecord, clean: str, metric: str, main: bool, undertrained: Collection[str]
) -> TradeOff:
    points = [p for method in suite.methods if (p := _point(suite, method, clean, metric))]
    # Rounded, so that two means that differ by the order of their sums alone are equal.
    xy = [(round(x, 2), round(y, 2)) for x, y in (point.per_cent for point in points)]
    off = outlier([y for _, y in xy])
    # Of an under-trained net nothing is concluded, so it is neither on the front nor keeps others
    # off it.
    fit = [i for i, point in enumerate(points) if point.method not in undertrained]
    return TradeOff(
        metric=metric,
        title=title(suite, metric),
        main=main,
        points=tuple(points),
        front=tuple(points[fit[i]].method for i in pareto([xy[i] for i in fit])),
        outlier=None if off is None else points[off].method,
    )


def _point(suite: SuiteRecord, method: str, clean: str, metric: str) -> Point | None:
    """A method's accuracies on the images that both metrics were measured on; None if it does not
    have both."""
    one, other = (
        same_images(suite, method, clean, metric),
        same_images(suite, method, metric, clean),
    )
    if one.interval is None or other.interval is None:
        return None
    return Point(
        method, one.interval, other.interval, other.n, _seeds(suite, method, clean, metric)
    )


def _seeds(
    suite: SuiteRecord, method: str, clean: str, metric: str
) -> tuple[tuple[int, float, float], ...]:
    found = []
    for cell in suite.evaluated(method, metric):
        one, other = _on_shared_images(cell, clean, metric), _on_shared_images(cell, metric, clean)
        if one is not None and other is not None:
            found.append((cell.seed, one, other))
    return tuple(found)


def _on_shared_images(cell: CellRecord, metric: str, other: str) -> float | None:
    found = shared_accuracy(cell, metric, other)
    return None if found is None else found[0]


def _first(suite: SuiteRecord, table: Table, main: Sequence[str]) -> str | None:
    """The main attack measured on most images, for it says most; a reference attack where equal."""

    def weight(metric: str) -> tuple[int, bool]:
        most = max(s.n for s in table.summaries if s.metric == metric)
        return most, bool(suite.entry(metric)["reference"])

    return max(main, key=weight, default=None)


def _beside_published(suite: SuiteRecord) -> str | None:
    """The attack to show beside published l_inf figures: the reference one, else the first."""
    linf = [m for m in attacks(suite) if (suite.entry(m)["ball"] or [""])[0] == "linf"]
    reference = [m for m in linf if suite.entry(m)["reference"]]
    return next(iter([*reference, *linf]), None)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in both coordinates, by rising x."""
    front = []
    best = -np.inf
    for i in sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1])):
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front[::-1]


def outlier(values: Sequence[float]) -> int | None:
    """Index of the one lowest value that would take more than half of the axis, if there is one."""
    if len(values) < 4:
        return None
    order = np.argsort(values)
    lowest, second, highest = (values[order[i]] for i in (0, 1, -1))
    return int(order[0]) if second - lowest > highest - second else None
