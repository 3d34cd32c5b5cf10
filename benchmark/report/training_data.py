"""What a run was trained on besides, or instead of, the training images of its data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from benchmark.records.study import CellRecord, nested


def training_data(cell: CellRecord) -> str:
    """Extra images, a long tail, an image left out, in words; empty for the images as they are."""
    parts = []
    extra = nested(cell.config, "dataset", "extra")
    if extra:
        name = PurePath(extra["path"]).name
        parts.append(f"additional data, {100 * extra['share']:g} % of each batch from {name}")
    imbalance = nested(cell.config, "dataset", "imbalance")
    if imbalance is not None:
        parts.append(f"long-tailed training images, imbalance {imbalance:g}")
    without = nested(cell.config, "dataset", "without")
    if without is not None:
        parts.append(f"without training image {without}")
    return "; ".join(parts)


def training_data_lines(cells: Iterable[CellRecord]) -> list[str]:
    """One line per kind of training data that is not the data set's own."""
    of: dict[str, list[str]] = {}
    for cell in cells:
        of.setdefault(training_data(cell), []).append(cell.label)
    return [
        f"Trained with {text}"
        + (f": {', '.join(dict.fromkeys(labels))}." if len(of) > 1 else " (all runs).")
        for text, labels in of.items()
        if text
    ]
