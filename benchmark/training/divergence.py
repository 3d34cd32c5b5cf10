"""Stopping a training that has diverged, before a bad state replaces a good checkpoint.

All processes call these functions at the same step, and if one raises, all raise.
"""

from __future__ import annotations

import math
from pathlib import Path

from benchmark.core.errors import DivergenceError
from benchmark.core.mesh import Mesh
from benchmark.records.files import RunFiles
from benchmark.training.state import TrainingState

# Steps between two checks of the losses. A check waits for the accelerator, which would be slow at
# every step; but a diverged run should not go on for long.
CHECK_EVERY = 20
# A mean loss above this many times its first value (or above this, if the first was below 1) has
# exploded. In the recorded studies no mean loss ever exceeds its first.
_EXPLODED = 1000.0


def check_losses(state: TrainingState, directory: Path) -> None:
    """Raise DivergenceError if a mean loss since the last line is not finite or has exploded."""
    for name, mean in state.losses.means().items():
        if not math.isfinite(mean):
            raise _diverged(f"{name} is not finite", state, directory)
        first = state.first.setdefault(name, mean)
        if mean > _EXPLODED * max(1.0, abs(first)):
            found = f"{name} has exploded, from {first:.3g} to {mean:.3g},"
            raise _diverged(found, state, directory)


def check_weights(state: TrainingState, directory: Path, mesh: Mesh) -> None:
    """Raise DivergenceError if a learner of any process has weights that are not finite."""
    bad = [
        name
        for name, learner in state.method.learners.items()
        if not all(bool(weight.isfinite().all()) for weight in learner.model.parameters())
    ]
    for names in mesh.ranks.gather(bad):
        if names:
            found = f"learner {names[0]} has weights that are not finite"
            raise _diverged(found, state, directory)


def _diverged(found: str, state: TrainingState, directory: Path) -> DivergenceError:
    saved = RunFiles(directory).checkpoint
    last = f"the last good checkpoint is {saved}" if saved.exists() else "no checkpoint yet"
    return DivergenceError(
        f"{directory.name}: {found} at step {state.step} of {state.length.steps} or at most "
        f"{CHECK_EVERY} steps before; {last}. Lower the learning rate "
        "(--set optimizer.lr=...) or clip gradients"
    )
