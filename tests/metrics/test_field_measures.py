"""Accuracy against eps, class by class, and calibration: against arithmetic done another way."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from short_attacks import shorten
from sklearn.metrics import balanced_accuracy_score
from tiny_suites import tiny_data
from torch import nn
from trained_networks import build, train

from benchmark.attacks import pgd
from benchmark.core.errors import BenchmarkError
from benchmark.core.threat import ThreatModel
from benchmark.data.corruptions import CORRUPTIONS, corrupt
from benchmark.data.dataset import Dataset
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.calibration import expected_calibration_error
from benchmark.metrics.metric import Context, check_panel, make_metric

CPU = torch.device("cpu")
PGD = importlib.import_module(
    "benchmark.attacks.pgd"
)  # the module: its package has a function of that name
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


def test_a_curve_is_near_pgd_and_above_autoattack_at_every_radius(
    net: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same images. An attack of its own at a radius differs by its random draws, and where an
    image resists a radius but not a smaller one."""
    shorten(monkeypatch, "apgd-ce", "apgd-t", steps=20, targets=3)
    radii = ["4/255", "8/255", "16/255", "24/255", "32/255"]
    curve = {"kind": "curve", "threat": THREAT, "n": 60}
    alone = []
    for eps in radii:
        threat = {**THREAT, "eps": eps, "step": f"{int(eps.partition('/')[0]) / 4}/255"}
        alone.append({"kind": "pgd", "threat": threat, "n": 60, "tag": eps})
    strong = [{"kind": "autoattack", "eps": eps, "n": 60, "tag": eps} for eps in radii]
    _, outcomes = measured(net, data, tmp_path, curve, *alone, *strong)
    for eps in radii:
        columns = [f"curve8_linf/{eps}", f"pgd8_linf@{eps}", f"aa_linf@{eps}"]
        found = outcomes[columns].dropna().astype(bool)
        assert len(found) == 60
        by_bisection, by_pgd, by_autoattack = (found[name] for name in columns)
        # at 16/255, the first radius that is tried, it is the same attack with the same draws
        allowed = 0 if eps == "16/255" else 4
        assert (by_bisection != by_pgd).sum() <= allowed, eps
        assert by_bisection.mean() >= by_autoattack.mean(), eps


def test_a_curve_costs_at_most_three_attacks(
    net: nn.Module, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it says, and counted in images times gradients."""
    attack, curve = ({"kind": kind, "threat": THREAT} for kind in ("pgd", "curve"))
    said = [make_metric(metric).passes(100) for metric in (attack, curve)]
    assert said == [800, 2400]
    counted = []
    gradient = PGD.input_gradient

    def counting(model: nn.Module, x: torch.Tensor, loss: Any) -> torch.Tensor:
        counted[-1] += len(x)
        return gradient(model, x, loss)

    monkeypatch.setattr(PGD, "input_gradient", counting)
    for metric in (attack, curve):
        counted.append(0)
        context = Context(Evaluator(data, CPU), net, "", tmp_path, pd.DataFrame())
        make_metric(metric).measure(context)
    assert 0 < counted[0] < counted[1] <= 3 * counted[0]


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


def test_any_accuracy_by_class(net: nn.Module, data: Dataset, tmp_path: Path) -> None:
    """Also of AutoAttack's attacks, unions and corruptions, of which an image counts by the share
    of its copies that are right."""
    kinds = [
        {"kind": "clean"},
        {"kind": "autoattack-part", "attack": "apgd-ce", "eps": "8/255", "n": 40},
        {"kind": "union", "of": ["clean", "apgd-ce_linf"]},
        {"kind": "corruptions", "severities": [5], "n": 30},
    ]
    parts = ["apgd-ce_linf", "union", "corruptions"]
    worst = [{"kind": "by-class", "of": part} for part in parts]
    entries, outcomes = measured(net, data, tmp_path, *kinds, *worst)
    for part, n in zip(parts, (40, 40, 30), strict=True):
        columns = [c for c in outcomes if c == part or c.startswith(f"{part}/")]
        known = outcomes[outcomes[columns[0]].notna()]
        by_label: dict[int, list[float]] = {}
        for label, row in zip(known["label"], known[columns].to_numpy(dtype=float), strict=True):
            by_label.setdefault(label, []).extend(row)
        entry = entries[f"worst_class_{part}"]
        assert entry["mean"] == pytest.approx(min(map(np.mean, by_label.values()))), part
        assert entry["n"] == n


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "curve", "threat": THREAT},
        {"kind": "calibration"},
        {"kind": "autoattack", "budget": 50},
    ],
)
def test_what_has_no_verdict_on_each_image_is_not_taken_by_class(part: dict[str, Any]) -> None:
    """Protects: a class accuracy over the sampled survivors of an estimate."""
    metric = make_metric(part)
    with pytest.raises(ValueError, match="needs a verdict on each test image"):
        check_panel([metric, make_metric({"kind": "by-class", "of": metric.name})])


def test_corrupted_images_under_attack(net: nn.Module, data: Dataset, tmp_path: Path) -> None:
    plain = {"kind": "corruptions", "severities": [3], "n": 12}
    entries, outcomes = measured(net, data, tmp_path, plain, {**plain, "threat": THREAT})
    entry = entries["corruptions_pgd8_linf"]
    assert entry["title"] == "Corruptions, PGD-8"
    assert "PGD linf, eps 16/255, step 4/255, 8 steps" in entry["description"]
    table = outcomes[outcomes["corruptions/fog/3"].notna()].astype(bool)
    for name in CORRUPTIONS:
        column = table[f"corruptions_pgd8_linf/{name}/3"]
        assert (table[f"corruptions/{name}/3"] | ~column).all(), "right under attack, wrong without"
        assert entry["detail"]["per_corruption"][name] == pytest.approx([column.mean()])
    assert entry["mean"] == pytest.approx(np.mean(list(entry["detail"]["per_corruption"].values())))
    assert entry["mean"] < entries["corruptions"]["mean"]
    # One of them again, in plain steps.
    rows = torch.tensor(table.index.to_numpy())
    images = corrupt(data.test.images[rows], "fog", 3, 0)  # type: ignore[union-attr]
    labels = data.test.labels[rows]
    x = images.float() / 255
    right = torch.tensor(table["corruptions/fog/3"].to_numpy())
    generator = torch.Generator().manual_seed(0)
    threat = ThreatModel.model_validate(THREAT)
    x_adv = pgd(net, x[right], labels[right], threat, generator=generator)
    assert float((x_adv - x[right]).abs().max()) <= 16 / 255 + 1e-6
    survivors = right.clone()
    survivors[right] = net(x_adv).argmax(1) == labels[right]
    found = torch.tensor(table["corruptions_pgd8_linf/fog/3"].to_numpy())
    # The metric's attack is crafted on a folded copy, whose rounding turns a few signs.
    assert int((found != survivors).sum()) <= 1
    costs = [make_metric({**plain, **more}).passes(100) for more in ({}, {"threat": THREAT})]
    assert costs == [pytest.approx(12 * 15 * 0.45), 12 * 15 * 8]


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
