"""Robustness to rotations and translations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch

from benchmark.attacks.spatial import SpatialGrid, spatial_robust
from benchmark.core.crafting import crafting
from benchmark.metrics.metric import FORWARD, Context, Measured, Metric, sentence

_WORDS = {
    "points": "every one of {} rotations and translations",
    "seed": "seed {}",
    "bn_mode": "BatchNorm in {} mode",
}


class Spatial(Metric):
    """Right at every rotation and translation of a grid (Engstrom et al., 1712.02779).

    Attributes:
        grid: the angles and shifts to try.
    """

    kind: Literal["spatial"] = "spatial"
    grid: SpatialGrid = SpatialGrid()

    role = "attack"
    count_option = "--n-aa"

    @property
    def base_title(self) -> str:
        """See ``Metric.base_title``."""
        return "Rotation"

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        robust = torch.zeros(len(indices), dtype=torch.bool)
        work, done = len(indices) * len(self.grid), 0
        with crafting(context.model), setup.progress.task(context.label(self), work) as task:
            for _, x, y in setup.batches(indices):
                advance = partial(task.advance, len(y))
                found = spatial_robust(context.model, x, y, self.grid, advance)
                robust[done : done + len(y)] = found.cpu()
                done += len(y)
        detail = {"grid": self.grid.model_dump(mode="json"), "points": len(self.grid)}
        return self.whole(indices, robust, detail)

    def passes(self, images: int) -> float:
        """A forward pass per image and point of the grid."""
        return FORWARD * self.count(images) * len(self.grid)

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return sentence(detail, _WORDS)
