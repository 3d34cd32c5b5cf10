"""Steps of a learner whose weights are lost are left out, where nothing else changes by a bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_learners import (
    CountingNet,
    Ledger,
    TinyNet,
    assert_same_state,
    batches,
    images,
    recipe,
    tiny_net,
    tiny_setting,
)
from torch import nn

from benchmark.core.config import config_hash
from benchmark.training.random_state import RandomState

TOTAL, EPOCH = 24, 2
RESET = {"warmup": "62.5%", "every": "12.5%", "optimizer_state": "reset"}  # at 15, 18, 21, 24
LOST = 15  # the ratio is 0 in steps 0 to 15, and 18 is too late
ADAM = {"learners": [{"name": "natural", "objective": "natural", "optimizer": {"name": "adam"}},
                     {"name": "linf", "objective": "pgd-at"}]}  # fmt: skip


def build(name: str, new_model: Any = tiny_net, total: int = TOTAL, **hyper: Any) -> Any:
    """With draws of each learner's own, as the trainer gives them."""
    generators = RandomState(0, torch.device("cpu")).generator
    setting = tiny_setting(total, EPOCH, new_model, generators=generators)
    return recipe(name, **{**RESET, **hyper}).build(setting)


def run(method: Any, total: int = TOTAL) -> list[dict[str, Any]]:
    return [method.update(batch, step / total) for step, batch in enumerate(batches(total, size=6))]


@pytest.mark.parametrize("batchnorm", ["average", "reestimate"])
@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("generalist-d", {}),
        ("generalist-t", {}),
        ("generalist-d-adam", {}),
        ("generalist-d", {"every": 1}),
        ("generalist-d", {"warmup": 0, "every": 3}),
        ("generalist-d", {"optimizer_state": "keep", "learners": [
            {"name": "natural", "objective": "natural", "optimizer": {"momentum": 0}},
            {"name": "linf", "objective": "pgd-at"}]}),
    ],
)  # fmt: skip
def test_the_global_learner_is_the_same_to_the_bit(
    name: str, hyper: dict[str, Any], batchnorm: str
) -> None:
    """With and without the skipped steps, at every step; losses of what steps are the same too."""
    short, long = (
        build(name, batchnorm=batchnorm, skip_unused=skip, **hyper) for skip in (True, False)
    )
    assert short._skipped["natural"] >= 12
    assert not any(long._skipped.values())
    for step, batch in enumerate(batches(TOTAL, size=6)):
        losses, others = (method.update(batch, step / TOTAL) for method in (short, long))
        assert ("loss/natural" in losses) == (step >= short._skipped["natural"])
        for key, loss in losses.items():
            assert torch.equal(loss, others[key])
        assert_same_state(short.global_learner, long.global_learner)
    assert_same_state(short.deployed(), long.deployed())
    for key, learner in short.learners.items():
        for one, other in zip(learner.model.parameters(), long.learners[key].model.parameters(),
                              strict=True):  # fmt: skip
            assert torch.equal(one, other)


class Dropping(TinyNet):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)


def dropping() -> nn.Module:
    torch.manual_seed(0)
    return Dropping()


def cumulative() -> nn.Module:
    net = tiny_net()
    net.norm.momentum = None  # type: ignore[assignment]  # the count of batches is used
    return net


@pytest.mark.parametrize(
    ("name", "hyper", "model"),
    [
        ("generalist-d", {"optimizer_state": "keep"}, tiny_net),  # momentum carried over
        ("generalist-d-adam", {"optimizer_state": "keep"}, tiny_net),
        ("generalist-d", {"batchnorm": "copy"}, tiny_net),  # hands a count of batches on
        ("generalist-d", {}, cumulative),
        ("generalist-d", {}, dropping),  # all learners' draws come from one source
        ("generalist-d", {"every": 0}, tiny_net),  # never overwritten
        ("generalist-d", {"warmup": "90%"}, tiny_net),  # overwritten after it counts
        ("generalist-d-norms", {}, tiny_net),  # both count from the start
        ("generalist-d", {"learners": [{"name": "natural", "objective": "mixup"},
                                       {"name": "linf", "objective": "pgd-at"}]}, tiny_net),
        ("generalist-official", {}, tiny_net),  # its averages remember every step
    ],
)  # fmt: skip
def test_nothing_is_skipped_where_it_would_change_something(
    name: str, hyper: dict[str, Any], model: Any
) -> None:
    method = build(name, model, **hyper)
    assert not any(method._skipped.values())
    assert method.passes == method.passes_at(0) == sum(x.passes for x in method.learners.values())
    losses = method.update(images(6), 0.0)
    assert losses.keys() == {f"loss/{key}" for key in method.learners}


