"""The released algorithm, against a plain loop written from its description (notes/paper.md)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_learners import CONTEXT, images, recipe, tiny_net, tiny_setting
from torch import Tensor, nn

from benchmark.core.method import Method, make_recipe
from benchmark.core.schedule import Schedule
from generalist.framework import Generalist
from generalist.official import GeneralistOfficial

EPOCHS, BATCHES, LR = 12, 2, 0.05
DECAY = {"natural": 5e-4, "robust": 3.5e-3}
TO_ZERO = {"robust": [(0, 1), ("2/3", 1), (1, 0)]}


def data(epoch: int, batch: int) -> tuple[Tensor, Tensor]:
    return images(8, seed=10 * epoch + batch, dtype=torch.float64)


def average(into: nn.Module, sources: list[tuple[float, nn.Module]], decay: float) -> None:
    """into <- decay * into + (1 - decay) * sum share * source, over the whole state dict."""
    state = into.state_dict()
    for key, value in state.items():
        if value.is_floating_point():
            mixed = sum(share * source.state_dict()[key] for share, source in sources)
            value.copy_(decay * value + (1 - decay) * mixed)


def attack(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Linf PGD-2 from a uniform start, step eps/2, in eval mode."""
    eps, step = 8 / 255, 4 / 255
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps, generator=generator)).clamp(0, 1)
    for _ in range(2):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
        x_adv = x_adv.detach() + step * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(0, 1)
    model.train()
    return x_adv


def released_loop(
    warmup: int, every: int, *, nested: bool, burst: bool, shared: bool, end: float, zero: bool
) -> nn.Module:
    """The released script as described: epochs from 1, lr and beta per epoch, bursts by batch."""
    generator = torch.Generator().manual_seed(0)
    start = tiny_net(dtype=torch.float64)
    models = {name: copy.deepcopy(start).train() for name in DECAY}
    emas = {name: copy.deepcopy(start) for name in DECAY}
    mixed = copy.deepcopy(start)
    optimizers = {
        name: torch.optim.SGD(
            models[name].parameters(), lr=LR, momentum=0.9, weight_decay=DECAY[name]
        )
        for name in DECAY
    }
    step = 0
    for epoch in range(1, EPOCHS + 1):
        lr = LR * np.interp(epoch, [0, 4, 8, 12], [1, 1, 0.1, 0.01])
        beta = float(np.interp(epoch, [8, 12], [1, end]))
        if beta == 0 and zero:
            beta = 1.0
        rates = {"robust": lr, "natural": lr if shared else 2 * LR}
        for batch in range(BATCHES):
            x, y = data(epoch, batch)
            inputs = {"natural": x, "robust": attack(models["robust"], x, y, generator)}
            for name, model in models.items():
                for group in optimizers[name].param_groups:
                    group["lr"] = rates[name]
                optimizers[name].zero_grad()
                F.cross_entropy(model(inputs[name]), y).backward()
                optimizers[name].step()
            decay = min(0.999, (step + 1) / (step + 10))
            step += 1
            for name in models:
                average(emas[name], [(1.0, models[name])], decay)
            sources = emas if nested else models
            shares = [(beta, sources["robust"]), (1 - beta, sources["natural"])]
            average(mixed, shares, decay)
            last = batch == BATCHES - 1
            if epoch >= warmup and epoch % every == 0 and (burst or last):
                for model in models.values():
                    model.load_state_dict(mixed.state_dict())
    return mixed


def official(**hyper: Any) -> GeneralistOfficial:
    learners = [
        {
            "name": "natural",
            "objective": "natural",
            "optimizer": {"lr": 2 * LR, "weight_decay": DECAY["natural"]},
            "schedule": 1.0,
        },
        {
            "name": "robust",
            "objective": "pgd-at",
            "optimizer": {"lr": LR, "weight_decay": DECAY["robust"]},
        },
    ]
    result = make_recipe({"name": "generalist-official", "learners": learners, **hyper}, CONTEXT)
    assert isinstance(result, GeneralistOfficial)
    return result


def run(recipe_: Generalist) -> Method:
    setting = tiny_setting(
        EPOCHS * BATCHES, BATCHES, lambda: tiny_net(dtype=torch.float64)
    )  # fmt: skip
    method = recipe_.build(setting)
    for epoch in range(1, EPOCHS + 1):
        for batch in range(BATCHES):
            method.update(data(epoch, batch), epoch / EPOCHS)  # per epoch, as the script
    return method


def distance(one: nn.Module, other: nn.Module) -> float:
    """The largest difference of weights and statistics."""
    second = other.state_dict()
    return max(
        float((value - second[key]).abs().max())
        for key, value in one.state_dict().items()
        if value.is_floating_point()
    )


@pytest.mark.parametrize(("warmup", "every"), [(8, 2), (5, 5), (9, 3), (12, 12), (1, 1)])
def test_all_quirks_are_the_released_loop(warmup: int, every: int) -> None:
    """The method claims to be what was released: same weights after 12 epochs."""
    expected = released_loop(
        warmup, every, nested=True, burst=True, shared=True, end=0.4, zero=True
    )
    actual = run(official(warmup=warmup, every=every)).deployed()
    assert distance(actual, expected) < 1e-9
    assert distance(actual, tiny_net(dtype=torch.float64)) > 0.01


