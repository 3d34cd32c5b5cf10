"""Panels: evaluations by name."""

from __future__ import annotations

from benchmark.core.threat import Pixels, ThreatModel, exact
from benchmark.suites.metrics import (
    AutoAttackMetric,
    CleanMetric,
    CorruptionsMetric,
    Metric,
    PGDMetric,
)


def standard_panel(
    eps_linf: str = "8/255", eps_l2: str = "128/255", n: int | None = None, n_aa: int | None = 1000
) -> tuple[Metric, ...]:
    """Clean, PGD-20 l_inf (step eps/4, as 2/255 for 8/255), PGD-20 l_2 (step eps/8), AutoAttack,
    corruptions."""
    linf, l2 = Pixels(eps_linf), Pixels(eps_l2)
    return (
        CleanMetric(n=n),
        PGDMetric(
            name="pgd20_linf",
            n=n,
            threat=ThreatModel(
                norm="linf", eps=linf, step=Pixels(str(exact(linf.text) / 4)), steps=20
            ),
        ),
        PGDMetric(
            name="pgd20_l2",
            n=n,
            threat=ThreatModel(norm="l2", eps=l2, step=Pixels(str(exact(l2.text) / 8)), steps=20),
        ),
        AutoAttackMetric(name="aa_linf", n=n_aa, eps=linf),
        CorruptionsMetric(n=n),
    )
