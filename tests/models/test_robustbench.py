"""RobustBench itself, from PyPI, on what we export: the same networks and the same figures."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny_suites import cli, tiny
from torch import Tensor, nn

from benchmark.commands import submit
from benchmark.commands.run import run_suite
from benchmark.config.suite import build_suite
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.data.dataset import FileNames
from benchmark.data.source import DatasetConfig
from benchmark.models import robustbench as shim
from benchmark.models.adapt import notes_of
from benchmark.models.config import ModelConfig
from benchmark.models.dm_wide_resnet import DMWideResNet
from benchmark.models.loading import load_external
from benchmark.models.zoo import build_model

# A few images survive, so that agreement says something; each costs seconds.
EPS, IMAGES = "0.18", 10


@pytest.fixture(scope="module")
def robustbench() -> ModuleType:
    try:
        return shim.import_robustbench()
    except BenchmarkError as error:
        pytest.skip(f"RobustBench cannot be imported: {error}")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits with its bundle, AutoAttack on a few test images."""
    out = tmp_path_factory.mktemp("evaluated")
    suite = build_suite(
        tiny(
            dataset={"name": "digits", "train_limit": 400, "test_limit": IMAGES},
            model={"name": "small-resnet", "width": 8, "stem_stride": 2},
            threats={"linf": {"norm": "linf", "eps": 0.15, "step": 0.15, "steps": 1}},
            train={"epochs": 12, "validations": 1},
            evaluation=[{"kind": "clean"}, {"kind": "autoattack", "name": "aa_linf", "eps": EPS}],
        )
    )
    where = {"data_root": Path("data"), "device": torch.device("cpu"), "progress": Progress(True)}
    assert run_suite(suite, suite, out, **where) == []
    (run,) = (out / "cells").iterdir()
    called = cli("submit", run, "--draft")
    assert called.status == 0, called.err
    return run


def exported(bundle: Path) -> nn.Module:
    """The network, through the bundle's model.py."""
    spec = importlib.util.spec_from_file_location("bundle_model", bundle / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.load()
    return network


@pytest.mark.slow
def test_robustbench_measures_our_figures(
    robustbench: ModuleType, evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its benchmark() on the exported network: clean and AutoAttack, image for image in number."""
    config = json.loads((evaluated / "config.json").read_text())["config"]["dataset"]
    test = sources.load(DatasetConfig.model_validate(config), Path("data")).test
    assert isinstance(test, sources.Split)
    images = test.images.float() / 255
    given = lambda dataset, n, data_dir, prepr: (images[:n], test.labels[:n])  # noqa: E731
    monkeypatch.setattr(importlib.import_module("robustbench.eval"), "load_clean_dataset", given)
    metrics = json.loads((evaluated / "evaluation.json").read_text())["metrics"]
    clean, robust = robustbench.benchmark(
        exported(evaluated / "submission"),
        n_examples=IMAGES,
        dataset="cifar10",
        threat_model="Linf",
        eps=float(EPS),
        batch_size=IMAGES,
    )
    assert round(IMAGES * clean) == metrics["clean"]["correct"]
    assert round(IMAGES * robust) == metrics["aa_linf"]["correct"]
    assert metrics["aa_linf"]["correct"] < metrics["clean"]["correct"]


def _theirs(name: str) -> nn.Module:
    folder = "robustbench.model_zoo.architectures"
    if name == "wrn-28-10":
        return importlib.import_module(f"{folder}.wide_resnet").WideResNet(28, 10, 10)
    resnet = importlib.import_module(f"{folder}.resnet")
    if name == "resnet18":
        return resnet.ResNet18()
    return resnet.PreActResNet(resnet.PreActBlockV2, [2, 2, 2, 2], bn_before_fc=True)


def shaken(network: nn.Module) -> None:
    """BatchNorm with weights and biases that are not the neutral ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


@pytest.mark.parametrize("name", ["resnet18", "preactresnet18", "wrn-28-10"])
def test_our_weights_in_their_architectures(robustbench: ModuleType, name: str) -> None:
    """A strict load, and the same logits up to rounding."""
    ours = build_model(ModelConfig(name=name), num_classes=10, image_size=32).eval()
    shaken(ours)
    theirs = _theirs(name).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images), rtol=1e-4, atol=1e-5)


