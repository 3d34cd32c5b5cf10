"""Plots that compare methods: differences from one of them, ranks, cost, and unions of attacks."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator

from benchmark.report.families import BAR_LOOKS, families
from benchmark.report.figures import STYLE, figure, ink
from benchmark.report.labels import place_labels
from benchmark.report.paired import ALPHA, p_text
from benchmark.report.study_model import Differences, Family, MethodRanks, Study, UnionBars
from benchmark.report.texts import images, seeds_text


def differences(study: Study) -> Figure | None:
    """Forest plot: each method's score less the reference's, one panel for each score."""
    if not study.differences:
        return None
    looks = {row.method: row.family for row in study.table.rows}
    with mpl.rc_context(STYLE):
        rows = max(len(one.rows) for one in study.differences)
        height = 0.15 + (0.5 + 0.125 * rows) * len(study.differences)
        fig, axes = figure(height, len(study.differences), sharex=True)
        for ax, one in zip(axes[:, 0], study.differences, strict=True):
            _forest(ax, one, looks)
        axes[-1, 0].set_xlabel(f"Points above {study.differences[0].reference}")
        return fig


def _forest(ax: Axes, one: Differences, looks: Mapping[str, Family]) -> None:
    for y, row in enumerate(one.rows):
        look, found = looks[row.method], row.interval
        value, low, high = 100 * found.value, 100 * found.low, 100 * found.high
        ax.errorbar(
            value, y, xerr=[[value - low], [high - value]], fmt=look.marker, color=look.colour,
            ms=3.6, mew=0.7, mfc=look.colour if row.p <= ALPHA else "white", elinewidth=0.8,
        )  # fmt: skip
    ax.axvline(0, color="#555555", lw=0.7, zorder=1)
    ax.set_yticks(range(len(one.rows)), [row.method for row in one.rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(one.rows) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_title(f"{one.heading}\n{one.where}", loc="left", fontsize=6.5)


def ranks(study: Study) -> Figure | None:
    """Critical-difference diagrams: methods that no test tells apart are joined by a bar."""
    if not study.ranks:
        return None
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        colours = {row.method: row.family.colour for row in study.table.rows}
        height = 0.65 + 0.085 * max(len(one.mean) for one in study.ranks)
        fig, axes = figure(height * len(study.ranks), len(study.ranks))
        for ax, one in zip(axes[:, 0], study.ranks, strict=True):
            critical_difference(ax, one, colours, seeds_text([one.seeds]))
        return fig


def critical_difference(
    ax: Axes, one: MethodRanks, colours: Mapping[str, str], blocks: str
) -> None:
    """The diagram of one score; ``blocks`` says what ranked the methods, as "3 seeds"."""
    from scikit_posthocs import critical_difference_diagram  # noqa: PLC0415 - start-up time

    names, means = list(one.mean), list(one.mean.values())
    p = pd.DataFrame(np.ones((len(names), len(names))))
    for (first, second), value in one.pairs.items():
        i, j = names.index(first), names.index(second)
        p.loc[i, j] = p.loc[j, i] = value
    # The library goes through sets of what it is given. The order of a set of texts changes from
    # process to process, and the file with it, so methods are numbers until the names are written.
    drawn = critical_difference_diagram(
        dict(enumerate(means)), p, ax=ax, alpha=ALPHA, label_props={"fontsize": 6},
        marker_props={"s": 6}, elbow_props={"linewidth": 0.6}, crossbar_props={"linewidth": 1.6},
        color_palette={i: colours[name] for i, name in enumerate(names)},
        label_fmt_left="{label}", label_fmt_right="{label}",
        text_h_margin=0.025 * (means[-1] - means[0]),
    )  # fmt: skip
    for text in drawn["labels"]:
        i = int(text.get_text())
        rank = f"({means[i]:.2g})"
        left = text.get_ha() == "right"
        # The space keeps the first and the last elbow out of the letters.
        text.set_text(f"{names[i]} {rank} " if left else f" {rank} {names[i]}")
        text.set_color(ink(colours[names[i]]))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"{one.heading}\n{blocks}; Friedman {p_text(one.friedman)}"
    ax.set_title(title, loc="left", pad=9, fontsize=6.5)


def cost(study: Study) -> Figure | None:
    """Robust accuracy against gradient passes in training, one panel for each main attack."""
    panels, known = study.trade_offs.main, study.passes
    if not panels or not known:
        return None
    looks = {row.method: row.family for row in study.table.rows}
    with mpl.rc_context(STYLE):
        height = max(2.4, 0.12 * len(study.table.rows))
        fig, axes = figure(0.35 + height * len(panels), len(panels), sharex=True)
        later = []
        for ax, one in zip(axes[:, 0], panels, strict=True):
            shown = [point for point in one.points if point.method in known]
            xy = [(known[point.method], 100 * point.robust.value) for point in shown]
            bars = [(x, x, 100 * p.robust.low, 100 * p.robust.high) for (x, _), p in zip(
                xy, shown, strict=True)]  # fmt: skip
            colours = [looks[point.method].colour for point in shown]
            for point, (x, y), (_, _, low, high), colour in zip(
                shown, xy, bars, colours, strict=True
            ):
                ax.errorbar(
                    x, y, yerr=[[y - low], [high - y]], color=colour,
                    fmt=looks[point.method].marker, ms=4, mew=0.4, mec="white", elinewidth=0.5,
                    ecolor=mpl.colors.to_rgba(colour, 0.35),
                )  # fmt: skip
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.margins(x=0.12, y=0.1)
            ax.set_ylabel(f"{one.title} accuracy (%), {images(one.images)}")
            names = [study.table.row(point.method).name for point in shown]
            later.append((ax, xy, names, colours, bars))
        axes[-1, 0].set_xlabel("Gradient passes per training image, natural training = 1")
        handles = [
            Line2D([], [], color=f.colour, marker=f.marker, ls="", ms=4, mew=0, label=f.name)
            for f in families(study.table)
        ]
        fig.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.3)
        for ax, xy, names, colours, bars in later:
            place_labels(ax, xy, names, colours, bars, [])
        return fig


def unions(study: Study) -> Figure | None:
    """Accuracy under each attack of a union and under all of them, bars by method."""
    if not study.unions:
        return None
    with mpl.rc_context(STYLE):
        rows = len(study.table.rows)
        fig, axes = figure((0.75 + 0.3 * rows) * len(study.unions), len(study.unions))
        for ax, one in zip(axes[:, 0], study.unions, strict=True):
            _bars(ax, study, one)
        return fig


def _bars(ax: Axes, study: Study, one: UnionBars) -> None:
    columns = [*one.parts, (one.key, one.title)]
    looks = [*(BAR_LOOKS[i % len(BAR_LOOKS)] for i in range(len(one.parts))), ("#000000", "")]
    height = 0.8 / len(columns)
    for i, ((key, _), (colour, hatch)) in enumerate(zip(columns, looks, strict=True)):
        for y, row in enumerate(study.table.rows):
            found = row.summaries[key].interval
            if found is None:
                continue
            value, low, high = 100 * found.value, 100 * found.low, 100 * found.high
            ax.barh(
                y - 0.4 + height * (i + 0.5), value, height, color=colour, hatch=hatch,
                edgecolor="white", lw=0.3,
                xerr=None if np.isnan(low) else [[value - low], [high - value]],
                error_kw={"elinewidth": 0.5, "ecolor": "#666666"},
            )  # fmt: skip
    ax.set_yticks(range(len(study.table.rows)), [row.name for row in study.table.rows])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(study.table.rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    n = images(row.summaries[key].n for row in study.table.rows for key, _ in columns)
    ax.set_xlabel(f"Accuracy under attack (%), {n}")
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=name)
        for (_, name), (colour, hatch) in zip(columns, looks, strict=True)
    ]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
