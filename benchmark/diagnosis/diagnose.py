"""The signatures of failure of a finished run, from its records."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmark.diagnosis.live import LIVE
from benchmark.diagnosis.signature import Run, Signature, Unjudged
from benchmark.records.study import CellRecord, nested

SIGNATURES: tuple[Signature, ...] = LIVE


@dataclass(frozen=True)
class Diagnosis:
    """What was found out about a run.

    Attributes:
        found: name of each signature that was found, to its evidence and what to change.
        absent: names of those that were looked for and not found.
        unjudged: names of those that could not be judged, to the reason.
    """

    found: dict[str, tuple[str, str]]
    absent: tuple[str, ...]
    unjudged: dict[str, str]


def diagnose(cell: CellRecord) -> Diagnosis:
    """Judge every signature at the end of a run; what training warned of and is over by then is
    named as such."""
    run = run_of(cell)
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


def run_of(cell: CellRecord) -> Run:
    """What a record says of a run."""
    return Run(
        lines=[
            {str(key): float(value) for key, value in row.items() if pd.notna(value)}
            for row in cell.curves.to_dict(orient="records")
        ],
        images=cell.validation_images,
        classes=len(nested(cell.evaluation, "dataset", "classes") or ()),
        recipe=nested(cell.config, "method", "recipe") or {},
    )