def test_swish_networks_of_deepmind_load_and_agree(robustbench: ModuleType, tmp_path: Path) -> None:
    """Weights of RobustBench's DMWideResNet, which are those of most entries with generated images:
    a strict load through the command line's own door, and the same logits in float64."""
    theirs_of = importlib.import_module(
        "robustbench.model_zoo.architectures.dm_wide_resnet"
    ).DMWideResNet
    torch.manual_seed(0)
    theirs = theirs_of(depth=28, width=2, activation_fn=nn.SiLU).double()
    shaken(theirs)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    theirs.train()(torch.rand(16, 3, 32, 32, dtype=torch.float64))  # or all logits would be alike
    theirs.eval()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    ours = DMWideResNet(10, blocks=4, widen=2, mean=mean, std=std).double().eval()
    outcome = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert (outcome.missing_keys, outcome.unexpected_keys) == (["mu", "sigma"], [])
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images)
        assert float((expected - expected.mean(0)).abs().max()) > 0.01
        # mean and std are of float32 on both sides
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-12)


def test_a_whole_network_of_deepmind_is_evaluated_by_name(
    robustbench: ModuleType, tmp_path: Path
) -> None:
    """A checkpoint of the size that is published: the registered name, told no activation."""
    theirs_of = importlib.import_module(
        "robustbench.model_zoo.architectures.dm_wide_resnet"
    ).DMWideResNet
    theirs = theirs_of(depth=28, width=10, activation_fn=nn.SiLU).eval()
    shaken(theirs)
    wrapped = {f"module.0.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"model_state_dict": wrapped}, tmp_path / "weights-best.pt")
    normalization = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
    ours = load_external(
        "dm-wrn-28-10",
        tmp_path / "weights-best.pt",
        10,
        settings={"normalization": normalization},
    )
    assert any("that of model.normalization is used" in note for note in notes_of(ours))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_imagenet_images(robustbench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board's 5,000 pass; one image less is a reason against the run."""
    files = sorted(shim.imagenet_files())
    assert len(files) == 5000
    assert all(file.partition("/")[0].startswith("n") for file in files)

    def data(names: list[str]) -> Any:
        split = sources.StreamedSplit(Path("val"), FileNames(names), torch.zeros(len(names)), 224)
        return sources.Dataset("imagenet", split, split, split, ("a", "b"), "", "")

    assert submit._against_files(data(files)) == []
    assert submit._against_files(data(files[1:])) == ["1 of the board's images are missing"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (reason,) = submit._against_files(data(files))
    assert "cannot be checked: robustbench is not installed" in reason


@pytest.fixture
def attacked() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear network and images that it is right on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10)).eval()
    x = torch.rand(6, 3, 4, 4)
    return model, x, model(x).argmax(1)


def test_the_old_signature_of_autoattack(
    attacked: tuple[nn.Module, Tensor, Tensor], tmp_path: Path
) -> None:
    """Names, order and results are those of the original package; the seed is no clock."""
    model, x, y = attacked
    runs = []
    for _ in range(2):
        attack = shim.AutoAttackShim(
            model,
            "Linf",
            0.05,
            verbose=True,
            attacks_to_run=["apgd-ce"],
            version="custom",
            device="cpu",
            log_path=tmp_path / "log.txt",
        )
        runs.append(attack.run_standard_evaluation(x, y, bs=4, return_labels=True))
    (x_adv, y_adv), again = runs
    assert torch.equal(x_adv, again[0])
    assert torch.equal(y_adv, model(x_adv).argmax(1))
    assert float((x_adv - x).abs().max()) <= 0.05 + 1e-6
    assert (y_adv != y).any()
    alone = attack.run_standard_evaluation(x, y, bs=4)
    assert torch.equal(alone, x_adv)
    assert "robust accuracy after APGD-CE" in (tmp_path / "log.txt").read_text()
    assert not logging.getLogger("auto-attack").handlers


def test_what_does_not_work_is_refused_before_the_attack(
    attacked: tuple[nn.Module, Tensor, Tensor], tmp_path: Path
) -> None:
    model, x, y = attacked
    attack = shim.AutoAttackShim(model, version="standard", device="cpu")
    with pytest.raises(ConfigError, match="aa_state_path does not work"):
        attack.run_standard_evaluation(x, y, state_path=tmp_path / "state")
    with pytest.raises(ConfigError, match="no TensorFlow"):
        shim.AutoAttackShim(model, is_tf_model=True, device="cpu")


def _raise(name: str) -> Any:
    def fail(_: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fail


@pytest.mark.parametrize(
    ("found", "imported", "message"),
    [
        (None, ModuleType, "robustbench is not installed; pip install"),
        ("there", ModuleType, "torchattacks ships an old copy"),
        ("there", _raise("pkg_resources"), "setuptools<81"),
        ("there", _raise("timm"), "needs the module timm"),
    ],
)
def test_an_unusable_installation_is_explained(
    found: object, imported: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ModuleType(name)`` stands for torchattacks' old copy: a module without benchmark()."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(importlib, "import_module", imported)
    with pytest.raises(BenchmarkError, match=message):
        shim.import_robustbench()
