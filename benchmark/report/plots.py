"""The plots, sized for one column of a two-column paper (3.4 inches)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.core.files import atomic_path
from benchmark.records.study import SuiteRecord
from benchmark.report.corruptions import corruption_means
from benchmark.report.tables import Summary, flagged, same_images, title
from benchmark.report.training import all_undertrained

WIDTH = 3.4
STYLE: Any = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same file
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "figure.dpi": 200,
}


@dataclass(frozen=True)
class Family:
    """Methods drawn alike. Colours: Okabe and Ito, told apart under colour blindness."""

    name: str
    colour: str
    marker: str


SINGLE = Family("single objective", "#0072B2", "o")
JOINT = Family("joint objectives", "#009E73", "s")
ENSEMBLE = Family("ensemble or average", "#B8860B", "^")
GENERALIST = Family("Generalist", "#D55E00", "D")
NATURAL = Family("natural", "#555555", "v")
OTHER = Family("other", "#CC79A7", "P")
_FAMILIES: tuple[tuple[Family, tuple[str, ...]], ...] = (
    (GENERALIST, ("generalist",)),
    (NATURAL, ("natural", "standard")),
    (JOINT, ("joint", "max", "avg", "msd", "sat", "e-at", "iat", "multi-norm", "ramp")),
    (ENSEMBLE, ("ensemble", "output-ensemble", "weight", "ema", "swa", "seat", "soup", "interpol")),
    (SINGLE, ("pgd", "at", "trades", "mart", "fat", "awp", "fgsm", "hat", "lbgat", "rst")),
)
# Members of a family differ by line style where lines are drawn.
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)))


def family(method: str) -> Family:
    """The family of a registered method, by the beginning of its name."""
    name = method.lower().replace("_", "-")
    for group, beginnings in _FAMILIES:
        if any(name == b or name.startswith((f"{b}-", f"{b}+")) for b in beginnings):
            return group
    return OTHER


def family_of(suite: SuiteRecord, label: str) -> Family:
    """The family of a label."""
    cells = suite.of(label)
    return family(cells[0].method if cells else label)


def figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of one column's width on the Agg canvas, without pyplot's global state."""
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def mark_trial(fig: Figure, limit: int | None) -> None:
    """Say on the figure itself that a part of the data was used, since it may be shown alone."""
    if limit is not None:
        fig.suptitle(f"limit = {limit}: a trial run, not a result", fontsize=6.5, color="#B00020")


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write stem.png (200 dpi) and stem.pdf, both free of dates so that equal input is equal."""
    written = []
    # Laid out once: a layout that ran again for each format could move labels off their places.
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for suffix, metadata in ((".png", {"Software": None}), (".pdf", {"CreationDate": None})):
        path = stem.with_suffix(suffix)
        with atomic_path(path) as temporary:
            fig.savefig(temporary, format=suffix[1:], metadata=metadata)
        written.append(path)
    return written


# --- labels ---------------------------------------------------------------------------------------


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    bars: Sequence[tuple[float, float, float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    size: float = 6,
) -> None:
    """Write each text beside its point where it covers no text, marker or error bar.

    Greedy: points with the most neighbours first; places are tried on growing rings, and the one
    with the least overlap wins. A text off its point's side gets a thin leader.

    Args:
        bars: (x low, x high, y low, y high) of each point's error bars, in data units.
        lines: segments that texts avoid if they can, in data units.
    """
    fig = ax.get_figure()
    assert isinstance(fig, Figure)
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer()  # type: ignore[attr-defined]
    scale = fig.dpi / 72
    frame = ax.get_window_extent(renderer).extents
    pixels = ax.transData.transform(np.asarray(points, dtype=float))
    markers = np.hstack([pixels - 3.2 * scale, pixels + 3.2 * scale])
    soft = _thin_boxes(ax, pixels, bars, lines, 0.5 * scale)
    gaps = np.hypot(*(pixels[:, None] - pixels[None]).transpose(2, 0, 1))
    crowd = np.exp(-gaps / (15 * scale)).sum(axis=1)

    taken = np.empty((0, 4))
    leaders = np.empty((0, 2))  # sampled points of the leaders drawn so far
    along = np.linspace(0.15, 1, 12)[:, None]
    for i in sorted(range(len(texts)), key=lambda i: (-crowd[i], i)):
        artist = ax.text(
            0, 0, texts[i], fontsize=size, color=colours[i], zorder=6, va="bottom", in_layout=False
        )
        extent = artist.get_window_extent(renderer)
        half = np.array([extent.width, extent.height]) / 2
        others = np.delete(markers, i, axis=0)
        obstacles = np.vstack([taken, others])
        best: tuple[float, np.ndarray, bool] | None = None
        for ring, radius in enumerate((4.5, 8, 13, 19, 26, 34, 44, 56)):
            for angle in np.deg2rad(np.arange(0, 360, 15)):
                direction = np.array([np.cos(angle), np.sin(angle)])
                centre = pixels[i] + direction * (radius * scale + half)
                place = np.hstack([centre - half, centre + half])
                pad = place + 0.8 * scale * np.array([-1, -1, 1, 1])
                cost = 0.35 * ring**2 + 0.15 * abs(direction.prod())
                cost += 100 * bool((place[:2] < frame[:2]).any() or (place[2:] > frame[2:]).any())
                cost += 60 * _hits(pad, taken) + 25 * _hits(pad, others)
                cost += 1.2 * min(6, _hits(place, soft)) + 15 * bool(_holds(place, leaders).any())
                if ring == 0:
                    cost += 25 * _hits(pad, markers[i : i + 1])
                else:
                    path = pixels[i] + along * (_nearest(place, pixels[i]) - pixels[i])
                    cost += 12 * sum(_holds(box, path).any() for box in obstacles)
                if best is None or cost < best[0]:
                    best = (cost, place, ring > 1)
        assert best is not None
        _, place, far = best
        taken = np.vstack([taken, place])
        x, y = ax.transData.inverted().transform(place[:2])
        artist.set_position((float(x), float(y)))
        if far:
            path = np.array([pixels[i], _nearest(place, pixels[i])])
            leaders = np.vstack([leaders, path[0] + along * (path[1] - path[0])])
            ends = ax.transData.inverted().transform(path)
            ax.plot(
                *ends.T, color=colours[i], lw=0.4, alpha=0.7, zorder=2, scalex=False, scaley=False
            )


def _thin_boxes(
    ax: Axes,
    pixels: np.ndarray,
    bars: Sequence[tuple[float, float, float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    half: float,
) -> np.ndarray:
    """Error bars and segments as boxes (x0, y0, x1, y1) in pixels; segments as chains of them."""
    boxes = []
    for (x, y), (x0, x1, y0, y1) in zip(pixels, bars, strict=True):
        (left, bottom), (right, top) = ax.transData.transform([(x0, y0), (x1, y1)])
        boxes.append((left, y - half, right, y + half))
        boxes.append((x - half, bottom, x + half, top))
    for segment in lines:
        start, end = ax.transData.transform(np.asarray(segment, dtype=float))
        for t in np.linspace(0, 1, 40):
            x, y = start + t * (end - start)
            boxes.append((x - half, y - half, x + half, y + half))
    return np.array(boxes).reshape(-1, 4)


def _hits(box: np.ndarray, boxes: np.ndarray) -> int:
    """How many of ``boxes`` overlap ``box``."""
    apart = (boxes[:, :2] > box[2:]).any(axis=1) | (boxes[:, 2:] < box[:2]).any(axis=1)
    return int((~apart).sum())


def _holds(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which of ``points`` lie in ``box``."""
    return np.asarray(((points >= box[:2]) & (points <= box[2:])).all(axis=1))


