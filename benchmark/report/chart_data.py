"""What the page's charts draw, as JSON values; accuracies in per cent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from benchmark.records.statistics import Interval
from benchmark.report.families import (
    BAR_LOOKS,
    families,
    front_looks,
    learner_looks,
    line_looks,
)
from benchmark.report.paired import ALPHA, p_text
from benchmark.report.study_model import (
    FrontPlane,
    Point,
    RadiusCurves,
    SeedCurve,
    Study,
    Summary,
    TradeOff,
    UnionBars,
)
from benchmark.report.texts import (
    MIXING_TITLES,
    VALIDATION_TITLES,
    attacks_text,
    images,
    seeds_text,
)


def chart_data(study: Study) -> dict[str, Any]:
    """All that the charts draw."""
    looks = line_looks(study.table)
    fronts = front_looks(study.fronts)
    return {
        "methods": {
            row.method: {
                "family": row.family.name,
                "line": f"--line-{number}",
                "dash": _dash(looks[row.method][1]),
                "doubtful": bool(row.doubts),
                "undertrained": bool(row.undertrained),
            }
            for number, row in enumerate(study.table.rows)
        },
        "families": {
            f.name: {"colour": f"--{css_name(f.name)}", "marker": f.marker}
            for f in families(study.table)
        },
        "tradeoff": {
            "metrics": {metric: _panel(study, one) for metric, one in study.trade_offs.of.items()},
            "first": study.trade_offs.first,
        },
        "layers": [
            {
                "source": layer.source,
                "metric": layer.metric,
                "points": layer.points,
            }
            for layer in study.layers
        ],
        "fronts": {
            "looks": {
                name: {"colour": f"--front-{number}", "marker": marker, "dash": _dash(dashes)}
                for number, (name, (_, marker, dashes)) in enumerate(fronts.items())
            },
            "planes": {plane.metric: _plane(study, plane) for plane in study.fronts},
        },
        "differences": [
            {
                "caption": _caption(study, one.heading, one.metrics, one.where),
                "reference": one.reference,
                "rows": [
                    {
                        "method": row.method,
                        "x": _triple(row.interval),
                        "p": p_text(row.p),
                        "sure": row.p <= ALPHA,
                    }
                    for row in one.rows
                ],
            }
            for one in study.differences
        ],
        "ranks": [
            {
                "caption": _caption(
                    study,
                    one.heading,
                    one.metrics,
                    f"{images([one.n])}, {seeds_text([one.seeds])}; "
                    f"Friedman {p_text(one.friedman)}",
                ),
                "rows": [
                    {"method": method, "rank": round(mean, 2)} for method, mean in one.mean.items()
                ],
                "groups": one.groups,
            }
            for one in study.ranks
        ],
        "unions": [_union(study, one) for one in study.unions],
        "bars": [
            {"colour": f"--bar-{i}", "hatch": hatch} for i, (_, hatch) in enumerate(BAR_LOOKS)
        ],
        "cost": _cost(study),
        "curves": {
            key: {
                "title": VALIDATION_TITLES[key],
                "caption": f"{VALIDATION_TITLES[key]}, "
                f"{seeds_text(len(curve.seeds) for curve in curves.values())}",
                "lines": {
                    method: {**_line(curve, 100), "seeds": _seeds(curve)}
                    for method, curve in curves.items()
                },
            }
            for key, curves in study.curves.items()
        },
        "radii": {curves.metric: _radii(study, curves) for curves in study.radii},
        "mixing": {
            method: {
                title: {learner: _line(curve, 1) for learner, curve in found[kind].items()}
                for kind, title in MIXING_TITLES.items()
            }
            for method, found in study.mixing.items()
        },
        "learners": {
            name: {"colour": f"--learner-{number}", "dash": _dash(dashes)}
            for number, (name, (_, dashes)) in enumerate(learner_looks(study.mixing).items())
        },
    }


def colours(study: Study) -> dict[str, str]:
    """CSS variable to colour, of all that the charts draw in a colour of its own."""
    found = {f"--{css_name(f.name)}": f.colour for f in families(study.table)}
    lines = line_looks(study.table).values()
    found |= {f"--line-{i}": colour for i, (colour, _) in enumerate(lines)}
    looks = front_looks(study.fronts).values()
    found |= {f"--front-{i}": colour for i, (colour, _, _) in enumerate(looks)}
    found |= {f"--bar-{i}": colour for i, (colour, _) in enumerate(BAR_LOOKS)}
    learners = learner_looks(study.mixing).values()
    return found | {f"--learner-{i}": colour for i, (colour, _) in enumerate(learners)}


def css_name(name: str) -> str:
    """A family's name as part of a CSS name."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _dash(style: Any) -> str:
    """A matplotlib line style, in line widths, as an SVG dash array."""
    return "" if style == "-" else " ".join(f"{2.6 * length:g}" for length in style[1])


