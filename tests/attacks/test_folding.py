"""The folded copy is the same function, follows the weights, and leaves its source alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.models.config import ModelConfig
from benchmark.models.dm_wide_resnet import DMWideResNet
from benchmark.models.zoo import build_model


def network(name: str, image_size: int = 32) -> nn.Module:
    """With BatchNorm constants that are not the neutral ones."""
    config = ModelConfig(name=name, normalization="dataset")
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    model = build_model(config, num_classes=10, image_size=image_size, mean=mean, std=std)
    shake(model)
    return model


@torch.no_grad()
def shake(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.2)


def assert_same_function(model: nn.Module, view: FoldedView, x: Tensor) -> None:
    training = model.training
    model.eval()
    x = x.clone().requires_grad_()
    expected, got = model(x), view(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    (wanted,) = torch.autograd.grad(expected.logsumexp(1).sum(), x)
    (gradient,) = torch.autograd.grad(got.logsumexp(1).sum(), x)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)
    assert view.agrees(x.detach())
    model.train(training)


# Post-activation nets lose every BatchNorm; pre-activation blocks keep the first of their two.
@pytest.mark.parametrize(
    ("name", "folds"),
    [
        ("small-resnet", 9),
        ("resnet18-w16", 20),
        ("preactresnet18", 8),
        ("torchvision-resnet18", 20),
    ],
)
def test_same_logits_and_gradients_before_and_after_refresh(name: str, folds: int) -> None:
    # in fp32 rounding may turn a ReLU on or off, and with it the gradients of some pixels
    model = network(name).double()
    view = FoldedView(model)
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    assert view.folds == folds
    assert_same_function(model, view, x)
    before = view(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    shake(model)
    assert torch.equal(view(x), before)
    view.refresh()
    assert_same_function(model, view, x)


def test_swish_is_folded_like_relu() -> None:
    """DeepMind's form, whose strided convolutions pad below and on the right alone, and ResNet-18:
    the second BatchNorm of each of 12 blocks, and all 20."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    deepmind = DMWideResNet(10, blocks=4, widen=1, mean=mean, std=std)
    config = ModelConfig.model_validate({"name": "resnet18-w16", "activation": "swish"})
    plain = build_model(config, num_classes=10, image_size=32)
    for model, folds in ((deepmind.double(), 12), (plain.double(), 20)):
        shake(model)
        view = FoldedView(model)
        assert view.folds == folds
        assert_same_function(model, view, torch.rand(4, 3, 32, 32, dtype=torch.float64))


def test_weights_held_in_bf16_are_those_of_autocast() -> None:
    """Casting weights once is no other arithmetic than casting them at every pass."""
    model = network("preactresnet18")  # with BatchNorms that stay
    held, plain = Autocast(FoldedView(model), "cpu"), FoldedView(model)
    x = torch.rand(2, 3, 32, 32)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            expected = plain(x).float()
        assert torch.equal(held(x), expected)
        assert held.model.net.conv1.weight.dtype == torch.bfloat16
        shake(model)
        held.model.refresh()
        plain.refresh()


def test_refresh_follows_replaced_tensors() -> None:
    model, other = network("small-resnet"), network("small-resnet")
    view = FoldedView(model)
    model.load_state_dict(other.state_dict(), assign=True)
    view.refresh()
    assert_same_function(model, view, torch.rand(2, 3, 32, 32))


def test_source_is_untouched_and_view_is_frozen() -> None:
    model = network("small-resnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    view = FoldedView(model)
    view.train()
    view(torch.rand(2, 3, 32, 32))
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not view.training
    assert not any(p.requires_grad for p in view.parameters())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in view.parameters()}


class Branching(nn.Module):
    """Cannot be traced: the path depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return (x if x.sum() > 0 else 2 * x).mean((2, 3))


class Shared(nn.Module):
    """One convolution, called twice, its output also used unnormalised: nothing may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x + self.bn(self.conv(x))).mean((2, 3))


class BatchStatistics(nn.Module):
    """A BatchNorm without running statistics is not a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).amax((2, 3))


@pytest.mark.parametrize("kind", [Branching, Shared, BatchStatistics])
def test_what_cannot_be_folded_is_copied(kind: type[nn.Module]) -> None:
    model = kind()
    shake(model) if kind is not BatchStatistics else None
    view = FoldedView(model)
    x = torch.rand(3, 3, 8, 8)
    assert view.folds == 0
    assert_same_function(model, view, x)
    with torch.no_grad():
        model.conv.weight.mul_(2)
    view.refresh()
    assert_same_function(model, view, x)


def test_bias_of_the_convolution_and_plain_batchnorm_are_folded() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, groups=1), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten()
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    view = FoldedView(model)
    assert view.folds == 1
    assert_same_function(model, view, torch.rand(2, 3, 8, 8))


class FixedNoise(nn.Module):
    """Tracing would freeze this noise into a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.randn(3)


def test_disagreement_is_noticed() -> None:
    assert not FoldedView(FixedNoise()).agrees(torch.rand(2, 3, 8, 8))
