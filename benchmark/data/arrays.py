"""Sources that are arrays already: scikit-learn's digits and .npz files in MedMNIST layout."""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmark.core.errors import DataError
from benchmark.core.files import at_home
from benchmark.data.check import make_split
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Split
from benchmark.data.raw import Raw
from benchmark.data.splits import carve

DIGITS_TEST_SHARE = 0.25
DIGITS_TEST_SEED = 0  # fixed: the test set is the same whatever split_seed says


def read_digits(config: DatasetConfig, data_root: Path) -> Raw:
    """The 8x8 digits, values 0..16 scaled to 0..255, enlarged bilinearly to ``config.size``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = torch.from_numpy(digits.target.astype(np.int64))
    images = torch.from_numpy(digits.images)[:, None] * (255 / 16)
    size = config.size or 16
    big = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    grey = big.round().clamp(0, 255).to(torch.uint8)
    whole = Split(grey.expand(-1, 3, -1, -1).contiguous(), labels)
    count = round(DIGITS_TEST_SHARE * len(whole))
    train, test = carve(labels, count, DIGITS_TEST_SEED)
    return Raw(
        train=whole.take(train),
        val=None,
        test=whole.take(test),
        classes=tuple(str(digit) for digit in range(10)),
        source=f"scikit-learn load_digits, 8x8 enlarged to {size}x{size}",
        notes=("test: a fixed stratified quarter of the images",),
    )


def locate(path: str, data_root: Path) -> Path:
    """An absolute ``path`` as it is, ``~`` being the home folder; a relative one below the data
    root, else as given."""
    given = at_home(Path(path))
    below = data_root / given  # an absolute path replaces data_root
    return below if below.exists() else given


def read_npz(config: DatasetConfig, data_root: Path) -> Raw:
    """{train,val,test}_{images,labels} of one .npz file; ``val`` may be missing.

    Raises:
        DataError: missing file or arrays, pickled objects, or what ``make_split`` refuses.
    """
    path = locate(config.path or "", data_root)
    if not path.is_file():
        raise DataError(
            f"there is no file {config.path!r} below the data root or at that path; correct path "
            "or --data-root"
        )
    arrays = load_npz(path)
    splits: dict[str, Split] = {}
    for part in ("train", "val", "test"):
        keys = (f"{part}_images", f"{part}_labels")
        missing = [key for key in keys if key not in arrays]
        if part == "val" and len(missing) == 2:
            continue
        if missing:
            raise DataError(
                f"{path.name} has no array {missing[0]!r} (it has: {', '.join(sorted(arrays))}); "
                "the MedMNIST layout is {train,val,test}_{images,labels}"
            )
        splits[part] = make_split(f"{part} split of {path.name}", *(arrays[key] for key in keys))
    _check_scale(path.name, arrays)
    present = sorted(set(splits["train"].labels.tolist()))
    highest = present[-1]
    gaps = sorted(set(range(highest + 1)) - set(present))
    if gaps:
        raise DataError(
            f"train split of {path.name}: labels go up to {highest} but {gaps[0]} never occurs; "
            "number the classes 0, 1, 2, ... without gaps"
        )
    return Raw(
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
        classes=tuple(str(label) for label in range(highest + 1)),
        source=f"{path.name} in MedMNIST layout",
    )


def load_npz(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or those of them that are ``wanted``.

    Raises:
        DataError: not such a file, or one of these arrays is pickled.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path.name} holds a single array; expected an .npz archive")
        with file:
            return {key: file[key] for key in file.files if wanted is None or key in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it contains pickled objects" if "allow_pickle" in str(error) else str(error)[:200]
        raise DataError(
            f"{path.name} cannot be read as .npz ({reason}); save plain arrays with numpy.savez"
        ) from error


def read_npy(path: Path, remedy: str) -> np.ndarray:
    """The array of an .npy file, mapped from disk.

    Raises:
        DataError: missing or damaged; ``remedy`` closes the message.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{where} is missing below the data root; {remedy}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where} is damaged ({error}); {remedy}") from error


def _check_scale(name: str, arrays: dict[str, np.ndarray]) -> None:
    """Float splits must agree on [0, 1] or [0, 255], because the scale is read off each."""
    tops = {
        key: float(array.max())
        for key, array in arrays.items()
        if key.endswith("_images") and array.dtype.kind == "f"
    }
    if tops and min(tops.values()) <= 1 < max(tops.values()):
        raise DataError(
            f"{name}: largest pixel is "
            + ", ".join(f"{top:g} in {key}" for key, top in tops.items())
            + "; use one scale, [0, 1] or [0, 255], for all splits"
        )
