"""How cost grows: with the batch, the number of images, of learners and of attack steps."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmark.core.threat import ThreatModel
from benchmark.metrics.outcomes import pgd_outcomes
from benchmark.speed.clock import Clock, Work, interleaved
from benchmark.speed.setting import Bench

LEARNERS = (1, 2, 4, 7, 10)
STEPS = (1, 2, 5, 10, 20)
_PROGRESS = 0.9


@dataclass(frozen=True)
class Growth:
    """Seconds of one call at one value of what grows.

    Attributes:
        axis: ``batch`` and ``steps`` (of the attack; a pgd-at step), ``images`` (PGD-20),
            ``learners`` (a step of Generalist whose learners are all pgd-at).
        per_unit: seconds divided by the value.
    """

    model: str
    axis: str
    value: int
    seconds: float
    per_unit: float


def growth(bench: Bench, repeats: int, clock: Clock) -> list[Growth]:
    """All axes, interleaved."""
    ways: dict[tuple[str, int], Work] = {}
    for share in (8, 4, 2, 1):
        size = max(2, bench.batch_size // share)
        ways["batch", size] = _step(bench, "pgd-at", size)
    for steps in STEPS:
        threat = {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": steps}
        ways["steps", steps] = _step(bench, {"name": "pgd-at", "threat": threat})
    for count in LEARNERS:
        ways["learners", count] = _step(bench, _generalist(count))
    most = bench.evaluated
    ways |= {("images", n): _evaluation(bench, n) for n in (most // 4, most // 2, most)}
    for work in ways.values():
        work()
    named = {f"{axis} {value}": work for (axis, value), work in ways.items()}
    seconds = interleaved(named, repeats, clock)
    return [
        Growth(bench.model, axis, value, taken, taken / value)
        for (axis, value) in ways
        for taken in [median(seconds[f"{axis} {value}"])]
    ]


def _generalist(count: int) -> dict[str, Any]:
    learners = [{"name": f"linf{i}", "objective": {"name": "pgd-at"}} for i in range(count)]
    return {"name": "generalist", "learners": learners}


def _step(bench: Bench, recipe: Any, size: int | None = None) -> Work:
    method = bench.method(recipe)
    x, y = (part[: size or bench.batch_size] for part in bench.batch)
    return lambda: method.update((x, y), _PROGRESS)


def _evaluation(bench: Bench, n: int) -> Work:
    """PGD-20 at a radius at which it breaks no image."""
    model = bench.method("natural").deployed().eval()
    split, _, _ = bench.predicted(model)
    settings = {"norm": "linf", "eps": "0.001/255", "step": "0.0001/255", "steps": 20}
    threat = ThreatModel.model_validate(settings)
    return lambda: pgd_outcomes(
        model,
        split,
        torch.arange(n),
        threat,
        seed=0,
        batch_size=max(1, bench.evaluated // 4),
        device=bench.device,
        precision=bench.precision,
    )
