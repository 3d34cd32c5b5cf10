"""``gb.evaluate`` and ``gb.attack`` on networks and images in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_suites import tiny_data
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms.functional import to_pil_image, to_tensor
from trained_networks import build, train

import generalist_bench as gb
from benchmark.core.errors import BenchmarkError, ConfigError, DataError
from benchmark.core.threat import Pixels
from benchmark.data.dataset import Split
from benchmark.evaluation.identity import images_hash

CHEAP = ["clean", "pgd20_linf"]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return train(build("small-resnet"), robust=True, steps=20)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    """The test images of the digits under ``limit: 64``, as floats."""
    split = tiny_data().test
    assert isinstance(split, Split)
    return split.images.float() / 255, split.labels


class Items(Dataset[Any]):
    """What torchvision's data sets look like: PIL images, labels, names of classes."""

    classes = tuple("abcdefghij")

    def __init__(self, x: Tensor, y: Tensor, transform: Any = None) -> None:
        self.items, self.transform = (
            [(to_pil_image(image), int(k)) for image, k in zip(x, y, strict=True)],
            transform,
        )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        image, label = self.items[index]
        return (self.transform(image) if self.transform else image), label


def test_figures_outcomes_and_no_files(
    net: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a figure that is not that of the network on these images; traces in the user's
    folder, network or random numbers."""
    monkeypatch.chdir(tmp_path)
    x, y = images
    net.train()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    result = gb.evaluate(net, x, y, metrics=CHEAP, eps="16/255", quiet=True)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in net.modules())
    assert list(tmp_path.iterdir()) == []
    assert result.folder is None

    net.eval()
    right = net(x).argmax(1) == y
    assert result.outcomes["clean"].tolist() == right.tolist()
    table = result.table()
    assert table.loc["clean", "value"] == pytest.approx(float(right.double().mean()))
    robust = table.loc["pgd20_linf"]
    assert robust["low"] < robust["value"] < robust["high"]
    assert (robust["n"], robust["eps"]) == (64, pytest.approx(16 / 255))
    assert "20 steps" in robust["settings"]
    assert [table[name].dtype.kind for name in ("value", "low", "high", "n", "eps")] == list(
        "fffif"
    )
    assert result.record["dataset"]["images_hash"] == images_hash(tiny_data())
    assert "[!]" not in repr(result)
    assert "linf, eps 16/255" in result._repr_html_()


def test_a_doubtful_network_says_so(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    doubtful = nn.Sequential(net, nn.Softmax(1))
    result = gb.evaluate(doubtful, *images, metrics=["clean"], n=16, quiet=True)
    assert "probabilities" in {finding.name for finding in result.findings}
    assert "return logits" in repr(result)
    assert "return logits" in result._repr_html_()
    assert result.table()["n"].item() == 16


def test_data_sets_are_the_same_images(net: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """Protects: channels, labels or values that a form of data set changes."""
    x, y = images
    given: list[Any] = [
        (x, y),
        (np.asarray(255 * x).round().astype(np.uint8), y.tolist()),
        TensorDataset(x, y),
        Items(x, y),
        Items(x, y, to_tensor),
    ]
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        picture=datasets.Image(), kind=datasets.ClassLabel(names=list("abcdefghij"))
    )
    columns = {"picture": [to_pil_image(image) for image in x], "kind": y.tolist()}
    hf = datasets.Dataset.from_dict(columns, features=features)
    given += [hf, hf.with_format("torch")]
    hashes, outcomes = set(), set()
    for data in given:
        result = gb.evaluate(net, data, metrics=["clean"], quiet=True)
        hashes.add(result.record["dataset"]["images_hash"])
        outcomes.add(tuple(result.outcomes["clean"]))
    assert hashes == {images_hash(tiny_data())}
    assert len(outcomes) == 1
    assert result.record["dataset"]["classes"] == list("abcdefghij")


def test_values_between_those_of_8_bits_are_not_rounded(net: nn.Module) -> None:
    seen = []
    net.register_forward_pre_hook(hook := lambda module, given: seen.append(given[0].clone()))
    x = torch.rand(4, 3, 16, 16)
    gb.evaluate(net, x, torch.arange(4), metrics=["clean"], quiet=True)
    net._forward_pre_hooks.clear()
    assert hook
    assert any(each.shape == x.shape and torch.equal(each, x) for each in seen)


@pytest.mark.parametrize(
    ("eps", "radii"),
    [
        ("4/255", {"linf": "4/255", "l2": "4/255"}),
        (0.03, {"linf": "0.03", "l2": "0.03"}),
        (Pixels("6/255"), {"linf": "6/255", "l2": "6/255"}),
        ({"l2": 0.5}, {"linf": "8/255", "l2": "0.5"}),
        (None, {"linf": "8/255", "l2": "128/255"}),
    ],
)
def test_one_radius_for_all_attacks(
    net: nn.Module, images: tuple[Tensor, Tensor], eps: Any, radii: dict[str, str]
) -> None:
    own = {"kind": "pgd", "tag": "own", "threat": {"eps": "1/255", "steps": 2}}
    result = gb.evaluate(
        net, *images, metrics=["pgd20_linf", "pgd20_l2", own], eps=eps, n=4, quiet=True
    )
    found = {name: entry["ball"] for name, entry in result.record["metrics"].items()}
    assert found == {
        "pgd20_linf": ["linf", radii["linf"]],
        "pgd20_l2": ["l2", radii["l2"]],
        "pgd2_linf@own": ["linf", "1/255"],
    }


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"eps": 8}, ConfigError, "eps = 8 is too large for linf: pixels are in [0, 1]; did you mean 8/255?"),
        ({"eps": {"linv": 0.1}}, ConfigError, "unknown norm 'linv'; did you mean 'linf'?"),
        ({"metrics": ["pgd2_linf"]}, ConfigError, "unknown metric 'pgd2_linf'; did you mean 'pgd20_linf'"),
        ({"metrics": "clean"}, ConfigError, "write ['clean']"),
        ({"n": 65}, ConfigError, "n 65: the test split of x has 64 images"),
        ({"n_aa": 4}, ConfigError, "n_aa 4 applies to none of the metrics clean"),
        ({"x": "standard"}, DataError, "x: pixels go from -1 to 1, and must lie in [0, 1]; do not normalise"),
        ({"x": "bytes"}, DataError, "divide them by 255"),
        ({"x": "last"}, DataError, "write x.permute(0, 3, 1, 2)"),
        ({"x": "wide"}, DataError, "images are 16x8 pixels; only square ones"),
        ({"x": "loader"}, DataError, "give its .dataset"),
        ({"x": "digits", "y": None}, DataError, "x is a str, which is no pair of images and labels"),
        ({"y": torch.rand(64)}, DataError, "labels are float32"),
        ({"y": torch.full((64,), 10)}, DataError, "label 10 is out of range 0..9"),
        ({"classes": 3}, ConfigError, "is num_classes right?"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    net: nn.Module,
    images: tuple[Tensor, Tensor],
    call: dict[str, Any],
    error: type[BenchmarkError],
    message: str,
) -> None:
    x, y = images
    wrong = {
        "standard": 2 * (x - x.min()) / (x.max() - x.min()) - 1,
        "bytes": 255 * x,
        "last": x.permute(0, 2, 3, 1),
        "wide": x[..., :8],
    }
    given: Any = call.pop("x", None)
    call = {"metrics": ["clean"], **({} if "eps" not in call else {"metrics": CHEAP}), **call}
    if given == "loader":
        x, call["y"] = DataLoader(TensorDataset(x, y)), None
    elif given:
        x = wrong.get(given, given)
    call.setdefault("y", y)
    with pytest.raises(error) as raised:
        gb.evaluate(net, x, quiet=True, **call)
    assert message in str(raised.value)
    assert "--" not in str(raised.value)


def test_a_record_that_others_can_read(
    net: nn.Module, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    for name in ("one", "other"):
        result = gb.evaluate(
            net, *images, metrics=CHEAP, n=20, name=name, out=tmp_path / name, quiet=True
        )
        assert result.folder == tmp_path / name
    study = gb.load(tmp_path / "one", tmp_path / "other")
    assert study.table()["method"].tolist() == ["one", "one", "other", "other"]
    compared = study.compare("one", "other")
    assert compared["difference"].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["pgd", "mim", "cw", "apgd-ce"])
def test_attacks_stay_in_the_ball_and_succeed(
    net: nn.Module, images: tuple[Tensor, Tensor], name: str
) -> None:
    x, y = images[0][:16], images[1][:16]
    x_adv = gb.attack(name, net, x, y, eps="16/255", steps=5)
    assert x_adv.shape == x.shape
    assert float((x_adv - x).abs().max()) <= 16 / 255 + 1e-6
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert int((net(x_adv).argmax(1) == y).sum()) < int((net(x).argmax(1) == y).sum())
    assert torch.equal(x_adv, gb.attack(name, net, x, y, eps="16/255", steps=5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"name": "pdg"}, "unknown attack 'pdg'; did you mean 'pgd'"),
        ({"eps": 8}, "eps = 8 is too large for linf: pixels are in [0, 1]; did you mean 8/255?"),
        ({"norm": "l3"}, "unknown norm 'l3'"),
        ({"steps": 0}, "steps: 0 must be at least 1"),
        ({"x": torch.zeros(2, 3, 4, 4).byte()}, "divide bytes by 255"),
        ({"x": 2 * torch.ones(2, 3, 4, 4)}, "pixels of x go from 2 to 2"),
        ({"y": torch.zeros(3).long()}, "a label for each image"),
    ],
)
def test_an_attack_that_cannot_be(call: dict[str, Any], message: str) -> None:
    given = {"x": torch.rand(2, 3, 4, 4), "y": torch.tensor([0, 1]), "name": "pgd", **call}
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(BenchmarkError) as raised:
        gb.attack(given.pop("name"), net, given.pop("x"), given.pop("y"), **given)
    assert message in str(raised.value)
