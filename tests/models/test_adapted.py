"""Whatever evaluates in torch evaluates here: what a network asks for is found and done for it."""

from __future__ import annotations

import copy
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.attacks.folding import FoldedView, folded_if_same
from benchmark.attacks.pgd import pgd
from benchmark.core.crafting import crafting
from benchmark.core.errors import ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.core.threat import ThreatModel
from benchmark.models.adapt import Adapted, adapted, notes_of
from benchmark.models.loading import load_external

Output = namedtuple("Output", ["logits", "aux"])


class Net(nn.Module):
    """A small network whose output and manners subclasses change."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 64, 10)

    def logits(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).flatten(1))

    def forward(self, x: Tensor) -> Any:
        return self.logits(x)


class Views(Net):
    def forward(self, x: Tensor) -> Any:
        h = F.relu(self.norm(self.conv(x)))
        return self.fc(h.view(h.size(0), -1))


class InPlace(Net):
    def forward(self, x: Tensor) -> Any:
        x -= 0.3
        return self.logits(x)


class InPlaceWithoutChange(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(F.relu_(x))


class Half(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(x).bfloat16()


class Double(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(x).double()


class OwnAutocast(Net):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.logits(x)


class Squeezes(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(x)[:, :, None, None].squeeze()


class Trailing(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(x)[:, :, None, None]


class Tuple(Net):
    def forward(self, x: Tensor) -> Any:
        return x.flatten(1), self.logits(x)


class List(Net):
    def forward(self, x: Tensor) -> Any:
        return [self.logits(x), x]


class Dictionary(Net):
    def forward(self, x: Tensor) -> Any:
        return {"aux": -self.logits(x), "logits": self.logits(x)}


class Named(Net):
    def forward(self, x: Tensor) -> Any:
        return Output(self.logits(x), -self.logits(x))


class Object(Net):
    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(loss=None, logits=self.logits(x), hidden=-self.logits(x))


class FormByBatch(Net):
    def forward(self, x: Tensor) -> Any:
        return (self.logits(x), x) if len(x) > 8 else self.logits(x)


class SilentTrain(Net):
    def train(self, mode: bool = True) -> Any:
        super().train(mode)


class NoModes(Net):
    def train(self, mode: bool = True) -> Any:
        raise NotImplementedError("exported programs have no modes")


class ExtraState(Net):
    def get_extra_state(self) -> Any:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"version": 1}


def adapt(net: nn.Module, batches: tuple[int, ...] = (2, 1, 7, 12)) -> nn.Module:
    return adapted(net, "net", 10, (3, 16, 16), batches, torch.device("cpu"))


THREAT = ThreatModel.model_validate({"norm": "linf", "eps": "0.1", "step": "0.05", "steps": 2})
ASKING = [
    Views, InPlace, InPlaceWithoutChange, Half, Double, OwnAutocast, Squeezes, Trailing, Tuple, List,
    Dictionary, Named, Object, FormByBatch, SilentTrain, NoModes, ExtraState,
]  # fmt: skip


@pytest.mark.parametrize("kind", ASKING)
def test_what_a_network_asks_for_is_done(kind: type[Net]) -> None:
    """Protects: each was a traceback, in the first batch, in an attack or in the last batch of one.
    Logits are the network's own, images are left alone, attacks run in the loader's layout."""
    net = kind()
    model = adapt(net)
    assert isinstance(model, Adapted)
    for n in (1, 3, 12):
        x = torch.rand(n, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        kept = x.clone()
        with crafting(model), torch.no_grad():
            logits = model(x)
        assert torch.equal(x, kept)
        assert logits.shape == (n, 10)
        assert logits.dtype == torch.float32
        shift = 0.3 if kind is InPlace else 0.0
        with torch.no_grad():
            expected = net.logits(kept.contiguous() - shift)
        tolerance = 2e-2 if kind in (Half, OwnAutocast) else 1e-5
        assert torch.allclose(logits, expected, atol=tolerance, rtol=tolerance)
        y = logits.argmax(1)
        with crafting(model):
            x_adv = pgd(folded_if_same(model, x, logits), x, y, THREAT)
            assert F.cross_entropy(model(x_adv), y) > F.cross_entropy(logits, y)
    assert all(isinstance(value, Tensor) for value in model.state_dict().values())
    assert tensors_hash(model.state_dict()) == tensors_hash(adapt(kind()).state_dict())
    model.load_state_dict(model.state_dict())
    quiet = (SilentTrain, NoModes, ExtraState)
    assert bool(notes_of(model)) == (kind not in quiet)
    assert notes_of(copy.deepcopy(model)) == notes_of(model)


def test_a_network_that_asks_for_nothing_stays_itself() -> None:
    """Protects: the fast paths, and the fingerprints of records."""
    net = Net().eval()
    assert adapt(net) is net
    assert notes_of(net) == ()


@pytest.mark.parametrize("kind", [InPlace, Tuple, Double])
def test_fast_paths_see_through(kind: type[Net]) -> None:
    model = adapt(kind().eval())
    view = FoldedView(model)
    assert view.folds == 1
    assert view.agrees(torch.rand(4, 3, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_types_get_images_of_their_type(dtype: torch.dtype) -> None:
    model = adapt(Net().eval().to(dtype))
    x = torch.rand(5, 3, 16, 16)
    assert model(x).dtype == torch.float32
    assert torch.allclose(model(x), Net().eval()(x), atol=0.05)
    name = str(dtype).removeprefix("torch.")
    assert any(f"images are cast to {name}" in note for note in notes_of(model))


class Ambiguous(Net):
    def forward(self, x: Tensor) -> Any:
        return self.logits(x), self.logits(x).softmax(1)


class NoLogits(Net):
    def forward(self, x: Tensor) -> Any:
        return {"features": x}


class NeedsTwo(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.BatchNorm1d(10, track_running_stats=False)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.logits(x))


class NeedsEven(Net):
    def forward(self, x: Tensor) -> Any:
        return (
            self.logits(x.reshape(2, -1, *x.shape[1:]).flatten(0, 1))
            if len(x) > 1
            else self.logits(x)
        )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Ambiguous, r"several tensors \[n, classes\] \(0, 1\).*return that one alone"),
        (NoLogits, "returns dict, not a tensor of logits"),
        (NeedsTwo, r"fails on images of shape \[1, 3, 16, 16\].*make it classify a single image too"),
        (NeedsEven, r"fails on images of shape \[7, 3, 16, 16\]"),
    ],
)  # fmt: skip
def test_what_cannot_be_attacked_is_refused_before_any_work(kind: type[Net], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        adapt(kind().eval())
    assert "\n" not in str(error.value)


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3, stride=2), nn.Flatten(), nn.LazyLinear(10))


def meta() -> nn.Module:
    with torch.device("meta"):
        return Net()


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> str:
    module = SimpleNamespace(
        lazy=lazy,
        meta=meta,
        net=Net,
        parallel=lambda: nn.DataParallel(Net()),
        compiled=lambda: torch.compile(Net(), backend="eager"),
        frozen=lambda: torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Flatten()).eval())),
    )
    monkeypatch.setitem(sys.modules, "users_nets", module)  # type: ignore[arg-type]
    return "users_nets"


def test_lazy_layers_get_their_shapes_before_the_weights(users: str, tmp_path: Path) -> None:
    source = lazy()
    source(torch.rand(2, 3, 16, 16))
    torch.save(source.state_dict(), tmp_path / "w.pt")
    model = load_external(f"{users}:lazy", tmp_path / "w.pt", 10, image_size=16)
    x = torch.rand(3, 3, 16, 16)
    assert torch.allclose(model(x), source(x), atol=1e-6)
    alone = load_external(f"{users}:lazy", None, 10, image_size=16)
    assert any("have random weights" in note for note in notes_of(alone))


def test_weights_without_values_are_refused(users: str) -> None:
    with pytest.raises(ConfigError, match="meta device.*make them on the CPU"):
        load_external(f"{users}:meta", None, 10, image_size=16)


@pytest.mark.parametrize("name", ["parallel", "compiled"])
def test_wrappers_are_taken_off(name: str, users: str, tmp_path: Path) -> None:
    """Protects: a wrapper hides the network from folding, and its names from checkpoints."""
    source = Net().eval()
    nn.init.constant_(source.fc.bias, 0.5)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    model = load_external(f"{users}:{name}", tmp_path / "w.pt", 10, image_size=16)
    assert type(model) is Net
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(model(x), source(x))
