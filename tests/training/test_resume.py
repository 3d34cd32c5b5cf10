"""An interrupted training goes on to the very weights, curves and record of an uninterrupted one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import Stopped, assert_same_result, stop_after, tiny_cell, tiny_data

from benchmark.config.suite import Cell
from benchmark.core.errors import CheckpointError, DivergenceError
from benchmark.training import checkpoint, loop
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")
STEPS = 10
CASES: list[tuple[Any, Any]] = [
    ("pgd-at", "best"),
    ({"name": "generalist-d", "warmup": "20%", "every": "20%"}, "last"),
    ({"name": "generalist-d-norms", "warmup": "0%", "every": "30%", "batchnorm": "copy",
      "optimizer_state": "reset"}, "best"),
    # the natural learner rests for the first 6 of 10 steps
    ({"name": "generalist-d", "warmup": "20%", "every": "20%", "optimizer_state": "reset"},
     ["last", "best", "best-sum"]),
    ("weight-interpolation", "best"),
    ({"name": "generalist-official", "warmup": "0%", "every": "50%"}, "last"),
]  # fmt: skip


def _train(cell: Cell, run: Path, stop: int | None = None) -> None:
    """Train, or raise ``Stopped`` after so many updates of this process."""
    run.mkdir(exist_ok=True)
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU)
    if stop is not None:
        stop_after(trainer, stop)
    trainer.run()


@pytest.mark.parametrize(("method", "selection"), CASES)
def test_interrupted_training_equals_uninterrupted(
    method: Any, selection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = tiny_cell(methods=[method], train={"selection": selection})
    _train(cell, tmp_path / "whole")

    # Checkpoints at validations only (steps 3, 7 and 10): work since the last is done again.
    for stop in (1, 5):
        with pytest.raises(Stopped):
            _train(cell, tmp_path / "seldom", stop)
    _train(cell, tmp_path / "seldom")
    assert_same_result(tmp_path / "whole", tmp_path / "seldom")

    # A checkpoint after every step: each process makes a few steps.
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
    for stop in (2, 1, 4):
        with pytest.raises(Stopped):
            _train(cell, tmp_path / "often", stop)
    _train(cell, tmp_path / "often")
    assert_same_result(tmp_path / "whole", tmp_path / "often")


def test_a_stop_between_the_last_step_and_the_record_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = tiny_cell()
    _train(cell, tmp_path / "whole")

    def stop(self: Trainer) -> None:
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "_finish", stop)
        _train(cell, tmp_path / "run")
    _train(cell, tmp_path / "run", stop=0)  # no step is left
    assert_same_result(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    number: signal.Signals, tmp_path: Path
) -> None:
    cell, run = tiny_cell(), tmp_path / "run"
    run.mkdir()
    _train(cell, tmp_path / "whole")
    before = signal.getsignal(number)
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU)
    update = trainer.method.update

    def signalled(batch: Any, progress: float) -> Any:
        if progress == 4 / STEPS:
            os.kill(os.getpid(), number)
        return update(batch, progress)

    trainer.method.update = signalled  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.run()
    assert caught.value.args == (number,)
    assert checkpoint.load(run / "checkpoint.pt")["step"] == 5
    assert signal.getsignal(number) is before
    _train(cell, run, stop=5)
    assert_same_result(tmp_path / "whole", run)


def test_kills_while_a_checkpoint_is_written_leave_a_valid_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is on disk before the content: two such kills in a row once lost the digest."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"step": 1})
    replace = os.replace

    def killed(source: Any, target: Any) -> None:
        if Path(target) == path:
            raise Stopped
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        for step in (2, 3, 4):
            with pytest.raises(Stopped):
                checkpoint.save(path, {"step": step})
            assert checkpoint.load(path) == {"step": 1}
    checkpoint.save(path, {"step": 5})
    assert checkpoint.load(path) == {"step": 5}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_torn_last_line_of_the_curves_is_dropped(tmp_path: Path) -> None:
    cell, run = tiny_cell(), tmp_path / "run"
    _train(cell, tmp_path / "whole")
    with pytest.raises(Stopped):
        _train(cell, run, stop=5)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 4, "loss\xff')
    _train(cell, run)
    assert_same_result(tmp_path / "whole", run)


def test_divergence_names_step_learner_and_checkpoint(tmp_path: Path) -> None:
    cell = tiny_cell(methods=["weight-interpolation"], optimizer={"lr": 1e30})
    with pytest.raises(DivergenceError) as caught:
        _train(cell, tmp_path / "run")
    assert "at step 3 of 10" in str(caught.value)
    assert "natural" in str(caught.value)
    assert "no checkpoint yet" in str(caught.value)


def test_divergence_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
    # Fine until 60 % of training, then absurd.
    cell = tiny_cell(schedule=[[0, 1], [0.6, 1], [0.61, 1e30], [1, 1e30]])
    run = tmp_path / "run"
    with pytest.raises(DivergenceError, match=r"last good checkpoint is .*checkpoint\.pt"):
        _train(cell, run)
    state = checkpoint.load(run / "checkpoint.pt")
    weights = state["method"]["learners"]["pgd-at"]["model"]
    assert 3 <= state["step"] < STEPS
    assert all(value.isfinite().all() for value in weights.values())
    assert not (run / "training.json").exists()


def test_an_absurd_loss_stops_the_run_though_it_is_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once went on to a network that tells one class from none, and to its row in the table."""
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
    cell = tiny_cell(schedule=[[0, 1], [0.6, 1], [0.61, 1e7], [1, 1e7]])
    run = tmp_path / "run"
    with pytest.raises(
        DivergenceError, match=r"loss/pgd-at has exploded, from 2\.\d+ to "
    ) as caught:
        _train(cell, run)
    assert "last good checkpoint is" in str(caught.value)
    assert 3 <= checkpoint.load(run / "checkpoint.pt")["step"] < STEPS
    # what it exploded from is known after a resume too
    with pytest.raises(DivergenceError, match=r"from 2\.\d+ to "):
        _train(cell, run)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _train(tiny_cell(), tmp_path / "run", stop=5)
    with pytest.raises(CheckpointError, match="another configuration"):
        _train(tiny_cell(optimizer={"lr": 0.01}), tmp_path / "run")


def test_a_checkpoint_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        _train(tiny_cell(), run, stop=5)
    state = checkpoint.load(run / "checkpoint.pt")
    state["method"]["learners"]["pgd-at"]["model"].pop("linear.bias")
    checkpoint.save(run / "checkpoint.pt", state)
    with pytest.raises(CheckpointError, match="another version") as caught:
        _train(tiny_cell(), run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["step", "images", "momentum", "random"])
def test_a_checkpoint_that_says_nonsense_is_refused(fault: str, tmp_path: Path) -> None:
    """Found by fuzzing: a step beyond the last ended as a finished training, others in tracebacks."""
    run = tmp_path / "run"
    with pytest.raises(Stopped):
        _train(tiny_cell(), run, stop=5)
    state = checkpoint.load(run / "checkpoint.pt")
    if fault == "momentum":
        (kept, *_) = state["method"]["learners"]["pgd-at"]["optimizer"]["state"].values()
        kept["momentum_buffer"] = torch.zeros(2, 3)
    else:
        state[fault] = {"step": STEPS + 1, "images": None, "random": []}[fault]
    checkpoint.save(run / "checkpoint.pt", state)
    with pytest.raises(CheckpointError, match="another version"):
        _train(tiny_cell(), run)
    assert not (run / "training.json").exists()
