"""A few images, their attacked versions and the model's predictions, to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.core.crafting import crafting
from benchmark.core.files import atomic_path
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.metrics.metric import Metric

IMAGES = 16
SIDE = 64
# Of all images together: 16 of 32 x 32, which compress to some 80 KB with their attacked copies.
PIXELS = 16 * 32 * 32


def chosen(labels: Tensor, side: int) -> Tensor:
    """The first test image of each class, classes evenly spread where there are too many.

    The choice depends only on labels and positions, not on any model's outcome.

    Args:
        labels: int64 [n] of the test split.
        side: of the images as they will be kept, in pixels.
    """
    present = labels.unique()
    count = max(1, min(IMAGES, len(present), PIXELS // side**2))
    spread = torch.linspace(0, len(present) - 1, count).round().long()
    return torch.stack([(labels == label).nonzero()[0, 0] for label in present[spread]])


def is_current(path: Path, fingerprint: Mapping[str, str]) -> bool:
    """Whether ``path`` is the gallery of this network and these images; a damaged one is not."""
    try:
        with np.load(path, allow_pickle=False) as found:
            about = json.loads(str(found["about"]))
            return all(about[key] == value for key, value in fingerprint.items())
    # numpy and zipfile raise exceptions of several classes for a damaged file
    except Exception:
        return False


def write_gallery(
    model: nn.Module,
    data: Dataset,
    metric: Metric,
    path: Path,
    fingerprint: Mapping[str, str],
    device: torch.device,
) -> None:
    """Attack the chosen images as ``metric`` does, once, and write ``path`` (npz).

    All of them are attacked, those wrong when clean too. The file holds ``index``, ``label``,
    ``clean_prediction`` and ``adversarial_prediction`` (int64 [n]), ``clean`` and ``adversarial``
    (uint8 [n, 3, s, s], rounded, every k-th pixel of images wider than 64) and ``about``, a JSON
    text. Equal input gives an equal file.

    Args:
        fingerprint: what the images are of: hashes of the weights ("model"), of their function and
            of the test images ("data").
    """
    stride = -(-data.test.image_size // SIDE)
    indices = chosen(data.test.labels, -(-data.test.image_size // stride))
    _, x, y = next(
        iter(evaluation_batches(data.test, len(indices), indices=indices, device=device))
    )
    generator = torch.Generator(device=device).manual_seed(metric.seed)
    with crafting(model):
        x_adv = metric.examples(model, x, y, generator)
        with torch.no_grad():
            predictions = [model(images).argmax(1).cpu().numpy() for images in (x, x_adv)]
    about = {
        "attack": metric.name,
        "title": metric.title,
        "ball": None if metric.ball is None else [metric.ball[0], str(metric.ball[1])],
        "stride": stride,
        **fingerprint,
    }
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            about=np.array(json.dumps(about)),
            index=indices.numpy(),
            label=y.cpu().numpy(),
            clean=_bytes(x, stride),
            adversarial=_bytes(x_adv, stride),
            clean_prediction=predictions[0],
            adversarial_prediction=predictions[1],
        )


def _bytes(x: Tensor, stride: int) -> np.ndarray:
    """Pixels in [0, 1] as uint8, grey repeated to three channels."""
    kept = x[..., ::stride, ::stride].expand(-1, 3, -1, -1)
    return (255 * kept).round().to(torch.uint8).cpu().contiguous().numpy()
