"""What the page's charts and heat maps show, as values that a browser can draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report import classes, findings, plots, published, tables, training
from benchmark.report.corruptions import corruption_means

NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1"}


def images(counts: Iterable[int]) -> str:
    """ "n = 1,000", or every number there is; zeros left out."""
    found = sorted({n for n in counts if n})
    return f"n = {' or '.join(f'{n:,}' for n in found)}" if found else ""


def families(suite: SuiteRecord) -> list[plots.Family]:
    """The families of the suite's methods, each once."""
    return list(dict.fromkeys(plots.family_of(suite, method) for method in suite.methods))


def charts(suite: SuiteRecord) -> dict[str, Any]:
    """All that the charts draw, as JSON values; accuracies in per cent."""
    styles = plots.line_styles(suite)
    doubtful = training.all_undertrained(suite)
    return {
        "methods": {
            method: {
                "family": plots.family_of(suite, method).name,
                "dash": _dash(styles[method]),
                "doubtful": any(cell.findings for cell in suite.of(method)),
                "undertrained": method in doubtful,
            }
            for method in suite.methods
        },
        "families": {
            f.name: {"colour": f"--{slug(f.name)}", "marker": f.marker} for f in families(suite)
        },
        "tradeoff": tradeoff(suite),
        "layers": [
            {
                "source": layer.source,
                "dataset": layer.dataset,
                "metric": layer.metric,
                "points": layer.points,
            }
            for layer in layers(suite)
        ],
        "curves": {
            key: {
                "title": plots.CURVES[key],
                "lines": {
                    method: {
                        **_line(line, 100),
                        "seeds": _seeds(suite, method, key, 100),
                    }
                    for method, line in lines.items()
                },
            }
            for key, lines in plots.curve_series(suite).items()
        },
        "mixing": mixing(suite),
    }


def layers(suite: SuiteRecord) -> list[published.Layer]:
    """The published layers, those on the suite's data set first."""
    return sorted(published.layers(), key=lambda layer: not published.same(layer, suite.dataset))


def slug(name: str) -> str:
    """A family's name as part of a CSS name."""
    return name.lower().replace(" ", "-")


def _dash(style: Any) -> str:
    """A matplotlib line style, in line widths, as an SVG dash array."""
    return "" if style == "-" else " ".join(f"{1.7 * length:g}" for length in style[1])


def _line(line: pd.DataFrame, scale: float) -> dict[str, list[float]]:
    digits = 2 if scale == 100 else 4
    return {
        "epoch": [round(float(x), 3) for x in line.index],
        **{name: [round(scale * v, digits) for v in line[name]] for name in line.columns},
    }


def _seeds(suite: SuiteRecord, method: str, key: str, scale: float) -> dict[str, Any]:
    return {
        str(seed): {
            "epoch": [round(float(x), 3) for x in curve.index],
            "value": [round(scale * float(v), 2) for v in curve],
        }
        for seed, curve in plots.seed_series(suite, method, key).items()
    }


def tradeoff(suite: SuiteRecord) -> dict[str, Any]:
    """Points per robust metric; metrics that published layers alone have come with no point."""
    doubtful = training.all_undertrained(suite)
    own = [m for m in suite.metrics() if m != "clean" and suite.entry(m)["outcomes"] != "none"]
    others = [m for m in dict.fromkeys(x.metric for x in published.layers()) if m not in own]
    panels: dict[str, Any] = {}
    for metric in [*own, *others]:
        pairs = [(m, p) for m in suite.methods if (p := plots.pair(suite, m, metric))]
        points: list[dict[str, Any]] = [
            {
                "method": method,
                "x": _triple(clean),
                "y": _triple(hard),
                "seeds": [
                    [c.seed, *(round(100 * value, 2) for value, _ in two)]
                    for c in suite.evaluated(method, metric)
                    if None not in (two := _both(c, metric))
                ],
            }
            for method, (clean, hard) in pairs
        ]
        xy = [(p["x"][0], p["y"][0]) for p in points]
        off = plots.outlier([y for _, y in xy])
        fit = [i for i, p in enumerate(points) if p["method"] not in doubtful]
        panels[metric] = {
            "title": tables.title(suite, metric),
            "images": images(hard.n for _, (_, hard) in pairs),
            "points": points,
            "front": [points[fit[i]]["method"] for i in plots.pareto([xy[i] for i in fit])],
            "outlier": None if off is None else points[off]["method"],
        }
    return {"metrics": panels, "first": _first(suite, own)}


def _both(cell: CellRecord, metric: str) -> tuple[Any, Any]:
    """Clean and robust accuracy on the same images, each with their number; None if unknown."""
    return (
        tables.shared_accuracy(cell, "clean", metric),
        tables.shared_accuracy(cell, metric, "clean"),
    )


def _first(suite: SuiteRecord, metrics: Sequence[str]) -> str | None:
    """The robust metric measured on most images, for it says most; AutoAttack where equal."""
    summaries = tables.summarise(suite)

    def weight(metric: str) -> tuple[int, bool]:
        return max(summaries[m, metric].n for m in suite.methods), metric == "aa_linf"

    usual = [m for m in findings.ROBUST if m in metrics]
    return max(usual, key=weight) if usual else next(iter(metrics), None)


