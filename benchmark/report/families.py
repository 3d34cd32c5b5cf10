"""Families of methods: methods of one kind are drawn alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.records.study import CellRecord
from benchmark.report.study_model import Family, FrontPlane, SeedCurve, Table

# Colours: Okabe and Ito, told apart under colour blindness. No two families share a marker, so they
# are told apart in grey too.
OTHER = Family("other", "#999999", "P")
GENERALIST = Family("Generalist", "#D55E00", "D")
FAMILIES = {
    family.name: family
    for family in (
        Family("natural", "#555555", "v"),
        Family("adversarial training", "#0072B2", "o"),
        Family("fast AT", "#56B4E9", ">"),
        Family("joint objectives", "#009E73", "s"),
        Family("multi-norm", "#CC79A7", "X"),
        Family("ensembles", "#B8860B", "^"),
        Family("weight averaging", "#B8860B", "<"),
        Family("data augmentation", "#E69F00", "*"),
        GENERALIST,
        OTHER,
    )
}

# Fills of the bars of a union's attacks, with matplotlib's hatches, so that they are told apart in
# grey; the union itself has the colour of text.
BAR_LOOKS = (("#0072B2", ""), ("#E69F00", "///"), ("#56B4E9", "..."), ("#CC79A7", "xxx"))

# Of the learners of a method that mixes.
LEARNER_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B8860B", "#555555")
# Methods of one colour differ by line style where lines are drawn; matplotlib's dash patterns.
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)))


def family_of(cells: Sequence[CellRecord]) -> Family:
    """The family that the records of a method's runs name; one that has no look of its own here is
    drawn like "other", under its own name."""
    name = next((cell.family for cell in cells if cell.family), OTHER.name)
    return FAMILIES.get(name, Family(name, OTHER.colour, OTHER.marker))


def families(table: Table) -> list[Family]:
    """The families of a table's methods, each once."""
    return list(dict.fromkeys(row.family for row in table.rows))


# Methods of one colour beyond the number of dashes have other shades of it: shares of black
# (negative) and of white that are mixed in.
_SHADES = (0.0, -0.45, 0.4, -0.7)


def line_looks(table: Table) -> Mapping[str, tuple[str, Any]]:
    """Colour and dashes of each method's line; alike only beyond twenty methods of a colour."""
    counts: Counter[str] = Counter()
    looks = {}
    for row in table.rows:
        shade, dashes = divmod(counts[row.family.colour], len(DASHES))
        looks[row.method] = _shaded(row.family.colour, shade), DASHES[dashes]
        counts[row.family.colour] += 1
    return looks


def learner_looks(
    mixing: Mapping[str, Mapping[str, Mapping[str, SeedCurve]]],
) -> Mapping[str, tuple[str, Any]]:
    """Colour and dashes of each base learner by its name, alike for all methods of a study."""
    named = dict.fromkeys(
        name for found in mixing.values() for kind in found.values() for name in kind
    )
    return {
        name: (LEARNER_COLOURS[i % len(LEARNER_COLOURS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(named)
    }


def _shaded(colour: str, shade: int) -> str:
    share = _SHADES[shade % len(_SHADES)]
    end = 255 if share > 0 else 0
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(p + abs(share) * (end - p)):02X}" for p in parts)


# Colours of fronts after Paul Tol's vibrant scheme, told apart under colour blindness; all those of
# Generalist are in warm ones.
_WARM = ("#CC3311", "#EE7733", "#AA4499")
_COLD = ("#0077BB", "#009988", "#33BBEE", "#555555", "#117733", "#999933", "#332288", "#882255")
_MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">")


def front_looks(planes: Sequence[FrontPlane]) -> Mapping[str, tuple[str, str, Any]]:
    """Colour, marker and dashes of each front by its name, alike in all planes; Generalist's are
    diamonds in warm colours."""
    looks: dict[str, tuple[str, str, Any]] = {}
    warm = cold = 0
    for front in (front for plane in planes for front in plane.fronts):
        if front.name in looks:
            continue
        if front.family == GENERALIST:
            looks[front.name] = _WARM[warm % len(_WARM)], "D", DASHES[warm % len(DASHES)]
            warm += 1
        else:
            marker = _MARKERS[cold % len(_MARKERS)]
            looks[front.name] = _COLD[cold % len(_COLD)], marker, DASHES[cold % len(DASHES)]
            cold += 1
    return looks
