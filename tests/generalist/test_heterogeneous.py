"""Base learners of different architectures, and many of them."""

from __future__ import annotations

import pytest
import torch
from tiny_learners import images, recipe, tiny_net, tiny_setting
from tiny_suites import tiny, tiny_data

from benchmark.config.suite import build_suite
from benchmark.core.errors import ConfigError
from benchmark.training.build import build_method

WIDE = {"name": "linf", "objective": "pgd-at", "model": {"width": 7}}
LEARNERS = [{"name": "natural", "objective": "natural"}, WIDE]


def test_distillation_learns_from_another_architecture() -> None:
    """The global learner, which never sees a label, becomes as good as its teachers."""
    learners = [
        {"name": "a", "objective": "natural", "model": {"width": 8}},
        {"name": "b", "objective": "natural", "model": {"width": 6}},
    ]
    optimizer = {"lr": 0.1, "weight_decay": 0.0}
    student = {"name": "global", "objective": "natural", "optimizer": optimizer}
    method = recipe(
        "generalist-distill",
        learners=[{**one, "optimizer": optimizer} for one in learners],
        student=student,
        mixing={},
    ).build(tiny_setting(total_steps=150, new_model=tiny_net))
    x, _ = images(48)
    y = (x.mean((2, 3)) - x.mean((0, 2, 3))).argmax(1)  # learnable: the brightest channel
    before = (method.deployed().eval()(x).argmax(1) == y).float().mean()
    for step in range(150):
        part = torch.arange(16) + 16 * (step % 3)
        method.update((x[part], y[part]), step / 150)
    after = (method.deployed().eval()(x).argmax(1) == y).float().mean()
    assert before < 0.6
    assert after > 0.9


def test_averaging_weights_of_different_architectures_is_refused() -> None:
    with pytest.raises(ValueError, match="use generalist-distill"):
        recipe("generalist", learners=LEARNERS)


def test_a_learner_gets_its_architecture_and_its_initial_weights() -> None:
    """Through the trainer's own factory: a suite's seed, a learner's init, a learner's model."""
    learners = [
        {"name": "natural", "objective": "natural"},
        {"name": "other", "objective": "natural", "init": 1},
        {"name": "wide", "objective": "natural", "model": {"name": "small-resnet", "width": 12}},
    ]
    suite = build_suite(tiny(methods=[{"name": "generalist-distill", "learners": learners,
                                       "mixing": {}}]))  # fmt: skip
    data, device = tiny_data(), torch.device("cpu")
    built = build_method(suite.cells()[0].config, data, device)
    again = build_method(suite.cells()[0].config, data, device)
    first = {name: next(item.model.parameters()) for name, item in built.learners.items()}
    assert first["wide"].shape[0] == 12
    assert torch.equal(first["natural"], first["global"])
    assert not torch.equal(first["natural"], first["other"])
    for name, item in again.learners.items():
        assert torch.equal(next(item.model.parameters()), first[name])
    bad = [{"name": "x", "objective": "natural", "model": {"name": "small-resnett"}}]
    suite = build_suite(
        tiny(methods=[{"name": "generalist-distill", "learners": bad, "mixing": {}}])
    )
    with pytest.raises(ConfigError, match="did you mean 'small-resnet'"):
        build_method(suite.cells()[0].config, data, device)


def test_options_that_are_off_leave_the_hash_of_a_run_alone() -> None:
    """Protects: records made before learners had an architecture of their own."""
    plain = build_suite(tiny()).cells()[0].config.model_dump(mode="json")
    assert not {"init", "model"} & plain["recipe"]["learner"].keys()


@pytest.mark.parametrize(("count", "passes"), [(4, 1 + 3 + 4 + 3), (5, 12), (7, 14), (10, 23)])
def test_presets_of_many_learners(count: int, passes: int) -> None:
    """2 + 1, 3 + 1 and 2 + 1 passes for the three norms; 1 for natural and augmented tasks."""
    method = recipe(f"generalist-{count}").build(tiny_setting(total_steps=100))
    assert len(method.learners) == count
    assert method.passes == passes
    method.update(images(6), 0.0)
    assert sum(v for k, v in method.diagnostics(0.0).items() if k.startswith("mix/")) == (
        pytest.approx(1)
    )
