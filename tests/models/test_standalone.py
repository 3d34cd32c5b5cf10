"""A network's source in one file: it computes the same, and what cannot be rebuilt is refused."""

from __future__ import annotations

import ast
import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from baselines.ensemble import AverageProbabilities
from benchmark.core.averaging import interpolated
from benchmark.core.errors import ConfigError
from benchmark.models.architecture import MODELS
from benchmark.models.config import ModelConfig
from benchmark.models.standalone import standalone_source
from benchmark.models.zoo import build_model

NETS = """
from torch import nn
from benchmark.models.resnet import pooled
import plugin_of_nets.parts as parts
from .parts import Scale, build, sign

class Kept(nn.Module):
    def __init__(self, net, scale, bias=0.0):
        super().__init__()
        self.net, self.scale = net, scale
        self._bias = bias
    def forward(self, x):
        return Scale(self.scale)(self.net(x)) + self._bias

class Lost(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, 10)
    def forward(self, x):
        return self.linear(pooled(x))

class Whole(Kept):
    def forward(self, x):
        return parts.Scale(self.scale)(self.net(x))

class Inside(Kept):
    def forward(self, x):
        import numpy
        return self.net(x)

class Foreign(Kept):
    def forward(self, x):
        return sign(self.net(x))

class Reserved(Kept):
    def forward(self, x):
        return build(self.net(x))

class BasicBlock(Kept):
    pass

def local(net):
    class Local(Kept):
        pass
    return Local(net, 1.0)
"""

PARTS = """
import functools
import numpy as np

@functools.total_ordering
class Scale:
    def __init__(self, by):
        self.by = by
    def __lt__(self, other):
        return self.by < other.by
    def __call__(self, x):
        return x * self.by * FACTOR

FACTOR = 2

def sign(x):
    return np.sign(x)

def build(x):
    return x
"""


def network(name: str, **options: object) -> nn.Module:
    """With BatchNorm statistics that are not those of initialisation."""
    config = ModelConfig.model_validate({"name": name, **options})
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    model = build_model(config, num_classes=10, image_size=32, mean=mean, std=std)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
    return model.eval()


def rebuilt(source: str, state: dict[str, Tensor], folder: Path) -> nn.Module:
    """Through files, as a reader of the bundle would."""
    (folder / "alone.py").write_text(source)
    torch.save(state, folder / "checkpoint.pt")
    spec = importlib.util.spec_from_file_location("alone", folder / "alone.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module ``plugin_of_nets.nets``."""
    package = tmp_path / "plugin_of_nets"
    package.mkdir()
    for name, text in {"__init__": "", "nets": NETS, "parts": PARTS}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("plugin_of_nets")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("plugin_of_nets.nets")


# dm-wrn-70-16 has the code of dm-wrn-28-10 and seven times as many weights
@pytest.mark.parametrize("name", sorted({*MODELS.names()} - {"dm-wrn-70-16"}))
def test_every_architecture_is_rebuilt(name: str, images: Tensor, tmp_path: Path) -> None:
    """Bit for bit from the written files, with imports of torch and the standard library alone."""
    model = network(name)
    source = standalone_source(model, "A title.", images)
    found = rebuilt(source, model.state_dict(), tmp_path)
    assert torch.equal(found(images), model(images))
    assert not found.training
    allowed = {"torch", "torchvision"} if name.startswith("torchvision") else {"torch"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert str(module).partition(".")[0] in allowed | sys.stdlib_module_names


def test_options_that_weights_do_not_tell_are_kept(images: Tensor, tmp_path: Path) -> None:
    options = {"width": 8, "stem_stride": 1, "normalization": "dataset"}
    model = network("small-resnet", **options)
    found = rebuilt(standalone_source(model, "T.", images), model.state_dict(), tmp_path)
    assert torch.equal(found(images), model(images))
    assert found.conv1.stride == (1, 1)


def test_an_ensemble_of_different_networks(images: Tensor, tmp_path: Path) -> None:
    """Members from every file of architectures in one, their normalisation with them."""
    names = ("small-resnet", "resnet2b", "torchvision-resnet18", "preactresnet18", "wrn-28-10")
    members = [network(name) for name in names]
    members[0] = network("small-resnet", normalization="dataset")
    model = AverageProbabilities(members, (0.1, 0.15, 0.2, 0.25, 0.3)).eval()
    found = rebuilt(standalone_source(model, "T.", images), model.state_dict(), tmp_path)
    assert torch.equal(found(images), model(images))


def test_copies_and_averages_are_rebuilt_too(images: Tensor) -> None:
    """Moving averages and interpolated networks are copies of what was built."""
    model = network("small-resnet", width=8)
    for other in (
        copy.deepcopy(model).to(memory_format=torch.channels_last),
        interpolated(model, network("small-resnet", width=8), 0.5, [images]),
    ):
        assert "ResNet(10, width=8" in standalone_source(other, "T.", images)


def test_a_class_of_a_plugin_is_taken_with_what_it_uses(
    nets: ModuleType, images: Tensor, tmp_path: Path
) -> None:
    """From two modules of its package, constants and decorators included."""
    model = nets.Kept(network("small-resnet"), 3.0).eval()
    found = rebuilt(standalone_source(model, "T.", images), model.state_dict(), tmp_path)
    assert torch.equal(found(images), model(images))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda nets, net: nets.Lost(3), "Lost does not keep the argument 'channels'"),
        (
            lambda nets, net: nets.Kept(net, torch.ones(1)),
            "argument of its constructor is a Tensor",
        ),
        (lambda nets, net: nets.Kept(net, 1.0, bias=9.0), "gives other logits"),
        (lambda nets, net: nets.Whole(net, 1.0), "as a module or under another name"),
        (lambda nets, net: nets.Inside(net, 1.0), "imports numpy inside a function"),
        (lambda nets, net: nets.Foreign(net, 1.0), "needs the package numpy"),
        (lambda nets, net: nets.Reserved(net, 1.0), "defines 'build'"),
        (lambda nets, net: nets.BasicBlock(net, 1.0), "'BasicBlock' means one thing in"),
        (lambda nets, net: nets.local(net), "not defined at the top level"),
        (lambda nets, net: nn.Sequential(net), "Sequential does not keep the argument 'args'"),
    ],
)
def test_what_cannot_be_rebuilt_is_refused(
    make: Callable[[ModuleType, nn.Module], nn.Module],
    message: str,
    nets: ModuleType,
    images: Tensor,
) -> None:
    """With the reason, and never by a file that computes something else."""
    with pytest.raises(ConfigError, match=message):
        standalone_source(make(nets, network("small-resnet")).eval(), "T.", images)


def test_a_class_without_source_is_refused(images: Tensor) -> None:
    namespace = ModuleType("typed_at_a_prompt")
    exec(NETS.split("class Lost")[0].replace("from .", "import math  # "), namespace.__dict__)
    with pytest.raises(ConfigError, match="source of typed_at_a_prompt cannot be read"):
        standalone_source(namespace.Kept(network("small-resnet"), 1.0).eval(), "T.", images)
