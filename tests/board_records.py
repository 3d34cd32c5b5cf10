"""Records of evaluations that RobustBench's boards would take."""

from __future__ import annotations

from typing import Any


def autoattack(norm: str, eps: str, n: int = 10_000, **detail: object) -> dict[str, Any]:
    return {
        "kind": "autoattack",
        "n": n,
        "correct": n // 2,
        "mean": 0.5,
        "detail": {
            "norm": norm,
            "eps": eps,
            "seed": 0,
            "version": "standard",
            "attacks": ["apgd-ce", "apgd-t", "fab-t", "square"],
            "targets": {"apgd-t": 9, "fab-t": 9},
            "warnings": [],
            "versions": {"pyautoattack": "0.2.0"},
            **detail,
        },
    }


def evaluation(n: int = 10_000, **metrics: dict[str, Any]) -> dict[str, Any]:
    """A record that every board of ``n`` images takes, if it takes the metrics."""
    clean = {"kind": "clean", "n": n, "correct": n, "mean": 1.0, "detail": {"seed": 0}}
    corruptions = {
        "kind": "corruptions",
        "n": n,
        "correct": None,
        "mean": 0.7,
        "detail": {"source": "published", "severities": [1, 2, 3, 4, 5]},
    }
    return {
        "metrics": {
            "clean": clean,
            "aa_linf": autoattack("linf", "8/255" if n == 10_000 else "4/255", n),
            "aa_l2": autoattack("l2", "128/255", n),
            "corruptions": corruptions,
            **metrics,
        },
        "dataset": {"images": n, "limit": None},
        "reliability": {"images": 64, "findings": []},
    }