def _triple(summary: tables.Summary) -> list[float]:
    assert summary.interval is not None
    i = summary.interval
    return [round(100 * v, 2) for v in (i.value, i.low, i.high)]


def mixing(suite: SuiteRecord) -> dict[str, Any]:
    """Method to panel to learner to line."""
    return {
        method: {
            title: {
                key.split("/", 1)[1]: _line(line, 1)
                for key, line in found.items()
                if key.startswith(kind)
            }
            for kind, title in plots.MIXING.items()
        }
        for method, found in plots.mixing_series(suite).items()
    }


# --- heat maps ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heat:
    """A heat map: rows of (name, values in [0, 1] or None), darker where higher.

    Attributes:
        low, high: ends of the colour scale.
        notes: one short text per column, "" for none.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        return min((v for _, row in self.rows for v in row if v is not None), default=0.0)

    @property
    def high(self) -> float:
        return max((v for _, row in self.rows for v in row if v is not None), default=1.0)

    @property
    def upright(self) -> bool:
        """Whether the columns' names are written upwards: many, and long."""
        return len(self.columns) > 8 and max(map(len, self.columns)) > 4

    def shade(self, value: float) -> int:
        """Where a value lies on the colour scale, 0 to 100."""
        return round(100 * (value - self.low) / max(self.high - self.low, 1e-9))


def _heat(key: str, title: str, frame: pd.DataFrame, columns: Sequence[str], **more: Any) -> Heat:
    rows = tuple(
        (str(name), tuple(None if pd.isna(v) else float(v) for v in row))
        for name, row in zip(frame.index, frame.to_numpy(), strict=True)
    )
    return Heat(key, title, tuple(columns), rows, **more)


def heats(suite: SuiteRecord) -> list[Heat]:
    """Across norms, and corruption by corruption; those whose data are absent left out."""
    found = []
    norms = cross_norm(suite)
    if norms is not None:
        found.append(norms)
    means = corruption_means(suite).T
    if not means.empty:
        means["mean"] = means.mean(axis=1)
        found.append(
            _heat(
                "corruptions",
                "Common corruptions",
                means,
                [str(name).replace("_", " ") for name in means.columns],
                caption="Accuracy (%) under each corruption, mean over severities and seeds.",
            )
        )
    return found


def cross_norm(suite: SuiteRecord) -> Heat | None:
    """Robust accuracy under attacks in several norms; None where there is one norm only."""
    # PGD on AutoAttack's images too: the row is read across
    pairs, headings = tables.paired_columns(suite), tables.columns(suite)
    norms = {
        key: norm
        for key in headings
        if (norm := _norm(suite, pairs[key][0] if key in pairs else key))
    }
    shown = [key for key in headings if key in norms or findings.is_union(suite, key)]
    if len(set(norms.values())) < 2:
        return None
    summaries = tables.summarise(suite)
    frame = pd.DataFrame(
        {
            m: {
                x: None if (i := summaries[x, m].interval) is None else i.value
                for x in suite.methods
            }
            for m in shown
        }
    ).reindex(list(suite.methods))
    return _heat(
        "norms",
        "Across norms",
        frame.astype(float),
        [headings[m] for m in shown],
        caption="Robust accuracy (%), mean over seeds. A method trained in one norm is seldom "
        "robust in another.",
        notes=tuple(_ball(suite, pairs[m][0] if m in pairs else m, norms.get(m)) for m in shown),
    )


def _norm(suite: SuiteRecord, metric: str) -> str | None:
    for cell in suite.cells:
        detail = nested(cell.metrics, metric, "detail") or {}
        norm = nested(detail, "threat", "norm") or detail.get("norm")
        if norm:
            return str(norm)
    return None


def _ball(suite: SuiteRecord, metric: str, norm: str | None) -> str:
    """ "ℓ∞ 8/255"; different radii are all given."""
    details = [nested(c.metrics, metric, "detail") or {} for c in suite.cells]
    eps = dict.fromkeys(
        str(e) for d in details if (e := nested(d, "threat", "eps") or d.get("eps"))
    )
    return f"{NORMS.get(norm, norm)} {' or '.join(eps)}" if norm else ""


def per_class(suite: SuiteRecord) -> list[Heat]:
    """Accuracy by class, a heat map per metric."""
    names = classes.class_names(suite)
    found = []
    for metric in classes.class_metrics(suite):
        means, counts = classes.class_means(suite, metric)
        if means.empty:
            continue
        shown, cut = classes.ends(means)
        labels = [names[int(i)] if int(i) < len(names) else str(i) for i in shown.columns]
        n = counts[list(shown.columns)]
        caption = f"{tables.title(suite, metric)} accuracy (%) by class, mean over seeds; " + (
            f"{n.min():,} images per class."
            if n.min() == n.max()
            else f"{n.min():,} to {n.max():,} images per class."
        )
        if n.min() < 100:
            caption += " So few images tell classes apart only roughly."
        if cut:
            caption += f" Of {len(means.columns)} classes the ten lowest and the ten highest."
        found.append(_heat(metric, tables.title(suite, metric), shown, labels, caption=caption))
    return found
