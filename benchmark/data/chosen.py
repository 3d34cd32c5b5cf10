"""A list of test images: a text file that names them, or the list that RobustBench evaluates on."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmark.core.errors import DataError
from benchmark.data.arrays import locate

# The name of RobustBench's list of 5,000 ImageNet validation images, which its package contains.
ROBUSTBENCH = "robustbench"
_FILE = Path("helper_files") / "imagenet_test_image_ids.txt"
_SHOWN = 3


def read_list(test_list: str, data_root: Path) -> list[str]:
    """The names in a list, in its order, with / between folder and file.

    Args:
        test_list: ``robustbench``, or the path of a text file with a name on each line.

    Raises:
        DataError: the file or the package is missing, the file is empty, or names an image twice.
    """
    path = _robustbench() if test_list == ROBUSTBENCH else locate(test_list, data_root)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise DataError(
            f"dataset.test_list: cannot read {test_list}: {reason}; write one test image on each "
            "line, such as n01440764/ILSVRC2012_val_00000293.JPEG"
        ) from error
    names = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    if not names:
        raise DataError(f"dataset.test_list: {test_list} names no image")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"dataset.test_list: {test_list} names {twice[0]} twice")
    return names


def _robustbench() -> Path:
    # The package is located without being imported, which takes seconds.
    spec = importlib.util.find_spec("robustbench")
    if spec is None or spec.origin is None:
        raise DataError(
            "dataset.test_list = robustbench: the list comes with the package robustbench, which "
            "is not installed; run pip install 'generalist-bench[robustbench]', or give the path "
            "of a text file"
        )
    return Path(spec.origin).parent / _FILE


def places(names: list[str], files: Iterable[str], where: str) -> np.ndarray:
    """For each name of a list, the number of the file, int64 [n].

    Args:
        where: what messages call the files ("val").

    Raises:
        DataError: there is no file of such a name.
    """
    numbers = {file.replace("\\", "/"): number for number, file in enumerate(files)}
    missing = [name for name in names if name not in numbers]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(
            f"dataset.test_list: {len(missing):,} of its {len(names):,} images are not in {where} "
            f"({shown}); names are relative to that folder"
        )
    return np.array([numbers[name] for name in names], dtype=np.int64)
