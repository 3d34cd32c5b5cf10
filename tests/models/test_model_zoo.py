"""Architectures: names that checkpoints of others rely on, sizes, normalisation inside."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from benchmark.core.config import parse
from benchmark.core.errors import ConfigError
from benchmark.models.architecture import MODELS
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

# Of RobustBench 1.1.1's architectures: number of entries of the state dict, the first 16 digits of
# the SHA-256 of its lines "name [shape]", and names that show the form.
ROBUSTBENCH = {
    "resnet18": (122, "d8fb3c82a894f982", ["layer2.0.shortcut.1.running_var", "linear.weight"]),
    "preactresnet18": (107, "f0748df7b91d356f", ["layer2.0.shortcut.0.weight", "bn.weight"]),
    "preactresnet18-fastat": (102, "c06cf1e3bd39d6c1", ["layer1.1.bn2.bias", "linear.bias"]),
    "wrn-28-10": (155, "bce54618b15fe64e", ["block1.layer.0.convShortcut.weight", "fc.bias"]),
    "wrn-34-10": (191, "8dbaf585b81a7f13", ["block3.layer.4.conv2.weight", "bn1.weight"]),
}

PARAMETERS = {
    "dm-wrn-28-10": 36_479_194,
    "dm-wrn-70-16": 266_796_506,
    "preactresnet18": 11_172_170,
    "preactresnet18-fastat": 11_171_146,
    "resnet18": 11_173_962,
    "resnet18-w16": 701_466,
    "resnet2b": 112_006,
    "small-resnet": 78_042,
    "wrn-28-10": 36_479_194,
    "wrn-32-10": 46_160_474,
    "wrn-34-10": 46_160_474,
}

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def build(name: str, num_classes: int = 10, image_size: int = 32, **options: object) -> nn.Module:
    config = ModelConfig.model_validate({"name": name, **options})
    return build_model(config, num_classes=num_classes, image_size=image_size, mean=MEAN, std=STD)


def on_meta(name: str, num_classes: int = 10) -> nn.Module:
    """The network without memory for its weights: enough for names and shapes, and instant."""
    with torch.device("meta"):
        return build(name, num_classes)


@pytest.mark.parametrize("name", ROBUSTBENCH)
def test_names_and_shapes_are_those_of_robustbench(name: str) -> None:
    count, digest, some = ROBUSTBENCH[name]
    state = on_meta(name).state_dict()
    lines = "\n".join(f"{key} {list(value.shape)}" for key, value in state.items())
    assert len(state) == count
    assert set(some) <= set(state)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    assert sum(p.numel() for p in on_meta(name).parameters()) == PARAMETERS[name]


def test_torchvision_networks_have_the_published_sizes() -> None:
    for name, count in (
        ("torchvision-resnet18", 11_689_512),
        ("torchvision-resnet50", 25_557_032),
    ):
        assert sum(p.numel() for p in on_meta(name, 1000).parameters()) == count


def test_every_registered_name_is_tested_here() -> None:
    tested = {*PARAMETERS, "torchvision-resnet18", "torchvision-resnet50"}
    assert tested == set(MODELS.names())
    assert all(item.description for _, item in MODELS.items())


@pytest.mark.parametrize(
    ("name", "image_size"),
    [
        ("small-resnet", 32),
        ("small-resnet", 16),
        ("small-resnet", 8),
        ("resnet18-w16", 32),
        ("resnet18-w16", 64),
        ("resnet2b", 32),
        ("torchvision-resnet18", 64),
    ],
)
def test_output_is_one_logit_per_class(name: str, image_size: int) -> None:
    model = build(name, num_classes=6, image_size=image_size).eval()
    assert model(torch.rand(3, 3, image_size, image_size)).shape == (3, 6)


def test_stem_stride_follows_the_image_size_unless_given() -> None:
    assert build("small-resnet", image_size=32).conv1.stride == (2, 2)
    assert build("small-resnet", image_size=16).conv1.stride == (1, 1)
    assert build("small-resnet", image_size=32, stem_stride=1).conv1.stride == (1, 1)
    assert build("small-resnet", width=4).conv1.out_channels == 4


@pytest.mark.parametrize("name", ["small-resnet", "preactresnet18", "torchvision-resnet18"])
def test_normalisation_inside_equals_normalisation_outside(name: str) -> None:
    inside = build(name, normalization="dataset").eval()
    outside = build(name).eval()
    weights = {k: v for k, v in inside.state_dict().items() if k not in ("mu", "sigma")}
    outside.load_state_dict(weights)
    assert not {"mu", "sigma"} & set(outside.state_dict())
    assert inside.state_dict()["mu"].shape == (1, 3, 1, 1)
    x = torch.rand(2, 3, 32, 32)
    normalised = (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    torch.testing.assert_close(inside(x), outside(normalised))


def test_normalisation_can_be_written_out() -> None:
    model = build("small-resnet", normalization={"mean": [0.1] * 3, "std": [0.5] * 3})
    assert model.state_dict()["sigma"].flatten().tolist() == [0.5] * 3


FAMILIES = ["resnet18-w16", "small-resnet", "preactresnet18", "wrn-28-10"]


class Called(TorchFunctionMode):
    """Names of the functions of torch that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", FAMILIES)
