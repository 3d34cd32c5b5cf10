"""One step of every registered method on tiny data, and what every method promises."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from tiny_learners import (
    CONTEXT,
    CountingNet,
    Ledger,
    assert_same_state,
    batches,
    images,
    recipe,
    state_of,
    tiny_net,
    tiny_setting,
)
from torch import Tensor

from benchmark.core.config import config_hash
from benchmark.core.method import Method, Recipe, family_of, make_recipe
from benchmark.core.objective import METHODS, is_objective
from benchmark.core.setting import Setting
from benchmark.training.views import ModelPrecision

LEARNERS = [
    {"name": "a", "objective": "natural"},
    {"name": "b", "objective": {"name": "trades", "beta": 3}, "grad_clip": 1.0},
    {"name": "c", "objective": {"name": "pgd-at", "threat": "l1"}, "optimizer": {"name": "adam"}},
]
# What a method cannot do without.
REQUIRED: dict[str, dict[str, Any]] = {"generalist": {"learners": LEARNERS}}
# Methods whose cost depends on the images or on a draw, made to cost what they declare.
FIXED_COST: dict[str, dict[str, Any]] = {
    "fat": {"tau": 99},
    "fat-trades": {"tau": 99},
    "sat": {"threats": ["linf", "l1"]},  # of equally many steps
    "rebat-plus-plus": {"stronger_since": "0%"},
    "cfa": {"threshold": 0},  # without the attack on held-out images
    "mixednuts": {"mixture": {}},  # the same
}
NAMES = METHODS.names()
OBJECTIVES = [name for name in NAMES if is_objective(METHODS.get(name))]
STEPS = 6


def example(name: str, **hyper: Any) -> Recipe:
    return recipe(name, **REQUIRED.get(name, {}), **hyper)


def test_all_methods_are_here() -> None:
    """An empty registry would pass every other test in this file."""
    assert {"natural", "pgd-at", "trades", "joint", "generalist", "generalist-d"} <= set(NAMES)


def test_every_method_states_its_family() -> None:
    """A forgotten one would be drawn among the others."""
    families = {name: family_of(name) for name in NAMES}
    assert "other" not in families.values()
    found = (families[name] for name in ("msd", "avg-sequential", "seed-ensemble", "generalist-4"))
    assert list(found) == ["multi-norm", "multi-norm", "ensembles", "Generalist"]


@pytest.mark.parametrize("name", NAMES)
def test_one_step_moves_every_weight_of_every_learner(name: str) -> None:
    """No layer is left out of an optimiser (weight decay off: only gradients move weights)."""
    method = make_recipe(
        {"name": name, **REQUIRED.get(name, {})},
        {**CONTEXT, "learner": {"optimizer": {"lr": 0.05, "weight_decay": 0}}},
    ).build(tiny_setting())
    before = {key: state_of(learner.model) for key, learner in method.learners.items()}
    losses = method.update(images(8), 0.0)
    assert losses.keys() == {f"loss/{key}" for key in method.learners}
    assert all(torch.isfinite(loss) and loss > 0 and not loss.requires_grad
               for loss in losses.values())  # fmt: skip
    for key, learner in method.learners.items():
        for parameter_name, parameter in learner.model.named_parameters():
            assert parameter.requires_grad
            assert (parameter != before[key][parameter_name]).any(), (key, parameter_name)
    logits = method.deployed().eval()(images(4)[0])
    assert logits.shape == (4, 3)
    assert torch.isfinite(logits).all()
    assert all(isinstance(value, float) for value in method.diagnostics(0.5).values())


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *[(name, {}) for name in NAMES],
    ("adp", {"threat": "linf"}),
    ("adp", {"threat": "linf", "adversarial": "adp"}),
    ("adp", {"threat": "linf", "adversarial": "alone"}),
    ("max", {"attack": "pgd"}),
    ("max", {"restarts": 2}),
    ("avg-sequential", {"attack": "pgd"}),
]


@pytest.mark.parametrize(
    ("name", "options"), OPTIONS, ids=[" ".join(map(str, [n, *o.values()])) for n, o in OPTIONS]
)
def test_passes_are_the_gradients_that_are_computed(name: str, options: dict[str, Any]) -> None:
    """The cost column: images whose gradient reached the logits, per image and step."""
    ledger = Ledger()

    def new_model() -> CountingNet:
        torch.manual_seed(0)
        return CountingNet(ledger)

    hyper = FIXED_COST.get(name, {}) | options
    method = example(name, **hyper).build(tiny_setting(new_model=new_model))
    for step in range(2):
        method.update(images(8, step), step / 8)
    assert ledger.images / (2 * 8) == method.passes
    if method.forward_passes:
        assert ledger.forward_only / (2 * 8) == method.forward_passes


@pytest.mark.parametrize("name", ["fat", "fat-trades"])
def test_friendly_examples_cost_at_most_what_is_declared(name: str) -> None:
    ledger = Ledger()
    method = example(name, tau=0).build(tiny_setting(new_model=lambda: CountingNet(ledger)))
    method.update(images(64), 0.0)
    assert method.passes - 2 < ledger.images / 64 < method.passes


def stored(value: Any) -> Any:
    """Through a file, as a checkpoint goes: plain values and tensors only."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run(method: Method, start: int, stop: int) -> list[dict[str, Tensor]]:
    data = batches(STEPS)
    return [method.update(data[step], step / STEPS) for step in range(start, stop)]


