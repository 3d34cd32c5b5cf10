"""Which label each class has: one rule for class folders, tables and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.check import MOST_CLASSES, check_gaps

Order: TypeAlias = Literal["name", "numeric"] | tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """The classes of one split: ``names`` as written; ``labels``, int64 [n], are indices into it.

    Attributes:
        folders: whether each name is that of a folder. Splits in folders must have the same ones,
            since readers that number the folders of each split separately would give one class
            different labels.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    folders: bool

    @staticmethod
    def of(values: Sequence[str]) -> Named:
        """From the class of each image, as a table states it."""
        names, labels = np.unique(np.array(values, dtype=object), return_inverse=True)
        return Named(tuple(names), labels.astype(np.int64), folders=False)


def ordered(names: Sequence[str], order: Order, where: str) -> tuple[str, ...]:
    """All classes in order of their labels, including those that only ``order`` lists.

    Raises:
        DataError: ``order`` is ``numeric`` and a name is no number; a name is missing in the list.
    """
    if order == "name":
        return tuple(sorted(names))
    if order == "numeric":
        odd = next((name for name in sorted(names) if not name.isdecimal()), None)
        if odd is not None:
            raise DataError(
                f"class_order=numeric, but {where} has a class {odd!r}, which is no number; list "
                "the classes in class_order"
            )
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    odd = next((name for name in sorted(names) if name not in order), None)
    if odd is not None:
        raise DataError(
            f"{where} has a class {odd!r}, which class_order does not list; add it, or move its "
            "images away"
        )
    return order


def agreed(
    splits: Mapping[str, Named], order: Order, where: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The classes that all splits share, and the labels int64 [n] of each split.

    Names of folders and of tables are sorted as ``order`` says. Exception: whole numbers in a table
    are the labels themselves if ``order`` is ``name``.

    Args:
        where: what messages call each split.

    Raises:
        DataError: splits of different classes, numbers with gaps, or what ``ordered`` refuses.
    """
    first = "train" if "train" in splits else next(iter(splits))
    names = set(splits[first].names)
    numbers = _are_labels(splits, order)
    if numbers:
        classes = _numbered(splits[first], where[first], order, training=first == "train")
        places = {str(place): place for place in range(len(classes))}
    else:
        classes = ordered(sorted(names), order, where[first])
        places = {name: place for place, name in enumerate(classes)}
    for part, split in splits.items():
        odd = sorted(set(split.names) - names)
        if isinstance(order, tuple):
            odd = [name for name in odd if name not in places]
        elif split.folders and splits[first].folders:
            odd = sorted(set(split.names) ^ names)
        if odd:
            here = where[part] if odd[0] in split.names else where[first]
            raise DataError(
                f"{where[first]} and {where[part]} have different classes: {odd[0]!r} is only in "
                f"{here}; the splits must have the same classes"
            )
    labels = {
        part: np.array([places[name] for name in split.names], dtype=np.int64)[split.labels]
        for part, split in splits.items()
    }
    return classes, labels


def _are_labels(splits: Mapping[str, Named], order: Order) -> bool:
    """Whether the names are whole numbers in a table, to be used as labels."""
    if order == "numeric" or any(split.folders for split in splits.values()):
        return False
    names = {name for split in splits.values() for name in split.names}
    if isinstance(order, tuple) and names <= set(order):
        return False
    return all(re.fullmatch("0|[1-9][0-9]{0,19}", name) for name in names)


def _numbered(split: Named, where: str, order: Order, training: bool) -> tuple[str, ...]:
    if isinstance(order, tuple):
        odd = next((name for name in split.names if int(name) >= len(order)), None)
        if odd is not None:
            raise DataError(
                f"{where}: label {odd} is out of range 0..{len(order) - 1} of class_order"
            )
        return order
    values = np.array([min(int(name), MOST_CLASSES) for name in split.names])
    if values.max() >= MOST_CLASSES:
        raise DataError(
            f"{where}: label {split.names[int(values.argmax())]} is no class; number classes 0, 1, "
            "2, ... or set class_order"
        )
    count = check_gaps(where, values[split.labels]) if training else int(values.max()) + 1
    return tuple(str(label) for label in range(count))
