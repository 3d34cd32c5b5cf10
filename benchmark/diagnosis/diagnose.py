"""Judges the signatures of failure of a finished run, from its records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import Pixels
from benchmark.diagnosis.finished import FINISHED
from benchmark.diagnosis.live import LIVE
from benchmark.diagnosis.signature import Attacked, Ball, RunHistory, Signature, Unjudged
from benchmark.records.files import RunFiles
from benchmark.records.study import CellRecord, nested

SIGNATURES: tuple[Signature, ...] = (*LIVE, *FINISHED)


@dataclass(frozen=True)
class Diagnosis:
    """The signatures of failure of a run, by the result of the check.

    Attributes:
        found: for the name of each signature that was found, its evidence and what to change.
        absent: names of signatures that were checked and not found.
        unjudged: for the name of each signature that could not be judged, the reason.
    """

    found: dict[str, tuple[str, str]]
    absent: tuple[str, ...]
    unjudged: dict[str, str]


def diagnose(cell: CellRecord) -> Diagnosis:
    """Judge every signature at the end of a run. A warning of training that no longer applies at
    the end is reported as such.

    Raises:
        BenchmarkError: a damaged configuration.
    """
    try:
        run = run_of(cell)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchmarkError(
            f"{RunFiles(cell.path).configuration} is damaged ({error}); delete the run's folder "
            "and run again"
        ) from error
    found: dict[str, tuple[str, str]] = {}
    unjudged: dict[str, str] = {}
    for signature in SIGNATURES:
        try:
            evidence = signature.judge(run)
        except Unjudged as reason:
            unjudged[signature.name] = str(reason)
            continue
        if evidence:
            found[signature.name] = evidence, signature.remedy
    remedies = {signature.name: signature.remedy for signature in SIGNATURES}
    for warning in cell.training.get("warnings") or ():
        name = warning["name"]
        if name not in found:
            evidence = f"at epoch {warning['epoch']:.4g}, no longer at the end: {warning['text']}"
            found[name] = evidence, remedies.get(name, "")
            unjudged.pop(name, None)
    absent = tuple(s.name for s in SIGNATURES if s.name not in {**found, **unjudged})
    return Diagnosis(found, absent, unjudged)


def run_of(cell: CellRecord) -> RunHistory:
    """The data on a run that its record holds."""
    validated = nested(cell.config, "train", "validation_threat")
    classes = len(nested(cell.evaluation, "dataset", "classes") or ())
    return RunHistory(
        lines=[
            {str(key): float(value) for key, value in row.items() if pd.notna(value)}
            for row in cell.curves.to_dict(orient="records")
        ],
        images=cell.validation_images,
        classes=classes or (cell.measured.classes if cell.measured else 0),
        tasks={
            learner["name"]: _ball(learner["objective"])
            for learner in nested(cell.config, "method", "recipe", "learners") or ()
        },
        validated=_ball(validated),
        attacked=[
            Attacked(
                name, Ball(entry["ball"][0], float(Pixels(entry["ball"][1]))), accuracy, entry["n"]
            )
            for name, entry in cell.metrics.items()
            if entry["role"] == "attack"
            and entry["ball"]
            and "checkpoint" not in entry
            and (accuracy := cell.accuracy(name)) is not None
        ],
        measured=cell.measured,
    )


def _ball(described: Any) -> Ball | None:
    """The first threat model in an objective or in the objectives inside it; None if there is
    none."""
    if not isinstance(described, Mapping):
        return None
    if {"norm", "eps"} <= described.keys():
        return Ball(described["norm"], float(Pixels(described["eps"])))
    found = (_ball(part) for part in described.values())
    return next((ball for ball in found if ball), None)