@pytest.mark.parametrize(
    ("switch", "flag"),
    [
        ("nested_average", "nested"),
        ("burst", "burst"),
        ("shared_lr", "shared"),
        ("zero_means_one", "zero"),
    ],
)
def test_each_switch_changes_its_quirk_and_nothing_else(switch: str, flag: str) -> None:
    """Each is compared with the loop without that quirk, and makes a difference."""
    on = {"nested": True, "burst": True, "shared": True, "zero": True}
    end, mixing = (0.0, {"mixing": TO_ZERO}) if flag == "zero" else (0.4, {})
    expected = released_loop(8, 2, end=end, **{**on, flag: False})  # type: ignore[arg-type]
    actual = run(official(warmup=8, every=2, **{switch: False}, **mixing)).deployed()
    assert distance(actual, expected) < 1e-9
    assert distance(actual, released_loop(8, 2, end=end, **on)) > 1e-6  # type: ignore[arg-type]


def test_a_ratio_that_ends_at_zero_is_read_as_one_in_the_last_epoch() -> None:
    """Protects ``zero_means_one`` under the trainer's progress, which stays below 1: the code takes
    beta at the end of an epoch, so the whole last epoch has a beta of 0, read as 1."""
    method: Any = official(warmup=8, every=2, mixing=TO_ZERO).build(
        tiny_setting(EPOCHS * BATCHES, BATCHES, lambda: tiny_net(dtype=torch.float64))
    )
    shares = []
    for step in range(EPOCHS * BATCHES):
        progress = step / (EPOCHS * BATCHES)
        method.update(data(step // BATCHES + 1, step % BATCHES), progress)
        shares.append(method.diagnostics(progress)["mix/robust"])
    assert shares[-BATCHES:] == [1.0] * BATCHES
    assert shares[-BATCHES - 1] == pytest.approx(3 * (1 - 21 / 24))
    assert shares[0] == 1.0


def test_without_quirks_it_is_the_described_algorithm() -> None:
    """All switches off: bit by bit the framework with the same settings."""
    off = dict.fromkeys(("nested_average", "burst", "shared_lr", "zero_means_one"), False)
    one = official(warmup=8, every=2, **off)
    other = Generalist(
        learners=one.learners,
        mixing=one.mixing,
        average=one.average,
        warmup=one.warmup,
        every=one.every,
    )
    assert distance(run(one).deployed(), run(other).deployed()) == 0


@pytest.mark.parametrize("form", ["shares", "epochs"])
def test_bursts_at_full_length(form: str) -> None:
    """120 epochs: every batch of epochs 75, 80, ..., 120, counted from 1, and no other."""
    timing = {} if form == "shares" else {"warmup": 75, "every": 5}
    batches = 10
    method: Any = recipe("generalist-official", **timing).build(
        tiny_setting(120 * batches, batches)
    )
    due = []
    for step in range(1, 120 * batches + 1):
        method.steps = step  # as after the update of that batch
        if method._redistribution_is_due():
            due.append(step)
    expected = [
        (epoch - 1) * batches + batch + 1 for epoch in range(75, 121, 5) for batch in range(batches)
    ]
    assert due == expected


def test_state_of_the_averages_survives_redistribution() -> None:
    """As in the code: momentum, averages and the step counter are not reset by a burst."""
    method: Any = official(warmup=1, every=1).build(
        tiny_setting(8, 2, lambda: tiny_net(dtype=torch.float64))
    )
    method.update(data(1, 0), 0.0)
    method.update(data(1, 1), 0.0)
    assert method.steps == 2
    for name, learner in method.learners.items():
        assert distance(learner.model, method.global_learner) == 0
        assert distance(method.averages[name], method.global_learner) > 0
        assert len(learner.optimizer.state) == len(list(learner.model.parameters()))


def test_shared_lr_takes_over_schedule_too() -> None:
    """The natural learner's own lr and schedule are ignored, unless the switch is off."""
    for shared in (True, False):
        method = official(shared_lr=shared).build(tiny_setting())
        values = method.diagnostics(1.0)
        assert values["lr/robust"] == pytest.approx(LR * 0.01)
        assert values["lr/natural"] == pytest.approx(LR * 0.01 if shared else 2 * LR)


@pytest.mark.parametrize("names", [["robust", "natural"], ["natural"], ["natural", "linf"]])
def test_exactly_the_two_learners(names: list[str]) -> None:
    """The quirks are about a robust and a natural learner; others are refused."""
    learners = [{"name": name, "objective": "natural"} for name in names]
    with pytest.raises(ValueError, match="exactly two learners|mixing names"):
        recipe("generalist-official", learners=learners)


def test_default_schedule_is_the_released_one() -> None:
    """lr, lr, lr/10, lr/100 at epochs 0, 40, 80, 120."""
    schedule: Schedule = official().learners[1].schedule
    for epoch in range(121):
        expected = np.interp(epoch, [0, 40, 80, 120], [1, 1, 0.1, 0.01])
        assert schedule(epoch / 120) == pytest.approx(expected, rel=1e-9)
