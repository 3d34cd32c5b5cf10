"""Accuracy of the worst class, and the mean over classes, of another metric's outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd
import torch

from benchmark.metrics.derived import Derived
from benchmark.metrics.metric import Context, Measured, Metric
from benchmark.records.files import RunFiles
from benchmark.records.outcomes import columns_of, read_outcomes

# Below this many images of a class its accuracy says little; see ``ByClass.measure``.
_FEW = 10


class ByClass(Derived):
    """Class-wise accuracy of another metric; nothing is attacked again.

    ``worst``: the accuracy of the class with the lowest one (reported by CFA, 2303.14460, and
    before by 2010.06121). ``balanced``: the mean of the classes' accuracies, which a large class
    cannot dominate.

    Of corruptions, an image counts by the share of its corrupted copies that are right.

    The worst class is chosen on the images that its accuracy is computed from, so the figure is
    lower than the accuracy of that class on new images, the more so the fewer images a class has.

    Attributes:
        of: any accuracy that is measured before this one; not an estimate, where most images have
            no outcome.
        reduce: worst or balanced.
    """

    kind: Literal["by-class"] = "by-class"
    of: str
    reduce: Literal["worst", "balanced"] = "worst"

    @property
    def base_name(self) -> str:
        """Such as worst_class_pgd20_linf."""
        word = "worst_class" if self.reduce == "worst" else "balanced"
        return f"{word}_{self.of}"

    @property
    def base_title(self) -> str:
        """Such as Worst class, pgd20_linf."""
        word = "Worst class" if self.reduce == "worst" else "Balanced"
        return f"{word}, {self.of}"

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``Metric.parts``."""
        return (self.of,)

    def takes(self, part: Metric) -> bool:
        """See ``Metric.takes``."""
        return (part.per_image or part.mean_of_outcomes) and part.form != "estimate"

    def with_parts(self, names: Mapping[str, str]) -> ByClass:
        """See ``Metric.with_parts``."""
        return self.model_copy(update={"of": names.get(self.of, self.of)})

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``. Warns in the record where a class has fewer than 10 images.

        Raises:
            BenchmarkError: ``of`` is not measured yet.
        """
        outcomes = self._outcomes(context)
        columns = columns_of(outcomes, self.of)
        judged = outcomes[outcomes[columns].notna().all(axis=1)]
        shares = judged[columns].astype(float).mean(axis=1)
        found = shares.groupby(judged["label"]).agg(["mean", "size"])
        classes = {str(label): round(float(mean), 6) for label, mean in found["mean"].items()}
        value = float(found["mean"].min() if self.reduce == "worst" else found["mean"].mean())
        few = sorted(str(label) for label, size in found["size"].items() if size < _FEW)
        sizes = [int(found["size"].min()), int(found["size"].max())]
        detail: dict[str, Any] = {"of": [self.of], "reduce": self.reduce, "classes": classes}
        detail["images_per_class"] = sizes
        if self.reduce == "worst":
            detail["class"] = str(found["mean"].idxmin())
        if few:
            detail["warnings"] = [f"fewer than {_FEW} images of class {', '.join(few)}"]
        return Measured(torch.tensor(judged.index.to_numpy()), value, {}, detail)

    def _outcomes(self, context: Context) -> pd.DataFrame:
        """By image ``label`` and the columns of ``of``: the test images', or those of a metric that
        has images of its own."""
        own = RunFiles(context.directory).own_outcomes(self.of)
        if not columns_of(context.outcomes, self.of) and own.exists():
            return read_outcomes(own, {})
        self.check_measured(context)
        return context.outcomes

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        what = (
            "accuracy of the class with the lowest one"
            if self.reduce == "worst"
            else "mean of the classes' accuracies"
        )
        fewest, most = detail["images_per_class"]
        sizes = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        return f"{what}, {self.of}, {sizes} images per class"
