"""The plots of figures: trade-off, accuracy by radius, corruptions, published ones, and the path
between networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.report.families import DASHES, LEARNER_COLOURS, front_looks, line_looks
from benchmark.report.figures import STYLE, contrast, figure, ink, save
from benchmark.report.labels import end_labels, place_labels
from benchmark.report.study_model import Family, Study, TradeOff
from benchmark.report.texts import NORMS, images

__all__ = [
    "corruptions",
    "draw_tradeoff",
    "interpolation",
    "published",
    "radii",
    "save",
    "tradeoff",
]


def tradeoff(study: Study) -> Figure | None:
    """Clean against robust accuracy, one panel for each main attack."""
    panels = study.trade_offs.main
    if not panels:
        return None
    with mpl.rc_context(STYLE):
        fig, axes = figure(
            0.35 + max(2.55, 0.14 * len(study.table.rows)) * len(panels), len(panels)
        )
        used: dict[str, Family] = {}
        later = []
        for ax, one in zip(axes[:, 0], panels, strict=True):
            later.append((ax, *_tradeoff_panel(ax, study, one, used)))
        axes[-1, 0].set_xlabel("Clean accuracy (%)")
        handles = [_handle(f) for f in used.values()]
        handles.append(_front_handle())
        fig.legend(
            handles=handles, loc="outside upper center", ncols=3, columnspacing=1.0,
            handletextpad=0.3,
        )  # fmt: skip
        for ax, points, texts, colours, bars, lines in later:
            place_labels(ax, points, texts, colours, bars, lines)
        return fig


def draw_tradeoff(ax: Axes, study: Study, one: TradeOff) -> None:
    """Clean against robust accuracy under one attack, on axes of the caller's."""
    used: dict[str, Family] = {}
    points, texts, colours, bars, lines = _tradeoff_panel(ax, study, one, used)
    ax.set_xlabel("Clean accuracy (%)")
    handles = [_handle(group) for group in used.values()]
    handles.append(_front_handle())
    ax.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False,
        fontsize="small",
    )  # fmt: skip
    place_labels(ax, points, texts, colours, bars, lines, size=8)


def _front_handle() -> Line2D:
    return Line2D([], [], color="#999999", lw=0.9, ls="--", label="Pareto front")


def _handle(group: Family) -> Line2D:
    return Line2D(
        [], [], color=group.colour, marker=group.marker, ls="", ms=4, mew=0, label=group.name
    )


def _tradeoff_panel(
    ax: Axes,
    study: Study,
    one: TradeOff,
    used: dict[str, Family],
) -> tuple[Any, ...]:
    names = [point.method for point in one.points]
    rows = [study.table.row(name) for name in names]
    xy = [point.per_cent for point in one.points]
    bars = [
        (100 * p.clean.low, 100 * p.clean.high, 100 * p.robust.low, 100 * p.robust.high)
        for p in one.points
    ]
    off = None if one.outlier is None else names.index(one.outlier)
    shown = [i for i in range(len(names)) if i != off]
    groups = [row.family for row in rows]
    for group in groups:
        used.setdefault(group.name, group)
    for i in shown:
        (x, y), (x0, x1, y0, y1) = xy[i], bars[i]
        ax.errorbar(
            x, y, xerr=[[x - x0], [x1 - x]], yerr=[[y - y0], [y1 - y]], fmt=groups[i].marker,
            color=groups[i].colour, ms=4, mew=0.4, mec="white", elinewidth=0.5, ecolor=
            mpl.colors.to_rgba(groups[i].colour, 0.35), zorder=4,
        )  # fmt: skip
    # a point off the scale is on the front but cannot be joined
    path = [xy[names.index(name)] for name in one.front if name != one.outlier]
    ax.plot(*zip(*path, strict=True), color="#999999", lw=0.9, ls="--", zorder=1)
    ax.margins(x=0.1, y=0.08)
    texts = [rows[i].name for i in shown]
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
            x, 0.045, f"{rows[off].name} ({x:.1f}, {y:.1f}), off scale  ",
            ha="right", va="center",
            fontsize=6, color=ink(groups[off].colour), transform=ax.get_xaxis_transform(),
        )  # fmt: skip
    n = " or ".join(f"{n:,}" for n in one.images)
    ax.set_ylabel(f"{one.title} accuracy (%), n = {n}")
    lines = list(pairwise(path))
    return [xy[i] for i in shown], texts, colours, [bars[i] for i in shown], lines


