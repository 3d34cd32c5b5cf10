"""What the page's charts draw, as JSON values; accuracies in per cent."""

from __future__ import annotations

from typing import Any

from benchmark.records.statistics import Interval
from benchmark.report.families import LEARNER_COLOURS, families, front_looks, line_looks
from benchmark.report.study_model import FrontPlane, RadiusCurves, SeedCurve, Study, TradeOff
from benchmark.report.texts import MIXING_TITLES, VALIDATION_TITLES, images


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
            "metrics": {metric: _panel(one) for metric, one in study.trade_offs.of.items()},
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
            "planes": {plane.metric: _plane(plane) for plane in study.fronts},
        },
        "curves": {
            key: {
                "title": VALIDATION_TITLES[key],
                "lines": {
                    method: {**_line(curve, 100), "seeds": _seeds(curve)}
                    for method, curve in curves.items()
                },
            }
            for key, curves in study.curves.items()
        },
        "radii": {curves.metric: _radii(curves) for curves in study.radii},
        "mixing": {
            method: {
                title: {learner: _line(curve, 1) for learner, curve in found[kind].items()}
                for kind, title in MIXING_TITLES.items()
            }
            for method, found in study.mixing.items()
        },
    }


def colours(study: Study) -> dict[str, str]:
    """CSS variable to colour, of all that the charts draw in a colour of its own."""
    found = {f"--{css_name(f.name)}": f.colour for f in families(study.table)}
    lines = line_looks(study.table).values()
    found |= {f"--line-{i}": colour for i, (colour, _) in enumerate(lines)}
    looks = front_looks(study.fronts).values()
    found |= {f"--front-{i}": colour for i, (colour, _, _) in enumerate(looks)}
    return found | {f"--learner-{i}": colour for i, colour in enumerate(LEARNER_COLOURS)}


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


def _radii(curves: RadiusCurves) -> dict[str, Any]:
    return {
        "title": curves.title,
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


def _plane(plane: FrontPlane) -> dict[str, Any]:
    return {
        "title": plane.title,
        "where": plane.where,
        "fronts": {
            front.name: {
                "points": [[label, *_pair(xy)] for label, xy in front.points],
                "hull": [_pair(xy) for xy in front.hull],
                "seeds": [[_pair(xy) for xy in hull] for hull in front.seeds],
            }
            for front in plane.fronts
        },
    }


def _pair(point: tuple[float, float]) -> list[float]:
    return [round(100 * value, 2) for value in point]


def _panel(one: TradeOff) -> dict[str, Any]:
    return {
        "title": one.title,
        "images": images(one.images),
        "points": [
            {
                "method": point.method,
                "x": _triple(point.clean),
                "y": _triple(point.robust),
                "seeds": [
                    [seed, round(100 * clean, 2), round(100 * robust, 2)]
                    for seed, clean, robust in point.seeds
                ],
            }
            for point in one.points
        ],
        "front": list(one.front),
        "outlier": one.outlier,
    }


def _triple(interval: Interval) -> list[float]:
    return [round(100 * v, 2) for v in (interval.value, interval.low, interval.high)]
