"""Robustness to several attacks at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from benchmark.core.config import config_hash
from benchmark.core.errors import BenchmarkError
from benchmark.metrics.metric import Context, Measured, Metric, Setup, sentence


class Union(Metric):
    """Robust under every one of several metrics, image by image; nothing is attacked again.

    Attributes:
        of: names of metrics of the same panel; images that one of them left out are left out.
    """

    kind: Literal["union"] = "union"
    of: Annotated[tuple[str, ...], Field(min_length=2)]
    n: None = None
    # A union draws nothing itself: its parts have seeds.
    seed: Literal[0] = 0

    role = "attack"
    per_image = False

    @property
    def title(self) -> str:
        """Such as Union of norms."""
        return f"Union of {self.tag}" if self.tag else "Union"

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``Metric.parts``."""
        return self.of

    def with_parts(self, names: Mapping[str, str]) -> Union:
        """See ``Metric.with_parts``."""
        return self.model_copy(update={"of": tuple(names.get(name, name) for name in self.of)})

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: its parts, of which none may have been replaced since."""
        return config_hash({"parts": [record.get(name, {}).get("key") for name in self.of]})

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``.

        Raises:
            BenchmarkError: a part is not measured yet, or the parts have no image in common.
        """
        outcomes, names = context.outcomes, list(self.of)
        missing = [name for name in names if name not in outcomes]
        if missing:
            raise BenchmarkError(
                f"{self.name} is computed from {missing[0]}, which is not measured yet; measure it "
                f"first (--metric {missing[0]})"
            )
        shared = outcomes[names].notna().all(axis=1).to_numpy()
        if not shared.any():
            raise BenchmarkError(f"{self.name}: {', '.join(names)} have no image in common")
        found = outcomes[names][shared].astype(bool)
        robust = torch.tensor(found.all(axis=1).to_numpy())
        alone = {
            name: int((~found[name] & found.drop(columns=name).all(axis=1)).sum()) for name in names
        }
        indices = torch.from_numpy(np.flatnonzero(shared))
        return self.whole(indices, robust, {"of": names, "broken_only_by": alone})

    def passes(self, images: int) -> float:
        """Nothing: it is computed from outcomes."""
        return 0.0

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return sentence(detail, {"of": "robust under each of {}"})
