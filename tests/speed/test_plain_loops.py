"""The plain loops that speed is measured against compute what ours compute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_learners import images, recipe, tiny_net, tiny_setting
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.core.crafting import crafting
from benchmark.core.threat import Pixels, ThreatModel
from benchmark.speed import plain
from benchmark.speed.clock import interleaved

THREAT = ThreatModel(norm="linf", eps=Pixels("8/255"), step=Pixels("4/255"), steps=2)
STEPS = {"natural": plain.natural_step, "pgd-at": plain.pgd_at_step, "trades": plain.trades_step}


def test_plain_pgd_has_our_examples() -> None:
    """Same draws, same examples bit by bit; so flags that differ elsewhere come from precision."""
    x, y = images(16)
    model = tiny_net().eval()
    with crafting(model):
        ours = pgd(model, x, y, THREAT, generator=torch.Generator().manual_seed(3))
    theirs = plain.pgd(model, x, y, THREAT, torch.Generator().manual_seed(3))
    assert torch.equal(ours, theirs)
    assert float((ours - x).abs().max()) > 4 / 255
    assert all(parameter.grad is not None for parameter in model.parameters())  # paid for in vain


@pytest.mark.parametrize("name", STEPS)
def test_plain_steps_end_in_our_weights(name: str) -> None:
    """A comparison of cost is one only between loops that train alike. In fp64, where rounding
    turns no sign of a gradient."""
    model: nn.Module = tiny_net(dtype=torch.float64)
    options: dict[str, Any] = {} if name == "natural" else {"threat": THREAT}
    method = recipe(name, **options).build(tiny_setting(seed=5, new_model=lambda: model))
    theirs = copy.deepcopy(model)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    draws = {} if name == "natural" else {"generator": torch.Generator().manual_seed(5), **options}
    losses: list[tuple[Tensor, Tensor]] = []
    for seed in range(2):
        x, y = images(12, seed, torch.float64)
        x = 0.1 + 0.8 * x  # TRADES' code lets its first iterate leave [0, 1], ours does not
        (ours,) = method.update((x, y), 0.1).values()
        losses.append((ours, STEPS[name](theirs, optimizer, x, y, **draws)))
    for one, other in losses:
        torch.testing.assert_close(one, other)
    for (key, one), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=key)


def test_ways_take_turns() -> None:
    """Protects: a machine that slows down does so for every way."""
    order: list[str] = []
    ways = {name: (lambda name=name: order.append(name)) for name in "ab"}
    ticks = iter(range(100))

    class Ticking:
        def of(self, work: Any) -> float:
            work()
            return float(next(ticks))

    seconds = interleaved(ways, 2, Ticking())  # type: ignore[arg-type]
    assert order == ["a", "b", "a", "b"]
    assert seconds == {"a": [0.0, 2.0], "b": [1.0, 3.0]}