def test_carried_momentum_would_have_made_a_difference() -> None:
    """Protects the rule itself: with ``keep``, resting until step 15 gives another global learner."""
    whole, rested = (build("generalist-d", optimizer_state="keep") for _ in range(2))
    rested._skipped = {"natural": LOST, "linf": 0}
    run(whole), run(rested)
    weights = [m.global_learner.head.weight for m in (whole, rested)]
    assert not torch.equal(*weights)


def test_presets_carry_momentum_and_so_skip_nothing() -> None:
    """Recorded studies used the presets: their costs and weights stay what they are."""
    for name in ("generalist-d", "generalist-t", "generalist-4"):
        method = recipe(name).build(tiny_setting(120, 1))
        assert not any(method._skipped.values())


def test_the_option_changes_no_hash_and_can_be_turned_off() -> None:
    plain, on, off = (
        recipe("generalist-d", **more)
        for more in ({}, {"skip_unused": True}, {"skip_unused": False})
    )
    assert config_hash(plain) == config_hash(on) != config_hash(off)
    assert not any(build("generalist-d", skip_unused=False)._skipped.values())


@pytest.mark.parametrize("name", ["generalist-d", "generalist-t"])
def test_declared_passes_are_those_computed(name: str) -> None:
    """At every step and in the mean: natural 1 in 9 of 24 steps, PGD-2 and PGD-3 in all."""
    ledger = Ledger()

    def new_model() -> CountingNet:
        torch.manual_seed(0)
        return CountingNet(ledger)

    method = build(name, new_model)
    for step in range(TOTAL):
        before = ledger.images
        method.update(images(6, step), step / TOTAL)
        assert ledger.images - before == 6 * method.passes_at(step), step
    assert ledger.images / (6 * TOTAL) == pytest.approx(method.passes)
    robust = {"generalist-d": 3, "generalist-t": 3 + 4}[name]
    assert method.passes == pytest.approx(robust + (TOTAL - LOST) / TOTAL)


@pytest.mark.parametrize("state", ["keep", "reset"])
def test_distances_of_weights_that_are_lost_are_not_logged(state: str) -> None:
    """Protects: the curves once showed how far a learner strayed that nobody would ever use."""
    method = build("generalist-d", optimizer_state=state)
    for step, batch in enumerate(batches(TOTAL, size=6)):
        method.update(batch, step / TOTAL)
        shown = method.diagnostics(step / TOTAL)
        assert "distance/linf" in shown
        assert ("distance/natural" in shown) == (step >= LOST)
        assert shown["mix/natural"] == pytest.approx(1 - shown["mix/linf"])


@pytest.mark.parametrize("stop", [4, LOST, 19])
def test_a_resumed_training_skips_the_same_steps(stop: int) -> None:
    whole = build("generalist-d")
    run(whole)
    generators = RandomState(0, torch.device("cpu"))
    first = recipe("generalist-d", **RESET).build(
        tiny_setting(TOTAL, EPOCH, generators=generators.generator)
    )
    data = batches(TOTAL, size=6)
    for step in range(stop):
        first.update(data[step], step / TOTAL)
    saved = copy.deepcopy([first.state_dict(), generators.state_dict()])
    others = RandomState(1, torch.device("cpu"))
    second = recipe("generalist-d", **RESET).build(
        tiny_setting(TOTAL, EPOCH, lambda: tiny_net(1), generators=others.generator)
    )
    second.load_state_dict(saved[0])
    others.load_state_dict(saved[1])
    for step in range(stop, TOTAL):
        second.update(data[step], step / TOTAL)
    assert_same_state(whole.global_learner, second.global_learner)


@pytest.mark.parametrize(
    ("name", "begins"), [("generalist-d", 17), ("generalist-t", 17), ("generalist-d-norms", 0),
                         ("generalist-official", 17), ("generalist-distill", 17)],
)  # fmt: skip
def test_checkpoints_count_from_the_first_mixing_on(name: str, begins: int) -> None:
    """Ratios leave 1 and 0 after two thirds (step 16 of 24 is the last at which they are)."""
    setting = tiny_setting(TOTAL, EPOCH)
    method = recipe(name).build(setting)
    assert [method.selectable(step / TOTAL) for step in range(TOTAL)] == [
        step >= begins for step in range(TOTAL)
    ]
