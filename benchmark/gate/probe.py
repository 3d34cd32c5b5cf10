"""Attacks the reference network: weights and images are the same, so only code can differ."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmark.attacks.pgd import margin
from benchmark.core.crafting import crafting
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation.evaluator import Evaluator
from benchmark.gate.baseline import ReferenceNetwork, measured
from benchmark.metrics.metric import Metric
from benchmark.metrics.outcomes import sample
from benchmark.records.files import RunFiles
from benchmark.records.outcomes import read_outcomes
from benchmark.records.schema import read_evaluation

# Number of images whose logits are compared in two compositions of batches.
_FEW = 64


def probe(
    model: nn.Module,
    data: Dataset,
    metrics: Sequence[Metric],
    *,
    of: str,
    weights: str,
    seed: int = 0,
    evaluator: Evaluator,
) -> ReferenceNetwork:
    """Outcomes of ``metrics`` on the test split, and margins under its PGD attacks.

    Robust accuracy changes only if the outcome for an image changes; margins also show an attack
    that has become slightly weaker on every image.

    Args:
        of, weights: see ``ReferenceNetwork``.
        seed: added to the seeds of the attacks.
    """
    names = tuple(metric.name for metric in metrics)
    with tempfile.TemporaryDirectory() as folder:
        evaluator.evaluate(model, metrics, Path(folder))
        record = read_evaluation(Path(folder))
        outcomes = read_outcomes(RunFiles(Path(folder)).outcomes, record["metrics"])
    return ReferenceNetwork(
        of=of,
        weights=weights,
        metrics=measured(record["metrics"], outcomes, names),
        margins={
            metric.name: _margins(model, data, metric, seed, evaluator)
            for metric in metrics
            if metric.has_examples
        },
        neighbours=_neighbours(model, data, evaluator),
    )


def _neighbours(model: nn.Module, data: Dataset, evaluator: Evaluator) -> float:
    """The largest change of a logit, in the state for attacks, from one batch to two halves."""
    (batch,) = evaluation_batches(
        data.test, _FEW, indices=sample(len(data.test), _FEW, 0), device=evaluator.device
    )
    with crafting(model), torch.no_grad():
        whole = model(batch[1])
        halves = torch.cat([model(part) for part in batch[1].split(_FEW // 2)])
    return float((whole - halves).abs().max())


def _margins(
    model: nn.Module, data: Dataset, metric: Metric, seed: int, evaluator: Evaluator
) -> tuple[float, ...]:
    indices = sample(len(data.test), metric.n, metric.seed)
    generator = torch.Generator(device=evaluator.device).manual_seed(metric.seed + seed)
    found: list[float] = []
    with crafting(model):
        for _, x, y in evaluation_batches(
            data.test, evaluator.batch_size, indices=indices, device=evaluator.device
        ):
            x_adv = metric.examples(model, x, y, generator)
            with torch.no_grad():
                found += margin(model(x_adv), y).tolist()
    return tuple(round(value, 5) for value in found)
