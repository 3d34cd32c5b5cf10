"""Equations (1) to (3) of Generalist: learners, their average, and its return."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from tiny_learners import (
    assert_same_state,
    batches,
    calibration,
    images,
    recipe,
    relative_error,
    state_of,
    tiny_net,
    tiny_setting,
)
from torch import Tensor, nn

from benchmark.core.averaging import floating_state
from generalist.framework import GeneralistMethod

F64 = torch.float64
TWO = [{"name": "a", "objective": "natural"}, {"name": "b", "objective": "pgd-at"}]


def build(total: int, steps_per_epoch: int = 2, dtype: torch.dtype = F64, **hyper: Any) -> Any:
    setting = tiny_setting(total, steps_per_epoch, lambda: tiny_net(dtype=dtype))
    method = recipe("generalist", **{"learners": TWO, **hyper}).build(setting)
    assert isinstance(method, GeneralistMethod)
    return method


def floating(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in state_of(model).items() if value.is_floating_point()}


def same_floats(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(floating_state(one), floating_state(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("warmup", [False, True])
def test_global_learner_is_the_closed_form_average(warmup: bool) -> None:
    """Equation (2) unrolled: theta_0 * prod a_s + sum_s (1 - a_s) * prod_{r > s} a_r * mixture_s."""
    total, decay = 12, 0.8
    mixing = {"b": [(0, 1), (0.5, 1), (1, 0.4)]}
    method = build(
        total, mixing=mixing, average={"decay": decay, "warmup": warmup}, warmup=2, every=2
    )
    start, mixtures = floating(method.global_learner), []
    due = [4, 8, 12]
    for step in range(total):
        # Learners as they are when averaged: (3) overwrites them within the same update.
        due_now, method._redistribution_is_due = method._redistribution_is_due, lambda: False
        method.update(images(8, step, F64), step / total)
        progress = step / total
        gamma = 1.0 if progress <= 0.5 else 1 - 0.6 * (progress - 0.5) / 0.5
        a, b = (floating(learner.model) for learner in method.learners.values())
        mixtures.append({key: (1 - gamma) * a[key] + gamma * b[key] for key in a})
        del method._redistribution_is_due
        assert due_now() == (step + 1 in due)
        if step + 1 in due:
            method._redistribute()
    decays = [min(decay, (s + 1) / (s + 10)) if warmup else decay for s in range(total)]
    for key, value in floating(method.global_learner).items():
        expected, weight = torch.zeros_like(value), 1.0
        for step in reversed(range(total)):
            expected += weight * (1 - decays[step]) * mixtures[step][key]
            weight *= decays[step]
        expected += weight * start[key]
        if not warmup:
            assert weight == pytest.approx(decay**total)
        assert relative_error(value, expected) < 1e-9, key


def test_projection_as_mixing_rule() -> None:
    """Without a moving average and with a redistribution every epoch, the mixture is RAMP's: tensor
    by tensor, from the last redistribution on, the natural change scaled by its cosine."""
    method = build(
        4, mixing={"b": 0.7}, average={"decay": 0, "warmup": False}, warmup=0, every=1,
        project_onto="b",
    )  # fmt: skip
    start = floating(method.global_learner)
    for step in range(4):
        due, method._redistribution_is_due = method._redistribution_is_due, lambda: False
        method.update(images(8, step, F64), step / 4)
        a, b = (floating(learner.model) for learner in method.learners.values())
        cosines = []
        for key, old in start.items():
            one, other = (a[key] - old).flatten(), (b[key] - old).flatten()
            cosines.append(float(one @ other / (one.norm() * other.norm())))
            expected = old + 0.3 * max(cosines[-1], 0) * (a[key] - old) + 0.7 * (b[key] - old)
            found = floating(method.global_learner)[key]
            assert relative_error(found, expected) < 1e-9, key
        assert len({round(cosine, 6) for cosine in cosines}) == len(cosines)
        del method._redistribution_is_due
        if due():
            assert step in (1, 3)
            method._redistribute()
            start = floating(method.global_learner)


def test_projection_resumes_exactly_between_two_redistributions() -> None:
    """The weights where the changes begin are part of the state."""
    without_draws = [TWO[0], {"name": "b", "objective": "natural", "optimizer": {"lr": 0.02}}]
    hyper = {"warmup": 0, "every": 2, "project_onto": "b", "learners": without_draws}
    whole = build(6, 2, torch.float32, **hyper)
    steps = list(batches(6, size=4))
    for step, batch in enumerate(steps[:5]):
        whole.update(batch, step / 6)
    again = build(6, 2, torch.float32, **hyper)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    for method in (whole, again):
        method.update(steps[5], 5 / 6)
    assert_same_state(whole.global_learner, again.global_learner)


@pytest.mark.parametrize("name", ["generalist-d", "generalist-official"])
def test_what_cannot_be_projected_is_refused(name: str) -> None:
    """A name that no learner has, and the released algorithm with another rule."""
    onto = "l2" if name == "generalist-d" else "robust"
    message = "project_onto names 'l2'" if name == "generalist-d" else "as the released code does"
    with pytest.raises(ValueError, match=message):
        recipe(name, project_onto=onto)


@pytest.mark.parametrize(
    ("warmup", "every", "expected"),
    [
        (0, 1, range(4, 25, 4)),
        (2, 1, range(8, 25, 4)),
        (1.5, 0.5, range(6, 25, 2)),
        (1, 1.25, [4, 9, 14, 19, 24]),
        ("25%", "12.5%", range(6, 25, 3)),
        ("50%", 2.5, [12, 22]),
        (5, "0.1%", range(20, 25)),  # never less than a step
        (6, 1, [24]),
        (7, 1, []),
        (1, 0, []),
        (0, "0%", []),
    ],
)
def test_redistribution_happens_exactly_when_due(warmup: Any, every: Any, expected: Any) -> None:
    """At t', t' + c, t' + 2c, ... (24 steps, 4 in an epoch); then every learner is the global one."""
    method = build(24, 4, torch.float32, warmup=warmup, every=every, average={"decay": 0.9})
    happened = []
    for step, batch in enumerate(batches(24, size=4)):
        method.update(batch, step / 24)
        equal = [
            same_floats(learner.model, method.global_learner)
            for learner in method.learners.values()
        ]
        assert len(set(equal)) == 1
        if equal[0]:
            happened.append(step + 1)
    assert happened == list(expected)


