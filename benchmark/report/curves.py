"""What the runs recorded while training, by epoch, together for the seeds of a method."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmark.records.study import CellRecord, SuiteRecord
from benchmark.report.study_model import SeedCurve

VALIDATION = ("val_clean", "val_pgd")
# Robust overfitting (2002.11569): PGD accuracy on training images less that on held-out ones.
GAP = ("gap_pgd", "train_pgd", "val_pgd")
# In the records ``mix/LEARNER``: weight in the mix; ``distance/LEARNER``: from the global learner.
MIXING = ("mix", "distance")


def curve_of(suite: SuiteRecord, method: str, key: str) -> SeedCurve | None:
    """The curve of a recorded quantity; None if no run has it, or if no epoch is common to all.

    A distance of exactly zero was taken right after a redistribution and is left out: it says
    nothing of how far learners part.
    """
    seeds = {c.seed: curve for c in suite.of(method) if (curve := _curve(c, key)) is not None}
    if not seeds:
        return None
    # only epochs that every seed reached: a mean over fewer would jump
    table = pd.concat(list(seeds.values()), axis=1, join="inner").sort_index()
    if key.startswith("distance/"):
        table = table[table.mean(axis=1) > 0]
    if not len(table):
        return None
    return SeedCurve(
        epochs=_floats(table.index),
        mean=_floats(table.mean(axis=1)),
        low=_floats(table.min(axis=1)),
        high=_floats(table.max(axis=1)),
        seeds={seed: (_floats(curve.index), _floats(curve)) for seed, curve in seeds.items()},
    )


def _curve(cell: CellRecord, key: str) -> pd.Series | None:
    """A run's values by epoch, the last of an epoch; None if it has none."""
    gap, more, less = GAP
    if key == gap:
        parts = [_curve(cell, part) for part in (more, less)]
        return None if parts[0] is None or parts[1] is None else (parts[0] - parts[1]).dropna()
    if not {key, "epoch"} <= set(cell.curves.columns):
        return None
    curve = cell.curves.set_index("epoch")[key].dropna()
    return curve[~curve.index.duplicated(keep="last")]


def _floats(values: pd.Series | pd.Index) -> tuple[float, ...]:
    return tuple(map(float, values))


def validation_curves(suite: SuiteRecord) -> Mapping[str, Mapping[str, SeedCurve]]:
    """Keys of ``VALIDATION``, and of the gap to training images, to the curves of the methods that
    have them."""
    found = {
        key: {m: curve for m in suite.methods if (curve := curve_of(suite, m, key))}
        for key in (*VALIDATION, GAP[0])
    }
    return {key: curves for key, curves in found.items() if curves}


def mixing_curves(suite: SuiteRecord) -> Mapping[str, Mapping[str, Mapping[str, SeedCurve]]]:
    """Method to kind of ``MIXING`` to the curves of its learners; methods that mix alone."""
    data = {}
    for method in suite.methods:
        keys = dict.fromkeys(k for c in suite.of(method) for k in map(str, c.curves.columns))
        found: dict[str, dict[str, SeedCurve]] = {kind: {} for kind in MIXING}
        for key in keys:
            kind, _, learner = key.partition("/")
            if kind in found and learner and (curve := curve_of(suite, method, key)):
                found[kind][learner] = curve
        if any(found.values()):
            data[method] = found
    return data
