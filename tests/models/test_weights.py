"""Checkpoints as training scripts write them: unwrapped on both sides, and never loaded wrongly."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.models.adapt import notes_of
from benchmark.models.config import ModelConfig
from benchmark.models.loading import load_external
from benchmark.models.weights import load_weights, read_state_dict
from benchmark.models.zoo import build_model, recorded_state
from benchmark.training import checkpoint


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, 10))


SOURCE = plain()
STATE = SOURCE.state_dict()
ZERO = {name: torch.zeros_like(value) for name, value in STATE.items()}


def under(prefix: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in (state or STATE).items()}


def loaded(
    content: Any, tmp_path: Path, net: nn.Module | None = None, key: str | None = None
) -> Any:
    torch.save(content, tmp_path / "w.pt")
    net = net or plain()
    load_weights(net, read_state_dict(tmp_path / "w.pt", key), "w.pt")
    return net.state_dict()


GOOD: dict[str, Any] = {
    "net": {"net": under("module."), "acc": np.float64(93.1), "epoch": 3},
    "ema": {"ema": STATE},
    "nested": {"model": {"state_dict": STATE}},
    "shadow": {"ema": {"decay": 0.999, "shadow": STATE}},
    "compiled": under("_orig_mod."),
    "parallel and compiled": under("module._orig_mod."),
    "wrapper inside": under("model.module."),
    "average": AveragedModel(SOURCE).state_dict(),
    "profiler": {**STATE, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
    "lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2.4", "epoch": 1},
    "timm": {"state_dict": STATE, "state_dict_ema": STATE, "args": argparse.Namespace(lr=0.1)},
    "twice the same": {**STATE, **under("module.")},
    "without counters of batches": {k: v for k, v in STATE.items() if "num_batches" not in k},
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel], ids=["bare", "wrapped"])
def test_checkpoints_are_unwrapped_on_both_sides(name: str, wrap: Any, tmp_path: Path) -> None:
    found = loaded(GOOD[name], tmp_path, wrap(plain()))
    for key, value in STATE.items():
        assert torch.equal(found[next(n for n in found if n.endswith(key))], value), key


def test_an_inner_wrapper_of_the_network_is_no_hindrance(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Identity(), nn.DataParallel(plain()))
    assert torch.equal(loaded(under("1."), tmp_path, net)["1.module.0.weight"], STATE["0.weight"])


REFUSED: dict[str, tuple[Any, str]] = {
    "zeros beside": ({**under("module."), **ZERO}, "two different values of 0.weight: module"),
    "two networks": (
        {**under("model."), **under("ema_model.", ZERO)},
        r"holds the network twice.*checkpoint_key",
    ),
    "average beside": (
        {"state_dict": STATE, "state_dict_ema": ZERO},
        r"several state dicts \(state_dict, state_dict_ema\).*checkpoint_key",
    ),
    "list": ({"models": 1, "net": [STATE, ZERO]}, r"a list of them \(net\)"),
    "list alone": ([STATE, ZERO], "a list of them"),
    "unknown key": ({"mine": STATE}, "its keys: mine; --set model.checkpoint_key"),
    "lost normalisation": ({**under("model."), "mean": torch.zeros(3)}, "unexpected mean"),
    "other prefix": (under("encoder."), "missing 0.weight.*unexpected encoder"),
    "whole network": (SOURCE, "could run code"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_loaded_wrongly_is_refused(name: str, tmp_path: Path) -> None:
    """Protects: ``module.*`` beside bare zeros loaded the zeros without a word."""
    content, said = REFUSED[name]
    with pytest.raises(CheckpointError, match=said) as error:
        loaded(content, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"state_dict": ZERO, "state_dict_ema": STATE}, "state_dict_ema"),
        ({"mine": STATE}, "mine"),
        ({"a": {"b": STATE}}, "a.b"),
        ({**under("model.", ZERO), **under("ema_model.")}, "ema_model"),
        ({"state_dict": {**under("student.", ZERO), **under("teacher.")}}, "state_dict.teacher"),
    ],
)
def test_one_of_several_can_be_chosen(content: Any, key: str, tmp_path: Path) -> None:
    assert torch.equal(loaded(content, tmp_path, key=key)["0.weight"], STATE["0.weight"])
    with pytest.raises(CheckpointError, match="no state dict under 'none'"):
        loaded(content, tmp_path, key="none")


def test_torchscript_in_the_place_of_weights_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Flatten()), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="whole network in TorchScript.*as the model itself"):
        read_state_dict(tmp_path / "net.pth")


def small(**options: Any) -> nn.Module:
    config = ModelConfig.model_validate({"name": "small-resnet", "width": 4, **options})
    return build_model(config, num_classes=10, image_size=32)


def test_the_options_of_an_architecture_travel_with_its_weights(tmp_path: Path) -> None:
    """Protects: the same weights with another stride are another network, and load without error."""
    source, path = small(stem_stride=1).eval(), tmp_path / "net.pt"
    checkpoint.save(path, recorded_state(source))
    model = load_external("small-resnet", path, 10)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), source(x))
    with pytest.raises(CheckpointError, match="network with stem_stride = 1, not 2"):
        load_external("small-resnet", path, 10, settings={"stem_stride": 2})
    with pytest.raises(RuntimeError, match="stem_stride = 1, not 2"):
        small(stem_stride=2).load_state_dict(checkpoint.load(path))
    copy.deepcopy(source).load_state_dict(checkpoint.load(path))


def test_bare_weights_say_that_they_cannot_tell(tmp_path: Path) -> None:
    torch.save(small().state_dict(), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="the stem_stride of .* cannot be read from its weights"):
        load_external("small-resnet", tmp_path / "net.pt", 10)
    model = load_external("small-resnet", tmp_path / "net.pt", 10, settings={"stem_stride": 2})
    assert any("could not be checked" in note for note in notes_of(model))
