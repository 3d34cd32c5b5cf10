"""A metric that is no accuracy: the expected calibration error."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from benchmark.core.crafting import crafting
from benchmark.metrics.metric import FORWARD, Context, Measured, Metric


class Calibration(Metric):
    """ECE: sum_b (n_b / n) |accuracy_b - confidence_b| over bins b of equal width in confidence.

    Guo et al., 1706.04599, section 2. A smaller one is better.

    Attributes:
        bins: 15 in the paper.
    """

    kind: Literal["ece"] = "ece"
    bins: int = Field(default=15, ge=1)

    per_image = False
    higher_is_better = False

    @property
    def base_title(self) -> str:
        return "ECE"

    def measure(self, context: Context) -> Measured:
        indices, confidences, hits = self.indices(context.setup), [], []
        with crafting(context.model), torch.no_grad():
            for _, x, y in context.setup.batches(indices):
                confidence, predicted = context.model(x).softmax(1).max(1)
                confidences.append(confidence.cpu())
                hits.append((predicted == y).cpu())
        confidence, right = torch.cat(confidences), torch.cat(hits).float()
        chosen = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        gap = torch.zeros(self.bins).index_add(0, chosen, right - confidence)
        return Measured(indices, float(gap.abs().sum() / len(indices)), detail={"bins": self.bins})

    def passes(self, images: int) -> float:
        return FORWARD * self.count(images)

    def describe(self, detail: Mapping[str, Any]) -> str:
        return f"expected calibration error, {detail['bins']} bins of equal width"