def fronts(study: Study) -> Figure | None:
    """The settings and the hull of each front, one panel for each main attack."""
    if not study.fronts:
        return None
    with mpl.rc_context(STYLE):
        fig, axes = figure(0.5 + 2.9 * len(study.fronts), len(study.fronts))
        looks = front_looks(study.fronts)
        for ax, plane in zip(axes[:, 0], study.fronts, strict=True):
            for front in plane.fronts:
                colour, marker, dashes = looks[front.name]
                if front.band:
                    clean, low, high = 100 * np.array(front.band).T
                    ax.fill_between(clean, low, high, color=colour, alpha=0.15, lw=0, zorder=1)
                ax.plot(*_per_cent(front.hull), color=colour, ls=dashes, lw=1.1, zorder=3)
                ax.plot(
                    *_per_cent([xy for _, xy in front.points]), color=colour, marker=marker, ls="",
                    ms=3.6, mew=0.4, mec="white", zorder=4,
                )  # fmt: skip
            ax.set_ylabel(f"{plane.title} accuracy (%), {plane.where}")
        axes[-1, 0].set_xlabel("Clean accuracy (%)")
        handles = [
            Line2D([], [], color=c, marker=m, ls=d, ms=3.6, mew=0.4, mec="white", label=name)
            for name, (c, m, d) in looks.items()
        ]
        # Some 60 letters are as wide as the figure.
        longest = max(len(front.name) for plane in study.fronts for front in plane.fronts)
        columns = max(1, min(3, 60 // (longest + 4)))
        fig.legend(handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.0)
        return fig


def _per_cent(found: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * x for x, _ in found], [100 * y for _, y in found]


def interpolation(table: pd.DataFrame, first: str, second: str) -> Figure:
    """Accuracy along the path between two networks: columns alpha, metric, mean."""
    with mpl.rc_context(STYLE):
        fig, axes = figure(2.6, 1)
        ax = axes[0, 0]
        for i, (metric, points) in enumerate(table.groupby("metric", sort=False)):
            ax.plot(
                points["alpha"], 100 * points["mean"], marker="os^vPX"[i % 6], ms=2.8, lw=0.9,
                ls=DASHES[i % len(DASHES)], color=LEARNER_COLOURS[i % len(LEARNER_COLOURS)],
                label=str(metric),
            )  # fmt: skip
        ax.set_xlabel(f"alpha (0: {first}, 1: {second})")
        ax.set_ylabel("Accuracy (%)")
        ax.set_ylim(bottom=0)
        fig.legend(loc="outside upper center", ncols=3)
        return fig


def radii(study: Study) -> Figure | None:
    """Accuracy against the radius of the attack with 95 % bands, one panel for each metric."""
    if not study.radii:
        return None
    looks = line_looks(study.table)
    colours = {method: colour for method, (colour, _) in looks.items()}
    styles = {method: dashes for method, (_, dashes) in looks.items()}
    markers = {row.method: row.family.marker for row in study.table.rows}
    with mpl.rc_context(STYLE):
        height = max(2.2, 0.12 * len(study.table.rows))  # room for a name per method
        fig, axes = figure(0.5 + height * len(study.radii), len(study.radii))
        for ax, one in zip(axes[:, 0], study.radii, strict=True):
            for method, line in one.lines.items():
                colour = colours[method]
                value, low, high = (
                    100 * np.array([getattr(i, end) for i in line])
                    for end in ("value", "low", "high")
                )
                ax.fill_between(one.positions, low, high, color=colour, alpha=0.12, lw=0)
                ax.plot(
                    one.positions, value, color=colour, ls=styles[method], lw=0.9,
                    marker=markers[method], ms=3, mew=0, clip_on=False, zorder=3,
                )  # fmt: skip
            ax.set_ylim(0, None)
            ax.set_xticks(one.positions)
            ax.margins(x=0)
            n = images(study.table.row(m).summaries[one.metric].n for m in one.lines)
            ax.set_ylabel(f"Accuracy under attack (%), {n}")
            ax.set_xlabel(one.axis.replace(one.norm, NORMS.get(one.norm, one.norm)))
            ends = {m: (one.positions[-1], 100 * line[-1].value) for m, line in one.lines.items()}
            end_labels(ax, ends, colours, styles, height - 0.25)
        return fig


def corruptions(study: Study) -> Figure | None:
    """Heat map of the accuracy under each corruption, mean over severities and seeds; of the first
    metric that has them."""
    if not study.corruptions:
        return None
    import seaborn as sns  # noqa: PLC0415 - start-up time

    table = study.corruptions[0]

    names = [*(name.replace("_", " ") for name, _ in table.rows), "mean"]
    values = [*(values for _, values in table.rows), table.mean]
    shown = 100 * pd.DataFrame(values, index=names, columns=list(table.methods))
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        fig, axes = figure(0.95 + 0.165 * len(names))
        ax = axes[0, 0]
        sns.heatmap(
            shown, ax=ax, cmap="cividis", fmt=".0f", annot_kws={"size": 5.2},
            annot=len(table.methods) <= 14,  # in narrower cells figures would touch
            linewidths=0.3, linecolor="white", cbar_kws={"label": "Accuracy (%)", "pad": 0.015,
            "aspect": 40},
        )  # fmt: skip
        cells: Any = ax.collections[0]
        for text, shade in zip(ax.texts, cells.get_facecolors(), strict=False):
            # Of black and white the clearer one; seaborn's choice can be half as clear.
            darker = contrast("black", shade) > contrast("white", shade)
            text.set_color("black" if darker else "white")
        ax.axhline(len(table.rows), color="white", lw=2)
        ax.tick_params(length=0)
        ax.set_xticks(
            ax.get_xticks(), table.methods, rotation=40, ha="right", rotation_mode="anchor"
        )
        ax.set_yticks(np.arange(len(names)) + 0.5, names, rotation=0)
        ax.tick_params(labelsize=6)
        return fig


def published(study: Study) -> Figure | None:
    """Figures of papers (upper panel) and ours (lower panel), each on its own axes."""
    if not study.published.points:
        return None
    beside = study.trade_offs.beside_published
    ours = study.trade_offs.of[beside] if beside else None
    both = ours is not None and bool(ours.points)
    with mpl.rc_context(STYLE):
        fig, axes = figure(2.6 + 2.4 * both, 2 if both else 1)
        ax = axes[0, 0]
        kinds: Iterable[tuple[str, str, str]] = (
            ("no", "no extra data", "o"),
            ("yes", "extra data", "^"),
            ("unstated", "not stated", "x"),
        )  # fmt: skip
        for (value, name, marker), colour in zip(
            kinds, ("#0072B2", "#B8860B", "#777777"), strict=True
        ):
            part = [(clean, aa) for clean, aa, extra in study.published.points if extra == value]
            if part:
                ax.scatter(
                    *zip(*part, strict=True), s=11, marker=marker, color=colour, alpha=0.75,
                    lw=0.6 if marker == "x" else 0, label=name,
                )  # fmt: skip
        ax.set_title(
            f"Published: {study.dataset}, $\\ell_\\infty$ 8/255, mostly larger models", loc="left"
        )
        ax.set_ylabel("AutoAttack accuracy (%)")
        ax.set_xlabel("Clean accuracy (%)")
        ax.legend(loc="upper left", handletextpad=0.2)
        if ours is not None and both:
            ax = axes[1, 0]
            used: dict[str, Family] = {}
            parts = _tradeoff_panel(ax, study, ours, used)
            ax.set_title(f"This suite: {study.model} (axes differ)", loc="left")
            ax.set_xlabel("Clean accuracy (%)")
            place_labels(ax, *parts)
        return fig
