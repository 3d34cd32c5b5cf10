"""Accuracy on a test set with the same classes from another source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from pydantic import field_validator
from torch import Tensor, nn

from benchmark.core.config import config_hash
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.data.shifted import SHIFTED, Shifted, load_shifted
from benchmark.metrics.attacked import outcomes_under, pgd_name, pgd_title, pgd_words
from benchmark.metrics.metric import Context, Measured, Metric, Setup, sentence
from benchmark.metrics.outcomes import sample


class Shift(Metric):
    """Accuracy on a test set with the same classes from another source, read from the user's files.

    With a threat model, its images are attacked by PGD, as in OODRobustBench (2310.12793): an image
    counts as right if it is right without attack and at the last iterate.

    Attributes:
        test_set: its name, see ``benchmark.data.shifted``.
        threat: threat model of the attack; None for images without attack.
    """

    kind: Literal["shift"] = "shift"
    test_set: str
    threat: ThreatModel | None = None

    per_image = False
    mean_of_outcomes = True

    @field_validator("test_set")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SHIFTED:
            raise ValueError(f"unknown test set {name!r}; {did_you_mean(name, SHIFTED.names())}")
        return name

    @property
    def base_name(self) -> str:
        """That of the test set, under attack such as cifar10.1_pgd20_linf."""
        return f"{self.test_set}_{pgd_name(self.threat)}" if self.threat else self.test_set

    @property
    def base_title(self) -> str:
        """That of the test set, under attack such as cifar10.1, PGD-20."""
        return f"{self.test_set}, {pgd_title(self.threat)}" if self.threat else self.test_set

    @property
    def ball(self) -> tuple[NormName, Pixels] | None:
        """See ``Metric.ball``."""
        return (self.threat.norm, self.threat.eps) if self.threat else None

    def check(self, setup: Setup) -> None:
        """See ``Metric.check``.

        Raises:
            DataError: the user has no such files, or they are damaged.
            ConfigError: the set belongs to another data set than the model.
        """
        self._shifted(setup)

    def _shifted(self, setup: Setup) -> Shifted:
        root, classes = setup.data_root or Path(), setup.data.classes
        return setup.cached(
            ("shift", self.test_set),
            lambda: load_shifted(self.test_set, root, classes, setup.data.image_size),
        )

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: the user's files, of which a cap leaves out a part."""
        fingerprint = self._shifted(setup).fingerprint
        return config_hash({"images": fingerprint, "limit": setup.limit})

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, shifted = context.setup, self._shifted(context.setup)
        caps = [cap for cap in (self.n, setup.limit) if cap]
        indices = sample(len(shifted.split), min(caps, default=None), self.seed)
        judge = context.model
        if shifted.kept is not None:
            judge = _Restricted(judge, shifted.kept)
        with setup.progress.task(context.label(self), len(indices)) as task:
            right = outcomes_under(
                judge,
                shifted.split,
                indices,
                self.threat,
                seed=self.seed,
                batch_size=setup.batch_size,
                device=setup.device,
                advance=task.advance,
            )
        detail: dict[str, Any] = {
            "source": shifted.source,
            "images": len(shifted.split),
            "fingerprint": shifted.fingerprint,
            "notes": list(shifted.notes),
        }
        if self.threat is not None:
            detail["threat"] = self.threat.model_dump(mode="json")
        measured = self.whole(indices, right, detail)
        labels = shifted.split.labels[indices].numpy()
        measured.frame = pd.DataFrame(
            {"index": indices.numpy(), "label": labels, self.name: right.numpy()}
        )
        return measured

    def passes(self, images: int) -> float:
        """Of an attack its steps per image, on a set whose size is not known before it is read and
        is taken to be that of the test images; without one nothing, since it is forward passes."""
        return self.count(images) * self.threat.steps if self.threat else 0.0

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        said = sentence(detail, {"source": "{}", "seed": "seed {}"})
        return f"{said}, {pgd_words(self.threat)}" if self.threat else said


class _Restricted(nn.Module):
    """A model whose logits outside of ``kept`` are ignored."""

    def __init__(self, model: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.model, self._kept = model, kept

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes], -inf outside ``kept``."""
        logits = self.model(x)
        kept = self._kept.to(logits.device)
        return torch.full_like(logits, -torch.inf).index_copy(1, kept, logits[:, kept])
