"""Published figures one by one: what was attacked how, and by whom it was reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.core.threat import exact
from benchmark.records.study import SuiteRecord, nested
from benchmark.report.published import plain, read_all
from benchmark.report.study_model import PublishedLayer

AUTOATTACK, CORRUPTIONS = "AutoAttack", "Corruptions"


@dataclass(frozen=True)
class PublishedFigure:
    """A network's accuracy under one attack, as others report it.

    Attributes:
        source: "RobustBench" or "Papers".
        origin: the repository or paper that states it.
        extra: trained on further data, "yes", "no" or "" where that is not stated.
        norm: of the attack as ours are called; "" for corruptions.
        eps: as it is written there; "" if it is not stated.
        attack: "AutoAttack", "PGD-20", "Corruptions", ...
        clean: in per cent, None where it is not stated; ``robust`` likewise in per cent.
        note: what a reader must know.
    """

    source: str
    origin: str
    name: str
    dataset: str
    architecture: str
    extra: str
    norm: str
    eps: str
    attack: str
    clean: float | None
    robust: float
    note: str


def published_figures() -> list[PublishedFigure]:
    """Every published figure of one attack, on any data set.

    Raises:
        BenchmarkError: a damaged file, or none installed.
    """
    tables = read_all()
    empty = pd.DataFrame()
    return [
        *_of_robustbench(tables.get("robustbench_leaderboard.csv", empty)),
        *_of_papers(tables.get("published_reference.csv", empty)),
        *_of_several_norms(tables.get("published_multinorm.csv", empty)),
    ]


def _of_robustbench(table: pd.DataFrame) -> Iterable[PublishedFigure]:
    for row in _rows(table):
        corrupted = row["threat_model"] == "corruptions"
        doubt = "marked unreliable there" if row["unreliable"] == "True" else ""
        yield from _figure(
            row["autoattack_acc"],
            source="RobustBench",
            origin="RobustBench/robustbench",
            name=row["model"],
            dataset=row["dataset"],
            architecture=row["architecture"],
            extra={"True": "yes", "False": "no"}.get(row["extra_data"], ""),
            norm="" if corrupted else row["threat_model"].lower(),
            eps="" if corrupted else row["eps"],
            attack=CORRUPTIONS if corrupted else AUTOATTACK,
            clean=_number(row["clean_acc"]),
            note=_note(row["venue"], doubt),
        )


def _of_papers(table: pd.DataFrame) -> Iterable[PublishedFigure]:
    for row in _rows(table):
        if row["source_repo"] == "RobustBench/robustbench":
            continue  # they are in the leaderboard's own file
        for column, attack in (("aa", AUTOATTACK), ("pgd20", "PGD-20"), ("pgd10", "PGD-10")):
            yield from _figure(
                row[column],
                source="Papers",
                origin=row["source_repo"],
                name=row["method"],
                dataset=row["dataset"],
                architecture=row["arch"],
                extra=row["extra_data"] if row["extra_data"] in ("yes", "no") else "",
                norm=row["norm"].lower(),
                eps=row["eps"],
                attack=attack,
                clean=_number(row["clean"]),
                note=_note(f"checkpoint: {row['checkpoint_rule']}", row["note"]),
            )


def _of_several_norms(table: pd.DataFrame) -> Iterable[PublishedFigure]:
    for row in _rows(table):
        for norm in ("linf", "l2", "l1"):
            yield from _figure(
                row[norm],
                source="Papers",
                origin=row["source_repo"],
                name=row["method"],
                dataset=row["dataset"],
                architecture=row["arch"],
                extra="",
                norm=norm,
                eps=row[f"eps_{norm}"],
                attack="Several attacks",
                clean=_number(row["clean"]),
                note=f"the worst of several attacks on {row['n_test']} images",
            )


def _rows(table: pd.DataFrame) -> list[dict[str, str]]:
    return [{str(key): str(v) for key, v in row.items()} for row in table.to_dict("records")]


def _figure(robust: str, **rest: Any) -> Iterable[PublishedFigure]:
    """The figure, if it is stated."""
    value = _number(robust)
    if value is not None:
        texts: dict[str, Any] = {
            k: v.replace("<br>", " ") if isinstance(v, str) else v for k, v in rest.items()
        }
        yield PublishedFigure(robust=value, **texts)


def _number(text: str) -> float | None:
    found = pd.to_numeric(text, errors="coerce")
    return None if pd.isna(found) else float(found)


def _note(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


# --- layers of a study's plots --------------------------------------------------------------------


def layers_beside(suite: SuiteRecord) -> tuple[PublishedLayer, ...]:
    """What was published on the study's data set under an attack of the study: the same attack, of
    the same norm and radius.

    Raises:
        BenchmarkError: a damaged file, or none installed.
    """
    found: dict[tuple[str, str], list[tuple[float, float, str, str]]] = {}
    ours = {metric: suite.entry(metric) for metric in suite.metrics()}
    for figure in published_figures():
        if plain(figure.dataset) != plain(suite.dataset) or figure.clean is None:
            continue
        extra = {"yes": "extra data", "no": "no extra data"}.get(figure.extra, "")
        about = _note(figure.architecture, extra, figure.origin, figure.note)
        for metric, entry in ours.items():
            if _same_attack(figure, entry):
                points = found.setdefault((figure.source, metric), [])
                points.append((figure.clean, figure.robust, figure.name, about))
    return tuple(
        PublishedLayer(source, suite.dataset, _threat(ours[metric]), metric, tuple(points))
        for (source, metric), points in found.items()
    )


def _same_attack(figure: PublishedFigure, entry: Mapping[str, Any]) -> bool:
    if attack_of(entry) != figure.attack or entry["form"]:
        return False
    if figure.attack == CORRUPTIONS:  # those that were made here are other images
        return nested(entry, "detail", "source") == "published"
    ball = entry["ball"]
    return bool(ball) and ball[0] == figure.norm and same_eps(ball[1], figure.eps)


def attack_of(entry: Mapping[str, Any]) -> str:
    """The kind of a metric as the published figures call it, e.g. "PGD-20"; "" for another."""
    if entry["kind"] == "pgd":
        return f"PGD-{nested(entry, 'settings', 'threat', 'steps')}"
    return {"autoattack": AUTOATTACK, "corruptions": CORRUPTIONS}.get(entry["kind"], "")


def same_eps(one: str, other: str) -> bool:
    """Whether two radii are the same; "0.031" is an older spelling of 8/255."""
    try:
        first, second = exact(one), exact(other)
    except (ValueError, ZeroDivisionError):
        return False
    return first == second or _rounded(one, second) or _rounded(other, first)


def _rounded(text: str, value: Any) -> bool:
    """Whether ``text`` is ``value`` written with the three or more decimals it has."""
    decimals = len(text.partition(".")[2])
    return "/" not in text and decimals >= 3 and f"{float(value):.{decimals}f}" == text


def _threat(entry: Mapping[str, Any]) -> str:
    """ "linf, eps 8/255"."""
    return f"{entry['ball'][0]}, eps {entry['ball'][1]}" if entry["ball"] else ""
