"""What a source hands over before validation is carved and limits apply."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.data.dataset import AnySplit


@dataclass(frozen=True)
class Raw:
    """Complete splits of a source.

    ``val`` is None if it has no validation split of its own, and ``train`` is None if it has a test
    split alone, which can be evaluated only.
    """

    train: AnySplit | None
    val: AnySplit | None
    test: AnySplit
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
