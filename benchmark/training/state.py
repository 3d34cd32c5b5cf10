"""The state of a training, and the checkpoint file from which an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmark.config.suite import CellConfig
from benchmark.core.config import Config, parse
from benchmark.core.errors import CheckpointError
from benchmark.core.mesh import Mesh
from benchmark.core.method import Method
from benchmark.core.progress import Progress
from benchmark.data.dataset import Dataset
from benchmark.records.files import RunFiles
from benchmark.training import checkpoint
from benchmark.training.build import Length
from benchmark.training.losses import LossSums
from benchmark.training.random_state import RandomState


class _PlainValues(Config):
    """The numbers and names in a checkpoint; their types and ranges are checked when it is read."""

    step: int = Field(ge=0)
    images: int = Field(ge=0)
    passes: float = Field(ge=0)
    seconds: float = Field(ge=0)
    losses: dict[str, tuple[float, int]]
    first: dict[str, float]
    best: dict[str, list[float]]
    selected: dict[str, dict[str, float]]
    crafting: dict[str, str | float] | None = None


@dataclass
class TrainingState:
    """Everything that changes while a cell is trained.

    Attributes:
        method: networks, optimisers and averages.
        random: generators of random numbers.
        losses: sums of losses since the last line of the log.
        length: length of the whole training; it does not change.
        trained: SHA-256 of the trained weights that it started from or learns from, by their name
            in the configuration.
        step: number of optimiser steps done.
        images, passes: training images used and gradient passes made in these steps.
        seconds: time spent in these steps, without validation and checkpoints.
        first: for each loss, its mean at the first check.
        best: for each rule of selection, the score of the checkpoint chosen so far.
        selected: for each rule of selection, what is recorded of that checkpoint.
        crafting: how training images are crafted, if that was measured.
    """

    method: Method
    random: RandomState
    losses: LossSums
    length: Length
    trained: Mapping[str, str] = field(default_factory=dict)
    step: int = 0
    images: int = 0
    passes: float = 0.0
    seconds: float = 0.0
    first: dict[str, float] = field(default_factory=dict)
    best: dict[str, list[float]] = field(default_factory=dict)
    selected: dict[str, dict[str, float]] = field(default_factory=dict)
    crafting: dict[str, str | float] | None = None

    @property
    def ended(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self.length.steps

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self.step / self.length.steps_per_epoch

    @property
    def last_progress(self) -> float:
        """The progress at the last step, on which its learning rates and ratios depended."""
        return (self.step - 1) / self.length.steps

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values. All processes call this; see ``LossSums``."""
        losses = self.losses.totals()
        return {
            "method": self.method.state_dict(),
            "random": self.random.state_dict(),
            "step": self.step,
            "images": self.images,
            "passes": self.passes,
            "seconds": self.seconds,
            "losses": losses,
            "first": self.first,
            "best": self.best,
            "selected": self.selected,
            "crafting": self.crafting,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned. Raises any exception if it is of another method."""
        self.method.load_state_dict(state["method"])
        self.random.load_state_dict(state["random"])
        values = parse(_PlainValues, {key: state.get(key) for key in _PlainValues.model_fields})
        if values.step > self.length.steps:
            raise ValueError(f"it is at step {values.step} of {self.length.steps}")
        self.step, self.images = values.step, values.images
        self.passes, self.seconds = values.passes, values.seconds
        self.losses.restore(values.losses)
        self.first, self.best, self.selected = values.first, values.best, values.selected
        self.crafting = values.crafting


def save(
    state: TrainingState, directory: Path, config: CellConfig, data: Dataset, mesh: Mesh
) -> None:
    """Write ``checkpoint.pt``, and keep the previous one. All processes call this.

    Raises:
        BenchmarkError: the disk is full, or the folder cannot be written.
    """
    learners = state.method.learners.values()
    state.method.share(mesh)
    state.random.share(mesh, [n for n, learner in enumerate(learners) if learner.here])
    content = {
        "config": config.hash,
        "data": data.fingerprint,
        "trained": dict(state.trained),
        **state.state_dict(),
    }
    if mesh.ranks.first:
        path = RunFiles(directory).checkpoint
        checkpoint.rotate(path)
        checkpoint.save(path, content)


def resume(
    state: TrainingState,
    directory: Path,
    config: CellConfig,
    data: Dataset,
    mesh: Mesh,
    reporter: Progress,
) -> None:
    """Load the last good checkpoint into ``state``, if there is one. All processes call this.

    Raises:
        CheckpointError: both the last and the previous checkpoint are damaged; or it was made with
            another configuration, other images or another version.
    """
    path = RunFiles(directory).checkpoint
    if path.exists() or checkpoint.previous(path).exists():
        saved, damage = checkpoint.load_last_good(path)
        if damage:
            reporter.say(f"  {damage}. Resuming from the checkpoint before it")
        _load(state, saved, path, config, data)
    mesh.ranks.gather(None)  # all have read before the first process writes
    if state.step > 0 and not state.ended:
        reporter.say(f"  resuming at step {state.step} of {state.length.steps}")


def _load(
    state: TrainingState, saved: Mapping[str, Any], path: Path, config: CellConfig, data: Dataset
) -> None:
    if saved.get("config") != config.hash:
        raise CheckpointError(
            f"{path} belongs to another configuration ({saved.get('config')}); delete the "
            "run's folder to train it from the start"
        )
    check_same_data(str(saved.get("data")), data, path)
    _check_same_weights(saved.get("trained"), state.trained, path)
    try:
        state.load_state_dict(saved)
    # A method may raise any exception when it is given the state of another method.
    except Exception as error:
        raise CheckpointError(
            f"{path} was made by another version or on another kind of device "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); continue with those, or "
            "delete the run's folder to train it from the start"
        ) from error


def _check_same_weights(recorded: Any, now: Mapping[str, str], path: Path) -> None:
    """Raise CheckpointError if the checkpoint ``path`` was made with other trained weights."""
    known = recorded if isinstance(recorded, Mapping) else {}
    for place, digest in now.items():
        if known.get(place) != digest:
            raise CheckpointError(
                f"{path} was made with other weights of {place} (SHA-256 "
                f"{str(known.get(place))[:12]}..., now {digest[:12]}...); restore those, or delete "
                "the run's folder to train it from the start"
            )


def check_same_data(recorded: str, data: Dataset, path: Path) -> None:
    """Raise CheckpointError if the record ``path`` was not made with ``data``."""
    if recorded != data.fingerprint:
        raise CheckpointError(
            f"{path} was made with other images ({recorded}) than those now found "
            f"({data.fingerprint}, {data.source}); restore the data, or choose another --out"
        )
