"""Processes that train a method together end where one process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mesh_worker import SIZES, trained
from tiny_learners import CONTEXT
from tiny_suites import assert_same_result, children, cli, tiny_data, torchrun, write_suite
from torch import Tensor

from benchmark.core.draws import WholeBatchGenerator, exponential_like, normal_like, uniform_like
from benchmark.core.errors import ConfigError
from benchmark.core.mesh import DataAxis, deal, layout
from benchmark.core.method import SingleLearner, make_recipe
from benchmark.core.objective import METHODS
from benchmark.data.loader import train_loader

CPU = torch.device("cpu")
TESTS = Path(__file__).resolve().parents[1]
REDISTRIBUTED = {"warmup": "0%", "every": "30%"}
# Every registered method that can be cut, two variants of rules for what is averaged, and AWP
# around another objective.
GENERALISTS = {"generalist": {"learners": [{"name": "a", "objective": "natural"},
                                           {"name": "b", "objective": "pgd-at"}]}}  # fmt: skip


# With four processes: methods, and the numbers of groups that share their learners.
FOUR = {
    "pgd-at": (1,),
    "awp": (1,),
    "e-at": (1,),
    "batch-statistics": (1,),
    "generalist-4": (1, 2, 4),
    "generalist-official": (2,),
    "copied": (2,),
    "rests": (2,),
    "reestimated": (1,),
    "weight-interpolation": (2,),
}


def everything() -> list[dict[str, Any]]:
    jobs = []
    for name in METHODS.names():
        recipe: dict[str, Any] = {"name": name, **GENERALISTS.get(name, {})}
        if name.startswith("generalist") and name != "generalist-distill":
            recipe |= REDISTRIBUTED
        jobs.append({"name": name, "recipe": recipe})
    copied = {"name": "generalist-d", "batchnorm": "copy", "optimizer_state": "reset"}
    jobs.append({"name": "copied", "recipe": copied | REDISTRIBUTED})
    # the natural learner rests until step 4 of 6, whichever process has it
    rests = {"name": "generalist-d", "optimizer_state": "reset"}
    jobs.append({"name": "rests", "recipe": rests | REDISTRIBUTED})
    reestimated = {"name": "generalist-t", "batchnorm": "reestimate"}
    jobs.append({"name": "reestimated", "recipe": reestimated | REDISTRIBUTED})
    jobs.append({"name": "awp-trades", "recipe": {"name": "awp", "objective": "trades"}})
    batch = {"name": "pgd-at", "batchnorm": "batch"}
    jobs.append({"name": "batch-statistics", "recipe": batch})
    return jobs


def together(processes: int, jobs: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What ``mesh_worker`` in several processes leaves."""
    order, out = folder / "jobs.json", folder / f"states-{processes}.pt"
    order.write_text(json.dumps(jobs))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    called = subprocess.run(
        [*launch, f"--nproc-per-node={processes}", TESTS / "training/mesh_worker.py", order, out],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert called.returncode == 0, called.stderr[-3000:]
    states: dict[str, Any] = torch.load(out, weights_only=True)
    return states


def largest_difference(one: Any, other: Any, path: str = "") -> tuple[float, str]:
    """Over all numbers of two nested states, and where it is."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        found = [largest_difference(one[key], other[key], f"{path}/{key}") for key in one]
        return max(found, default=(0.0, path))
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        found = [largest_difference(*pair, path) for pair in zip(one, other, strict=True)]
        return max(found, default=(0.0, path))
    if isinstance(one, Tensor) and one.numel():
        return float((one.double() - other.double()).abs().max()), path
    if isinstance(one, (int, float)) and not isinstance(one, bool):
        return abs(float(one) - float(other)), path
    return 0.0, path


def cuttable(job: dict[str, Any]) -> bool:
    made = make_recipe(job["recipe"], CONTEXT)
    return not isinstance(made, SingleLearner) or made.learner.objective.cuttable


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_every_method_ends_where_one_process_ends(processes: int, tmp_path: Path) -> None:
    """Weights, optimisers, averages, draws, losses and diagnostics, to the order of sums; with every
    layout of the grid that is possible."""
    jobs = [job for job in everything() if cuttable(job)]
    if processes == 4:
        jobs = [
            {**job, "name": f"{job['name']}-{groups}", "groups": groups}
            for job in jobs
            for groups in FOUR.get(job["name"], ())
        ]
    states = together(processes, jobs, tmp_path)
    grids = set()
    for job in jobs:
        alone = trained({key: value for key, value in job.items() if key != "groups"})
        found = states[job["name"]]
        grids.add(tuple(found.pop("grid")))
        alone.pop("grid")
        difference, where = largest_difference(alone, found)
        assert difference < 1e-9, (job["name"], where, difference)
    assert grids == ({(1, 2), (2, 1)} if processes == 2 else {(1, 4), (2, 2), (4, 1)})


def test_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    """Two processes, then one, and one process, then two."""
    recipe = {"name": "generalist-t", **REDISTRIBUTED}
    middle = 3
    whole = trained({"name": "t", "recipe": recipe})
    begun = {"name": "t", "recipe": recipe, "stop": middle}
    together(2, [begun], tmp_path)
    rest = {**begun, "start": middle, "stop": len(SIZES), "from": str(tmp_path / "states-2.pt")}
    alone = trained(rest)
    torch.save({"t": trained(begun)}, tmp_path / "alone.pt")
    two = together(2, [{**rest, "from": str(tmp_path / "alone.pt")}], tmp_path)["t"]
    for state in (alone, two):
        for key in ("method", "deployed", "random"):
            difference, where = largest_difference(whole[key], state[key])
            assert difference < 1e-9, (where, difference)


def test_statistics_per_rank_are_those_of_parts(tmp_path: Path) -> None:
    """A different training, but every process has the same averages: it is not the synchronised one,
    and the mean of the statistics of the parts."""
    job = {"name": "n", "recipe": {"name": "natural"}, "batchnorm": "per-rank", "stop": 1}
    states = together(2, [job], tmp_path)["n"]
    alone = trained(job)
    assert largest_difference(alone["deployed"], states["deployed"])[0] > 1e-6
    mean, expected = (state["deployed"]["norm.running_mean"] for state in (states, alone))
    torch.testing.assert_close(mean, expected)  # equal parts: the mean of means is the mean


def test_a_turn_has_the_statistics_of_all_processes(tmp_path: Path) -> None:
    """Two turns of two processes are two turns of one, if that one's first turn has the images that
    the two have in theirs."""
    job = {"name": "n", "recipe": {"name": "natural"}, "accumulate": 2, "stop": 1}
    turns = [*range(4), *range(8, 12)], [*range(4, 8), *range(12, 16)]
    alone = trained({**job, "order": [*turns[0], *turns[1]]})
    states = together(2, [job], tmp_path)["n"]
    difference, where = largest_difference(alone["method"], states["method"])
    assert difference < 1e-9, (where, difference)
    at_once = trained({**job, "accumulate": 1})
    assert largest_difference(at_once["method"], states["method"])[0] > 1e-6


def test_learners_are_dealt_out_evenly() -> None:
    """The costliest first, each to the position with least to do."""
    passes = {"natural": 1.0, "linf": 11.0, "l2": 11.0, "l1": 6.0}
    assert deal(passes, 2) == {"linf": 0, "l2": 1, "l1": 0, "natural": 1}


def test_layout_prefers_what_ends_first() -> None:
    """Learners side by side where their work is even, else the batch is cut; as asked where asked."""
    even = {"natural": 1.0, "linf": 11.0, "l2": 11.0}
    assert layout(2, even, independent_learners=True, cuttable=True, groups=None) == (2, 1)
    assert layout(
        2, {"natural": 1.0, "linf": 11.0}, independent_learners=True, cuttable=True, groups=None
    ) == (
        1,
        2,
    )
    assert layout(4, even, independent_learners=True, cuttable=True, groups=2) == (2, 2)
    assert layout(2, even, independent_learners=False, cuttable=True, groups=None) == (1, 2)


@pytest.mark.parametrize(
    ("world", "independent_learners", "cuttable", "groups", "message"),
    [
        (3, True, False, None, "use 1 or 2 processes"),
        (2, False, False, None, "mixes the images of a batch"),
        (4, True, True, 3, "--learner-groups 3 does not fit"),
        (3, True, True, 2, "must be a multiple"),
    ],
)
def test_layouts_that_cannot_be(
    world: int, independent_learners: bool, cuttable: bool, groups: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        layout(
            world,
            {"a": 1, "b": 1},
            independent_learners=independent_learners,
            cuttable=cuttable,
            groups=groups,
        )


def test_methods_that_mix_images_say_so() -> None:
    """Their batches must not be cut."""
    mixing = {job["name"] for job in everything() if not cuttable(job)}
    assert mixing == {"mixup", "cutmix", "iat", "fat", "fat-trades"}
    assert not cuttable({"recipe": {"name": "awp", "objective": "mixup"}})


@pytest.mark.parametrize(
    "draw", [normal_like, exponential_like, partial(uniform_like, low=-2, high=3)]
)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_draws_are_the_rows_of_the_whole_batch(
    memory: torch.memory_format, draw: Callable[..., Tensor]
) -> None:
    """Three processes draw together what one draws alone, also in channels_last layout, where
    numbers lie otherwise in memory; a batch too small to be cut is drawn whole by each."""
    like = torch.empty(10, 3, 4, 4).contiguous(memory_format=memory)
    whole = draw(like, torch.Generator().manual_seed(1))
    parts = []
    for position in range(3):
        generator = WholeBatchGenerator()
        generator.data = DataAxis(position, 3)
        generator.data.take(10)
        generator.manual_seed(1)
        parts.append(draw(like[generator.data.start : generator.data.stop], generator))
        generator.data.take(5)
        assert torch.equal(
            draw(like[:5], generator.manual_seed(2)),
            draw(like[:5], torch.Generator().manual_seed(2)),
        )
    assert torch.equal(torch.cat(parts), whole)
    assert parts[0].is_contiguous(memory_format=memory)


@pytest.mark.slow
def test_killed_processes_go_on_to_the_same_weights(tmp_path: Path) -> None:
    """Learners on one axis: SIGTERM to the launcher, SIGKILL of a process, and the same command
    again; weights, curves and outcomes are those of an uninterrupted run of two processes. The
    natural learner rests until 60 % of training, and two rules choose a checkpoint."""
    recipe = {"name": "generalist-t", "warmup": "20%", "every": "20%", "optimizer_state": "reset"}
    train = {"epochs": 12, "validations": 6, "selection": ["last", "best"]}
    suite = write_suite(tmp_path, methods=[recipe], train=train)
    arguments = ("run", suite, "--learner-groups", 2, "-q", "--out")
    assert torchrun(2, *arguments, tmp_path / "whole").wait(timeout=600) == 0

    for lines, end in ((2, signal.SIGTERM), (5, signal.SIGKILL)):
        started = torchrun(2, *arguments, tmp_path / "killed")
        wait_for_lines(started, tmp_path / "killed", lines)
        if end == signal.SIGTERM:
            started.send_signal(end)
        else:
            os.kill(children(started.pid)[-1], end)
        assert started.wait(timeout=300) != 0
    assert torchrun(2, *arguments, tmp_path / "killed").wait(timeout=600) == 0
    (whole,), (killed,) = ((tmp_path / name / "cells").iterdir() for name in ("whole", "killed"))
    assert_same_result(whole, killed)
    summary = json.loads((killed / "training.json").read_text())
    assert summary["processes"] == {"learners": 2, "data": 1}


def wait_for_lines(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Until the only run's curve has so many lines."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        for path in out.glob("cells/*/metrics.jsonl"):
            if len(path.read_text().splitlines()) >= count:
                return
        time.sleep(0.05)
    raise AssertionError(f"no {count} lines: {process.communicate()[1][-2000:]}")


@pytest.mark.slow
def test_divergence_ends_all_processes_with_one_message(tmp_path: Path) -> None:
    """One learner diverges in one process; the next cell is trained all the same."""
    wild = {"name": "generalist-d", "label": "wild",
            "learners": [{"name": "natural", "objective": "natural"},
                         {"name": "linf", "objective": "pgd-at", "optimizer": {"lr": 1e30}}]}  # fmt: skip
    suite = write_suite(tmp_path, methods=[wild, "pgd-at"])
    started = torchrun(2, "run", suite, "-q", "--out", tmp_path / "out")
    err = started.communicate(timeout=600)[1]
    assert "learner linf has weights that are not finite" in err or "loss/linf is not finite" in err
    assert len(list((tmp_path / "out/cells").glob("*/training.json"))) == 1
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "1 of 2 cells diverged" in message


def test_learner_groups_without_processes(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    called = cli("run", suite, "--learner-groups", 2, "--out", tmp_path / "out")
    assert called.status == 2
    assert "start with torchrun" in called.err


@pytest.mark.parametrize("size", [2, 3])
def test_loaders_cut_the_batches_of_one_process(size: int) -> None:
    """Order, crops and flips are those of the whole batch; a batch too small is not cut."""
    split = tiny_data().train
    whole = list(train_loader(split, 20, seed=1, crop=1, flip=True).epoch(0))
    parts = []
    for position in range(size):
        axis = DataAxis(position, size)
        loader = train_loader(split, 20, seed=1, crop=1, flip=True, axis=axis)
        parts.append([(x, y, axis.cut) for x, y in loader.epoch(0)])
    for number, (x, y) in enumerate(whole):
        mine = [part[number] for part in parts]
        if len(y) < 2 * size:
            assert all(torch.equal(item[0], x) and not item[2] for item in mine)
        else:
            assert torch.equal(torch.cat([item[0] for item in mine]), x)
            assert torch.equal(torch.cat([item[1] for item in mine]), y)
            assert all(item[2] for item in mine)
