"""Sources that are arrays already: scikit-learn's digits and .npz files in MedMNIST layout."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from benchmark.core.errors import DataError
from benchmark.core.files import at_home
from benchmark.data.check import check_gaps, check_images, check_labels, make_split
from benchmark.data.dataset import Split
from benchmark.data.decode import printable
from benchmark.data.layout import part_of
from benchmark.data.raw import Raw
from benchmark.data.source import DatasetConfig, Source
from benchmark.data.splits import carve
from benchmark.data.white import extremes_of, white_of

DIGITS_TEST_SHARE = 0.25
DIGITS_TEST_SEED = 0  # fixed, so that the test set does not depend on split_seed


def read_digits(config: DatasetConfig, data_root: Path) -> Raw:
    """The 8x8 digits, values 0..16 scaled to 0..255, enlarged bilinearly to ``config.size``."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - start-up time

    digits = load_digits()
    labels = torch.from_numpy(digits.target.astype(np.int64))
    images = torch.from_numpy(digits.images)[:, None] * (255 / 16)
    size = config.size or 16
    big = interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    grey = big.round().clamp(0, 255).to(torch.uint8)
    whole = Split(grey.expand(-1, config.channels, -1, -1).contiguous(), labels)
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
    """The place of ``path``: an absolute path stays as it is (``~`` is the home folder); a relative
    path is looked for below the data root, then below the working directory."""
    given = at_home(Path(path))
    below = data_root / given  # an absolute path replaces data_root
    return below if below.exists() else given


def read_npz(config: DatasetConfig, data_root: Path) -> Raw:
    """Images and labels of each split in one .npz file.

    The arrays are called {train,val,test}_{images,labels} as in MedMNIST, or {x,y}_{train,test} as
    in Keras. ``val`` may be missing. A file that has only a test split, or only ``images`` and
    ``labels`` without a split's name, can be used for evaluation but not for training.

    Raises:
        DataError: missing file or arrays, pickled objects, or what ``make_split`` refuses.
    """
    path = locate(config.path or "", data_root)
    if not path.is_file():
        raise DataError(
            f"there is no file {config.path!r} below the data root or at that path; correct path "
            "or --data-root"
        )
    present = npz_names(path)
    roles = _roles(path.name, present)
    parts = {part for part, _ in roles}
    for part in ("train", "val", "test"):
        missing = [what for what in ("images", "labels") if (part, what) not in roles]
        if len(missing) == 1 or (part == "test" and missing):
            raise DataError(
                f"{path.name} has no array {f'{part}_{missing[0]}'!r} (it has: "
                f"{', '.join(map(printable, sorted(present)))}); the MedMNIST layout is "
                "{train,val,test}_{images,labels}"
            )
    arrays = load_npz(path, set(roles.values()))
    where = {part: f"{part} split of {path.name}" for part in sorted(parts)}
    images = {part: check_images(where[part], arrays[roles[part, "images"]]) for part in where}
    labels = {part: check_labels(where[part], arrays[roles[part, "labels"]]) for part in where}
    white = white_of(
        {where[part]: extremes_of(where[part], images[part]) for part in where}, config.white
    )
    if white > 255 and any(array.dtype == np.uint8 for array in images.values()):
        raise DataError(
            f"{path.name} has images of 8 bits in one split and of more in another; save all in "
            "one type, or set dataset.white"
        )
    splits = {
        part: make_split(
            where[part], images[part], labels[part], channels=config.channels, white=white
        )
        for part in where
    }
    classes: tuple[str, ...]
    if isinstance(config.class_order, tuple):
        classes = config.class_order
    elif "train" in labels:
        classes = tuple(map(str, range(check_gaps(where["train"], labels["train"]))))
    else:
        classes = tuple(map(str, range(int(labels["test"].max()) + 1)))
    notes = () if white in (1, 255) else (f"white is {white:g} (dataset.white changes it)",)
    return Raw(
        train=splits.get("train"),
        val=splits.get("val"),
        test=splits["test"],
        classes=classes,
        source=f"{path.name} in MedMNIST layout"
        if ("test", "images") in roles and roles["test", "images"] == "test_images"
        else f"{path.name}, arrays {', '.join(sorted(roles.values()))}",
        notes=notes,
    )


_IMAGE_WORDS = ("images", "image", "imgs", "x", "data")
_LABEL_WORDS = ("labels", "label", "y", "targets", "target")


def _roles(where: str, names: Collection[str]) -> dict[tuple[str, str], str]:
    """The name of the array for each (part, ``images`` or ``labels``).

    Raises:
        DataError: two arrays for the same part and kind.
    """
    roles: dict[tuple[str, str], str] = {}
    for name in sorted(names):
        words = name.casefold().split("_")
        kinds = ["images" if word in _IMAGE_WORDS else "labels" for word in words
                 if word in (*_IMAGE_WORDS, *_LABEL_WORDS)]  # fmt: skip
        parts = [part for part in map(part_of, words) if part]
        if len(kinds) != 1 or len(parts) + 1 != len(words):
            continue
        role = (parts[0] if parts else "", kinds[0])
        if role in roles:
            raise DataError(f"{where} has both {roles[role]!r} and {name!r}; keep the right one")
        roles[role] = name
    if all(part == "" for part, _ in roles):
        return {("test", what): name for (_, what), name in roles.items()}
    roles = {role: name for role, name in roles.items() if role[0]}
    if not any(part == "test" for part, _ in roles):  # the only held-out split is the test set
        roles = {("test" if part == "val" else part, what): n for (part, what), n in roles.items()}
    return roles


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file. Raises DataError: it is no .npz file."""
    return list(_open_npz(path, lambda file: dict.fromkeys(file.files, np.empty(0))))


def load_npz(path: Path, wanted: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, or those of them that are ``wanted``.

    Raises:
        DataError: it is no .npz file, or one of these arrays is pickled.
    """
    return _open_npz(
        path,
        lambda file: {key: file[key] for key in file.files if wanted is None or key in wanted},
    )


def _open_npz(path: Path, read: Callable[[Any], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise DataError(f"{path.name} holds a single array; expected an .npz archive")
        with file:
            return read(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it contains pickled objects" if "allow_pickle" in str(error) else str(error)[:200]
        raise DataError(
            f"{path.name} cannot be read as .npz ({reason}); save plain arrays with numpy.savez"
        ) from error


def read_npy(path: Path, remedy: str) -> np.ndarray:
    """The array of an .npy file, mapped from disk.

    Raises:
        DataError: missing or damaged; the message ends with ``remedy``.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{where} is missing below the data root; {remedy}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where} is damaged ({error}); {remedy}") from error


DIGITS = Source(
    "scikit-learn's 1,797 digits, 10 classes, 16 or 32 pixels; needs no files",
    read_digits,
    size=16,
    sizes=(16, 32),
    flip=False,
    crops={16: 2},
)
# a mirrored image may change class: left and right organs in MedMNIST
NPZ = Source(
    "one .npz file at path, in MedMNIST or Keras layout",
    read_npz,
    takes_path=True,
    takes_class_order=True,
    flip=False,
)
