"""What a run still needs: its training, and metrics of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.config.suite import CellConfig
from benchmark.metrics.metric import Metric
from benchmark.records.files import RunFiles
from benchmark.records.keys import is_current
from benchmark.records.schema import read_evaluation
from benchmark.training.selection import record_directories


def is_trained(directory: Path) -> bool:
    """Whether training of the run in ``directory`` is over."""
    return RunFiles(directory).training.exists()


def is_finished(config: CellConfig, directory: Path, metrics: Sequence[Metric]) -> bool:
    """Whether a run is trained, and ``metrics`` of all its chosen checkpoints are on record."""
    return is_trained(directory) and not left_to_measure(config, directory, metrics)


def left_to_measure(config: CellConfig, directory: Path, metrics: Sequence[Metric]) -> list[Metric]:
    """Of each chosen checkpoint, those of ``metrics`` that are not on record with their settings.

    All of them before training is over, which changes what they are measured on.
    """
    trained = is_trained(directory)
    return [
        metric
        for record in record_directories(config, directory).values()
        for metric in metrics
        if not trained or not _is_measured(record, metric)
    ]


def _is_measured(directory: Path, metric: Metric) -> bool:
    if not RunFiles(directory).evaluation.exists():
        return False
    entry = read_evaluation(directory)["metrics"].get(metric.name)
    return entry is not None and is_current(entry, metric.settings())
