"""The held-out images that a method may look at."""

from __future__ import annotations

from typing import Any

import torch
from tiny_suites import tiny_cell, tiny_data

from benchmark.metrics.outcomes import sample
from benchmark.training.build import build_method


def test_methods_are_given_the_images_that_validation_measures() -> None:
    """Protects: never test images, nor training ones; the same at every call, not augmented."""
    data, cpu = tiny_data(), torch.device("cpu")
    cell = tiny_cell(methods=["cfa"], train={"validation_images": 5})
    method: Any = build_method(cell.config, data, cpu)
    rows = sample(len(data.val), 5, seed=0)
    for _ in range(2):
        parts = list(method._setting.held_out())
        x, y = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        torch.testing.assert_close(x, data.val.images[rows] / 255)  # type: ignore[union-attr]
        assert torch.equal(y, data.val.labels[rows])
