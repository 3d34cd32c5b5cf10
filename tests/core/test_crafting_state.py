"""Crafting leaves no trace: flags, ``requires_grad`` and, but for the mode "train", BatchNorm
statistics are as before."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tiny_learners import assert_same_state, images, recipe, state_of, tiny_net, tiny_setting
from torch import nn

from benchmark.attacks import pgd
from benchmark.core.crafting import BatchNormMode, crafting
from benchmark.core.learner import Learner
from benchmark.core.method import SingleLearner
from benchmark.core.setting import PlainView
from benchmark.core.threat import DEFAULT_THREATS
from benchmark.training.views import ModelPrecision

MODES: tuple[BatchNormMode, ...] = ("eval", "batch")
FP32 = ModelPrecision("fp32", torch.device("cpu"))


def mixed_net() -> nn.Module:
    """A net with dropout, one BatchNorm in train and one in eval mode, and one frozen weight."""
    net = nn.Sequential(tiny_net(), nn.Dropout(0.5), nn.BatchNorm1d(3), nn.Linear(3, 3))
    net.train()
    net[2].eval()
    net[0].conv.weight.requires_grad_(False)
    return net


def flags(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()] + [
        parameter.requires_grad for parameter in model.parameters()
    ]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [*MODES, "train"])
def test_everything_is_restored(mode: BatchNormMode, fails: bool) -> None:
    """Mixed flags and frozen weights survive an attack, also one that dies half-way."""
    model = mixed_net()
    before, state = flags(model), state_of(model)
    tracking = [getattr(module, "track_running_stats", None) for module in model.modules()]
    x, y = images(8)

    def attack() -> None:
        with crafting(model, mode) as crafted_on:
            assert not any(parameter.requires_grad for parameter in crafted_on.parameters())
            pgd(crafted_on, x, y, DEFAULT_THREATS["linf"], generator=torch.Generator())
            if fails:
                raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            attack()
    else:
        attack()
    assert flags(model) == before
    assert tracking == [getattr(module, "track_running_stats", None) for module in model.modules()]
    if mode == "train":
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, state[name])
    else:
        assert_same_state(model, state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("view", [PlainView, FP32.view], ids=["plain", "trainer"])
def test_train_mode_is_that_of_the_codes_that_never_leave_it(view: Callable) -> None:
    """Protects: BatchNorm normalises by the batch while crafting, and its running averages follow
    every pass of the attack, then the training pass; against a loop on a net in train mode."""
    config = recipe("pgd-at", batchnorm="train")
    assert isinstance(config, SingleLearner)
    learner = Learner(config.learner, tiny_setting(crafting_view=view))
    copied = copy.deepcopy(learner.model).train()
    x, y = images(8)
    eps, size = 8 / 255, 4 / 255
    draw = torch.Generator().manual_seed(0)
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps, generator=draw)).clamp(0, 1)
    for _ in range(2):
        x_adv.requires_grad_()
        loss = nn.functional.cross_entropy(copied(x_adv), y)
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = (x_adv.detach() + size * grad.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    expected = nn.functional.cross_entropy(copied(x_adv), y)
    torch.testing.assert_close(learner.step(x, y, 0.0), expected.detach())
    assert int(learner.model.norm.num_batches_tracked) == 3
    for name, buffer in copied.named_buffers():
        torch.testing.assert_close(learner.model.get_buffer(name), buffer)


def test_eval_mode_uses_running_statistics() -> None:
    """Equal to the forward pass of an eval-mode copy, dropout off."""
    model, (x, _) = mixed_net(), images(8)
    expected = copy.deepcopy(model).eval()(x)
    with crafting(model) as crafted_on:
        assert torch.equal(crafted_on(x), expected)


def test_batch_mode_uses_batch_statistics_and_updates_nothing() -> None:
    """Equal to a train-mode forward pass of a copy (no dropout there), which does update."""
    model, (x, _) = tiny_net(), images(8)
    copied = copy.deepcopy(model).train()
    expected = copied(x)
    assert int(copied.norm.num_batches_tracked) == 1
    state = state_of(model)
    with crafting(model, "batch") as crafted_on:
        torch.testing.assert_close(crafted_on(x), expected, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(crafted_on(x), copy.deepcopy(model).eval()(x), atol=1e-3)
    assert_same_state(model, state)


@pytest.mark.parametrize("view", [PlainView, FP32.view], ids=["plain", "trainer"])
@pytest.mark.parametrize("mode", MODES)
def test_bn_statistics_of_a_step_are_those_of_one_training_pass(
    mode: BatchNormMode, view: Callable
) -> None:
    """However many attack steps, BatchNorm sees exactly one batch per PGD-AT step: x_adv."""
    seen: list[torch.Tensor] = []
    config = recipe("pgd-at", batchnorm=mode)
    assert isinstance(config, SingleLearner)
    learner = Learner(config.learner, tiny_setting(crafting_view=view))
    before = copy.deepcopy(learner.model)
    # The training pass is the only one with trainable parameters, under either view.
    learner.model.register_forward_pre_hook(
        lambda model, inputs: (
            seen.append(inputs[0].clone()) if model.head.weight.requires_grad else None
        )
    )
    x, y = images(8)
    learner.step(x, y, 0.0)
    assert len(seen) == 1
    assert not torch.equal(seen[0], x)
    with torch.no_grad():
        before.train()(seen[0])
    for name, buffer in before.named_buffers():
        assert torch.equal(buffer, learner.model.get_buffer(name)), name


@pytest.mark.parametrize("view", [PlainView, FP32.view], ids=["plain", "trainer"])
@pytest.mark.parametrize("mode", MODES)
def test_an_attack_does_not_change_the_training_that_follows(
    mode: BatchNormMode, view: Callable
) -> None:
    """A PGD-AT step whose attack is invisibly small is a natural step, statistics included."""
    still = {"eps": 1e-30, "step": 1e-30, "steps": 5}
    attacked = recipe("pgd-at", batchnorm=mode, threat=still)
    natural = recipe("natural")
    assert isinstance(attacked, SingleLearner)
    assert isinstance(natural, SingleLearner)
    setting = tiny_setting(crafting_view=view)
    one, other = Learner(attacked.learner, setting), Learner(natural.learner, setting)
    for seed in range(3):
        x, y = images(8, seed)
        one.step(x, y, 0.0)
        other.step(x, y, 0.0)
    assert_same_state(one.model, other.model)


@pytest.mark.parametrize("mode", MODES)
def test_both_views_craft_the_same_images(mode: BatchNormMode) -> None:
    """The trainer's faster view is the plain one up to rounding, after training has moved BN."""
    model, (x, y) = tiny_net(), images(8)
    faster = FP32.view(model, mode)  # traced before the weights and statistics change
    with torch.no_grad():
        model.train()(images(16, 5)[0])
        model.head.weight.mul_(3)
    crafted = []
    for view in (PlainView(model, mode), faster):
        with view as crafted_on:
            crafted.append(pgd(crafted_on, x, y, DEFAULT_THREATS["l2"], start="none"))
    torch.testing.assert_close(*crafted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(crafted[0], x, atol=1e-3)
