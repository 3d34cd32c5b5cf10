"""The finished batches of an attack, so that an evaluation resumes after interruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import (
    atomic_path,
    read_json,
    save_tensors,
    write_json,
)


@dataclass(frozen=True)
class AttackedBatch:
    """One attack on one batch of m images.

    Attributes:
        predictions: int64 [m], the judge's classes of the attacked images.
        examples: float [fooled, c, h, w], the attacked images of which the class is not the label,
            in order.
        warnings: of the library while it made them.
    """

    predictions: Tensor
    examples: Tensor
    warnings: tuple[str, ...] = ()


class Journal:
    """A folder with one file per finished (attack, batch), under one fingerprint.

    Args:
        folder: made if needed.
        fingerprint: everything that the outcome depends on, as JSON values.

    Raises:
        BenchmarkError: the folder was written under another fingerprint.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, Any]) -> None:
        self.folder = folder
        path = folder / "fingerprint.json"
        if path.exists():
            known = read_json(path)
            known = known if isinstance(known, dict) else {}
            changed = sorted(
                key for key in {*known, *fingerprint} if known.get(key) != fingerprint.get(key)
            )
            if changed:
                raise BenchmarkError(
                    f"{folder} holds an unfinished attack with another {', '.join(changed)}; go on "
                    "with the settings it was started with, or delete that folder to start over"
                )
        else:
            write_json(path, dict(fingerprint))

    def _path(self, attack: str, number: int) -> Path:
        return self.folder / f"{attack}-{number:05d}.pt"

    def read(self, attack: str, number: int, y: Tensor) -> AttackedBatch | None:
        """That batch; None if it is not finished, or its file is damaged, so that it must be made.

        Args:
            y: the labels of the batch, int64 [m].
        """
        path = self._path(attack, number)
        if not path.exists():
            return None
        try:
            content = torch.load(path, map_location=y.device, weights_only=True)
            batch = AttackedBatch(
                content["predictions"], content["examples"], tuple(content["warnings"])
            )
            fits = torch.equal(content["labels"], y) and len(batch.examples) == int(
                (batch.predictions != y).sum()
            )
        # torch raises exceptions of any type for a damaged file.
        except Exception:
            return None
        return batch if fits else None

    def write(self, attack: str, number: int, y: Tensor, batch: AttackedBatch) -> None:
        """Add a finished batch.

        Raises:
            BenchmarkError: the disk is full or the folder cannot be written.
        """
        with atomic_path(self._path(attack, number)) as temporary:
            content = {
                "labels": y.cpu(),
                "predictions": batch.predictions.cpu(),
                "examples": batch.examples.detach().cpu().clone(),
                "warnings": list(batch.warnings),
            }
            save_tensors(content, temporary, self._path(attack, number))
