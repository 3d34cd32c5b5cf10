"""What a training records: the curves in ``metrics.jsonl``, and ``training.json`` at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.attacks.pgd import Start
from benchmark.config.suite import TrainConfig
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_text
from benchmark.core.progress import Progress
from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import AnySplit, Dataset
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
        writes: whether this process writes; of processes that train together, only the first does.
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
        """Remove the lines after ``step``, where training resumes, and a last line that is
        incomplete. Returns the remaining lines; an empty list if this process does not write."""
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
    """The next line of the log: the present step, and mean losses since the last line. All
    processes call this; see ``LossSums``."""
    line = {
        "epoch": state.epoch,
        "progress": state.step / state.length.steps,
        "step": state.step,
        "seconds": round(state.seconds, 3),
        "gradient_passes": state.passes,
        **state.losses.means(),
        # Ratios and learning rates of the last step, which produced the present weights.
        **state.method.diagnostics(state.last_progress),
    }
    state.losses.clear()
    return line


def validation_scores(
    model: nn.Module, data: Dataset, train: TrainConfig, device: torch.device
) -> dict[str, float]:
    """Accuracies in [0, 1] on held-out training images: ``val_clean``; ``val_pgd``, under
    ``train.validation_threat``; ``val_fgsm``, under FGSM of the same eps: one step of size eps,
    without a random start. With ``train.training_images`` also ``train_clean`` and ``train_pgd``,
    the same on images that are trained on."""
    threat = train.validation_threat
    size = max(256, train.batch_size)

    def clean(split: AnySplit, indices: Tensor) -> float:
        right = clean_outcomes(model, split, indices, batch_size=size, device=device)
        return float(right.double().mean())

    def attacked(
        split: AnySplit, indices: Tensor, threat: ThreatModel, start: Start = "uniform"
    ) -> float:
        right = pgd_outcomes(
            model, split, indices, threat, seed=0, start=start, batch_size=size, device=device
        )
        return float(right.double().mean())

    held_out = sample(len(data.val), train.validation_images, seed=0)
    single = threat.model_copy(update={"step": threat.eps, "steps": 1})
    found = {
        "val_clean": clean(data.val, held_out),
        "val_pgd": attacked(data.val, held_out, threat),
        "val_fgsm": attacked(data.val, held_out, single, "none"),
    }
    if train.training_images:
        seen = sample(len(data.train), train.training_images, seed=0)
        found["train_clean"] = clean(data.train, seen)
        found["train_pgd"] = attacked(data.train, seen, threat)
    return found


def write_summary(
    directory: Path,
    state: TrainingState,
    model: nn.Module,
    train: TrainConfig,
    data: Dataset,
    processes: Mapping[str, Any],
    warnings: Sequence[Mapping[str, Any]],
    peak: int | None,
    reporter: Progress,
) -> None:
    """Write ``training.json`` into ``directory``: its existence means that training is over.

    Args:
        model: the deployed model.
        processes: how processes shared the training, in the form of the record.
        warnings: the warnings that were raised, in the form of the record.
        peak: bytes of memory, see the record; None if unknown.

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
                f"  no checkpoint reached the clean accuracy on held-out images that "
                f"train.selection_floor = {train.selection_floor:g} demands: best-sum took the "
                "checkpoint with the largest sum of clean and PGD accuracy"
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
            **({"crafting": state.crafting} if state.crafting else {}),
            "gradient_passes": state.passes,
            "passes_per_image": state.method.passes,
            "inference_passes": state.method.inference_passes,
            "checkpoint_rule": rule,
            **chosen[rule],
            **({"also": {name: chosen[name] for name in others}} if others else {}),
            **floor,
            **({"warnings": list(warnings)} if warnings else {}),
            **({"peak_memory": peak} if peak else {}),
            "parameters": sum(p.numel() for p in model.parameters()),
            **({"trained": dict(state.trained)} if state.trained else {}),
            "train_images": len(data.train),
            "val_images": len(data.val),
        },
    )
