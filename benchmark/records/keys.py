"""What identifies a measurement, so that no table mixes two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmark.core.config import config_hash


def metric_key(metric: Mapping[str, Any], model: str, data: str, function: str | None) -> str:
    """The hash of a metric's settings, the weights, their function and the images.

    Args:
        metric: the metric's configuration as JSON values.
        model: hash of the weights.
        data: hash of the images.
        function: hash of the function that the code computes with the weights; None if it was not
            recorded.
    """
    settings = config_hash(dict(metric))
    return config_hash({"settings": settings, "model": model, "function": function, "data": data})


def is_current(entry: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    """Whether ``entry`` of a record was measured with the settings ``metric``."""
    key = metric_key(metric, entry["model"], entry["data"], entry["function"])
    return bool(entry["key"] == key)


def weights(evaluation: Mapping[str, Any]) -> list[str]:
    """The hashes of the weights for which the record ``evaluation`` has figures; [] if none."""
    entries = evaluation.get("metrics", {}).values()
    return list(dict.fromkeys(str(entry["model"]) for entry in entries))


def images_of(evaluation: Mapping[str, Any]) -> str:
    """A hash of the test images of the record ``evaluation``; "" if a run has no record."""
    return str(evaluation["dataset"]["images_hash"]) if evaluation else ""
