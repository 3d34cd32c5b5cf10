"""Networks from outside: every way a checkpoint or a factory can be wrong has its own message."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.models.config import ModelConfig
from benchmark.models.loading import load_external
from benchmark.models.zoo import build_model

FACTORIES = """
import torch
from torch import nn

def net(num_classes=10, width=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 7)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        return self.drop(self.model(x.mean((2, 3))))

def failing():
    raise RuntimeError("no weights here")

def text():
    return "net"

attribute = 3
"""


def load_small(path: Path, num_classes: int) -> nn.Module:
    return load_external("small-resnet", path, num_classes, settings={"stem_stride": 2})


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "user_factories", raising=False)
    return "user_factories"


def small(**options: object) -> nn.Module:
    config = ModelConfig.model_validate({"name": "small-resnet", **options})
    return build_model(config, num_classes=10, image_size=32)


def save(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
def test_usual_forms_of_checkpoints_load(key: str | None, prefix: str, tmp_path: Path) -> None:
    source = small().eval()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    path = save({key: state, "epoch": 3} if key else state, tmp_path / "net.pt")
    model = load_small(path, 10)
    x = torch.rand(2, 3, 32, 32)
    assert not model.training
    assert torch.equal(model(x), source(x))


def test_width_and_normalisation_come_from_the_checkpoint(tmp_path: Path) -> None:
    normalization = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    source = small(width=4, normalization=normalization).eval()
    state = {f"module.{name}": value for name, value in source.state_dict().items()}
    model = load_small(save(state, tmp_path / "net.pt"), 10)
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), source(x))


def test_a_name_of_the_network_itself_is_not_stripped(factories: str, tmp_path: Path) -> None:
    state = {"model.weight": torch.ones(7, 3), "model.bias": torch.zeros(7)}
    model = load_external(f"{factories}:Fixed", save(state, tmp_path / "net.pt"), 7)
    assert torch.equal(model.model.weight, torch.ones(7, 3))
    assert not model.drop.training


def test_factory_gets_the_number_of_classes_and_needs_no_checkpoint(factories: str) -> None:
    model = load_external(f"{factories}:net", None, 6)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:missing", "no callable 'missing'"),
        ("{}:attribute", "no callable 'attribute'"),
        ("{}:failing", "no weights here"),
        ("{}:text", "returned str"),
        ("{}:Fixed", r"\[2, 7\], not to \[2, 10\]"),
        ("no_such_module:net", "cannot import 'no_such_module'"),
        ("small-resnet", "without weights"),
        ("net.pth", r"not a model; .* a file ending in \.ts"),
    ],
)
def test_unusable_factories_are_explained(spec: str, message: str, factories: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_external(spec.format(factories), None, 10)


def test_unknown_architecture_gets_near_misses(tmp_path: Path) -> None:
    path = save(small().state_dict(), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match="did you mean 'small-resnet'"):
        load_external("smal-resnet", path, 10)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        load_small(tmp_path / "none.pt", 10)
    with pytest.raises(CheckpointError, match="not a file"):
        load_small(tmp_path, 10)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_file(kept: float, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(small().state_dict(), buffer)
    content = buffer.getvalue()
    path = tmp_path / "net.pt"
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(CheckpointError, match="damaged"):
        load_small(path, 10)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" * 9])
def test_file_of_another_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not a PyTorch file"):
        load_small(path, 10)


class Payload:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("planted",))


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_not_run(
    legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pt"
    torch.save({"x": Payload()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="could run code"):
        load_small(path, 10)
    assert not (tmp_path / "planted").exists()


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could run code"):
        load_small(save(small(), tmp_path / "net.pt"), 10)


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, [1, 2], torch.zeros(2), {"model": {}}])
def test_file_without_weights(content: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state dict"):
        load_small(save(content, tmp_path / "net.pt"), 10)


def test_other_architecture_names_three_keys(tmp_path: Path) -> None:
    state = small().state_dict()
    fewer = {k: v for k, v in state.items() if not k.startswith("layer1")}
    with pytest.raises(CheckpointError, match=r"missing layer1\S+, \S+, \S+ and \d+ more"):
        load_small(save(fewer, tmp_path / "net.pt"), 10)
    more = {**state, "extra.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"unexpected extra\.weight"):
        load_small(save(more, tmp_path / "net.pt"), 10)


def test_other_shape_is_named(tmp_path: Path) -> None:
    path = save(small().state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"linear.weight is \[10, 64\] in the file"):
        load_small(path, 6)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    state = small().state_dict()
    state["linear.bias"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"linear\.bias"):
        load_small(save(state, tmp_path / "net.pt"), 10)


def test_a_stride_that_the_weights_do_not_tell_is_asked_for(tmp_path: Path) -> None:
    """Protects: the same weights with another stride are another network, and no error said so."""
    path = save(small().state_dict(), tmp_path / "net.pt")
    with pytest.raises(ConfigError, match=r"--set model\.stem_stride=1"):
        load_external("small-resnet", path, 10)
    one, two = (
        load_external("small-resnet", path, 10, settings={"stem_stride": s}) for s in (1, 2)
    )
    x = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(one(x), two(x))


def test_settings_are_for_registered_architectures(factories: str) -> None:
    with pytest.raises(ConfigError, match="registered architectures"):
        load_external(f"{factories}:net", None, 10, settings={"width": 8})
