"""Accuracy on clean test images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmark.metrics.metric import FORWARD, Context, Measured, Metric, sentence
from benchmark.metrics.outcomes import clean_outcomes


class Clean(Metric):
    """Accuracy on clean test images."""

    kind: Literal["clean"] = "clean"

    role = "clean"

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        with setup.progress.task(context.label(self), len(indices)) as task:
            right = clean_outcomes(
                context.model,
                setup.data.test,
                indices,
                batch_size=setup.batch_size,
                device=setup.device,
                advance=task.advance,
            )
        return self.whole(indices, right, {})

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return sentence(detail, {"bn_mode": "BatchNorm in {} mode"})

    def passes(self, images: int) -> float:
        """One forward pass per image."""
        return FORWARD * self.count(images)
