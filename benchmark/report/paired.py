"""Paired tests over the images and seeds that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.records.statistics import Paired, paired_contrast
from benchmark.records.study import SuiteRecord, is_estimate, outcome_matrices

ALPHA = 0.05
# A difference below this would not be seen in print.
VISIBLE = 0.0005

MethodMetric = tuple[str, str]


@dataclass(frozen=True)
class Contrast:
    """A paired contrast and the outcomes of its terms, (seeds, images), nothing missing."""

    result: Paired
    parts: list[np.ndarray]

    @property
    def where(self) -> str:
        """ "n = 1000, 3 seeds"."""
        seeds = "1 seed" if self.result.seeds == 1 else f"{self.result.seeds} seeds"
        return f"n = {self.result.n}, {seeds}"


def shared_seeds(suite: SuiteRecord, columns: Sequence[MethodMetric]) -> list[int]:
    """The seeds of which every method was measured by its metric."""
    found = ({c.seed for c in suite.evaluated(method, x)} for method, x in columns)
    return sorted(set.intersection(*found))


def shared_outcomes(suite: SuiteRecord, columns: Sequence[MethodMetric]) -> list[np.ndarray] | None:
    """Each column's outcomes on the images, and of the seeds, that all columns have.

    Returns:
        One array (seeds, images) per column, nothing missing; None if there is no such seed or
        image, or outcomes are absent or those of a sample of survivors, or the runs were measured
        on different test sets.
    """
    seeds = shared_seeds(suite, columns)
    groups = [([c for c in suite.of(m) if c.seed in seeds], x) for m, x in columns]
    if not seeds or any(is_estimate(cell, x) for cells, x in groups for cell in cells):
        return None
    matrices = outcome_matrices(groups)
    if matrices is None:
        return None
    shared = ~np.isnan(np.stack(matrices)).any(axis=(0, 1))
    return [matrix[:, shared] for matrix in matrices] if shared.any() else None


def contrast(suite: SuiteRecord, terms: Sequence[tuple[float, str, str]]) -> Contrast | None:
    """Paired contrast of (weight, method, metric) terms over their common seeds and images.

    None where ``shared_outcomes`` has none.
    """
    found = shared_outcomes(suite, [(method, metric) for _, method, metric in terms])
    return None if found is None else contrast_of([weight for weight, _, _ in terms], found)


def contrast_of(weights: Sequence[float], parts: list[np.ndarray]) -> Contrast:
    """The contrast of outcomes that are at hand."""
    return Contrast(paired_contrast(list(zip(weights, parts, strict=True))), parts)


def points(value: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * value:.1f}".replace("-", "−")


def p_text(value: float) -> str:
    """ "p = 0.012"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