@pytest.mark.parametrize("batchnorm", ["average", "copy", "reestimate"])
def test_redistributed_learners_compute_what_the_global_one_does(batchnorm: str) -> None:
    """Buffers go along with the weights, whatever the rule for BatchNorm."""
    method = build(4, 2, torch.float32, warmup=2, every=2, batchnorm=batchnorm)
    for step, batch in enumerate(batches(4)):
        method.update(batch, step / 4)
    x = images(8, seed=9)[0]
    expected = method.deployed()(x)
    for learner in method.learners.values():
        assert torch.equal(copy.deepcopy(learner.model).eval()(x), expected)
        assert learner.model.head.weight.requires_grad
        assert not same_floats(learner.model, tiny_net())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("mode", ["keep", "reset"])
def test_optimizer_state_at_redistribution(mode: str, optimizer: str) -> None:
    """``reset``: the next step is that of a new optimiser at theta_g. ``keep``: it is not."""
    learners = [{**TWO[0], "optimizer": {"name": optimizer, "lr": 0.01}}, TWO[1]]
    hyper = {"learners": learners, "warmup": 1, "every": 1, "optimizer_state": mode}
    method = build(8, 2, **hyper)
    for step in range(2):
        method.update(images(8, step, F64), step / 8)
    learner = method.learners["a"]
    assert bool(learner.optimizer.state) == (mode == "keep")
    fresh = build(8, 2, **hyper).learners["a"]
    fresh.model.load_state_dict(method.global_learner.state_dict())
    batch = images(8, 5, F64)
    learner.step(*batch, 2 / 8)
    fresh.step(*batch, 2 / 8)
    assert same_floats(learner.model, fresh.model) == (mode == "reset")


@pytest.mark.parametrize("objective", ["natural", "pgd-at", "trades"])
def test_one_learner_without_memory_is_that_learner_alone(objective: str) -> None:
    """Decay 0: the global learner is the learner, and handing it back changes nothing, bit by bit."""
    alone = recipe(objective).build(tiny_setting())
    method = build(
        8, 2, torch.float32,
        learners=[{"name": "only", "objective": objective}],
        average={"decay": 0, "warmup": False}, warmup=1, every=1,
    )  # fmt: skip
    for step, batch in enumerate(batches(8)):
        (one,) = alone.update(batch, step / 8).values()
        (other,) = method.update(batch, step / 8).values()
        assert torch.equal(one, other)
        assert same_floats(alone.deployed(), method.deployed())
    assert_same_state(alone.deployed(), method.learners["only"].model)


def test_statistics_are_copied_from_the_leader() -> None:
    """Buffers of the learner with the largest ratio, counter included; weights averaged."""
    mixing = {"a": [(0, 0.1), (0.5, 0.8)]}
    method = build(4, mixing=mixing, batchnorm="copy", average={"decay": 0.9}, every=0)
    for step in range(4):
        method.update(images(8, step, F64), step / 4)
        leader = method.learners["a" if step >= 2 else "b"].model
        for name, buffer in method.global_learner.named_buffers():
            assert torch.equal(buffer, leader.get_buffer(name))
        assert not torch.equal(method.global_learner.head.weight, leader.head.weight)


