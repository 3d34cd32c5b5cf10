"""Plots of what was recorded while training: validation accuracy, and mixing of learners."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmark.report.families import learner_looks, line_looks
from benchmark.report.figures import STYLE, figure
from benchmark.report.labels import end_labels
from benchmark.report.study_model import Study
from benchmark.report.texts import MIXING_TITLES, VALIDATION_TITLES, mixing_seeds


def curves(study: Study) -> Figure | None:
    """Validation accuracy against epochs; the band spans the seeds."""
    data = study.curves
    if not data:
        return None
    looks = line_looks(study.table)
    colours = {method: colour for method, (colour, _) in looks.items()}
    styles = {method: dashes for method, (_, dashes) in looks.items()}
    with mpl.rc_context(STYLE):
        height = max(2.2, 0.12 * len(study.table.rows))  # room for a label per method
        fig, axes = figure(0.3 + height * len(data), len(data), sharex=True)
        for ax, (key, lines) in zip(axes[:, 0], data.items(), strict=True):
            for label, line in lines.items():
                colour = colours[label]
                marker = "." if len(line.epochs) == 1 else ""
                mean, low, high = (100 * np.array(v) for v in (line.mean, line.low, line.high))
                ax.plot(
                    line.epochs, mean, color=colour, ls=styles[label], lw=0.9,
                    marker=marker,
                )  # fmt: skip
                ax.fill_between(line.epochs, low, high, color=colour, alpha=0.12, lw=0)
            ax.set_ylabel(VALIDATION_TITLES[key])
            ends = {m: (line.epochs[-1], 100 * line.mean[-1]) for m, line in lines.items()}
            end_labels(ax, ends, colours, styles, height - 0.25)
        axes[-1, 0].set_xlabel("Epoch")
        return fig


def mixing(study: Study) -> Figure | None:
    """Weights of the mix and distances of the learners from the global one, a row per method."""
    data = study.mixing
    if not data:
        return None
    present = [
        (kind, name)
        for kind, name in MIXING_TITLES.items()
        if any(found[kind] for found in data.values())
    ]
    looks = learner_looks(data)
    with mpl.rc_context(STYLE):
        fig, axes = figure(
            0.75 + 1.05 * len(data), len(data), len(present), sharex=True, sharey="col"
        )
        for row, (label, found) in zip(axes, data.items(), strict=True):
            for ax, (kind, _) in zip(row, present, strict=True):
                for x, line in found[kind].items():
                    colour, dashes = looks[x]
                    ax.plot(line.epochs, line.mean, color=colour, ls=dashes)
                    ax.fill_between(
                        line.epochs, line.low, line.high, color=colour, alpha=0.15, lw=0
                    )
            row[0].set_title(f"{label}, {mixing_seeds(found)}", loc="left", fontsize=6.5, pad=2)
        for ax, (kind, name) in zip(axes[0], present, strict=True):
            ax.annotate(
                name, (0.5, 1), (0, 13), xycoords="axes fraction", textcoords="offset points",
                ha="center", fontsize=7,
            )  # fmt: skip
            if kind == "mix":
                ax.set_ylim(0, 1.04)
        for ax in axes[-1]:
            ax.set_xlabel("Epoch")
            ax.set_ylim(bottom=0)
        handles = [Line2D([], [], color=c, ls=dashes, label=x) for x, (c, dashes) in looks.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)))
        return fig
