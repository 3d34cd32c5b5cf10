"""Robustness to several attacks at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from benchmark.core.errors import BenchmarkError
from benchmark.metrics.derived import Derived
from benchmark.metrics.metric import Context, Measured, sentence


class Union(Derived):
    """Robust under every one of several metrics, image by image; nothing is attacked again.

    Attributes:
        of: names of metrics of the same panel; only images that all of them were measured on are
            used.
    """

    kind: Literal["union"] = "union"
    of: Annotated[tuple[str, ...], Field(min_length=2)]

    role = "attack"
    per_image = True

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

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``.

        Raises:
            BenchmarkError: a part is not measured yet, or the parts have no image in common.
        """
        self.check_measured(context)
        names = list(self.of)
        shared = context.outcomes[names].notna().all(axis=1).to_numpy()
        if not shared.any():
            raise BenchmarkError(f"{self.name}: {', '.join(names)} have no image in common")
        indices = torch.from_numpy(np.flatnonzero(shared))
        found = context.outcomes[names][shared].astype(bool)
        robust = torch.tensor(found.all(axis=1).to_numpy())
        alone = {
            name: int((~found[name] & found.drop(columns=name).all(axis=1)).sum()) for name in names
        }
        return self.whole(indices, robust, {"of": names, "broken_only_by": alone})

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        return sentence(detail, {"of": "robust under each of {}"})
