"""What identifies a measurement, and whether its figures are those of its images: a table never
mixes two, and never shows a damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmark.core.config import config_hash

if TYPE_CHECKING:
    import pandas as pd


def metric_key(metric: Mapping[str, Any], model_hash: str, data_fingerprint: str) -> str:
    """The hash of a metric's settings, the weights and the test images.

    Args:
        metric: the metric's configuration as JSON values.
    """
    return config_hash({"metric": dict(metric), "model": model_hash, "data": data_fingerprint})


def is_current(
    entry: Mapping[str, Any], metric: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> bool:
    """Whether ``entry`` of the record ``evaluation`` was measured under the settings ``metric``.

    An entry of another checkpoint than the record's states its own ``model_hash``.
    """
    data = (evaluation.get("dataset") or {}).get("fingerprint", "")
    model = entry.get("model_hash") or evaluation.get("model_hash", "")
    key = metric_key(metric, str(model), str(data))
    return bool(entry.get("key") == key)


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
