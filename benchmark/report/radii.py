"""Accuracy against the radius of the attack, from records of metrics that attack at several."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.core.threat import Pixels
from benchmark.records.statistics import Interval, seed_interval
from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report.metric_roles import title
from benchmark.report.study_model import RadiusCurves

_DIVISOR = "/255"


def radius_curves(suite: SuiteRecord) -> tuple[RadiusCurves, ...]:
    """One for each metric of the first checkpoint whose records hold accuracies by radius."""
    found = []
    for metric in suite.metrics():
        runs = {m: cells for m in suite.methods if (cells := suite.evaluated(m, metric))}
        detail = suite.entry(metric)["detail"]
        if not detail.get("radii") or suite.entry(metric).get("checkpoint"):
            continue
        found.append(
            RadiusCurves(
                metric=metric,
                title=title(suite, metric),
                norm=str(nested(detail, "threat", "norm")),
                radii=("0", *detail["radii"]),
                positions=(0.0, *_positions(detail["radii"])),
                unit="1/255" if _in_255ths(detail["radii"]) else "",
                lines={method: _line(cells, metric) for method, cells in runs.items()},
            )
        )
    return tuple(found)


def _in_255ths(radii: Sequence[str]) -> bool:
    return all(radius.endswith(_DIVISOR) for radius in radii)


def _positions(radii: Sequence[str]) -> list[float]:
    """The radii as numbers, in units of 1/255 if all are written so."""
    if _in_255ths(radii):
        return [float(radius.removesuffix(_DIVISOR)) for radius in radii]
    return [float(Pixels(radius)) for radius in radii]


def _line(cells: Sequence[CellRecord], metric: str) -> tuple[Interval, ...]:
    """The accuracy at each radius, the clean one first: mean over seeds with its interval."""
    entries = [cell.metrics[metric] for cell in cells]
    n = min(int(entry["n"]) for entry in entries)
    by_seed = [[e["detail"]["clean"], *e["detail"]["accuracies"]] for e in entries]
    return tuple(seed_interval(values, n) for values in zip(*by_seed, strict=True))
