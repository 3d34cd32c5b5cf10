"""What identifies a measurement, and whether its figures are those of its images: a table never
mixes two, and never shows a damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmark.core.config import config_hash

if TYPE_CHECKING:
    import pandas as pd


def metric_key(
    metric: Mapping[str, Any], model: str, data: str, function: str | None = None
) -> str:
    """The hash of a metric's settings, the weights, their function and the images.

    Args:
        metric: the metric's configuration as JSON values.
        model: hash of the weights.
        data: hash of the images.
        function: what the code makes of the weights, see ``identity``; None where it is unknown.
    """
    settings = config_hash(dict(metric))
    return config_hash({"settings": settings, "model": model, "function": function, "data": data})


def is_current(entry: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    """Whether ``entry`` of a record was measured under the settings ``metric``."""
    model, data = str(entry.get("model", "")), str(entry.get("data", ""))
    return bool(entry.get("key") == metric_key(metric, model, data, entry.get("function")))


def weights(evaluation: Mapping[str, Any]) -> list[str]:
    """The hashes of the weights that the record ``evaluation`` has figures of."""
    entries = evaluation.get("metrics", {}).values()
    return list(dict.fromkeys(str(e["model"]) for e in entries if e.get("model")))


def images_of(evaluation: Mapping[str, Any]) -> str:
    """What identifies the test images of the record ``evaluation``; "" if it does not say."""
    dataset = evaluation.get("dataset") or {}
    return str(dataset.get("images_hash") or dataset.get("fingerprint") or "")


def contradiction(metrics: Mapping[str, Any], outcomes: pd.DataFrame) -> str:
    """Which figure of the record ``metrics`` is not that of its column of ``outcomes``; "" if none.

    Means over several outcomes per image and estimates state no count, and are not checked.
    """
    for name, entry in metrics.items():
        if entry.get("correct") is None or name not in outcomes:
            continue
        column = outcomes[name].dropna()
        found, said = (len(column), int(column.sum())), (entry["n"], entry["correct"])
        mean = entry.get("mean", said[1] / said[0])
        if found != said or abs(mean - said[1] / said[0]) > 1e-6:
            return f"{name} is {found[1]} of {found[0]} by image, {said[1]} of {said[0]} on record"
    return ""
