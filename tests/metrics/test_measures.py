"""Metrics beyond the standard panel: parts of AutoAttack, screening, grids, shifted test sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_entries import made
from short_attacks import shorten
from tiny_suites import tiny_data
from torch import Tensor, nn

from benchmark.attacks.autoattack import run_autoattack
from benchmark.core.errors import ConfigError, DataError
from benchmark.core.progress import Progress
from benchmark.data.cifar import CIFAR10_CLASSES
from benchmark.data.dataset import Dataset, Split
from benchmark.evaluation.evaluator import Evaluator
from benchmark.evaluation.reliability import across
from benchmark.metrics.metric import Metric, make_metric
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

CPU = torch.device("cpu")
PART = {"kind": "autoattack-part", "name": "apgd-ce_linf", "attack": "apgd-ce", "eps": 0.1}
SCREENING = {"kind": "autoattack", "precision": "bf16", "name": "aa_linf_screening", "eps": 0.1}
GRID = {"rotation": 20, "rotations": 3, "translation": 2, "translations": 3}


def panel(*metrics: dict[str, Any]) -> list[Metric]:
    return [make_metric(metric) for metric in metrics]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_data(150)


@pytest.fixture(scope="module")
def net(data: Dataset) -> nn.Module:
    """Trained for a moment."""
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(name="small-resnet", width=8, stem_stride=2), num_classes=10, image_size=16
    )
    split = tiny_data(None).train
    assert isinstance(split, Split)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(60):
        rows = torch.randint(len(split), (64,))
        optimizer.zero_grad()
        logits = model.train()(split.images[rows].float() / 255)
        nn.functional.cross_entropy(logits, split.labels[rows]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def short_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack's first attack alone stands for all of it."""
    shorten(monkeypatch, "apgd-ce")


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_a_part_is_that_attack_alone(net: nn.Module, data: Dataset, tmp_path: Path) -> None:
    Evaluator(data, CPU).evaluate(net, panel(PART), tmp_path)
    entry = record(tmp_path)["metrics"]["apgd-ce_linf"]
    split = data.test
    assert isinstance(split, Split)
    x = split.images.float() / 255
    alone = run_autoattack(
        net, x, split.labels, norm="linf", eps=0.1, seed=0, attacks=["apgd-ce"], batch_size=256
    )
    column = pd.read_parquet(tmp_path / "outcomes.parquet")["apgd-ce_linf"]
    assert column.tolist() == alone.robust.tolist()
    assert entry["detail"]["attacks"] == ["apgd-ce"]


@pytest.mark.usefixtures("short_attacks")
def test_a_screening_is_judged_in_fp32_and_labelled(
    net: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    """Protects: no success that the fp32 model does not confirm, and no verdict of AutoAttack's."""
    evaluator = Evaluator(data, CPU, keep_adversarial=True)
    evaluator.evaluate(net, panel(SCREENING), tmp_path)
    entry = record(tmp_path)["metrics"]["aa_linf_screening"]
    assert (entry["kind"], entry["detail"]["precision"]) == ("autoattack", "bf16")
    kept = torch.load(tmp_path / "adversarial-aa_linf_screening.pt", weights_only=True)
    robust = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf_screening"]
    split = data.test
    assert isinstance(split, Split)
    with torch.no_grad():
        wrong = net(kept["x_adv"]).argmax(1) != split.labels
    fooled = kept["fooled"]
    assert int(fooled.sum()) > 0
    assert bool(wrong[fooled].all())
    assert not robust[fooled.numpy()].any()
    far = (kept["x_adv"] - split.images.float() / 255).abs().amax((1, 2, 3))
    assert float(far.max()) <= 0.1 + 1e-6


class Moody(nn.Module):
    """Wrong on changed images, but only in a batch of four."""

    def forward(self, x: Tensor) -> Tensor:
        changed = (x - 0.5).abs().amax((1, 2, 3)) > 1e-3
        wrong = changed & (len(x) == 4)
        return nn.functional.one_hot(wrong.long(), 10).float() + 0 * x.sum()


def test_unconfirmed_successes_of_a_screening_do_not_count() -> None:
    """Protects: an example that fools in one batch composition alone is no success when
    screening; AutoAttack itself counts it, and the result says so."""
    x, y = torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, dtype=torch.long)
    options: dict[str, Any] = {"norm": "linf", "eps": 0.1, "seed": 0, "attacks": ["apgd-ce"]}
    screened = run_autoattack(Moody(), x, y, **options, batch_size=4, precision="bf16")
    assert screened.disputed.all()
    assert screened.robust.all()
    whole = run_autoattack(Moody(), x, y, **options, batch_size=4)
    assert not whole.robust.any()
    assert any("not confirmed" in warning for warning in whole.warnings)


