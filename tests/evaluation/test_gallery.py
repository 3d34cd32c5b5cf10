"""The gallery: which images, what is kept of them, and when it is made anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_suites import TINY, tiny, tiny_data
from torch import nn

from benchmark.config.suite import build_suite
from benchmark.evaluation import gallery
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import Metric
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

CLEAN, PGD = TINY["evaluation"]


def panel(*metrics: dict[str, Any]) -> tuple[Metric, ...]:
    return build_suite(tiny(evaluation=list(metrics))).evaluation


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    config = ModelConfig(name="small-resnet", width=8)
    return build_model(config, num_classes=10, image_size=16, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture
def evaluator() -> Evaluator:
    return Evaluator(tiny_data(), torch.device("cpu"), batch_size=25)


def test_it_shows_the_first_image_of_each_class_and_what_the_model_says(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    """The kept images are the test split's, and the perturbation lies in the ball."""
    model = network().eval()
    evaluator.evaluate(model, panel(CLEAN, PGD), tmp_path)
    test = evaluator.data.test
    labels = test.labels.tolist()
    with np.load(tmp_path / "gallery.npz") as found:
        kept = dict(found)
    assert kept["index"].tolist() == [labels.index(c) for c in sorted(set(labels))]
    assert kept["label"].tolist() == sorted(set(labels))
    images = test.images[kept["index"]]
    np.testing.assert_array_equal(kept["clean"], images.numpy())
    with torch.no_grad():
        assert kept["clean_prediction"].tolist() == model(images / 255).argmax(1).tolist()
    difference = np.abs(kept["adversarial"].astype(int) - kept["clean"])
    assert 0 < difference.max() <= 26, "eps 0.1 is 25.5, and a rounding"
    about = json.loads(str(kept["about"]))
    assert about["attack"] == "pgd2_linf"
    norm, eps = about["ball"]
    assert (norm, float(eps)) == ("linf", 0.1)


def test_it_is_equal_for_equal_input_and_made_anew_for_other_weights(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    """A page never shows the images of an older network, and records repeat."""
    path = tmp_path / "a" / "gallery.npz"
    for folder, seed in (("a", 0), ("b", 0)):
        evaluator.evaluate(network(seed), panel(PGD), tmp_path / folder)
    first = path.read_bytes()
    assert first == (tmp_path / "b" / "gallery.npz").read_bytes()
    path.write_bytes(first[:100])
    evaluator.evaluate(network(0), panel(PGD), tmp_path / "a")
    assert path.read_bytes() == first, "a damaged one is replaced"
    evaluator.evaluate(network(1), panel(PGD), tmp_path / "a")
    assert path.read_bytes() != first


def test_without_an_attack_there_is_none(evaluator: Evaluator, tmp_path: Path) -> None:
    """A clean evaluation does not attack."""
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    assert not (tmp_path / "gallery.npz").exists()


@pytest.mark.parametrize(
    ("classes", "side", "count"), [(10, 32, 10), (100, 32, 16), (1000, 56, 5), (2, 8, 2)]
)
def test_many_classes_are_spread_and_large_images_few(classes: int, side: int, count: int) -> None:
    """The file stays small, and does not show the first classes of the alphabet only."""
    labels = torch.arange(classes).repeat_interleave(3)
    indices = gallery.chosen(labels, side)
    assert len(indices) == count
    assert len(set(labels[indices].tolist())) == count
    assert labels[indices[-1]] == classes - 1
