"""The leaderboard as one HTML page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import exact
from benchmark.report.leaderboard import SIZES, LeaderboardEntry, size_class
from benchmark.report.page import rendered
from benchmark.report.texts import NORMS

# Attribute of a row to the filter's label.
FILTERS = {
    "whose": "Figures",
    "dataset": "Data set",
    "norm": "Norm",
    "eps": "eps",
    "attack": "Attack",
    "size": "Network",
    "extra": "Extra data",
}
_WHOSE = {True: "ours", False: "published"}


@dataclass(frozen=True)
class Filter:
    """A choice above the table.

    Attributes:
        options: value of the row's attribute, and how it reads.
        chosen: the value at first; "" for all.
    """

    key: str
    label: str
    options: tuple[tuple[str, str], ...]
    chosen: str


def leaderboard_html(entries: Sequence[LeaderboardEntry]) -> str:
    """leaderboard.html.

    Raises:
        BenchmarkError: there is no entry of ours.
    """
    ours = [entry for entry in entries if entry.ours]
    if not ours:
        raise BenchmarkError("no attack on these networks is on record; see evaluate")
    rows = sorted(entries, key=lambda e: -e.robust)
    return rendered(
        "leaderboard.html",
        ("table.js", "leaderboard.js"),
        rows=[(entry, attributes(entry)) for entry in rows],
        filters=_filters(entries, ours),
        answer=_answer(entries, ours),
        norms=NORMS,
        number=_number,
    )


def attributes(entry: LeaderboardEntry) -> dict[str, str]:
    """What a row is filtered by."""
    return {
        "whose": _WHOSE[entry.ours],
        "dataset": entry.dataset,
        "norm": entry.norm or "none",
        "eps": entry.eps or "none",
        "attack": entry.attack,
        "size": size_class(entry.parameters),
        "extra": entry.extra or "unknown",
    }


def _filters(entries: Sequence[LeaderboardEntry], ours: Sequence[LeaderboardEntry]) -> list[Filter]:
    first = _first_view(ours)
    found = []
    for key, label in FILTERS.items():
        values = {attributes(entry)[key] for entry in entries}
        options = tuple(
            (v, _in_words(key, v)) for v in sorted(values, key=lambda v: _order(key, v))
        )
        found.append(Filter(key, label, options, first.get(key, "")))
    return found


def _first_view(ours: Sequence[LeaderboardEntry]) -> dict[str, str]:
    """Rows that can be ranked: of one data set, norm, radius and attack, those of which we have
    most; AutoAttack where we have it."""
    reference = [e for e in ours if e.attack == "AutoAttack"] or list(ours)
    counts = Counter((e.dataset, e.norm, e.eps, e.attack) for e in reference)
    entry = max(reference, key=lambda e: counts[e.dataset, e.norm, e.eps, e.attack])
    return {k: v for k, v in attributes(entry).items() if k in ("dataset", "norm", "eps", "attack")}


def _order(key: str, value: str) -> tuple[int, str]:
    sizes = [name for _, name in SIZES]
    if key == "size":
        return (sizes.index(value) if value in sizes else len(sizes) + (value == "unknown"), value)
    return (value in ("none", "unknown"), value.lower())


def _number(eps: str) -> str:
    """What sorts a radius; "" where there is none."""
    try:
        return f"{float(exact(eps)):.6g}" if eps else ""
    except (ValueError, ZeroDivisionError):
        return ""


def _in_words(key: str, value: str) -> str:
    if key == "norm":
        return NORMS.get(value, value)
    if key == "extra":
        return {"unknown": "not stated"}.get(value, value)
    return value


def _answer(entries: Sequence[LeaderboardEntry], ours: Sequence[LeaderboardEntry]) -> str:
    studies = len({entry.origin for entry in ours})
    return (
        f"{len(ours):,} robust accuracies of ours, from {studies} "
        f"record{'' if studies == 1 else 's'}, beside {len(entries) - len(ours):,} published ones."
    )
