"""What a suite would cost: steps, gradient passes and an estimate of the time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark.attacks.folding import FoldedView
from benchmark.commands.gpus import Sustained
from benchmark.commands.left import is_trained, left_to_measure
from benchmark.commands.run import cell_directory
from benchmark.config.suite import SuiteConfig
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.metrics.metric import Metric
from benchmark.records.files import RunFiles
from benchmark.speed.clock import Clock
from benchmark.speed.passes import best_of, pass_work
from benchmark.training.build import build_method, cell_length, suite_network


def plan(
    suite: SuiteConfig,
    data: Dataset,
    out: Path,
    device: torch.device,
    metrics: Sequence[Metric],
    assumed: Sustained | None = None,
) -> list[dict[str, Any]]:
    """One row per cell: its state, its total cost in steps and passes, and the remaining time.

    Times are extrapolated from a few timed batches. The time of evaluation is an upper bound, as if
    every image were right and survived every attack.

    Args:
        metrics: the metrics to measure after training; a recorded metric counts as done.
        assumed: instead of timing this machine, count operations and divide them by the speed of
            this GPU. Then neither images nor weights are needed.

    Raises:
        ConfigError: see ``training_length``.
    """
    if assumed:
        device = torch.device("meta")
    rows = []
    seconds: tuple[float, float, float] | None = None
    for cell in suite.cells():
        directory = cell_directory(out, cell)
        length = cell_length(cell.config, len(data.train))
        with device if assumed else nullcontext():
            method = build_method(cell.config, data, device, length=length)
        if seconds is None:
            learners = list(method.learners.values())
            model = learners[0].model if learners else suite_network(cell.config, data, device)
            if assumed:
                model = model.to(device)
                craft, train = count_flop(model, data.image_size, data.channels)
                rates = assumed.training * 1e12, assumed.evaluation * 1e12
                seconds = craft / rates[0], train / rates[0], craft / rates[1]
            else:
                craft, train = _time_passes(model, data, suite.train.batch_size, device)
                seconds = craft, train, craft
        craft, train, attack = seconds
        # One training pass per learner at least; the rest is crafting.
        training = len(method.learners)
        per_image = training * train + max(0.0, method.passes - training) * craft
        state = _state(directory)
        left = left_to_measure(cell.config, directory, metrics)
        evaluation = sum(metric.passes(len(data.test)) for metric in left)
        rows.append(
            {
                "cell": cell.slug,
                "recipe": cell.config.recipe.recipe,
                "state": "evaluated" if state == "trained" and metrics and not left else state,
                "steps": length.steps,
                "passes_per_image": method.passes,
                "gradient_passes": length.images * method.passes,
                "train_seconds": 0.0 if state == "trained" else length.images * per_image,
                "evaluation_seconds_at_most": evaluation * attack * method.inference_passes,
            }
        )
    return rows


def _state(directory: Path) -> str:
    if is_trained(directory):
        return "trained"
    return "started" if RunFiles(directory).checkpoint.exists() else "new"


def count_flop(model: nn.Module, image_size: int, channels: int = 3) -> tuple[float, float]:
    """Operations per image of a crafting and of a training pass, of a model on ``meta``.

    A multiplication and an addition count as two; only convolutions and matrix products count.
    """
    x = torch.empty(2, channels, image_size, image_size, device="meta")
    parameters = [p for p in model.parameters() if p.requires_grad]

    def count(images: Tensor) -> float:
        with FlopCounterMode(display=False) as counter:
            model(images).sum().backward()
        return counter.get_total_flops() / len(images)

    for parameter in parameters:
        parameter.requires_grad_(False)
    craft = count(x.clone().requires_grad_())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return craft, count(x)


def _time_passes(
    model: nn.Module, data: Dataset, batch_size: int, device: torch.device
) -> tuple[float, float]:
    """Seconds per image of a crafting pass and of a training pass; the best of three."""
    indices = torch.arange(min(batch_size, len(data.train)))
    _, x, y = next(iter(evaluation_batches(data.train, batch_size, indices=indices, device=device)))
    clock = Clock(device, wall=True)
    craft = best_of(pass_work("gradient", FoldedView(model), x, y), clock, 3)
    train = best_of(pass_work("training", model.train(), x, y), clock, 3)
    return craft / len(x), train / len(x)
