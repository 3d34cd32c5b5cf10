"""The images that an evaluation left to look at, as pictures that a page can hold."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles
from benchmark.records.keys import weights
from benchmark.records.study import CellRecord


@dataclass(frozen=True)
class Gallery:
    """A run's gallery; see ``benchmark.evaluation.gallery``.

    Attributes:
        about: attack, its title and ball (norm, eps), stride, hashes of model and data.
        clean, adversarial: uint8 [n, 3, s, s]; index, label and the predictions: int64 [n].
    """

    about: dict[str, Any]
    index: np.ndarray
    label: np.ndarray
    clean: np.ndarray
    adversarial: np.ndarray
    clean_prediction: np.ndarray
    adversarial_prediction: np.ndarray

    @property
    def perturbation(self) -> np.ndarray:
        """Grey is no change; the largest of each image has full contrast. uint8 [n, 3, s, s]."""
        difference = self.adversarial.astype(float) - self.clean
        largest = np.abs(difference).max(axis=(1, 2, 3), keepdims=True)
        return np.asarray(128 + 127 * difference / np.maximum(largest, 1)).round().astype(np.uint8)


def read_gallery(cell: CellRecord) -> Gallery | None:
    """The gallery of the cell's evaluated weights; None if there is none.

    Raises:
        BenchmarkError: damaged.
    """
    path = RunFiles(cell.path).gallery
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {key: np.asarray(found[key]) for key in found.files}
        gallery = Gallery(json.loads(str(arrays.pop("about"))), **arrays)
        current = gallery.about["model"] in weights(cell.evaluation)
    # numpy and zipfile have errors of their own for every way in which a file can be damaged
    except Exception as error:
        raise BenchmarkError(
            f"{path} is damaged ({type(error).__name__}); delete it and evaluate again"
        ) from error
    return gallery if current else None


def data_uri(image: np.ndarray) -> str:
    """An image, uint8 [3, s, s], as a PNG in a data URI."""
    buffer = io.BytesIO()
    picture = image[0] if (image == image[:1]).all() else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
