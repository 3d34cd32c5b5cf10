"""What identifies a measurement, so that a table never mixes two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core.config import config_hash


def metric_key(metric: Mapping[str, Any], model_hash: str, data_fingerprint: str) -> str:
    """The hash of a metric's settings, the weights and the test images.

    Args:
        metric: the metric's configuration as JSON values.
    """
    return config_hash({"metric": dict(metric), "model": model_hash, "data": data_fingerprint})


def is_current(
    entry: Mapping[str, Any], metric: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> bool:
    """Whether ``entry`` of the record ``evaluation`` was measured under the settings ``metric``."""
    data = (evaluation.get("dataset") or {}).get("fingerprint", "")
    key = metric_key(metric, str(evaluation.get("model_hash", "")), str(data))
    return bool(entry.get("key") == key)
