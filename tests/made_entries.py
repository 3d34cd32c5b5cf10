"""Entries of evaluation records as the evaluator writes them, with made-up figures."""

from __future__ import annotations

from typing import Any

from benchmark.metrics.metric import make_metric

Entry = dict[str, Any]


def made(settings: dict[str, Any], detail: dict[str, Any] | None = None, **figures: Any) -> Entry:
    """The entry of the metric ``settings``, with ``figures`` such as n, correct and mean."""
    seed = {"seed": settings.get("seed", 0), "bn_mode": "eval"}
    return {
        **make_metric(settings).about({**seed, **(detail or {})}),
        "outcomes": "test",
        **figures,
    }
