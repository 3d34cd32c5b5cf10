"""What all plots share: one column's width, one style, and files that are equal for equal input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmark.core.files import atomic_path

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
    "savefig.dpi": 200,
    "figure.dpi": 200,
}


def figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure of one column's width on the Agg canvas, without pyplot's global state."""
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def contrast(first: Any, second: Any) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2; text needs 4.5)."""
    dark, light = sorted(map(_luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Any) -> float:
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def ink(colour: str) -> str:
    """The colour of letters on white that name what has ``colour``, darkened as text needs."""
    rgb: Any = np.array(mpl.colors.to_rgb(colour))
    while contrast(rgb, "white") < 4.5:
        rgb = 0.96 * rgb
    return mpl.colors.to_hex(rgb)


def mark_trial(fig: Figure, limit: int | None) -> None:
    """Say on the figure itself that a part of the data was used, since it may be shown alone."""
    if limit is not None:
        fig.suptitle(f"limit = {limit}: a trial run, not a result", fontsize=6.5, color="#B00020")


# By ending: what is left out of a file so that equal input gives equal bytes.
FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None, "Creator": None},
}
# Read when a file is written. TrueType, since publishers refuse Type 3; text of an SVG stays text.
_WRITING: Any = {"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "generalist-bench"}


def save(fig: Figure, stem: Path) -> list[Path]:
    """Write the figure in each of ``FORMATS`` (PNG with 200 dpi), free of dates."""
    written = []
    # Laid out once: a layout that ran again for each format could move labels off their places.
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    for suffix, metadata in FORMATS.items():
        path = stem.with_suffix(suffix)
        with mpl.rc_context(_WRITING), atomic_path(path) as temporary:
            fig.savefig(temporary, format=suffix[1:], metadata=metadata)
        written.append(path)
    return written
