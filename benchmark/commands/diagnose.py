"""Why runs failed: signatures from their records, and from the networks of their checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.commands.run import locked, read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.averaging import interpolated, reestimate_batchnorm
from benchmark.core.errors import BenchmarkError
from benchmark.core.method import Method
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.diagnosis.diagnose import Diagnosis
from benchmark.diagnosis.diagnose import diagnose as judge
from benchmark.metrics.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.records.files import RunFiles
from benchmark.records.schema import Barrier, NetworkMeasurements, PairedAccuracies, write_measured
from benchmark.records.study import CellRecord, read_cell, read_suite
from benchmark.training import checkpoint
from benchmark.training.build import build_method, calibration_batches, held_out_batches
from benchmark.training.parted import bring_apart
from benchmark.training.state import check_same_data

Outcomes = dict[Literal["clean", "pgd"], Tensor]

# Points of the line between two learners, as shares of the second; its ends are measured too.
_SHARES = (0.25, 0.5, 0.75)


def diagnose_runs(
    folders: Sequence[Path], *, data_root: Path, device: torch.device, progress: Progress
) -> dict[Path, Diagnosis]:
    """Judge runs, or all of a suite's plan that were trained; by folder of the run.

    Where a run's checkpoint is there and was not measured yet, ``diagnosis.json`` is written first;
    reports then show what was found by it too.

    Raises:
        BenchmarkError: a folder without a trained run; a damaged record or checkpoint; images that
            are not found, or others than the run was trained with.
    """
    found = {}
    for folder in folders:
        cells = [cell for cell in read_suite(folder).cells if cell.training]
        if not cells:
            raise BenchmarkError(f"{folder} holds no trained run; train one first (see run)")
        for cell in cells:
            if RunFiles(cell.path).checkpoint.exists() and not _is_measured(cell):
                progress.say(f"{cell.path.name}: measuring with the checkpoint's networks")
                with locked([cell.path]):
                    write_measured(cell.path, measure(cell, data_root, device))
                cell = read_cell(cell.path)
            found[cell.path] = judge(cell)
    return found


def _is_measured(cell: CellRecord) -> bool:
    return cell.measured is not None and cell.measured.step == cell.training["steps"]


def measure(cell: CellRecord, data_root: Path, device: torch.device) -> NetworkMeasurements:
    """Measure the networks at the last step of a run on the images of its validations.

    Raises:
        BenchmarkError: see ``diagnose_runs``.
    """
    config = read_cell_config(cell.path)[1]
    data = sources.load(config.dataset, data_root)
    path = RunFiles(cell.path).checkpoint
    state = checkpoint.load(path)
    check_same_data(str(state["data"]), data, path)
    method = build_method(config, data, device)
    method.load_state_dict(state["method"])
    look = _Look(config, data, device)
    deployed = copy.deepcopy(method.deployed()).eval()
    now = look.outcomes(deployed)
    mixes = any(str(name).startswith("mix/") for name in cell.curves.columns)
    step = bring_apart(method, state, path) if mixes else None
    robust, over_robust = (None, {}) if step is None else _over_robust(method, look)
    return NetworkMeasurements(
        step=state["step"],
        images=len(look.indices),
        classes=data.num_classes,
        reestimated=_reestimated(deployed, now, look),
        learners_step=step,
        robust=robust,
        over_robust=over_robust,
        barriers=[] if step is None else _barriers(method, look),
    )


class _Look:
    """The images of the validations of a run, and how networks are measured on them."""

    def __init__(self, config: CellConfig, data: Dataset, device: torch.device) -> None:
        self._config, self._data, self._device = config, data, device
        self.indices = sample(len(data.val), config.train.validation_images, seed=0)
        self._size = max(256, config.train.batch_size)

    def outcomes(self, model: nn.Module) -> Outcomes:
        """Whether each image is right, clean and under the validation attack."""
        images, size, device = (self._data.val, self.indices), self._size, self._device
        threat = self._config.train.validation_threat
        return {
            "clean": clean_outcomes(model, *images, batch_size=size, device=device),
            "pgd": pgd_outcomes(model, *images, threat, seed=0, batch_size=size, device=device),
        }

    @torch.no_grad()
    def losses(self, model: nn.Module) -> tuple[Tensor, float]:
        """Cross-entropy of each clean image, on the CPU in float64; accuracy."""
        losses, right = [], 0
        model.eval()
        for x, y in held_out_batches(self._data, self._config.train, self._device):
            logits = model(x)
            losses.append(F.cross_entropy(logits, y, reduction="none").double().cpu())
            right += int((logits.argmax(1) == y).sum())
        every = torch.cat(losses)
        return every, right / len(every)

    def calibration(self) -> list[Tensor]:
        """Clean training images for BatchNorm statistics."""
        return list(calibration_batches(self._data, self._config.train.batch_size, self._device))


def _paired(first: Outcomes, second: Outcomes) -> dict[Literal["clean", "pgd"], PairedAccuracies]:
    """By kind, both accuracies and the standard error of their difference over images."""
    return {
        kind: PairedAccuracies(
            first=float(first[kind].double().mean()),
            second=float(second[kind].double().mean()),
            error=_error(second[kind].double() - first[kind].double()),
        )
        for kind in first
    }


def _error(values: Tensor) -> float:
    """Standard error of a mean."""
    return float(values.std(correction=0)) / len(values) ** 0.5


def _reestimated(
    deployed: nn.Module, now: Outcomes, look: _Look
) -> dict[Literal["clean", "pgd"], PairedAccuracies]:
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in deployed.modules()):
        return {}
    fresh = copy.deepcopy(deployed)
    reestimate_batchnorm(fresh, look.calibration())
    return _paired(now, look.outcomes(fresh.eval()))


def _over_robust(
    method: Method, look: _Look
) -> tuple[str | None, dict[Literal["clean", "pgd"], PairedAccuracies]]:
    """The base learner with the highest PGD accuracy, and the deployed network against it."""
    deployed = method.deployed()
    learners = {
        name: look.outcomes(model.eval())
        for name, model in method.alone().items()
        if model is not deployed
    }
    robust = max(learners, key=lambda name: int(learners[name]["pgd"].sum()))
    return robust, _paired(learners[robust], look.outcomes(deployed.eval()))


def _barriers(method: Method, look: _Look) -> list[Barrier]:
    """Between every two base learners of one architecture; none where a learner of its own is
    deployed (distillation), so that no weights are averaged."""
    deployed = method.deployed()
    if any(learner.model is deployed for learner in method.learners.values()):
        return []
    calibration = look.calibration()
    barriers = []
    for (first, one), (second, other) in combinations(method.learners.items(), 2):
        if _shapes(one.model) == _shapes(other.model):
            barriers.append(_barrier((first, one.model), (second, other.model), calibration, look))
    return barriers


def _barrier(
    first: tuple[str, nn.Module],
    second: tuple[str, nn.Module],
    calibration: Sequence[Tensor],
    look: _Look,
) -> Barrier:
    measured: Mapping[float, tuple[Tensor, float]] = {
        share: look.losses(interpolated(first[1], second[1], share, calibration))
        for share in (0.0, *_SHARES, 1.0)
    }
    (start, left), (end, right) = measured[0.0], measured[1.0]
    excess = {a: measured[a][0] - (1 - a) * start - a * end for a in _SHARES}
    worst = max(excess, key=lambda a: float(excess[a].mean()))
    return Barrier(
        first=first[0],
        second=second[0],
        share=worst,
        excess=float(excess[worst].mean()),
        error=_error(excess[worst]),
        accuracy=measured[worst][1],
        ends=[left, right],
    )


def _shapes(model: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, value.shape) for name, value in model.state_dict().items()]
