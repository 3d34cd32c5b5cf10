"""``train.accumulate``: a batch in turns takes the step of a batch that passes at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_learners import (
    CONTEXT,
    TinyNet,
    images,
    recipe,
    relative_error,
    tiny_net,
    tiny_setting,
)
from tiny_suites import tiny_cell, tiny_data
from torch import Tensor, nn

from benchmark.config.suite import TrainConfig
from benchmark.core.errors import ConfigError
from benchmark.core.mesh import DataAxis, Mesh
from benchmark.core.method import Method, make_recipe
from benchmark.core.objective import METHODS
from benchmark.core.setting import Setting
from benchmark.training.build import build_method
from benchmark.training.loop import Trainer
from benchmark.training.random_state import RandomState
from benchmark.training.views import ModelPrecision

CPU = torch.device("cpu")
SIZES = (16, 13, 3, 16)  # uneven turns, and a batch too small for as many turns


class Frozen(nn.BatchNorm2d):
    """BatchNorm that uses its running averages in train mode too."""

    def train(self, mode: bool = True) -> Frozen:
        super().train(False)
        return self


def network(norm: str) -> nn.Module:
    model: nn.Module = tiny_net(0, torch.float64)
    if norm == "group":
        model.norm = nn.GroupNorm(2, 4).double()
    elif norm == "frozen":
        model.norm = Frozen(4).double().train()
    return model


def trained(
    settings: Mapping[str, Any], accumulate: int, norm: str, axis: DataAxis | None = None
) -> tuple[Method, list[dict[str, Tensor]], dict[str, Any]]:
    mesh = Mesh(data=axis or DataAxis())
    random = RandomState(0, CPU, mesh.data)
    method = make_recipe(settings, CONTEXT).build(
        Setting(
            new_model=lambda init=0, model=None: network(norm),
            total_steps=len(SIZES),
            steps_per_epoch=2,
            generator=random.generator(0),
            generators=random.generator,
            crafting_view=ModelPrecision("fp32", CPU).view,
            mesh=mesh,
            accumulate=accumulate,
        )
    )
    losses = []
    for step, size in enumerate(SIZES):
        mesh.data.take(size)
        losses.append(method.update(images(size, step, torch.float64), step / len(SIZES)))
    return method, losses, random.state_dict()


RECIPES: list[dict[str, Any]] = [
    {"name": "pgd-at"},
    {"name": "trades", "threat": "l2", "grad_clip": 0.1},
    {"name": "mart"},
    {"name": "awp", "objective": "trades"},
    {"name": "ema", "objective": "pgd-at"},
    {"name": "joint"},
    {"name": "generalist-d", "warmup": "0%", "every": "30%"},
]


@pytest.mark.parametrize("norm", ["group", "frozen"])
@pytest.mark.parametrize("settings", RECIPES, ids=lambda settings: settings["name"])
def test_turns_take_the_step_of_the_whole_batch(settings: dict[str, Any], norm: str) -> None:
    """Weights, losses and the state of the generators after four steps, to the order of sums."""
    whole, losses, random = trained(settings, 1, norm)
    for accumulate in (2, 5):
        turns, their_losses, their_random = trained(settings, accumulate, norm)
        for name, learner in whole.learners.items():
            theirs = turns.learners[name].model.state_dict()
            for key, value in learner.model.state_dict().items():
                assert relative_error(theirs[key].double(), value.double()) < 1e-10, (name, key)
        for one, other in zip(losses, their_losses, strict=True):
            for name, value in one.items():
                assert abs(float(value - other[name])) < 1e-10 * max(1.0, abs(float(value)))
        for number, state in random["generators"].items():
            assert torch.equal(state, their_random["generators"][number])


def test_the_passes_of_a_turn_are_small() -> None:
    """No pass sees more than its turn, or no memory would be saved; BatchNorm sees that, too."""
    seen = []

    class Watched(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    mesh = Mesh()
    method = make_recipe({"name": "pgd-at"}, CONTEXT).build(
        Setting(lambda init=0, model=None: Watched(), 1, 1, mesh=mesh, accumulate=4)
    )
    mesh.data.take(16)
    method.update(images(16), 0.0)
    assert set(seen) == {4}
    (learner,) = method.learners.values()
    assert learner.model.norm.num_batches_tracked == 4


def largest_pass(name: str, accumulate: int) -> int:
    """The most images that a pass of the method sees in two steps; 0 if it is refused."""
    seen = [0]

    class Watched(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x)

    def network() -> nn.Module:
        model = Watched()
        model.load_state_dict(tiny_net().state_dict())
        return model

    mesh = Mesh()
    learners = [{"name": "a", "objective": "natural"}, {"name": "b", "objective": "pgd-at"}]
    own = {"learners": learners} if name == "generalist" else {}
    setting = tiny_setting(new_model=network, mesh=mesh, accumulate=accumulate)
    method = recipe(name, **own).build(setting)
    if not (method.accumulates and method.cuttable):
        return 0
    for step in range(2):
        mesh.data.take(16)
        method.update(images(16, step), 0.5)
    return max(seen)


def test_methods_that_accept_turns_take_them() -> None:
    """Protects: a method that says ``accumulates``, and passes its batches at once all the same."""
    found = {name: (largest_pass(name, 1), largest_pass(name, 4)) for name in METHODS.names()}
    accepted = {name: passes for name, passes in found.items() if passes[0]}
    assert {"natural", "trades", "awp", "ema", "swa", "generalist-d", "joint"} <= accepted.keys()
    assert not {"kd-swa", "mixup", "hat", "ikl", "cfa"} & accepted.keys()
    assert {name: once for name, (once, turns) in accepted.items() if turns * 4 != once} == {}


def test_turns_cover_the_part_of_every_process() -> None:
    """Each image once; all processes have as many turns, and know how many images take part."""
    for size, total, most in ((1, 16, 3), (1, 5, 4), (3, 40, 4), (2, 13, 3), (4, 9, 2), (4, 3, 2)):
        turns = []
        for position in range(size):
            axis = DataAxis(position, size)
            axis.take(total)
            turns.append(axis.turns(most))
            before = axis.start, axis.stop
            rows = []
            for turn in turns[-1]:
                with axis.during(turn) as chosen:
                    assert axis.stop - axis.start >= min(2, total)
                    rows += range(before[1] - before[0])[chosen]
            assert rows == list(range(before[1] - before[0]))
            assert (axis.start, axis.stop, axis.present) == (*before, total)
        assert len({len(each) for each in turns}) == 1
        for same in zip(*turns, strict=True):
            assert len({turn.present for turn in same}) == 1
            if total >= 2 * size:
                assert sum(turn.stop - turn.start for turn in same) == same[0].present


def test_several_images_for_each_keep_their_order() -> None:
    """An objective may craft [k * n] images; turns must not shuffle those that are handed on."""

    class Twice(METHODS.get("natural")):  # type: ignore[misc]
        def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Any) -> Tensor:
            return torch.cat([x, 1 - x])

    mesh = Mesh()
    setting = Setting(lambda init=0, model=None: tiny_net(), 1, 1, mesh=mesh, accumulate=3)
    method = make_recipe({"name": "natural"}, CONTEXT).build(setting)
    (learner,) = method.learners.values()
    learner.objective = Twice(name="natural")
    mesh.data.take(7)
    x, y = images(7)
    x_adv, _ = learner.step_on(x, y, setting.step(0.0))
    assert torch.equal(x_adv, torch.cat([x, 1 - x]))


def test_a_method_that_needs_its_batch_in_one_piece_is_refused(tmp_path: Path) -> None:
    train = {"accumulate": 2}
    for name in ("mixup", "fat", "hat"):
        cell = tiny_cell(methods=[name], train=train)
        with pytest.raises(ConfigError, match="cannot divide its batches"):
            build_method(cell.config, tiny_data(), CPU)
    cell = tiny_cell(methods=["pgd-at"], train=train | {"epochs": 0.5})
    Trainer(cell.config, tiny_data(), tmp_path, device=CPU).run()
    assert (tmp_path / "training.json").exists()


def test_off_it_leaves_hashes_as_they_are() -> None:
    assert "accumulate" not in TrainConfig().model_dump()
    assert TrainConfig(accumulate=2).model_dump()["accumulate"] == 2
