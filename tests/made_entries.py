"""Evaluation records as the evaluator writes them, with made-up figures."""

from __future__ import annotations

from typing import Any

from benchmark.metrics.metric import make_metric
from benchmark.records.keys import metric_key
from benchmark.records.schema import Entry as EntryForm
from benchmark.records.schema import Evaluation

Entry = dict[str, Any]

# Hashes of the weights, of their function and of the images.
MODEL, FUNCTION, DATA = "beef", "fade", "f00d"


def made(settings: dict[str, Any], detail: dict[str, Any] | None = None, **figures: Any) -> Entry:
    """The entry of the metric ``settings``, with ``figures`` such as n, correct and mean."""
    metric = make_metric(settings)
    n, correct = figures.get("n", 1), figures.get("correct")
    entry = {
        "key": metric_key(metric.settings(), MODEL, DATA, FUNCTION),
        "model": MODEL,
        "function": FUNCTION,
        "data": DATA,
        **metric.about({"seed": metric.seed, "bn_mode": "eval", **(detail or {})}),
        "outcomes": "test",
        "n": n,
        "correct": correct,
        "mean": 0.0 if correct is None else correct / n,
        "seconds": 1.0,
        **figures,
    }
    EntryForm.model_validate(entry)
    return entry


def evaluation_of(metrics: dict[str, Entry], **dataset: Any) -> dict[str, Any]:
    """The content of an evaluation.json with ``metrics``; ``dataset`` changes what it says of the
    test images."""
    probe = {"weights": MODEL, "source": "", "logits": [0.5], "gradient": [0.25]}
    record = {
        "metrics": metrics,
        "dataset": {
            "name": "cifar10",
            "fingerprint": DATA,
            "images_hash": DATA,
            "source": "made up",
            "split": "test",
            "images": 10_000,
            "size": 32,
            "classes": [str(number) for number in range(10)],
            "notes": [],
            "limit": None,
            **dataset,
        },
        "functions": {FUNCTION: probe},
        "reliability": {"images": 64, "checked": [FUNCTION], "findings": []},
    }
    Evaluation.model_validate(record)
    return record
