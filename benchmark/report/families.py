"""Families of methods: methods of one kind are drawn alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.records.study import CellRecord
from benchmark.report.study_model import Family, Table

# Colours: Okabe and Ito, told apart under colour blindness.
SINGLE = Family("single objective", "#0072B2", "o")
JOINT = Family("joint objectives", "#009E73", "s")
ENSEMBLE = Family("ensemble or average", "#B8860B", "^")
GENERALIST = Family("Generalist", "#D55E00", "D")
NATURAL = Family("natural", "#555555", "v")
OTHER = Family("other", "#CC79A7", "P")
FAMILIES = {f.name: f for f in (SINGLE, JOINT, ENSEMBLE, GENERALIST, NATURAL, OTHER)}

# Of the learners of a method that mixes.
LEARNER_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B8860B", "#555555")
# Members of a family differ by line style where lines are drawn; matplotlib's dash patterns.
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)))


def family_of(cells: Sequence[CellRecord], label: str) -> Family:
    """The family that the records of a method's runs name; one that has no look of its own here is
    drawn like "other", under its own name."""
    name = next((str(f) for c in cells if (f := getattr(c, "family", None))), None)
    if name is None:
        return _guessed(cells[0].method if cells else label)
    return FAMILIES.get(name, Family(name, OTHER.colour, OTHER.marker))


def _guessed(method: str) -> Family:
    """The family of a registered method that does not say it, by the beginning of its name."""
    beginnings = {
        GENERALIST: ("generalist",),
        NATURAL: ("natural", "standard"),
        JOINT: ("joint", "max", "avg", "msd", "sat", "e-at", "iat", "multi-norm", "ramp"),
        ENSEMBLE: (
            "ensemble", "output-ensemble", "weight", "ema", "swa", "seat", "soup", "interpol",
        ),
        SINGLE: ("pgd", "at", "trades", "mart", "fat", "awp", "fgsm", "hat", "lbgat", "rst"),
    }  # fmt: skip
    name = method.lower().replace("_", "-")
    for group, starts in beginnings.items():
        if any(name == start or name.startswith((f"{start}-", f"{start}+")) for start in starts):
            return group
    return OTHER


def families(table: Table) -> list[Family]:
    """The families of a table's methods, each once."""
    return list(dict.fromkeys(row.family for row in table.rows))


def line_styles(table: Table) -> Mapping[str, Any]:
    """The line style of each method; members of a family differ."""
    counts: dict[str, int] = {}
    styles = {}
    for row in table.rows:
        number = counts.get(row.family.name, 0)
        styles[row.method] = DASHES[number % len(DASHES)]
        counts[row.family.name] = number + 1
    return styles