@pytest.mark.usefixtures("short_attacks")
def test_examples_are_kept_as_floats_on_request(
    net: nn.Module, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = panel({"kind": "autoattack", "name": "aa_linf", "eps": 0.1, "n": 20})
    Evaluator(data, CPU).evaluate(net, metric, tmp_path)
    assert not list(tmp_path.glob("adversarial*"))
    first = record(tmp_path)["metrics"]["aa_linf"]["correct"]
    Evaluator(data, CPU, keep_adversarial=True, progress=Progress()).evaluate(net, metric, tmp_path)
    kept = torch.load(tmp_path / "adversarial-aa_linf.pt", weights_only=True)
    assert kept["x_adv"].dtype == torch.float32
    assert len(kept["index"]) == 20
    assert record(tmp_path)["metrics"]["aa_linf"]["correct"] == first
    assert "8 bits" in capsys.readouterr().err


def test_the_spatial_grid_in_the_record(net: nn.Module, data: Dataset, tmp_path: Path) -> None:
    metrics = panel(
        {"kind": "clean"},
        {"kind": "spatial", "grid": GRID, "n": 40},
        PART | {"n": 30},
        {"kind": "union", "of": ["spatial", "apgd-ce_linf"]},
    )
    Evaluator(data, CPU, batch_size=16).evaluate(net, metrics, tmp_path)
    outcomes = pd.read_parquet(tmp_path / "outcomes.parquet")
    entry = record(tmp_path)["metrics"]
    assert entry["spatial"]["detail"]["points"] == 27
    assert entry["spatial"]["n"] == 40
    assert not (outcomes["spatial"].fillna(False) & ~outcomes["clean"]).any()
    both = outcomes[["spatial", "apgd-ce_linf"]].dropna()
    assert entry["union"]["n"] == len(both) == 30
    assert entry["union"]["correct"] == int(both.all(axis=1).sum())


class Bright(nn.Module):
    """Class 3 where the image is bright, else class 0; ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3)) * self.scale
        zero = torch.zeros_like(mean)
        return torch.stack([zero + 0.5, zero, zero, mean, *[zero] * 6], 1)


@pytest.fixture
def cifar(tmp_path: Path) -> tuple[Dataset, Path]:
    """A data set with the classes of CIFAR-10, and a folder with a CIFAR-10.1."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(20) % 10)
    base = tiny_data(64)
    data = replace(
        base, name="cifar10", train=split, val=split, test=split, classes=CIFAR10_CLASSES,
        fingerprint="f" * 16,
    )  # fmt: skip
    root = tmp_path / "data"
    (root / "CIFAR-10.1").mkdir(parents=True)
    bright = np.zeros((30, 32, 32, 3), np.uint8)
    labels = np.arange(30) % 10
    bright[labels == 3] = 255
    np.save(root / "CIFAR-10.1" / "cifar10.1_v6_data.npy", bright)
    np.save(root / "CIFAR-10.1" / "cifar10.1_v6_labels.npy", labels)
    return data, root


def test_a_shifted_test_set_has_outcomes_of_its_own(
    cifar: tuple[Dataset, Path], tmp_path: Path
) -> None:
    data, root = cifar
    metrics = panel({"kind": "clean"}, {"kind": "shift", "test_set": "cifar10.1"})
    run = tmp_path / "run"
    evaluator = Evaluator(data, CPU, data_root=root)
    evaluator.evaluate(Bright(), metrics, run)
    entry = record(run)["metrics"]["cifar10.1"]
    assert (entry["n"], entry["correct"]) == (30, 6)  # classes 0 and 3
    table = pd.read_parquet(run / "outcomes-cifar10.1.parquet")
    assert table.loc[table["cifar10.1"], "label"].isin([0, 3]).all()
    assert "cifar10.1" not in pd.read_parquet(run / "outcomes.parquet")
    before = (run / "evaluation.json").read_bytes()
    Evaluator(data, CPU, data_root=root).evaluate(Bright(), metrics, run)
    assert (run / "evaluation.json").read_bytes() == before, "finished work is kept"
    labels = np.arange(30)[::-1] % 10
    np.save(root / "CIFAR-10.1" / "cifar10.1_v6_labels.npy", labels.copy())
    Evaluator(data, CPU, data_root=root).evaluate(Bright(), metrics, run)
    assert record(run)["metrics"]["cifar10.1"]["correct"] != 6, "other files, measured anew"


def test_a_shifted_test_set_under_attack_and_by_class(
    cifar: tuple[Dataset, Path], tmp_path: Path
) -> None:
    """Bright images (1.0) fall below the threshold of 0.5 at eps 0.6 and not at 0.2, and dark ones
    (0.0) rise above it."""
    data, root = cifar

    def under(eps: float, tag: str) -> dict[str, Any]:
        threat = {"norm": "linf", "eps": eps, "step": 0.1, "steps": 12}
        return {"kind": "shift", "test_set": "cifar10.1", "threat": threat, "tag": tag}

    small, large = under(0.2, ""), under(0.6, "wide")
    names = ["cifar10.1_pgd12_linf", "cifar10.1_pgd12_linf@wide"]
    by_class = [
        {"kind": "by-class", "of": names[0], "reduce": reduce} for reduce in ("worst", "balanced")
    ]
    metrics = panel(small, large, *by_class)
    assert [metric.name for metric in metrics[:2]] == names
    assert metrics[0].title == "cifar10.1, PGD-12"
    assert metrics[0].passes(30) == 30 * 12
    Evaluator(data, CPU, data_root=root).evaluate(Bright(), metrics, tmp_path / "run")
    entries = record(tmp_path / "run")["metrics"]
    assert [entries[name]["correct"] for name in names] == [6, 0]
    assert "PGD linf, eps 0.2" in entries[names[0]]["description"]
    assert entries[f"worst_class_{names[0]}"]["mean"] == 0
    assert entries[f"balanced_{names[0]}"]["mean"] == pytest.approx(0.2)
    assert entries[f"balanced_{names[0]}"]["n"] == 30


def test_missing_shifted_files_stop_before_any_work(
    cifar: tuple[Dataset, Path], tmp_path: Path
) -> None:
    data, _ = cifar
    metrics = panel({"kind": "clean"}, {"kind": "shift", "test_set": "stl10"})
    with pytest.raises(DataError, match="stl10 was not found"):
        Evaluator(data, CPU, data_root=tmp_path).evaluate(Bright(), metrics, tmp_path / "run")
    with pytest.raises(ConfigError, match="imagenet"):
        metrics = panel({"kind": "shift", "test_set": "imagenet-a"})
        Evaluator(data, CPU, data_root=tmp_path).evaluate(Bright(), metrics, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def attack(n: int, **detail: Any) -> dict[str, Any]:
    return made({"kind": "autoattack"}, {"norm": "linf", "eps": "8/255", **detail}, n=n)


def pgd(**threat: Any) -> dict[str, Any]:
    return made({"kind": "pgd", "threat": threat}, {"threat": threat}, n=100)


def test_what_attacks_say_about_one_another() -> None:
    """Protects: masked gradients that only comparing attacks shows (logits x 1e4: PGD-20 100 %,
    AutoAttack 37.5 %; quantised input: Square alone breaks)."""
    after = {"apgd-ce": 0.5, "apgd-t": 0.48, "fab-t": 0.48, "square": 0.48}
    threat = {"norm": "linf", "eps": "8/255", "steps": 20}
    honest = {
        "aa_linf": attack(100, after=after),
        "pgd20_linf": pgd(**threat),
        "pgd20_l2": pgd(**{**threat, "norm": "l2", "eps": "128/255"}),
    }
    right = pd.DataFrame({
        "aa_linf": [True] * 48 + [False] * 52,
        "pgd20_linf": [True] * 57 + [False] * 43,
        "pgd20_l2": [True] * 100,
    }).astype("boolean")  # fmt: skip
    assert across(honest, right) == []
    square = {**honest, "aa_linf": attack(100, after={**after, "square": 0.40})}
    (found,) = across(square, right)
    assert found.name == "black-box-beats-gradients"
    assert "8 of 100" in found.text
    right["pgd20_linf"] = [True] * 80 + [False] * 20
    (found,) = across(honest, right)
    assert found.name == "pgd-far-above-autoattack"
    assert "32 of 100" in found.text


def test_the_gate_sees_what_only_attacks_show(
    net: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    """Protects: such a finding reaches the record, is renewed, and the model's own stay."""

    class Loud(nn.Module):
        """Logits so large that the cross-entropy has no gradient."""

        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * self.net(x)

    threat = {"norm": "linf", "eps": "0.1", "step": "0.025", "steps": 20}
    metrics = panel(
        {"kind": "pgd", "name": "pgd20_linf", "threat": threat, "n": 32},
        {"kind": "autoattack", "name": "aa_linf", "eps": "0.1", "n": 32},
    )
    Evaluator(data, CPU).evaluate(Loud(), metrics, tmp_path)
    names = {finding["name"] for finding in record(tmp_path)["reliability"]["findings"]}
    assert {"logit-scale", "pgd-far-above-autoattack"} <= names
