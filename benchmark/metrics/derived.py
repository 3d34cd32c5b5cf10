"""Metrics that are computed from the outcomes of others; nothing is attacked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmark.core.config import config_hash
from benchmark.core.errors import BenchmarkError
from benchmark.metrics.metric import Context, Metric, Setup
from benchmark.records.outcomes import columns_of


class Derived(Metric):
    """Computed from its ``parts``, which are measured before it."""

    n: None = None
    # A derived metric draws no random numbers; its parts have seeds.
    seed: Literal[0] = 0

    per_image = False

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: its parts, of which none may have been replaced since."""
        return config_hash({"parts": [record.get(name, {}).get("key") for name in self.parts]})

    def check_measured(self, context: Context) -> None:
        """Raise BenchmarkError if a part has no outcomes on the test images yet."""
        for name in self.parts:
            if not columns_of(context.outcomes, name):
                raise BenchmarkError(
                    f"{self.name} is computed from {name}, which is not measured yet; measure it "
                    f"first (--metric {name})"
                )

    def passes(self, images: int) -> float:
        """Nothing: it is computed from outcomes."""
        return 0.0
