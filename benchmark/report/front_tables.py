"""The tables of a plane of fronts as text, alike in fronts.md and on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmark.report.fronts import accuracy_text, area, difference_text, distance_text
from benchmark.report.study_model import FrontCell, FrontPlane


@dataclass(frozen=True)
class TextTable:
    """A table as text.

    Attributes:
        text_columns: how many of the first columns hold words; the others are aligned as numbers.
    """

    name: str
    head: list[str]
    rows: list[list[str]]
    text_columns: int


def front_tables(plane: FrontPlane) -> list[TextTable]:
    """Settings with their areas, differences of areas, and distances; empty ones left out."""
    settings = [
        [
            front.name,
            ", ".join(f"{label} {accuracy_text(xy)}" for label, xy in front.points),
            area(front.hypervolume.value),
            f"[{area(front.hypervolume.low)}, {area(front.hypervolume.high)}]",
        ]
        for front in plane.fronts
    ]
    tables = [
        TextTable(
            "Settings and the area that they dominate",
            ["Front", "Settings (clean / robust, %)", "Hypervolume", "95 % interval"],
            settings,
            2,
        ),
        _matrix("Difference of hypervolumes", plane.differences, difference_text),
        _matrix("Distance of each Generalist from each front", plane.distances, distance_text),
    ]
    return [table for table in tables if table.rows]


def _matrix(
    name: str, cells: Mapping[tuple[str, str], FrontCell], text: Callable[[FrontCell], str]
) -> TextTable:
    """A table of cells, by (row, column)."""
    columns = list(dict.fromkeys(column for _, column in cells))
    rows = list(dict.fromkeys(row for row, _ in cells))
    body = [[row, *(text(cells[row, c]) for c in columns)] for row in rows]
    return TextTable(name, ["", *columns], body, 1)


def how_to_read_fronts(plane: FrontPlane) -> tuple[str, ...]:
    """What the tables mean, one statement per line."""
    reference = accuracy_text(plane.reference)
    return (
        f"All figures are on the same images and seeds: {plane.where}. Intervals cover the choice "
        "of both.",
        "A front is the upper concave hull of its settings: what lies between two of them can be "
        "had by choosing one of the two networks at random for each image.",
        "Distances are to the nearest point of the other front, in percentage points; positive is "
        'better. "Beyond its end": better on one axis than any setting of that front, and no '
        "better on the other, so there is nothing to compare with.",
        f"Hypervolume: the area that the settings dominate above clean / robust = {reference} %, "
        "in squared percentage points (no hull). More settings, and more extreme ones, dominate "
        "more.",
        "*: p of at most 0.05, adjusted after Holm over all figures of the table.",
        "The best of several settings was found on these images, so each front is a little too "
        "high.",
    )