def _nearest(box: np.ndarray, point: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = np.clip(point, box[:2], box[2:])
    return nearest


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Values moved to lie ``gap`` apart within [low, high] if they fit there, order kept."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[tuple[float, int]] = []  # (centre, count): neighbours too close are pooled
    for i in order:
        blocks.append((values[i], 1))
        while len(blocks) > 1:
            (c0, n0), (c1, n1) = blocks[-2:]
            if c1 - c0 >= gap * (n0 + n1) / 2:
                break
            blocks[-2:] = [((c0 * n0 + c1 * n1) / (n0 + n1), n0 + n1)]
    placed = [c + gap * (j - (count - 1) / 2) for c, count in blocks for j in range(count)]
    last = len(placed) - 1
    placed = [min(v, high - (last - j) * gap) for j, v in enumerate(placed)]
    # a low end of one value pushes the next ones up only as far as they touch
    for j, value in enumerate(placed):
        placed[j] = max(value, placed[j - 1] + gap if j else low)
    result = [0.0] * len(values)
    for i, value in zip(order, placed, strict=True):
        result[i] = value
    return result


# --- trade-off ------------------------------------------------------------------------------------


def tradeoff(suite: SuiteRecord) -> Figure | None:
    """Clean against robust accuracy, one panel for PGD-20 and one for AutoAttack if present."""
    robust = [m for m in ("pgd20_linf", "aa_linf") if m in suite.metrics()]
    panels = [m for m in robust if any(pair(suite, x, m) for x in suite.methods)]
    if not panels:
        return None
    with mpl.rc_context(STYLE):
        fig, axes = figure(0.35 + max(2.55, 0.14 * len(suite.methods)) * len(panels), len(panels))
        used: dict[str, Family] = {}
        later = []
        for ax, metric in zip(axes[:, 0], panels, strict=True):
            later.append((ax, *_tradeoff_panel(ax, suite, metric, used)))
            ax.set_ylabel(_axis(suite, metric))
        axes[-1, 0].set_xlabel("Clean accuracy (%)")
        handles = [_handle(f) for f in used.values()]
        handles.append(Line2D([], [], color="#999999", lw=0.9, ls="--", label="Pareto front"))
        fig.legend(
            handles=handles, loc="outside upper center", ncols=3, columnspacing=1.0,
            handletextpad=0.3,
        )  # fmt: skip
        for ax, points, texts, colours, bars, lines in later:
            place_labels(ax, points, texts, colours, bars, lines)
        return fig


def _handle(group: Family) -> Line2D:
    return Line2D(
        [], [], color=group.colour, marker=group.marker, ls="", ms=4, mew=0, label=group.name
    )


def pair(suite: SuiteRecord, method: str, metric: str) -> tuple[Summary, Summary] | None:
    """Clean and robust accuracy of a method on the images that both were measured on, if it has
    both."""
    clean, hard = (
        same_images(suite, method, "clean", metric),
        same_images(suite, method, metric, "clean"),
    )
    return None if clean.interval is None or hard.interval is None else (clean, hard)


def _axis(suite: SuiteRecord, metric: str) -> str:
    """ "AutoAttack accuracy (%), n = 200"."""
    counts = {p[1].n for m in suite.methods if (p := pair(suite, m, metric)) is not None}
    n = " or ".join(f"{n:,}" for n in sorted(counts))
    return f"{title(suite, metric)} accuracy (%), n = {n}"


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


def _tradeoff_panel(
    ax: Axes,
    suite: SuiteRecord,
    metric: str,
    used: dict[str, Family],
) -> tuple[Any, ...]:
    pairs = [(m, p) for m in suite.methods if (p := pair(suite, m, metric)) is not None]
    doubtful = all_undertrained(suite)
    xy, bars = [], []
    for _, (clean, hard) in pairs:
        assert clean.interval is not None
        assert hard.interval is not None
        c, r = clean.interval, hard.interval
        xy.append((100 * c.value, 100 * r.value))
        bars.append((100 * c.low, 100 * c.high, 100 * r.low, 100 * r.high))
    off = outlier([y for _, y in xy])
    shown = [i for i in range(len(pairs)) if i != off]
    groups = [family_of(suite, m) for m, _ in pairs]
    for group in groups:
        used.setdefault(group.name, group)
    for i in shown:
        (x, y), (x0, x1, y0, y1) = xy[i], bars[i]
        ax.errorbar(
            x, y, xerr=[[x - x0], [x1 - x]], yerr=[[y - y0], [y1 - y]], fmt=groups[i].marker,
            color=groups[i].colour, ms=4, mew=0.4, mec="white", elinewidth=0.5, ecolor=
            mpl.colors.to_rgba(groups[i].colour, 0.35), zorder=4,
        )  # fmt: skip
    # A point off the scale is on the front but cannot be joined. Of an under-trained net nothing is
    # concluded, so it is neither on the front nor keeps others off it.
    fit = [i for i in range(len(pairs)) if pairs[i][0] not in doubtful]
    front = [fit[i] for i in pareto([xy[i] for i in fit])]
    path = [xy[i] for i in front if i in shown]
    ax.plot(*zip(*path, strict=True), color="#999999", lw=0.9, ls="--", zorder=1)
    ax.margins(x=0.1, y=0.08)
    texts = [flagged(suite, pairs[i][0]) for i in shown]
    colours = [groups[i].colour for i in shown]
    if off is not None:
        # natural training has next to no robustness: to scale, it would squeeze all the others
        x, y = xy[off]
        low, high = ax.get_xlim()
        ax.set_xlim(low, max(high, x + 0.06 * (high - low)))
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.1 * (high - low), high)
        ax.plot(
            x, 0.045, marker=groups[off].marker, color=groups[off].colour, ms=4, mew=0,
            transform=ax.get_xaxis_transform(), zorder=4,
        )  # fmt: skip
        ax.annotate(
            "", (x, -0.005), (x, 0.06), xycoords=ax.get_xaxis_transform(),
            arrowprops={"arrowstyle": "->", "lw": 0.7, "color": groups[off].colour},
        )  # fmt: skip
        ax.text(
            x, 0.045, f"{flagged(suite, pairs[off][0])} ({x:.1f}, {y:.1f}), off scale  ",
            ha="right", va="center",
            fontsize=6, color=groups[off].colour, transform=ax.get_xaxis_transform(),
        )  # fmt: skip
    lines = list(pairwise(path))
    return [xy[i] for i in shown], texts, colours, [bars[i] for i in shown], lines


