"""Accuracy on common corruptions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from benchmark.core.config import config_hash
from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import NormName, Pixels, ThreatModel
from benchmark.data import corruptions
from benchmark.data.dataset import Split
from benchmark.metrics.attacked import outcomes_under, passes_of, pgd_name, pgd_title, pgd_words
from benchmark.metrics.metric import Context, Measured, Metric, Setup

# Corrupted test images kept for the next model, at most: 4,660 CIFAR-10 images at all severities.
# Making them costs as much as several evaluations of a small network.
_KEPT_BYTES = 1 << 30


class Corruptions(Metric):
    """Mean accuracy over 15 common corruptions x severities (Hendrycks, Dietterich, 1903.12261).

    If the published CIFAR-10-C or CIFAR-100-C files are below the data root, they are used;
    otherwise the corruptions are generated.

    With a threat model, every corrupted image is attacked by PGD, as in OODRobustBench
    (2310.12793): an image counts as right if it is right when corrupted and at the last iterate.

    Attributes:
        severities: 1 (weak) to 5.
        threat: threat model of the attack; None for corrupted images without attack.
    """

    kind: Literal["corruptions"] = "corruptions"
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)
    threat: ThreatModel | None = None

    per_image = False
    mean_of_outcomes = True

    @property
    def base_name(self) -> str:
        """``corruptions``, or such as corruptions_pgd20_linf under attack."""
        return f"corruptions_{pgd_name(self.threat)}" if self.threat else "corruptions"

    @property
    def base_title(self) -> str:
        """``Corruptions``, or such as Corruptions, PGD-20."""
        return f"Corruptions, {pgd_title(self.threat)}" if self.threat else "Corruptions"

    @property
    def ball(self) -> tuple[NormName, Pixels] | None:
        """See ``Metric.ball``."""
        return (self.threat.norm, self.threat.eps) if self.threat else None

    def possible(self, setup: Setup) -> bool:
        """Corruptions are applied to images of 8 bits in memory."""
        test = setup.data.test
        return isinstance(test, Split) and test.images.dtype == torch.uint8

    def check(self, setup: Setup) -> None:
        """See ``Metric.check``."""
        if not self.possible(setup):
            raise BenchmarkError(
                "common corruptions are generated from images of 8 bits in memory; "
                f"{setup.data.name} is streamed or has finer values, so leave that metric out "
                "(--metric), set a smaller image size, or round the images to 8 bits"
            )

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: the test images, and whose files or which code corrupts them.
        Looks at one image of each corruption and severity."""
        key = ("corrupted hash", _published(setup), self.severities, self.seed)
        corrupted = setup.cached(key, lambda: self._corrupted_hash(setup))
        return config_hash({"images": images, "corrupted": corrupted})

    def _corrupted_hash(self, setup: Setup) -> str:
        root = _published(setup)
        digest = hashlib.sha256(b"published" if root else b"generated")
        first = torch.arange(1)
        for corruption in corruptions.CORRUPTIONS:
            for severity in self.severities:
                if root:
                    images, _ = corruptions.load_published(
                        root, corruption, severity, 1, setup.data.name
                    )
                else:
                    assert isinstance(setup.data.test, Split)
                    image = setup.data.test.take(first).images
                    images = corruptions.corrupt(image, corruption, severity, self.seed)
                digest.update(images.contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``."""
        setup, indices = context.setup, self.indices(context.setup)
        columns: dict[str, Tensor] = {}
        accuracies: dict[str, list[float]] = {}
        work = len(corruptions.CORRUPTIONS) * len(self.severities)
        with setup.progress.task(context.label(self), work) as task:
            for corruption in corruptions.CORRUPTIONS:
                for severity in self.severities:
                    split = self._corrupted(setup, indices, corruption, severity)
                    right = outcomes_under(
                        context.model,
                        split,
                        torch.arange(len(split)),
                        self.threat,
                        seed=self.seed,
                        batch_size=setup.batch_size,
                        device=setup.device,
                    )
                    columns[f"{self.name}/{corruption}/{severity}"] = right
                    accuracies.setdefault(corruption, []).append(float(right.double().mean()))
                    task.advance(1, corruption)
        mean = float(np.mean([value for row in accuracies.values() for value in row]))
        published = _published(setup) is not None
        detail: dict[str, Any] = {
            "source": "published" if published else "generated",
            "severities": list(self.severities),
            "per_corruption": accuracies,
            "departures": {} if published else corruptions.DEPARTURES,
        }
        if self.threat is not None:
            detail["threat"] = self.threat.model_dump(mode="json")
        return Measured(indices, mean, columns, detail)

    def _corrupted(self, setup: Setup, indices: Tensor, corruption: str, severity: int) -> Split:
        """Corrupted test images, from the user's published files or generated."""
        root = _published(setup)
        key = ("corruptions", tuple(indices.tolist()), self.seed, corruption, severity, root)
        if key in setup.cache:
            kept: Split = setup.cache[key]
            return kept
        assert isinstance(setup.data.test, Split)
        chosen = setup.data.test.take(indices)
        if root:
            images, labels = corruptions.load_published(
                root, corruption, severity, int(indices.max()) + 1, setup.data.name
            )
            if not torch.equal(labels[indices], chosen.labels):
                raise BenchmarkError(
                    f"the published corrupted images of {setup.data.name} have other labels than "
                    f"the test images ({setup.data.source}), so their order differs; move them "
                    "away to generate corruptions, or use the original test files"
                )
            chosen = Split(images, labels).take(indices)
        else:
            images = corruptions.corrupt(chosen.images, corruption, severity, self.seed)
            chosen = Split(images, chosen.labels)
        held = sum(
            split.images.numel()
            for other, split in setup.cache.items()
            if isinstance(other, tuple) and other[0] == "corruptions"
        )
        if held + chosen.images.numel() <= _KEPT_BYTES:
            setup.cache[key] = chosen
        return chosen

    def passes(self, images: int) -> float:
        """A forward pass, or the steps of the attack, per image, corruption and severity."""
        work = len(corruptions.CORRUPTIONS) * len(self.severities)
        return passes_of(self.threat) * self.count(images) * work

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        count = len(detail["per_corruption"])
        attack = f", {pgd_words(self.threat)}" if self.threat else ""
        return (
            f"mean over {count} corruptions and their severities, corrupted images "
            f"{detail['source']}{attack}"
        )


def _published(setup: Setup) -> Path | None:
    """The folder of the user's published corrupted images, if there are any."""
    root = setup.data_root
    return root if root and corruptions.find_published(root, setup.data.name) else None
