"""Losses since the last line of the log, summed over images and processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmark.core.mesh import Mesh
from benchmark.core.method import Method


class LossSums:
    """The sum of each loss (by name) over the images since the last line of the log.

    Each process sums over the images that it trains on. The sums are tensors on the device, because
    reading a number waits for the device. ``totals`` and ``means`` are over all processes, so all
    processes must call them.
    """

    def __init__(self, method: Method, mesh: Mesh, device: torch.device) -> None:
        self._method, self._mesh, self._device = method, mesh, device
        self._sums: dict[str, Tensor] = {}
        # A learner may skip some steps, so the number of images is counted for each loss.
        self._images: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the mean losses of the current batch."""
        data = self._mesh.data
        # Over the processes that compute a loss, the weights must sum to the number of images. If
        # the batch is cut, each process counts its share; if not, each has the whole batch, and
        # counts one part in ``data.size``.
        weight = data.total * data.share / (1 if data.cut else data.size)
        for name, loss in losses.items():
            total = self._sums.get(name)
            self._sums[name] = loss * weight if total is None else total + loss * weight
            self._images[name] = self._images.get(name, 0) + data.total

    def totals(self) -> dict[str, tuple[float, int]]:
        """The sum and the number of images of each loss, in the order of the learners."""
        totals: dict[str, tuple[float, int]] = {}
        own = {name: (float(value), self._images[name]) for name, value in self._sums.items()}
        for part in self._mesh.ranks.gather(own):
            for name, (value, images) in part.items():
                total, known = totals.get(name, (0.0, 0))
                # All processes that train a learner have counted the same images. After a resume,
                # other processes know only the number at the checkpoint, so the largest is right.
                totals[name] = total + value, max(known, images)
        first = [f"loss/{name}" for name in self._method.learners]
        return {name: totals[name] for name in dict.fromkeys([*first, *totals]) if name in totals}

    def means(self) -> dict[str, float]:
        """The mean of each loss over its images."""
        return {name: total / images for name, (total, images) in self.totals().items()}

    def clear(self) -> None:
        """Start from zero, after a line of the log."""
        self._sums, self._images = {}, {}

    def restore(self, totals: Mapping[str, tuple[float, int]]) -> None:
        """Continue from ``totals``; the number of processes that saved them does not matter."""
        self._sums = {
            name: torch.tensor(total if self._continues(name) else 0.0, device=self._device)
            for name, (total, _) in totals.items()
        }
        self._images = {name: images for name, (_, images) in totals.items()}

    def _continues(self, name: str) -> bool:
        """Whether this process takes over the restored sum of a loss; exactly one process does."""
        learner = self._method.learners.get(name.removeprefix("loss/"))
        if learner is None:
            return self._mesh.ranks.first
        return learner.here and self._mesh.data.position == 0