def test_swish_stands_in_place_of_every_relu(name: str) -> None:
    """Protects: an activation that is forgotten somewhere in a network."""
    counts = []
    for activation, other in (("relu", "silu"), ("silu", "relu")):
        with torch.device("meta"):
            model = build(name, activation=activation).eval()
        with Called() as called:
            model(torch.empty(2, 3, 32, 32, device="meta"))
        assert other not in called.names
        counts.append(called.names.count(activation))
    assert counts[0] == counts[1] > 3


def test_relu_is_no_part_of_records_and_swish_is() -> None:
    """Protects: hashes of the runs that are on record."""
    plain = ModelConfig.model_validate({"name": "resnet18", "activation": "relu"})
    assert plain.model_dump() == ModelConfig.model_validate({"name": "resnet18"}).model_dump()
    assert "activation" not in plain.model_dump()
    swish = ModelConfig.model_validate({"name": "resnet18", "activation": "silu"})
    assert swish.model_dump()["activation"] == "swish"
    assert ModelConfig.model_validate(swish.model_dump()) == swish
    deepmind = ModelConfig.model_validate({"name": "dm-wrn-28-10"}).model_dump()
    assert deepmind["activation"] == "swish"


def test_wide_resnet_loads_checkpoints_with_the_unused_stage() -> None:
    with torch.device("meta"):
        model = build("wrn-28-10")
    state = dict(model.state_dict())
    state["sub_block1.layer.0.bn1.weight"] = torch.empty(16, device="meta")
    model.load_state_dict(state, strict=True)
    with pytest.raises(RuntimeError, match="sub_block2"):
        model.load_state_dict({**model.state_dict(), "sub_block2.x": torch.empty(1)})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "resnet-18"}, "did you mean 'resnet18'"),
        ({"name": "resnet18", "width": 8}, "width is fixed in resnet18"),
        ({"name": "resnet18", "stem_stride": 2}, "stem_stride is fixed"),
        ({"name": "small-resnet", "width": 0}, "width"),
        ({"name": "small-resnet", "widht": 8}, "did you mean 'width'"),
        ({"name": "resnet2b", "normalization": "dataset"}, "own normalisation"),
        ({"name": "resnet2b", "activation": "swish"}, "activation is fixed in resnet2b"),
        ({"name": "resnet18", "activation": "gelu"}, "activation"),
        ({"normalization": {"mean": [125, 123, 114], "std": [0.2] * 3}}, "divide by 255"),
        ({"normalization": {"mean": [0.5] * 3, "std": [0.0] * 3}}, "std"),
    ],
)
def test_wrong_configurations_are_explained(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(ModelConfig, config)


def test_wrong_sizes_are_explained() -> None:
    with pytest.raises(ConfigError, match="at least 2 classes"):
        build("small-resnet", num_classes=1)
    with pytest.raises(ConfigError, match="too small"):
        build("small-resnet", image_size=2)
    with pytest.raises(ConfigError, match="32x32"):
        build("resnet2b", image_size=64)
    with pytest.raises(ConfigError, match="states no mean and std"):
        build_model(
            ModelConfig(name="small-resnet", normalization="dataset"), num_classes=2, image_size=8
        )