def interpolation(table: pd.DataFrame, first: str, second: str) -> Figure:
    """Accuracy along the path between two networks: columns alpha, metric, mean."""
    with mpl.rc_context(STYLE):
        fig, axes = figure(2.6, 1)
        ax = axes[0, 0]
        for i, (metric, points) in enumerate(table.groupby("metric", sort=False)):
            ax.plot(
                points["alpha"], 100 * points["mean"], marker=".", lw=0.9, color=f"C{i}",
                label=str(metric),
            )  # fmt: skip
        ax.set_xlabel(f"alpha (0: {first}, 1: {second})")
        ax.set_ylabel("Accuracy (%)")
        ax.set_ylim(bottom=0)
        fig.legend(loc="outside upper center", ncols=3)
        return fig


# --- curves ---------------------------------------------------------------------------------------


def seed_series(suite: SuiteRecord, label: str, key: str) -> dict[int, pd.Series]:
    """A curve by epoch for each seed that has it."""
    found = {}
    for cell in suite.of(label):
        if {key, "epoch"} <= set(cell.curves.columns):
            curve = cell.curves.set_index("epoch")[key].dropna()
            found[cell.seed] = curve[~curve.index.duplicated(keep="last")]
    return found


def series(suite: SuiteRecord, label: str, key: str) -> pd.DataFrame:
    """Mean, lowest and highest over seeds of a curve, by epoch; empty if no run has the key.

    A distance of exactly zero was taken right after a redistribution and is left out: it says
    nothing of how far learners part.
    """
    columns = list(seed_series(suite, label, key).values())
    if not columns:
        return pd.DataFrame(columns=["mean", "low", "high"])
    # only epochs that every seed reached: a mean over fewer would jump
    table = pd.concat(columns, axis=1, join="inner").sort_index()
    line = pd.DataFrame(
        {"mean": table.mean(axis=1), "low": table.min(axis=1), "high": table.max(axis=1)}
    )
    return line[line["mean"] > 0] if key.startswith("distance/") else line


