"""Records of evaluations that RobustBench's boards would take."""

from __future__ import annotations

from typing import Any

from made_entries import evaluation_of, made


def autoattack(norm: str, eps: str, n: int = 10_000, **detail: object) -> dict[str, Any]:
    found = {
        "norm": norm,
        "eps": eps,
        "version": "standard",
        "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"],
        "targets": {"apgd-t": 9, "fab-t": 9},
        "warnings": [],
        "versions": {"pyautoattack": "0.2.0"},
        **detail,
    }
    settings = {"kind": "autoattack", "norm": norm, "eps": eps}
    return made(settings, found, n=n, correct=n // 2)


def corruptions(n: int = 10_000, mean: float = 0.7) -> dict[str, Any]:
    detail = {"source": "published", "severities": [1, 2, 3, 4, 5], "per_corruption": {}}
    return made({"kind": "corruptions"}, detail, n=n, correct=None, mean=mean)


def evaluation(n: int = 10_000, **metrics: dict[str, Any]) -> dict[str, Any]:
    """A record that every board of ``n`` images takes, if it takes the metrics."""
    found = {
        "clean": made({"kind": "clean"}, n=n, correct=n),
        "aa_linf": autoattack("linf", "8/255" if n == 10_000 else "4/255", n),
        "aa_l2": autoattack("l2", "128/255", n),
        "corruptions": corruptions(n),
        **metrics,
    }
    return evaluation_of(found, images=n)
