"""The paper-scale suites run as they are, but for the number of images and epochs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from tiny_suites import cli
from torch import nn

from benchmark.config.suite import load_suite
from benchmark.core.objective import METHODS
from benchmark.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES
from benchmark.data.official import official
from benchmark.data.source import ExtraConfig
from benchmark.evaluation import reliability
from benchmark.models.dm_wide_resnet import DMWideResNet
from benchmark.models.zoo import build_model
from benchmark.training.build import training_length


@pytest.mark.parametrize("suite", ["cifar10-resnet18", "cifar100-resnet18", "cifar10-wrn32"])
def test_settings_of_the_papers(suite: str) -> None:
    """The settings of 2303.13813 and of the released code."""
    config = load_suite(suite)
    assert (config.train.epochs, config.train.batch_size) == (120, 128)
    assert len(config.seeds) == 3
    recipes = {method.label: method.recipe for method in config.methods}
    for name in ("generalist-d", "generalist-t", "generalist-d-norms", "generalist-official"):
        generalist = recipes[name]
        steps, per_epoch = 120 * 100, 100
        assert generalist.warmup.steps(steps, per_epoch) == 75 * per_epoch  # type: ignore[attr-defined]
        assert generalist.every.steps(steps, per_epoch) == 5 * per_epoch  # type: ignore[attr-defined]
        assert generalist.average.decay == 0.999  # type: ignore[attr-defined]
    threat = recipes["pgd-at"].learner.objective.threat  # type: ignore[attr-defined]
    assert (str(threat.eps), str(threat.step), threat.steps) == ("0.031", "0.007", 10)


def test_settings_of_generated_data() -> None:
    """The settings of 2302.04638 (its code: README.md, parser.py, train.py, watrain.py)."""
    config = load_suite("cifar10-wrn28-extra")
    assert config.dataset.extra == ExtraConfig(path="1m.npz", share=0.7)
    assert (config.dataset.val_size, config.train.batch_size) == (1024, 512)
    assert (config.train.selection, config.train.validation_images) == (("best",), 1024)
    assert config.train.validation_threat.steps == 40
    network = build_model(config.model, num_classes=10, image_size=32)
    assert isinstance(network, DMWideResNet)
    assert network.act is F.silu
    assert sum(p.numel() for p in network.parameters()) == 36_479_194
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    assert network.mu is not None
    assert [round(value, 4) for value in network.mu.flatten().tolist()] == [0.4914, 0.4822, 0.4465]
    trades, generalist = (method.recipe for method in config.methods)
    assert trades.decay == generalist.average.decay == 0.995  # type: ignore[attr-defined]
    theirs = METHODS.get("trades-generated").authors
    for learner in (trades.learner, generalist.learners[1]):  # type: ignore[attr-defined]
        objective = learner.objective
        assert (objective.name, objective.beta, objective.label_smoothing) == (
            "trades-generated", 5, 0.1,
        )  # fmt: skip
        threat = objective.threat
        assert (str(threat.eps), str(threat.step), threat.steps) == ("8/255", "2/255", 10)
        assert learner.optimizer == theirs.optimizer
        assert learner.schedule == theirs.schedule


@pytest.mark.parametrize(
    ("suite", "images", "steps", "all_steps"),
    [
        ("cifar10-resnet18", 49_000, 383, 120 * 383),
        ("cifar100-resnet18", 49_000, 383, 120 * 383),
        ("cifar10-wrn32", 49_000, 383, 120 * 383),
        ("imagenet-resnet50", 1_280_167, 10_002, 120 * 10_002),
        # the code counts ceil(50,000 / 512) = 98 steps, with the 1,024 images that it holds out
        ("cifar10-wrn28-extra", 48_976, 96, 400 * 98),
    ],
)
def test_steps_of_an_epoch(suite: str, images: int, steps: int, all_steps: int) -> None:
    """Protects: a tenth of the images once went to validation, and an epoch had 352 steps, not 383."""
    config = load_suite(suite)
    data = official(config.dataset)
    assert data is not None
    assert len(data.train) == images
    length = training_length(config.train, config.dataset, len(data.train))
    assert (length.steps_per_epoch, length.steps) == (steps, all_steps)


def test_the_suite_of_an_hour() -> None:
    """One cycle as in robust_overfitting: 0, 0.1 at two fifths, 0; PGD-7 at 8/255; half a point."""
    config = load_suite("cifar10-resnet18-hour")
    labels = [method.label for method in config.methods]
    assert labels == [
        "natural", "pgd-at", "pgd-at-ema", "trades", "joint", "generalist-d", "generalist-d-trades"
    ]  # fmt: skip
    assert (config.train.epochs, config.train.precision) == (30, "bf16")
    for cell in config.cells():
        recipe = cell.config.recipe
        learners = [recipe.learner] if hasattr(recipe, "learner") else recipe.learners  # type: ignore[attr-defined]
        for learner in learners:
            rates = [learner.optimizer.lr * learner.schedule(epoch / 30) for epoch in (0, 12, 30)]
            assert rates == pytest.approx([0.0, 0.1, 0.0])
            threat = getattr(learner.objective, "threat", None)
            assert threat is None or (str(threat.eps), threat.steps) == ("8/255", 7)
    (autoattack,) = (metric for metric in config.evaluation if metric.name.startswith("aa_"))
    assert autoattack.halfwidth == 0.5  # type: ignore[attr-defined]


CLASSES = {
    "cifar10": CIFAR10_CLASSES,
    "cifar100": CIFAR100_CLASSES,
    "imagenet": tuple(f"n{label:08d}" for label in range(10)),
}


def _write_folders(root: Path, size: int, classes: tuple[str, ...]) -> None:
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(3):
                pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "folder", "size", "method"),
    [
        ("cifar10-resnet18", "cifar10", 32, "generalist-d"),
        ("cifar100-resnet18", "cifar100", 32, "generalist-d"),
        ("cifar10-wrn32", "cifar10", 32, "generalist-d"),
        ("imagenet-resnet50", "imagenet", 256, "generalist-d"),
        ("cifar10-wrn28-extra", "cifar10", 32, "trades"),
    ],
)
def test_a_paper_suite_runs_with_a_limit(
    suite: str,
    folder: str,
    size: int,
    method: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A hundred passes of a large network; tests/evaluation/ is about them.
    monkeypatch.setattr(reliability, "check", lambda model, x, y: [])
    _write_folders(tmp_path / folder, size, CLASSES[folder])
    draw = np.random.default_rng(1)
    generated = draw.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "1m.npz", image=generated, label=np.arange(20) % 10)
    called = cli(
        "run", suite, "--data-root", tmp_path, "--out", tmp_path / "out", "--limit", 2,
        "--method", method, "--seed", 0, "--json", "--set", "dataset.val_size=5",
        "--set", "dataset.test_list=null", "--set", "threats.linf.steps=2",
        "--set", "train={epochs: 1, validations: 1, validation_images: 2, "
        "validation_threat: {eps: 8/255, steps: 1}}",
        "--set", "evaluation=[{kind: clean}, {kind: pgd, name: pgd2_linf, threat: {eps: 8/255, steps: 2}}]",
    )  # fmt: skip
    assert called.status == 0, called.err
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    training = json.loads((cell / "training.json").read_text())
    assert training["steps"] == 1
    # 2 crafting steps; a natural and a robust pass, of two learners or of TRADES
    assert training["passes_per_image"] == 4
    assert json.loads((cell / "evaluation.json").read_text())["metrics"]["clean"]["n"] == 2
    assert "limit = 2" in (tmp_path / "out" / "report" / "table.md").read_text()