def _line(curve: SeedCurve, scale: float) -> dict[str, list[float]]:
    digits = 2 if scale == 100 else 4
    values = {"mean": curve.mean, "low": curve.low, "high": curve.high}
    return {
        "x": [round(x, 3) for x in curve.epochs],
        **{name: [round(scale * v, digits) for v in line] for name, line in values.items()},
    }


def _seeds(curve: SeedCurve) -> dict[str, Any]:
    return {
        str(seed): {
            "x": [round(x, 3) for x in epochs],
            "value": [round(100 * v, 2) for v in values],
        }
        for seed, (epochs, values) in curve.seeds.items()
    }


def _radii(study: Study, curves: RadiusCurves) -> dict[str, Any]:
    where = _where(study.table.row(method).summaries[curves.metric] for method in curves.lines)
    return {
        "title": curves.title,
        "caption": f"{curves.title}: accuracy under attack (%), {where}",
        "axis": curves.axis,
        "lines": {
            method: {
                "x": list(curves.positions),
                **{
                    key: [round(100 * v, 2) for v in values]
                    for key, values in (
                        ("mean", [i.value for i in line]),
                        ("low", [i.low for i in line]),
                        ("high", [i.high for i in line]),
                    )
                },
            }
            for method, line in curves.lines.items()
        },
    }


def _plane(study: Study, plane: FrontPlane) -> dict[str, Any]:
    what = f"Clean and {plane.title} accuracy"
    return {
        "title": plane.title,
        "caption": _caption(study, what, [plane.metric], plane.where),
        "fronts": {
            front.name: {
                "points": [[label, *_pair(xy)] for label, xy in front.points],
                "hull": [_pair(xy) for xy in front.hull],
                "band": [[round(100 * value, 2) for value in place] for place in front.band],
            }
            for front in plane.fronts
        },
    }


def _pair(point: tuple[float, float]) -> list[float]:
    return [round(100 * value, 2) for value in point]


def _panel(study: Study, one: TradeOff) -> dict[str, Any]:
    return {
        "title": one.title,
        "caption": _of_trade_off(study, one),
        "points": [
            {
                "method": point.method,
                "x": _triple(point.clean),
                "y": _triple(point.robust),
                "seeds": _by_seed(point),
            }
            for point in one.points
        ],
        "front": list(one.front),
        "outlier": one.outlier,
    }


def _by_seed(point: Point) -> list[list[float]]:
    return [
        [seed, round(100 * clean, 2), round(100 * robust, 2)] for seed, clean, robust in point.seeds
    ]


def _cost(study: Study) -> list[dict[str, Any]]:
    """Robust accuracy against the gradient passes of training, one panel for each main attack."""
    passes = study.passes
    return [
        {
            "title": one.title,
            "caption": _of_trade_off(study, one),
            "points": [
                {
                    "method": point.method,
                    "passes": round(passes[point.method], 2),
                    "y": _triple(point.robust),
                    "seeds": _by_seed(point),
                }
                for point in one.points
                if point.method in passes
            ],
        }
        for one in study.trade_offs.main
        if passes
    ]


def _union(study: Study, one: UnionBars) -> dict[str, Any]:
    """Bars of each method: the attacks alone, then all of them."""
    columns = [*one.parts, (one.key, one.title)]
    found = {row.method: [row.summaries[key] for key, _ in columns] for row in study.table.rows}
    where = _where(s for row in found.values() for s in row if s.interval)
    return {
        "caption": _caption(study, one.title, [one.key], where),
        "bars": [
            {"title": title, "look": i % len(BAR_LOOKS) if i < len(one.parts) else None}
            for i, (_, title) in enumerate(columns)
        ],
        "rows": [
            {"method": method, "values": [s.interval and _triple(s.interval) for s in row]}
            for method, row in found.items()
            if any(s.interval for s in row)
        ],
    }


def _where(summaries: Iterable[Summary]) -> str:
    """ "n = 200, 3 seeds"."""
    found = list(summaries)
    return f"{images(s.n for s in found)}, {seeds_text(s.seeds for s in found)}"


def _of_trade_off(study: Study, one: TradeOff) -> str:
    where = f"{images(one.images)}, {seeds_text(one.seeds)}"
    return _caption(study, f"{one.title} accuracy", [one.metric], where)


def _caption(study: Study, what: str, metrics: Iterable[str], where: str) -> str:
    """ "AutoAttack accuracy (ℓ∞, eps 8/255), n = 200, 3 seeds", with lines broken at commas."""
    attacks = attacks_text(study, metrics)
    parts = f"({attacks}), {where}" if attacks else where
    whole = re.sub(r"(?<![,;]) ", "\N{NO-BREAK SPACE}", parts)
    return f"{what} {whole}" if attacks else f"{what}, {whole}"


def _triple(interval: Interval) -> list[float | None]:
    """Value, low and high; None for an end that there is not, for JSON knows no other word."""
    ends = (interval.value, interval.low, interval.high)
    return [None if math.isnan(v) else round(100 * v, 2) for v in ends]
