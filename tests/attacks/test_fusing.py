"""Passes without gradients with ReLU and sums inside the convolutions: the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from benchmark.attacks.folding import Autocast, FoldedView
from benchmark.attacks.fusing import fused_graph
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="the kernels are oneDNN's"
)


class Block(nn.Module):
    """A residual block whose forward pass is ``pass_``."""

    def __init__(self, pass_: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.third = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fourth = nn.Conv2d(8, 8, 5, stride=2, padding=2)
        self.relu = nn.ReLU(inplace=True)
        self.pass_ = pass_

    def forward(self, x: Tensor) -> Tensor:
        return self.pass_(self, x)


def network(name: str) -> nn.Module:
    """In eval mode, with BatchNorm statistics of some images."""
    torch.manual_seed(0)
    model = build_model(
        ModelConfig(name=name), num_classes=10, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    model(torch.rand(16, 3, 32, 32))
    return model.eval()


def count(net: fx.GraphModule) -> tuple[int, int]:
    """How many kernels are fused, and how many of them write into their summand."""
    kernels = [layer for name, layer in net.named_children() if name.startswith("fused_")]
    return len(kernels), sum(bool(kernel.overwrite) for kernel in kernels)


def residual(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    return F.relu(block.second(F.relu(block.second(y))) + y)


def in_place(block: Block, x: Tensor) -> Tensor:
    y = block.relu(block.first(x))
    z = block.second(block.relu(block.second(y)))
    z += y
    return block.relu(z)


def with_shortcut(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    shortcut = block.third(y)
    return F.relu(block.fourth(y) + shortcut)


def own_input(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    return F.relu(block.second(y) + y)


def read_by_one_that_is_put_off(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    late = block.third(y)
    z = F.relu(block.second(F.relu(block.second(y))) + y)
    return F.relu(late + block.third(z)) + F.relu(late)


def needed_later(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    z = F.relu(y + block.second(y))
    return block.third(z) + block.third(y)


def viewed_later(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    flat = y.flatten(1)
    z = F.relu(y + block.second(y))
    return z.flatten(1) - flat


def summand_changed_in_place(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    z = y + 0
    z += block.second(y)
    return F.relu(z) + z


def broadcast(block: Block, x: Tensor) -> Tensor:
    y = F.relu(block.first(x))
    mean = y.mean((2, 3), keepdim=True)
    return F.relu(mean + block.second(y))


def twice_the_same(block: Block, x: Tensor) -> Tensor:
    y = block.second(F.relu(block.first(x)))
    return F.relu(y + y)


def output_used_twice(block: Block, x: Tensor) -> Tensor:
    y = block.first(x)
    return F.relu(y) - y


@pytest.mark.parametrize(
    ("pass_", "kernels", "overwriting"),
    [
        (residual, 3, 1),
        (in_place, 3, 1),
        (with_shortcut, 2, 1),
        (own_input, 2, 0),
        (read_by_one_that_is_put_off, 4, 0),
        (needed_later, 2, 0),
        (viewed_later, 2, 0),
        (summand_changed_in_place, 1, 0),
        (broadcast, 2, 0),
        (twice_the_same, 1, 0),
        (output_used_twice, 0, 0),
    ],
)
def test_blocks_compute_the_same(
    pass_: Callable[[Block, Tensor], Tensor], kernels: int, overwriting: int
) -> None:
    """Protects: memory that is overwritten is needed by nobody."""
    torch.manual_seed(0)
    traced = fx.symbolic_trace(Block(pass_).requires_grad_(False))
    x = torch.randn(5, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    net = fused_graph(traced)
    assert (count(net) if net else (0, 0)) == (kernels, overwriting)
    if net:
        before = x.clone()
        expected = traced(x)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-6)
        assert torch.equal(x, before)
        assert torch.equal(traced(x), expected), "the graph it was made of is another"


def test_layers_that_do_more_are_left_alone() -> None:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + 1

    block = Block(own_input)
    block.second.register_forward_hook(hook)
    net = fused_graph(fx.symbolic_trace(block))
    assert net is not None
    assert count(net) == (1, 0)
    reflecting = Block(own_input)
    reflecting.second = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    net = fused_graph(fx.symbolic_trace(reflecting))
    assert net is not None
    assert count(net) == (1, 0)


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("small-resnet", 7),
        ("resnet18-w16", 17),
        ("preactresnet18", 8),
        ("torchvision-resnet18", 17),
    ],
)
def test_networks_compute_the_same_bit_by_bit(name: str, kernels: int) -> None:
    view, x = FoldedView(network(name)), torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        alone = view(x)
        view.fuse(x)
        assert view._fused is not None
        assert count(view._fused[0])[0] == kernels
        assert torch.equal(view(x), alone)
    with_gradients = view(x.clone().requires_grad_())
    assert torch.equal(with_gradients, alone)
    assert with_gradients.requires_grad


def test_weights_are_followed() -> None:
    model = network("small-resnet")
    view, x = FoldedView(model), torch.rand(4, 3, 32, 32)
    view.fuse(x)
    assert view.fused
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
        view.refresh()
        torch.testing.assert_close(view(x), model(x), rtol=0, atol=1e-4)


def test_bf16_rounds_a_little_less() -> None:
    model = network("resnet18-w16")
    view, x = FoldedView(model), torch.rand(4, 3, 32, 32)
    view.fuse(x)
    crafted_on = Autocast(view, "cpu")
    if not view.fused:
        pytest.skip("this CPU has no kernels for bf16")
    with torch.no_grad():
        exact, without = model(x), crafted_on(x)
    alone = crafted_on(x.clone().requires_grad_()).detach()
    scale = float(exact.abs().max())
    assert float((without - alone).abs().max()) < 0.03 * scale
    assert float((without - exact).abs().max()) < 0.03 * scale


class Grouped(nn.Module):
    """A residual sum behind a grouped convolution, and one that is padded in its own way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.reflecting = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        y = F.relu(self.grouped(y) + F.max_pool2d(y, 3, 1, 1))
        return F.relu(self.reflecting(y) + y).mean((2, 3))


