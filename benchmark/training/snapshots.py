"""Networks as they were while training, kept for ``theory``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmark.core.errors import CheckpointError
from benchmark.models.zoo import recorded_state
from benchmark.records.files import RunFiles
from benchmark.training import checkpoint
from benchmark.training.state import TrainingState

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Snapshot:
    """The networks after a step.

    Attributes:
        ratios: of the learners in the last mixture; None where the deployed network is no average
            of theirs.
        kept: the share of the deployed network of the snapshot before (of the initial one, for the
            first) that is still in this one.
        learners: weights and buffers by name; deployed: those of the deployed network.
    """

    step: int
    progress: float
    ratios: dict[str, float] | None
    kept: float
    learners: dict[str, Weights]
    deployed: Weights


def snapshot_steps(count: int, steps: int) -> list[int]:
    """After which steps networks are kept; see ``TrainConfig.snapshots``."""
    if not count:
        return []
    middles = {max(1, round(steps * (part + 0.5) / count)) for part in range(count)}
    return sorted({*middles, steps})


def save_snapshot(state: TrainingState, deployed: nn.Module, directory: Path, since: int) -> None:
    """Keep the networks of a method after the present step, that which it deploys among them.

    Args:
        since: the step of the snapshot before; 0 for the first.

    Raises:
        BenchmarkError: the disk is full, or the folder cannot be written.
    """
    method = state.method
    mixture = method.mixture(state.last_progress, since)
    content: dict[str, Any] = {
        "step": state.step,
        "progress": state.step / state.length.steps,
        "ratios": mixture.ratios if mixture else None,
        "kept": mixture.kept if mixture else 0.0,
        "learners": {
            name: _on_cpu(learner.model.state_dict()) for name, learner in method.learners.items()
        },
        "deployed": _on_cpu(recorded_state(deployed)),
    }
    checkpoint.save(RunFiles(directory).snapshot(state.step), content)


def _on_cpu(state: Weights) -> Weights:
    return {name: value.detach().cpu() for name, value in state.items()}


def load_snapshot(directory: Path, step: int) -> Snapshot:
    """The networks of the run in ``directory`` after a step, on the CPU.

    Raises:
        CheckpointError: missing or damaged.
    """
    path = RunFiles(directory).snapshot(step)
    content = checkpoint.load(path)
    try:
        return Snapshot(**content)
    except TypeError as error:
        raise CheckpointError(f"{path} is no snapshot of this version; train again") from error