@pytest.mark.parametrize("view", [None, ModelPrecision("fp32", torch.device("cpu")).view])
@pytest.mark.parametrize("name", NAMES)
def test_kill_and_resume_is_bit_identical(name: str, view: Any) -> None:
    """A run continued from its state equals one that never stopped, redistribution included."""

    def setting(seed: int) -> Setting:
        views = {"crafting_view": view} if view else {}
        return tiny_setting(
            STEPS, 1, new_model=lambda: tiny_net(seed), seed=seed, **views
        )  # fmt: skip

    whole_setting = setting(0)
    whole = example(name).build(whole_setting)
    run(whole, 0, STEPS // 2)
    assert whole_setting.generator is not None
    saved = stored([whole.state_dict(), whole_setting.generator.get_state()])
    expected = run(whole, STEPS // 2, STEPS)

    other_setting = setting(1)  # other initial weights and draws: all must come from the state
    resumed = example(name).build(other_setting)
    resumed.load_state_dict(saved[0])
    assert other_setting.generator is not None
    other_setting.generator.set_state(saved[1])
    assert run(resumed, STEPS // 2, STEPS) == expected
    for key, learner in whole.learners.items():
        assert_same_state(learner.model, resumed.learners[key].model)
    assert_same_state(whole.deployed(), resumed.deployed())


@pytest.mark.parametrize("name", NAMES)
def test_resolved_recipe_survives_json(name: str) -> None:
    """A record's configuration is complete: another suite's defaults do not seep into it."""
    one = example(name)
    data = json.loads(one.model_dump_json())
    other = {
        "threats": {"linf": {"eps": "1/255"}},
        "learner": {"optimizer": {"lr": 9.0}, "schedule": 0.5, "grad_clip": 7.0},
    }
    for context in (None, other):
        again = make_recipe(data, context)
        assert again == one
        assert config_hash(again) == config_hash(one)
    assert data["name"] == name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_works_in_a_base_learner(name: str) -> None:
    """The papers' first open question: any loss inside Generalist; alone, it trains the same."""
    learners = [{"name": "one", "objective": name}]
    alone = example(name).build(tiny_setting())
    inside = recipe("generalist", learners=learners, every=0).build(tiny_setting())
    for step, batch in enumerate(batches(3)):
        (one,), (other,) = (m.update(batch, step / 8).values() for m in (alone, inside))
        assert torch.equal(one, other)
    assert inside.passes == alone.passes
    assert_same_state(alone.deployed(), inside.learners["one"].model)