def test_kernels_that_are_not_there_in_bf16_are_not_called() -> None:
    """Protects: torch's own way out for a grouped convolution fails in bf16."""
    view, x = FoldedView(Grouped().eval()), torch.rand(4, 3, 8, 8)
    view.fuse(x)
    assert view._fused is not None
    assert count(view._fused[0]) == (1, 0)
    crafted_on = Autocast(view, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(crafted_on(x), view._source[0](x), rtol=0.1, atol=0.02)


def test_a_graph_that_fails_in_bf16_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    view, x = FoldedView(network("small-resnet")), torch.rand(4, 3, 32, 32)
    view.fuse(x)
    assert view._fused is not None

    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(view._fused[0], "forward", fail)
    crafted_on = Autocast(view, "cpu")
    assert not view.fused
    with torch.no_grad():
        crafted_on(x)


def test_only_as_tried() -> None:
    contiguous = FoldedView(network("small-resnet"), channels_last=False)
    x = torch.rand(4, 3, 32, 32)
    contiguous.fuse(x)
    assert not contiguous.fused
    view = FoldedView(network("small-resnet"))
    view.fuse(x)
    assert view.fused
    assert not view.double().fused


def test_what_a_hook_keeps_is_not_overwritten() -> None:
    kept = []
    traced = fx.symbolic_trace(Block(with_shortcut).requires_grad_(False))
    traced.third.register_forward_hook(lambda module, args, output: kept.append(output))
    net = fused_graph(traced)
    assert net is not None
    assert count(net) == (2, 0)
    x = torch.randn(2, 3, 12, 12).contiguous(memory_format=torch.channels_last)
    net(x)
    traced(x)
    assert torch.equal(kept[0], kept[1])
