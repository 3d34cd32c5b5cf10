"""What a training records: the curves in ``metrics.jsonl``, and ``training.json`` at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.config.suite import TrainConfig
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_text
from benchmark.core.progress import Progress
from benchmark.data.dataset import Dataset
from benchmark.metrics.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.records.files import RunFiles
from benchmark.records.schema import write_training
from benchmark.training.selection import recorded
from benchmark.training.state import TrainingState

# Told of every line once it is written.
Follow = Callable[[Mapping[str, float]], None]


class Log:
    """The curves of a run, in ``metrics.jsonl``.

    Args:
        writes: whether this process writes; of those that train together, the first alone does.
        follow: told of every line that this process writes.
    """

    def __init__(self, directory: Path, *, writes: bool, follow: Follow | None = None) -> None:
        self._directory, self._writes, self._follow = directory, writes, follow
        self._path = RunFiles(directory).curves

    def write(self, line: Mapping[str, float]) -> None:
        """Append a line.

        Raises:
            BenchmarkError: the disk is full, or the folder cannot be written.
        """
        if not self._writes:
            return
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise BenchmarkError(
                f"cannot write to {self._directory}: {error.strerror or error}; free some space, "
                "then run the same command again to go on"
            ) from error
        if self._follow:
            self._follow(line)

    def cut_back(self, step: int) -> list[dict[str, float]]:
        """Drop the lines after ``step``, where training goes on, and a last line that is torn; the
        lines that are left, none but on the process that writes."""
        if not self._writes or not self._path.exists():
            return []
        if step == 0:
            self._path.unlink()
            return []
        kept, points = [], []
        for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                point = json.loads(line)
                if point["step"] <= step:
                    kept.append(line)
                    points.append(point)
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        write_text(self._path, "".join(line + "\n" for line in kept))
        return points


def next_line(state: TrainingState) -> dict[str, float]:
    """The line of the log that ends here: where training stands, and mean losses since the line
    before. All processes call this; see ``LossSums``."""
    line = {
        "epoch": state.epoch,
        "progress": state.step / state.length.steps,
        "step": state.step,
        "seconds": round(state.seconds, 3),
        "gradient_passes": state.passes,
        **state.losses.means(),
        # Ratios and learning rates of the last step, which are those that led here.
        **state.method.diagnostics(state.last_progress),
    }
    state.losses.clear()
    return line


def validation_scores(
    model: nn.Module, data: Dataset, train: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Accuracies in [0, 1] on held-out training images: ``val_clean``; ``val_pgd``, under
    ``train.validation_threat``; ``val_fgsm``, under one step of its eps from the image itself."""
    indices = sample(len(data.val), train.validation_images, seed=0)
    size = max(256, train.batch_size)
    clean = clean_outcomes(model, data.val, indices, batch_size=size, device=device)
    robust = pgd_outcomes(
        model, data.val, indices, train.validation_threat, seed=0, batch_size=size, device=device
    )
    threat = train.validation_threat
    step = threat.model_copy(update={"step": threat.eps, "steps": 1})
    single = pgd_outcomes(
        model, data.val, indices, step, seed=0, start="none", batch_size=size, device=device
    )
    return {
        "val_clean": float(clean.double().mean()),
        "val_pgd": float(robust.double().mean()),
        "val_fgsm": float(single.double().mean()),
    }


def write_summary(
    directory: Path,
    state: TrainingState,
    model: nn.Module,
    train: TrainConfig,
    data: Dataset,
    processes: Mapping[str, Any],
    warnings: Sequence[Mapping[str, Any]],
    reporter: Progress,
) -> None:
    """Write ``training.json`` into ``directory``: its existence means that training is over.

    Args:
        model: the deployed one.
        processes: how processes shared the training, as recorded.
        warnings: that were raised, as recorded.

    Raises:
        BenchmarkError: the disk is full, or the folder cannot be written.
    """
    rule, *others = train.selection
    chosen = {name: recorded(noted) for name, noted in state.selected.items()}
    floor: dict[str, Any] = {}
    if "best-sum" in train.selection:
        missed = chosen["best-sum"]["val_clean"] < train.selection_floor
        floor = {"selection_floor": train.selection_floor, "floor_missed": missed}
        if missed:
            reporter.say(
                f"  no checkpoint reached train.selection_floor = {train.selection_floor:g}, clean "
                "accuracy on held-out images: best-sum took the largest clean + PGD of all"
            )
    write_training(
        directory,
        {
            "data": data.fingerprint,
            "steps": state.step,
            "epochs": state.epoch,
            "images": state.images,
            "seconds": round(state.seconds, 3),
            "processes": processes,
            "gradient_passes": state.passes,
            "passes_per_image": state.method.passes,
            "inference_passes": state.method.inference_passes,
            "checkpoint_rule": rule,
            **chosen[rule],
            **({"also": {name: chosen[name] for name in others}} if others else {}),
            **floor,
            **({"warnings": list(warnings)} if warnings else {}),
            "parameters": sum(p.numel() for p in model.parameters()),
            **({"trained": dict(state.trained)} if state.trained else {}),
            "train_images": len(data.train),
            "val_images": len(data.val),
        },
    )