CURVES = {"val_clean": "Validation clean (%)", "val_pgd": "Validation PGD (%)"}
MIXING = {"mix/": "Weight in the mix", "distance/": "L2 distance from global"}


def curve_series(suite: SuiteRecord) -> dict[str, dict[str, pd.DataFrame]]:
    """Key of ``CURVES`` to the series of the methods that have it; keys that none has left out."""
    found = {
        key: {m: s for m in suite.methods if len(s := series(suite, m, key))} for key in CURVES
    }
    return {key: lines for key, lines in found.items() if lines}


def mixing_series(suite: SuiteRecord) -> dict[str, dict[str, pd.DataFrame]]:
    """Method to its series ``mix/LEARNER`` and ``distance/LEARNER``; methods that mix alone."""
    data = {}
    for label in suite.methods:
        keys = dict.fromkeys(k for c in suite.of(label) for k in map(str, c.curves.columns))
        found = {
            k: s for k in keys if k.startswith(tuple(MIXING)) and len(s := series(suite, label, k))
        }
        if found:
            data[label] = found
    return data


def line_styles(suite: SuiteRecord) -> dict[str, Any]:
    """The line style of each method; members of a family differ."""
    counts: dict[str, int] = {}
    styles = {}
    for label in suite.methods:
        name = family_of(suite, label).name
        styles[label] = _DASHES[counts.get(name, 0) % len(_DASHES)]
        counts[name] = counts.get(name, 0) + 1
    return styles


