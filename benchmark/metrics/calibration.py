"""Whether confidence says how often a network is right, on clean images and under attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from benchmark.attacks.folding import folded_if_same
from benchmark.attacks.pgd import pgd
from benchmark.core.crafting import crafting
from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.metrics.attacked import pgd_name, pgd_title, pgd_words
from benchmark.metrics.metric import FORWARD, Context, Measured, Metric


class Calibration(Metric):
    """Expected calibration error, sum_b (n_b / n) |accuracy_b - confidence_b|.

    Bins b have equal width in the largest softmax probability (Guo et al., 1706.04599, section 2).
    A smaller figure is better.

    With a threat model every image is attacked by PGD from a uniform start and judged at the last
    iterate, whether or not the network was right on it when clean: a network that is confident on
    adversarial images has a large error.

    Attributes:
        bins: 15 in the paper.
        threat: of the attack; None for clean images.
    """

    kind: Literal["calibration"] = "calibration"
    bins: int = Field(default=15, ge=1, le=1000)
    threat: ThreatModel | None = None

    per_image = False
    higher_is_better = False

    @property
    def base_name(self) -> str:
        """``calibration``, or such as calibration_pgd20_linf under attack."""
        return f"calibration_{pgd_name(self.threat)}" if self.threat else "calibration"

    @property
    def base_title(self) -> str:
        """``ECE``, or such as ECE, PGD-20."""
        return f"ECE, {pgd_title(self.threat)}" if self.threat else "ECE"

    @property
    def ball(self) -> tuple[NormName, Pixels] | None:
        """See ``Metric.ball``."""
        return (self.threat.norm, self.threat.eps) if self.threat else None

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        generator = torch.Generator(device=setup.device).manual_seed(self.seed)
        confidences, hits = [], []
        with crafting(context.model), setup.progress.task(context.label(self), len(indices)) as t:
            crafted_on = None
            for _, x, y in setup.batches(indices):
                if self.threat is not None:
                    crafted_on = crafted_on or folded_if_same(context.model, x)
                    x = pgd(crafted_on, x, y, self.threat, generator=generator)
                with torch.no_grad():
                    confidence, predicted = context.model(x).float().softmax(1).max(1)
                confidences.append(confidence.double().cpu())
                hits.append((predicted == y).cpu())
                t.advance(len(y))
        confidence, right = torch.cat(confidences), torch.cat(hits)
        value = expected_calibration_error(confidence, right, self.bins)
        detail: dict[str, Any] = {
            "bins": self.bins,
            "accuracy": float(right.double().mean()),
            "confidence": float(confidence.mean()),
        }
        if self.threat is not None:
            detail["threat"] = self.threat.model_dump(mode="json")
        return Measured(indices, value, detail=detail)

    def passes(self, images: int) -> float:
        """A forward pass per image, and one gradient pass per step of the attack."""
        return self.count(images) * (FORWARD + (self.threat.steps if self.threat else 0))

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        attack = f", {pgd_words(self.threat)}" if self.threat else ""
        return f"expected calibration error, {self.bins} bins of equal width{attack}"


def expected_calibration_error(confidence: Tensor, right: Tensor, bins: int) -> float:
    """Of n predictions.

    Args:
        confidence: float [n] in [0, 1], the largest softmax probability; a bin holds its upper
            edge.
        right: bool [n].
    """
    chosen = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add(
        0, chosen, right.double() - confidence.double()
    )
    return float(gap.abs().sum() / len(right))
