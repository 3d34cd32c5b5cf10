"""Writes names beside points and lines, where they do not cover anything.

Two libraries were tried on the trade-off plots of the recorded studies. adjustText 1.4 writes names
over each other where points are close, and outside of the axes. textalloc 1.2 treats an error bar
as an obstacle like a marker: if it is given the bars, it puts names far from their points, with
long crossing lines; if not, names cover other points' bars and leave the axes. The code here keeps
all names separate and inside the axes, and avoids error bars if that does not increase distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.report.figures import ink

# Behind a name: what it must cross is paler there, so that no letter is struck through.
_PLATE = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.2}


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    colours: Sequence[str],
    bars: Sequence[tuple[float, float, float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    size: float = 6,
) -> None:
    """Write each text beside its point, where it covers no text, marker or error bar.

    The algorithm is greedy: it starts with the points that have the most neighbours, tries places
    on growing rings around each point, and takes the place with the least overlap. A text that is
    not next to its point gets a thin line to it.

    Args:
        bars: (x low, x high, y low, y high) of each point's error bars, in data units.
        lines: segments that texts avoid if they can, in data units.
    """
    fig: Any = ax.get_figure()
    while not isinstance(fig, Figure):  # a part of a figure
        fig = fig.figure
    fig.draw_without_rendering()
    renderer: Any = fig._get_renderer()  # type: ignore[attr-defined]  # a canvas may have none
    scale = fig.dpi / 72
    frame = ax.get_window_extent(renderer).extents + scale * np.array([1, 1, -1, -1])
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
            0, 0, texts[i], fontsize=size, color=ink(colours[i]), zorder=6, va="bottom",
            in_layout=False, bbox=_PLATE,
        )  # fmt: skip
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


def end_labels(
    ax: Axes,
    ends: Mapping[str, tuple[float, float]],
    colours: Mapping[str, str],
    styles: Mapping[str, Any],
    height: float,
) -> None:
    """Name each line at its right end, with a short sample of its dashes.

    Args:
        ends: the last point of each line, in data units.
        height: of the axes, in inches.
    """
    low, high = ax.get_ylim()
    gap = 7.2 / 72 * (high - low) / height  # 7.2 points a label, height in inches
    wanted = spread([y for _, y in ends.values()], gap, low, high)
    right = max(x for x, _ in ends.values())
    left = ax.get_xlim()[0]
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    for (label, (x, y)), place in zip(ends.items(), wanted, strict=True):
        colour = colours[label]
        # positions beside the axes: x in axes fractions, y in data
        beside = ax.get_yaxis_transform()
        start = (x - left) / (right - left) if right > left else 1.0
        # Dots and level to the edge: a slanted line from an early end would look like measurements.
        ax.plot([start, 1], [y, y], color=colour, lw=0.6, ls=":", transform=beside)
        ax.plot([1, 1.045], [y, place], color=colour, lw=0.4, transform=beside, clip_on=False)
        ax.plot(
            [1.045, 1.13], [place] * 2, color=colour, lw=0.9, ls=styles[label],
            transform=beside, clip_on=False,
        )  # fmt: skip
        ax.text(1.145, place, label, color=ink(colour), fontsize=5.8, va="center", transform=beside)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The values, moved so that they are at least ``gap`` apart within [low, high] if they fit
    there, in the same order."""
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