def curves(suite: SuiteRecord) -> Figure | None:
    """Validation accuracy against epochs; the band spans the seeds."""
    data = curve_series(suite)
    if not data:
        return None
    styles = line_styles(suite)
    with mpl.rc_context(STYLE):
        height = max(2.2, 0.12 * len(suite.methods))  # room for a label per method
        fig, axes = figure(0.3 + height * len(data), len(data), sharex=True)
        for ax, (key, lines) in zip(axes[:, 0], data.items(), strict=True):
            for label, line in lines.items():
                colour = family_of(suite, label).colour
                marker = "." if len(line) == 1 else ""
                ax.plot(
                    line.index, 100 * line["mean"], color=colour, ls=styles[label], lw=0.9,
                    marker=marker,
                )  # fmt: skip
                ax.fill_between(
                    line.index,
                    100 * line["low"],
                    100 * line["high"],
                    color=colour,
                    alpha=0.12,
                    lw=0,
                )
            ax.set_ylabel(CURVES[key])
            _end_labels(ax, suite, lines, styles, height - 0.25)
        axes[-1, 0].set_xlabel("Epoch")
        return fig


def _end_labels(
    ax: Axes,
    suite: SuiteRecord,
    lines: Mapping[str, pd.DataFrame],
    styles: Mapping[str, Any],
    height: float,
) -> None:
    """Name each line at the right end, with a short sample of its dashes."""
    ends = {m: (float(s.index[-1]), 100 * float(s["mean"].iloc[-1])) for m, s in lines.items()}
    low, high = ax.get_ylim()
    gap = 7.2 / 72 * (high - low) / height  # 7.2 points a label, height in inches
    wanted = spread([y for _, y in ends.values()], gap, low, high)
    right = max(x for x, _ in ends.values())
    left = ax.get_xlim()[0]
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    for (label, (x, y)), place in zip(ends.items(), wanted, strict=True):
        colour = family_of(suite, label).colour
        # positions beside the axes: x in axes fractions, y in data
        beside = ax.get_yaxis_transform()
        start = (x - left) / (right - left) if right > left else 1.0
        ax.plot(
            [start, 1.045],
            [y, place],
            color=colour,
            lw=0.4,
            transform=beside,
            clip_on=False,
        )
        ax.plot(
            [1.045, 1.13], [place] * 2, color=colour, lw=0.9, ls=styles[label],
            transform=beside, clip_on=False,
        )  # fmt: skip
        ax.text(1.145, place, label, color=colour, fontsize=5.8, va="center", transform=beside)


# --- mixing ---------------------------------------------------------------------------------------

LEARNER_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B8860B", "#555555")