def test_statistics_are_reestimated_for_deployment() -> None:
    """Mean and variance of the averaged weights on the calibration batches."""
    method = build(4, 2, torch.float32, batchnorm="reestimate", every=0)
    for step, batch in enumerate(batches(4)):
        method.update(batch, step / 4)
    # Averaging must leave them alone until then.
    assert torch.equal(method.global_learner.norm.running_mean, torch.zeros(4))
    model = method.deployed()
    with torch.no_grad():
        features = [model.conv(x).transpose(0, 1).flatten(1) for x in calibration()]
    assert relative_error(model.norm.running_mean, sum(f.mean(1) for f in features) / 2) < 1e-5
    assert relative_error(model.norm.running_var, sum(f.var(1) for f in features) / 2) < 1e-5
    assert not model.training


def test_diagnostics_are_ratios_and_distances() -> None:
    """The signature of drift: ||theta_k - theta_g||_2 over all weights, without buffers."""
    method = build(4, mixing={"a": 0.3}, average={"decay": 0.9}, every=0)
    method.update(images(8, 0, F64), 0.0)
    values = method.diagnostics(0.0)
    assert [values["mix/a"], values["mix/b"]] == pytest.approx([0.3, 0.7])
    for name, learner in method.learners.items():
        pairs = zip(learner.model.parameters(), method.global_learner.parameters(), strict=True)
        by_hand = sum(float(((p.detach() - q) ** 2).sum()) for p, q in pairs) ** 0.5
        assert values[f"distance/{name}"] == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize(
    ("learners", "message"),
    [([], "at least one learner"), ([TWO[0], TWO[0]], "names must differ")],
)
def test_learners_must_be_told_apart(learners: list, message: str) -> None:
    """Ratios and metrics go by name."""
    with pytest.raises(Exception, match=message):
        recipe("generalist", learners=learners)


def test_too_short_a_training_is_pointed_out() -> None:
    """A share of a short training can be a single step, and then the learners are one."""
    with pytest.warns(UserWarning, match="1 steps from one redistribution to the next"):
        build(20, every="5%")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(200, every="5%")
        build(20, every=0.5)
        build(20, every=0)


def test_distances_are_those_before_the_redistribution() -> None:
    """Protects: measured after it, they are zero, and learners seem never to part."""
    method = build(8, mixing={"a": 0.5}, average={"decay": 0.5}, warmup=0, every=1.0)
    for step, batch in enumerate(batches(2)):
        x, y = batch
        method.update((x.double(), y), step / 8)
    assert method.steps == 2
    assert same_floats(method.learners["a"].model, method.global_learner)  # just handed back
    values = method.diagnostics(1 / 8)
    assert values["distance/a"] > 0
    assert values["distance/b"] > 0


def test_how_far_learners_are_apart() -> None:
    """For two learners, their distance over the norm of the global learner; from the first whole
    cycle on, and that of before a redistribution if it is larger."""
    method = build(12, mixing={"a": 0.5}, average={"decay": 0.5}, warmup=1.0, every=1.0)
    shown = []
    for step, batch in enumerate(batches(5)):
        x, y = batch
        method.update((x.double(), y), step / 12)
        shown.append(method.diagnostics(step / 12).get("apart"))
    assert method.steps == 5  # redistributed after steps 2 and 4
    assert shown[:3] == [None] * 3
    weights = [
        torch.cat([weight.detach().flatten() for weight in model.parameters()])
        for model in (*(k.model for k in method.learners.values()), method.global_learner)
    ]
    now = float((weights[0] - weights[1]).norm() / weights[2].norm())
    assert 0 < now < shown[3]
    assert shown[4] == shown[3]  # after one step, less than after the two before
    with_it = build(12, mixing={"a": 0.5}, average={"decay": 0.5}, warmup=1.0, every=1.0)
    with_it.load_state_dict(method.state_dict())
    assert with_it.diagnostics(4 / 12)["apart"] == shown[4]
    never = build(12, mixing={"a": 0.5}, every=0)
    never.load_state_dict({**method.state_dict(), "apart": torch.zeros(())})
    assert never.diagnostics(4 / 12)["apart"] == pytest.approx(now, rel=1e-9)


def test_a_warm_up_longer_than_training_is_pointed_out() -> None:
    with pytest.warns(UserWarning, match="is longer than training"):
        build(20, steps_per_epoch=2, warmup=75, every=5)
