"""Metrics that are computed from the outcomes of others; nothing is attacked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmark.core.config import config_hash
from benchmark.core.errors import BenchmarkError
from benchmark.metrics.metric import Context, Metric, Setup


class Derived(Metric):
    """Computed from its ``parts``, which are measured before it and have one outcome per image."""

    n: None = None
    # Nothing is drawn here: the parts have seeds.
    seed: Literal[0] = 0

    per_image = False

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """See ``Metric.images_of``: its parts, of which none may have been replaced since."""
        return config_hash({"parts": [record.get(name, {}).get("key") for name in self.parts]})

    def outcomes_of_parts(self, context: Context) -> tuple[Tensor, pd.DataFrame]:
        """The images that all parts judged, int64 [m], and of those a row each: ``label``, and
        right or wrong under each part.

        Raises:
            BenchmarkError: a part is not measured yet, or the parts have no image in common.
        """
        outcomes, names = context.outcomes, list(self.parts)
        missing = [name for name in names if name not in outcomes]
        if missing:
            raise BenchmarkError(
                f"{self.name} is computed from {missing[0]}, which is not measured yet; measure it "
                f"first (--metric {missing[0]})"
            )
        shared = outcomes[names].notna().all(axis=1).to_numpy()
        if not shared.any():
            raise BenchmarkError(f"{self.name}: {', '.join(names)} have no image in common")
        found = outcomes[["label", *names]][shared].astype(dict.fromkeys(names, bool))
        return torch.from_numpy(np.flatnonzero(shared)), found

    def passes(self, images: int) -> float:
        """Nothing: it is computed from outcomes."""
        return 0.0
