"""What a source returns, before the validation split is made and limits are applied."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.data.dataset import AnySplit


@dataclass(frozen=True)
class Raw:
    """Complete splits of a source.

    ``val`` is None if the source has no validation split of its own. ``train`` is None if it has
    only a test split; such a source serves for evaluation only.
    """

    train: AnySplit | None
    val: AnySplit | None
    test: AnySplit
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
