"""Signatures of failure found in the runs of a study, see ``diagnosis``."""

from __future__ import annotations

from benchmark.diagnosis.diagnose import diagnose
from benchmark.records.study import SuiteRecord


def failure_lines(suite: SuiteRecord) -> list[str]:
    """A line per method and signature: in which runs, the evidence of the first, what to change."""
    lines = []
    for method in suite.methods:
        runs = [cell for cell in suite.of(method) if cell.training]
        found: dict[str, list[tuple[int, str, str]]] = {}
        for cell in runs:
            for name, (evidence, remedy) in diagnose(cell).found.items():
                found.setdefault(name, []).append((cell.seed, evidence, remedy))
        for name, cases in found.items():
            seed, evidence, remedy = cases[0]
            where = f" in {len(cases)} of {len(runs)} runs" if len(runs) > 1 else ""
            lines.append(f"{method}: {name}{where}. Seed {seed}: {evidence}. To change: {remedy}.")
    return lines
