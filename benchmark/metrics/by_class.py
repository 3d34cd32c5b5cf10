"""Accuracy of the worst class, and the mean over classes, of another metric's outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmark.metrics.derived import Derived
from benchmark.metrics.metric import Context, Measured

# Below this many images of a class its accuracy says little; see ``ByClass.measure``.
_FEW = 10


class ByClass(Derived):
    """Class-wise accuracy of another metric; nothing is attacked again.

    ``worst``: the accuracy of the class with the lowest one (reported by CFA, 2303.14460, and
    before by 2010.06121). ``balanced``: the mean of the classes' accuracies, which a large class
    cannot dominate.

    The worst class is chosen on the images that its accuracy is computed from, so the figure is
    lower than the accuracy of that class on new images, the more so the fewer images a class has.

    Attributes:
        of: the metric, measured before this one, with one outcome per image.
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

    def with_parts(self, names: Mapping[str, str]) -> ByClass:
        """See ``Metric.with_parts``."""
        return self.model_copy(update={"of": names.get(self.of, self.of)})

    def measure(self, context: Context) -> Measured:
        """See ``Metric.measure``. Warns in the record where a class has fewer than 10 images.

        Raises:
            BenchmarkError: see ``Derived.outcomes_of_parts``.
        """
        indices, outcomes = self.outcomes_of_parts(context)
        found = outcomes.groupby("label")[self.of].agg(["mean", "size"])
        classes = {str(label): round(float(mean), 6) for label, mean in found["mean"].items()}
        value = float(found["mean"].min() if self.reduce == "worst" else found["mean"].mean())
        few = sorted(str(label) for label, size in found["size"].items() if size < _FEW)
        detail: dict[str, Any] = {"of": [self.of], "reduce": self.reduce, "classes": classes}
        if self.reduce == "worst":
            detail["class"] = str(found["mean"].idxmin())
        if few:
            detail["warnings"] = [f"fewer than {_FEW} images of class {', '.join(few)}"]
        return Measured(indices, value, {}, detail)

    def describe(self, detail: Mapping[str, Any]) -> str:
        """See ``Metric.describe``."""
        if self.reduce == "worst":
            return f"accuracy of the class with the lowest one, {self.of}"
        return f"mean of the classes' accuracies, {self.of}"
