"""Accuracy on a test set of the same classes from elsewhere."""

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
from benchmark.data.shifted import SHIFTED, Shifted, load_shifted
from benchmark.metrics.metric import Context, Measured, Metric, Setup, sentence
from benchmark.metrics.outcomes import clean_outcomes, sample


class Shift(Metric):
    """Accuracy on a test set of the same classes from elsewhere, read from the user's files.

    Attributes:
        test_set: its name, see ``benchmark.data.shifted``.
    """

    kind: Literal["shift"] = "shift"
    test_set: str

    per_image = False

    @field_validator("test_set")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SHIFTED:
            raise ValueError(f"unknown test set {name!r}; {did_you_mean(name, SHIFTED.names())}")
        return name

    @property
    def base_name(self) -> str:
        """That of the test set."""
        return self.test_set

    @property
    def base_title(self) -> str:
        """That of the test set."""
        return self.test_set

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
            right = clean_outcomes(
                judge,
                shifted.split,
                indices,
                batch_size=setup.batch_size,
                device=setup.device,
                advance=task.advance,
            )
        detail = {
            "source": shifted.source,
            "images": len(shifted.split),
            "fingerprint": shifted.fingerprint,
            "notes": list(shifted.notes),
        }
        measured = self.whole(indices, right, detail)
        labels = shifted.split.labels[indices].numpy()
        measured.frame = pd.DataFrame(
            {"index": indices.numpy(), "label": labels, self.name: right.numpy()}
        )
        return measured

    def passes(self, images: int) -> float:
        """Nothing: forward passes on a set whose size is not known before it is read."""
        return 0.0

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return sentence(detail, {"source": "{}", "seed": "seed {}"})


class _Restricted(nn.Module):
    """A model whose logits outside ``kept`` do not count."""

    def __init__(self, model: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.model, self._kept = model, kept

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes], -inf outside ``kept``."""
        logits = self.model(x)
        kept = self._kept.to(logits.device)
        return torch.full_like(logits, -torch.inf).index_copy(1, kept, logits[:, kept])
