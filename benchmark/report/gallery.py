"""The gallery: a few images of an evaluation, to look at."""

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
from benchmark.records.study import CellRecord, SuiteRecord
from benchmark.report.heat_maps import class_names
from benchmark.report.study_model import Gallery, Picture
from benchmark.report.texts import ball_text


def gallery_of(suite: SuiteRecord) -> Gallery | None:
    """The galleries of each method's first seed that has one; None if no record has one."""
    found: dict[str, tuple[CellRecord, GalleryImages]] = {}
    for method in suite.methods:
        for cell in suite.evaluated(method):
            if (one := read_images(cell)) is not None:
                found[method] = (cell, one)
                break
    if not found:
        return None
    first = next(iter(found.values()))[1]
    # clean images are shown once, so all must show the same
    found = {m: f for m, f in found.items() if f[1].index.tolist() == first.index.tolist()}
    names = class_names(suite)

    def name(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    clean = tuple(
        Picture(data_uri(image), name(int(label)), f"test image {i}: {name(int(label))}")
        for image, label, i in zip(first.clean, first.label, first.index, strict=True)
    )
    rows = []
    for method, (_, one) in found.items():
        attacked, changes = [], []
        for k, (image, change) in enumerate(zip(one.adversarial, one.perturbation, strict=True)):
            label = int(one.label[k])
            before, after = int(one.clean_prediction[k]), int(one.adversarial_prediction[k])
            text = name(after) if before == after else f"{name(before)} → {name(after)}"
            alt = f"{method}, {name(label)} attacked: {name(before)} before, {name(after)} after"
            attacked.append(Picture(data_uri(image), text, alt, after == label))
            changes.append(Picture(data_uri(change), "", f"{method}: the perturbation"))
        rows.append((method, tuple(attacked), tuple(changes)))
    return Gallery(
        caption=_gallery_caption(first, {cell.seed for cell, _ in found.values()}),
        clean=clean,
        methods=tuple(rows),
        without=tuple(m for m in suite.methods if m not in found),
    )


def _gallery_caption(one: GalleryImages, seeds: set[int]) -> str:
    (norm, eps), stride = one.about["ball"], int(one.about["stride"])
    return (
        f"The first test image of each class shown, independent of its outcome; seed "
        f"{' or '.join(map(str, sorted(seeds)))}, {one.about['title']} "
        f"({ball_text(norm, eps)}). Below each "
        "image is the model's prediction, before → after the attack if they differ. In a "
        "perturbation, grey means no change, and the largest change has full contrast."
        + (f" Every {stride}th pixel is shown." if stride > 1 else "")
    )


@dataclass(frozen=True)
class GalleryImages:
    """The images of a run; see ``benchmark.evaluation.gallery``.

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
        """Perturbations, uint8 [n, 3, s, s]: grey means no change, and the largest change of each
        image has full contrast."""
        difference = self.adversarial.astype(float) - self.clean
        largest = np.abs(difference).max(axis=(1, 2, 3), keepdims=True)
        return np.asarray(128 + 127 * difference / np.maximum(largest, 1)).round().astype(np.uint8)


def read_images(cell: CellRecord) -> GalleryImages | None:
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
        images = GalleryImages(json.loads(str(arrays.pop("about"))), **arrays)
        current = images.about["model"] in weights(cell.evaluation)
    # numpy and zipfile raise exceptions of several classes for a damaged file
    except Exception as error:
        raise BenchmarkError(
            f"{path} is damaged ({type(error).__name__}); delete it and evaluate again"
        ) from error
    return images if current else None


def data_uri(image: np.ndarray) -> str:
    """An image, uint8 [3, s, s], as a PNG in a data URI."""
    buffer = io.BytesIO()
    picture = image[0] if (image == image[:1]).all() else image.transpose(1, 2, 0)
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