def mixing(suite: SuiteRecord) -> Figure | None:
    """Weights of the mix and distances of the learners from the global one, a row per method."""
    data = mixing_series(suite)
    if not data:
        return None
    present = [
        (kind, name)
        for kind, name in MIXING.items()
        if any(k.startswith(kind) for d in data.values() for k in d)
    ]
    learners = list(dict.fromkeys(k.split("/", 1)[1] for d in data.values() for k in d))
    colours = {x: LEARNER_COLOURS[i % 6] for i, x in enumerate(learners)}
    dashes = {x: _DASHES[i % len(_DASHES)] for i, x in enumerate(learners)}
    with mpl.rc_context(STYLE):
        fig, axes = figure(
            0.75 + 1.05 * len(data), len(data), len(present), sharex=True, sharey="col"
        )
        for row, (label, found) in zip(axes, data.items(), strict=True):
            for ax, (kind, _) in zip(row, present, strict=True):
                for key, line in found.items():
                    if key.startswith(kind):
                        x = key.split("/", 1)[1]
                        ax.plot(line.index, line["mean"], color=colours[x], ls=dashes[x])
                        ax.fill_between(
                            line.index,
                            line["low"],
                            line["high"],
                            color=colours[x],
                            alpha=0.15,
                            lw=0,
                        )
            row[0].set_title(label, loc="left", fontsize=6.5, pad=2)
        for ax, (kind, name) in zip(axes[0], present, strict=True):
            ax.annotate(
                name, (0.5, 1), (0, 13), xycoords="axes fraction", textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
            if kind == "mix/":
                ax.set_ylim(0, 1.04)
        for ax in axes[-1]:
            ax.set_xlabel("Epoch")
            ax.set_ylim(bottom=0)
        handles = [Line2D([], [], color=colours[x], ls=dashes[x], label=x) for x in learners]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
        return fig


# --- corruptions ----------------------------------------------------------------------------------


def corruptions(suite: SuiteRecord) -> Figure | None:
    """Heat map of the accuracy under each corruption, mean over severities and seeds."""
    table = corruption_means(suite)
    if table.empty:
        return None
    import seaborn as sns  # noqa: PLC0415 - start-up time

    shown = 100 * pd.concat([table, table.mean().to_frame("mean").T])
    shown.index = [str(name).replace("_", " ") for name in shown.index]
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        fig, axes = figure(0.95 + 0.165 * len(shown))
        ax = axes[0, 0]
        sns.heatmap(
            shown, ax=ax, cmap="cividis", fmt=".0f", annot_kws={"size": 5.2},
            annot=len(table.columns) <= 14,  # in narrower cells figures would touch
            linewidths=0.3, linecolor="white", cbar_kws={"label": "Accuracy (%)", "pad": 0.015,
            "aspect": 40},
        )  # fmt: skip
        ax.axhline(len(table), color="white", lw=2)
        ax.tick_params(length=0)
        ax.set_xticks(
            ax.get_xticks(), table.columns, rotation=40, ha="right", rotation_mode="anchor"
        )
        ax.set_yticks(np.arange(len(shown)) + 0.5, shown.index, rotation=0)
        ax.tick_params(labelsize=6)
        return fig


# --- published ------------------------------------------------------------------------------------


def published(suite: SuiteRecord, figures: pd.DataFrame) -> Figure | None:
    """Figures of papers (upper panel) and ours (lower panel), each on its own axes.

    Args:
        figures: columns clean, aa (per cent), extra_data, as from ``published.scatter``.
    """
    if figures.empty:
        return None
    metric = "aa_linf" if "aa_linf" in suite.metrics() else "pgd20_linf"
    ours = any(pair(suite, m, metric) is not None for m in suite.methods)
    with mpl.rc_context(STYLE):
        fig, axes = figure(2.6 + 2.4 * ours, 2 if ours else 1)
        ax = axes[0, 0]
        kinds: Iterable[tuple[str, str, str]] = (
            ("no", "no extra data", "o"),
            ("yes", "extra data", "^"),
            ("unstated", "not stated", "x"),
        )  # fmt: skip
        for (value, name, marker), colour in zip(
            kinds, ("#0072B2", "#B8860B", "#777777"), strict=True
        ):
            part = figures[figures["extra_data"] == value]
            if len(part):
                ax.scatter(
                    part["clean"], part["aa"], s=11, marker=marker, color=colour, alpha=0.75,
                    lw=0.6 if marker == "x" else 0, label=name,
                )  # fmt: skip
        ax.set_title(
            f"Published: {suite.dataset}, $\\ell_\\infty$ 8/255, mostly larger models", loc="left"
        )
        ax.set_ylabel("AutoAttack accuracy (%)")
        ax.set_xlabel("Clean accuracy (%)")
        ax.legend(loc="upper left", handletextpad=0.2)
        if ours:
            ax = axes[1, 0]
            used: dict[str, Family] = {}
            parts = _tradeoff_panel(ax, suite, metric, used)
            ax.set_title(f"This suite: {suite.model} (axes differ)", loc="left")
            ax.set_ylabel(_axis(suite, metric))
            ax.set_xlabel("Clean accuracy (%)")
            place_labels(ax, *parts)
        return fig
