"""Accuracy against eps, class by class, and calibration: against arithmetic done another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from tiny_suites import tiny_data
from torch import nn
from trained_networks import build, train

from benchmark.attacks import pgd
from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import ThreatModel
from benchmark.data.dataset import Dataset
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.calibration import expected_calibration_error
from benchmark.metrics.metric import make_metric

CPU = torch.device("cpu")
THREAT = {"norm": "linf", "eps": "16/255", "step": "4/255", "steps": 8}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_data(120)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return train(build("small-resnet"), robust=True)


def measured(
    net: nn.Module, data: Dataset, folder: Path, *metrics: dict[str, Any]
) -> tuple[dict[str, Any], Any]:
    evaluator = Evaluator(data, CPU)
    evaluator.evaluate(net, [make_metric(metric) for metric in metrics], folder)
    entries = json.loads((folder / "evaluation.json").read_text())["metrics"]
    return entries, pd.read_parquet(folder / "outcomes.parquet").set_index("index")


def test_a_curve_is_pgd_at_its_middle_and_never_rises(
    net: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    attack, curve = {"kind": "pgd", "threat": THREAT}, {"kind": "curve", "threat": THREAT}
    entries, outcomes = measured(net, data, tmp_path, {"kind": "clean"}, attack, curve)
    entry = entries["curve8_linf"]
    radii = entry["detail"]["radii"]
    assert radii == [f"{eps}/255" for eps in (4, 8, 12, 16, 20, 24, 32)]
    table = outcomes[[f"curve8_linf/{eps}" for eps in radii]].astype(bool)
    assert (table["curve8_linf/16/255"] == outcomes["pgd8_linf"].astype(bool)).all()
    assert (np.diff(table.to_numpy(dtype=int), axis=1) <= 0).all()
    assert table.mean().tolist() == pytest.approx(entry["detail"]["accuracies"])
    assert table.iloc[:, 0].mean() > table.iloc[:, -1].mean(), "the attack grows with eps"
    # The area in another way: the mean of a dense linear interpolation.
    heights = [outcomes["clean"].mean(), *table.mean()]
    eps = np.array([0, 4, 8, 12, 16, 20, 24, 32]) / 32
    dense = np.interp(np.linspace(0, 1, 32_001), eps, heights).mean()
    assert entry["mean"] == pytest.approx(dense, abs=1e-4)
    costs = [make_metric(metric).passes(100) for metric in (curve, attack)]
    assert costs[0] <= 3.1 * costs[1]


@pytest.mark.parametrize(
    ("factors", "message"),
    [([0.5, 1], "3, 7 or 15"), ([0.5, 2, 1], "ascend"), ([0.5, 0.75, 1], "in the middle")],
)
def test_radii_of_a_curve(factors: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_metric({"kind": "curve", "threat": THREAT, "factors": factors})


def test_classes_are_those_of_an_independent_count(
    net: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    attack = {"kind": "pgd", "threat": THREAT, "n": 80}
    kinds = [{"kind": "by-class", "of": "pgd8_linf", "reduce": r} for r in ("worst", "balanced")]
    entries, outcomes = measured(net, data, tmp_path, attack, *kinds)
    known = outcomes[outcomes["pgd8_linf"].notna()]
    right = known["pgd8_linf"].astype(bool)
    # The balanced accuracy of a classifier that answers another class where it is wrong.
    answers = np.where(right, known["label"], -1)
    expected = balanced_accuracy_score(known["label"], answers)
    assert entries["balanced_pgd8_linf"]["mean"] == pytest.approx(expected)
    lowest = min(right[known["label"] == label].mean() for label in known["label"].unique())
    worst = entries["worst_class_pgd8_linf"]
    assert worst["mean"] == pytest.approx(lowest)
    assert worst["n"] == 80
    assert "fewer than 10 images" in worst["detail"]["warnings"][0]
    with pytest.raises(BenchmarkError, match="not measured yet"):
        measured(net, data, tmp_path / "other", kinds[0])


def test_calibration_by_hand_and_under_attack(
    net: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    confidence = torch.tensor([0.2, 0.3, 0.9, 1.0, 1.0], dtype=torch.float64)
    right = torch.tensor([False, True, True, True, False])
    # Bins (0.2, 0.3], (0.8, 0.9], ... of width 0.1: |0 - .2| + |1 - .3| + |1 - .9| + |1 - 2| by 5.
    assert expected_calibration_error(confidence, right, 10) == pytest.approx(2.0 / 5)
    entries, _ = measured(
        net, data, tmp_path, {"kind": "calibration"}, {"kind": "calibration", "threat": THREAT}
    )
    images = data.test.images.float() / 255  # type: ignore[union-attr]
    labels = data.test.labels
    generator = torch.Generator().manual_seed(0)
    x_adv = pgd(net, images, labels, ThreatModel.model_validate(THREAT), generator=generator)
    for name, x in (("calibration", images), ("calibration_pgd8_linf", x_adv)):
        with torch.no_grad():
            confidences, predicted = net(x).softmax(1).max(1)
        hits = (predicted == labels).float()
        error = 0.0
        for b in range(15):  # bin by bin, as the paper writes it
            inside = (confidences > b / 15) & (confidences <= (b + 1) / 15)
            if inside.any():
                gap = (hits[inside].mean() - confidences[inside].mean()).abs()
                error += float(inside.float().mean() * gap)
        # The attack is crafted on a folded copy, whose rounding turns a few signs of gradients.
        tolerance = 1e-5 if name == "calibration" else 0.02
        assert entries[name]["mean"] == pytest.approx(error, abs=tolerance), name
        assert entries[name]["higher_is_better"] is False
