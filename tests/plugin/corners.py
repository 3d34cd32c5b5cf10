"""An attack as a metric of one's own: random corners of the l_inf ball."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field

from benchmark.core.crafting import crafting
from benchmark.core.threat import NormName, Pixels
from benchmark.metrics.metric import FORWARD, Context, Measured, Metric


class Corners(Metric):
    """Right on the image itself and on x + eps * s for several random sign patterns s.

    A baseline without gradients: what it breaks, any attack should break.

    Attributes:
        eps: radius, pixels in [0, 1].
        tries: sign patterns for each image.
    """

    kind: Literal["corners"] = "corners"
    eps: Pixels = Pixels("8/255")
    tries: int = Field(default=10, ge=1)

    role = "attack"

    @property
    def base_name(self) -> str:
        return f"corners{self.tries}_linf"

    @property
    def ball(self) -> tuple[NormName, Pixels]:
        return "linf", self.eps

    def measure(self, context: Context) -> Measured:
        indices, right = self.indices(context.setup), []
        generator = torch.Generator().manual_seed(self.seed)
        with crafting(context.model), torch.no_grad():
            for _, x, y in context.setup.batches(indices):
                robust = context.model(x).argmax(1) == y
                for _ in range(self.tries):
                    signs = torch.rand(x.shape, generator=generator).sub(0.5).sign().to(x.device)
                    moved = (x + float(self.eps) * signs).clamp(0, 1)
                    robust &= context.model(moved).argmax(1) == y
                right.append(robust.cpu())
        return self.whole(indices, torch.cat(right), {"eps": str(self.eps), "tries": self.tries})

    def passes(self, images: int) -> float:
        return FORWARD * self.count(images) * (1 + self.tries)

    def describe(self, detail: Mapping[str, Any]) -> str:
        return f"linf, eps {detail['eps']}, {detail['tries']} random corners, seed {self.seed}"
