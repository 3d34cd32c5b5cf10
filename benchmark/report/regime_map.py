"""Where a Generalist lies above its rivals: its distance from their front, over two settings.

One study per place of the map. Each names two fronts (``SuiteConfig.fronts``): a Generalist with
one setting, and its rivals together. The value is the signed distance of the Generalist from the
rivals' front (``report.fronts``) under the study's main attack, with its interval. p is adjusted
(Holm) over all places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_text
from benchmark.records.statistics import holm
from benchmark.records.study import SuiteRecord, nested
from benchmark.report.figures import STYLE, figure, save
from benchmark.report.fronts import accuracy_text, distance_text, each_plane, told
from benchmark.report.markdown import markdown_table
from benchmark.report.paired import p_text, points
from benchmark.report.study_model import FrontCell, FrontPlane
from benchmark.report.undertrained import all_undertrained

_COLOURS = "PuOr_r"  # told apart by colour-blind readers; white is 0


@dataclass(frozen=True)
class Place:
    """A study on the map.

    Attributes:
        row, column: its values of the two settings.
        label: of the Generalist; ``rival``: the name of the front that it is compared with.
        cell: the distance; its p is adjusted over all places.
        undertrained: labels of both fronts that were still improving at the end.
    """

    study: str
    row: Any
    column: Any
    label: str
    rival: str
    plane: FrontPlane
    cell: FrontCell
    undertrained: tuple[str, ...]


@dataclass(frozen=True)
class RegimeMap:
    """All places.

    Attributes:
        row, column: names of the two settings, such as ``model.width``.
    """

    row: str
    column: str
    places: tuple[Place, ...]


def regime_map(studies: Sequence[SuiteRecord], row: str, column: str) -> RegimeMap:
    """The map of several studies.

    Args:
        row, column: settings that tell the studies apart, by dotted name as in a suite file.

    Raises:
        BenchmarkError: a study without such a setting, without two evaluated fronts or with another
            number of them; two studies at the same place; different attacks.
    """
    places = [_place(study, row, column) for study in studies]
    attacks = {place.plane.title for place in places}
    if len(attacks) > 1:
        raise BenchmarkError(
            f"the studies have different main attacks ({', '.join(sorted(attacks))}), so their "
            "distances cannot be on one map"
        )
    taken: dict[tuple[Any, Any], str] = {}
    for place in places:
        at = place.row, place.column
        if at in taken:
            raise BenchmarkError(
                f"{taken[at]} and {place.study} both have {row} {at[0]} and {column} {at[1]}; name "
                "settings that tell the studies apart"
            )
        taken[at] = place.study
    adjusted = iter(holm([p.cell.p for p in places if p.cell.interval is not None]))
    placed = [
        p if p.cell.interval is None else replace(p, cell=replace(p.cell, p=next(adjusted)))
        for p in places
    ]
    return RegimeMap(row, column, tuple(sorted(placed, key=lambda p: (p.row, p.column))))


def _place(study: SuiteRecord, row: str, column: str) -> Place:
    plane = next(each_plane(study, ()), None)
    if plane is None:
        raise BenchmarkError(
            f"{study.path} has no two fronts with evaluated runs on the same images and seeds; a "
            "map needs a front of one Generalist and one of its rivals (fronts: in the suite)"
        )
    if len(plane.distances) != 1:
        raise BenchmarkError(
            f"{study.path} has {len(plane.distances)} distances of a Generalist from a front; a "
            "map needs one: a Generalist with one setting, and one front of its rivals"
        )
    (((label, rival), cell),) = plane.distances.items()
    members = {name for front in plane.fronts for name, _ in front.points}
    return Place(
        study=study.name,
        row=_setting(study, row),
        column=_setting(study, column),
        label=label,
        rival=rival,
        plane=plane,
        cell=cell,
        undertrained=tuple(sorted(members & set(all_undertrained(study)))),
    )


def _setting(study: SuiteRecord, name: str) -> Any:
    """The value that all runs of a study share."""
    values = [nested(cell.config, *name.split(".")) for cell in study.cells]
    found = {repr(value): value for value in values if value is not None}
    if len(found) != 1:
        raise BenchmarkError(
            f"{study.path} has {'no' if not found else 'several values of'} {name}; name a setting "
            "that all its runs share, such as dataset.train_limit or model.width"
        )
    return next(iter(found.values()))


def write_map(found: RegimeMap, target: Path) -> list[Path]:
    """Write map.md, map.csv and the figure to ``target``; returns them, the text first."""
    text, data = target / "map.md", target / "map.csv"
    write_text(text, map_md(found))
    write_text(data, frame_of(found).to_csv(index=False, lineterminator="\n"))
    return [text, data, *save(draw(found), target / "map")]


def frame_of(found: RegimeMap) -> pd.DataFrame:
    """A row per place."""
    rows = []
    for place in found.places:
        interval = place.cell.interval
        rows.append(
            {
                found.row: place.row,
                found.column: place.column,
                "study": place.study,
                "attack": place.plane.title,
                "method": place.label,
                "front": place.rival,
                "distance": None if interval is None else interval.value,
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "p_adjusted": None if interval is None else place.cell.p,
                "n": place.plane.n,
                "seeds": len(place.plane.seeds),
                "undertrained": " ".join(place.undertrained),
            }
        )
    return pd.DataFrame(rows)


def map_md(found: RegimeMap) -> str:
    """The map in words and as a table."""
    head = [found.row, found.column, "Generalist", "rivals", "distance", "p", "n, seeds", "study"]
    parts = [
        f"# Where the Generalist lies above its rivals: {found.row} against {found.column}",
        summary(found),
        "Distance: of the Generalist's point (clean accuracy, accuracy under the attack) from the "
        "rivals' front, in percentage points, positive if it is above; interval over images and "
        'seeds; p adjusted after Holm over all places; *: p of at most 0.05. "Beyond its end": '
        "better on one axis than any rival and no better on the other, so there is nothing to "
        "compare with. Accuracies are clean / robust in %.",
        "![map](map.png)",
        markdown_table(head, [_row(place) for place in found.places], text_columns=len(head)),
    ]
    return "\n\n".join(parts)


def _row(place: Place) -> list[str]:
    own, rivals = (_settings(place, of_rivals=rivals) for rivals in (False, True))
    late = f" (still improving: {', '.join(place.undertrained)})" if place.undertrained else ""
    return [
        str(place.row),
        str(place.column),
        own,
        rivals,
        distance_text(place.cell) + late,
        "" if place.cell.interval is None else p_text(place.cell.p),
        place.plane.where,
        place.study,
    ]


def _settings(place: Place, *, of_rivals: bool) -> str:
    """ "trades-6 52.1 / 12.3, ..."."""
    fronts = [f for f in place.plane.fronts if (f.name == place.rival) == of_rivals]
    shown = [point for front in fronts for point in front.points]
    return ", ".join(f"{label} {accuracy_text(xy)}" for label, xy in shown)


def summary(found: RegimeMap) -> str:
    """In how many places the Generalist is above, below or beyond, in one sentence."""
    intervals = [(p.cell.interval, told(p.cell)) for p in found.places]
    detected = [interval.value for interval, sure in intervals if interval is not None and sure]
    above = sum(value > 0 for value in detected)
    beyond = sum(interval is None for interval, _ in intervals)
    attack = found.places[0].plane.title
    return (
        f"Under {attack}, in {len(found.places)} regimes the Generalist is above the front of its "
        f"rivals in {above}, below it in {len(detected) - above}, beyond its ends in {beyond}; in "
        f"{len(found.places) - len(detected) - beyond} no difference is detected."
    )


def draw(found: RegimeMap) -> Figure:
    """The heat map: distance in points, its interval below; a star where p is at most 0.05."""
    rows = sorted({place.row for place in found.places})
    columns = sorted({place.column for place in found.places})
    at = {(place.row, place.column): place for place in found.places}
    known = [p.cell.interval.value for p in found.places if p.cell.interval is not None]
    scale = max((abs(100 * value) for value in known), default=1.0) or 1.0
    with mpl.rc_context(STYLE):
        fig, axes = figure(0.8 + 0.42 * len(rows))
        ax = axes[0, 0]
        colours = mpl.colormaps[_COLOURS]
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                place = at.get((row, column))
                interval = None if place is None else place.cell.interval
                value = 0.0 if interval is None else 100 * interval.value
                # at most half of the way to the dark ends, so that black text is read
                shade = colours(0.5 + 0.25 * value / scale)
                empty = place is None
                ax.add_patch(
                    mpl.patches.Rectangle(
                        (j - 0.5, i - 0.5), 1, 1, fc="white" if empty else shade, ec="white", lw=1.5
                    )
                )
                ax.text(j, i, _text(place), ha="center", va="center", fontsize=6)
        ax.set_xlim(-0.5, len(columns) - 0.5)
        ax.set_ylim(-0.5, len(rows) - 0.5)
        ax.set_xticks(range(len(columns)), [_value(v) for v in columns])
        ax.set_yticks(range(len(rows)), [_value(v) for v in rows])
        ax.tick_params(length=0)
        ax.grid(visible=False)
        ax.set_xlabel(found.column)
        ax.set_ylabel(found.row)
        place = found.places[0]
        ax.set_title(
            f"{place.label}: points above the front of {place.rival}\n"
            f"clean and {place.plane.title}, {place.plane.where}; * p ≤ 0.05 (Holm)",
            loc="left", fontsize=6.5,
        )  # fmt: skip
        return fig


def _value(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _text(place: Place | None) -> str:
    if place is None:
        return "not run"
    if place.cell.interval is None:
        return "beyond\nits end"
    interval = place.cell.interval
    star = " *" if told(place.cell) else ""
    late = " [u]" if place.undertrained else ""
    ends = f"[{points(interval.low)}, {points(interval.high)}]"
    return f"{points(interval.value)}{star}{late}\n{ends}"
