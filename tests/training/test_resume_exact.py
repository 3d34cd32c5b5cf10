"""A run that is stopped and started again ends with the same bits as one that is not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmark.data import sources
from benchmark.suites.schema import build_suite
from benchmark.training.loop import Trainer

SUITE = {
    "name": "tiny",
    "dataset": {"name": "digits", "train_limit": 64, "val_size": 20},
    "model": {"name": "small-resnet", "width": 8},
    "train": {"epochs": 3, "batch_size": 16, "validations": 4, "validation_images": 20},
    "threats": {"linf": {"eps": 0.1, "steps": 2}, "l2": {"norm": "l2", "eps": 1.0, "steps": 2}},
    "evaluation": [{"kind": "clean"}],
}


def outcome(directory: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Weights of the deployed model, and the log without wall-clock times."""
    state = torch.load(directory / "deployed.pt", weights_only=True)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
    return state, lines


def same(a: Path, b: Path) -> None:
    (weights_a, log_a), (weights_b, log_b) = outcome(a), outcome(b)
    assert log_a == log_b
    assert weights_a.keys() == weights_b.keys()
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


@pytest.mark.parametrize(
    "method", ["pgd-at", "generalist-d", "generalist-official", "weight-interpolation"]
)
@pytest.mark.parametrize("stops", [(1,), (5, 4)])
def test_interrupted_equals_uninterrupted(
    method: str, stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: checkpoints hold all state, at and between validations."""
    monkeypatch.setattr("benchmark.training.loop._CHECKPOINT_SECONDS", 0.0)
    (cell,) = build_suite({**SUITE, "methods": [method]}).cells()
    data = sources.load(cell.config.dataset, tmp_path)
    cpu = torch.device("cpu")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    Trainer(cell.config, data, whole, device=cpu).run()
    for stop in stops:
        trainer = Trainer(cell.config, data, parts, device=cpu)
        update = trainer.method.update
        left = [stop]

        def dying(batch, progress, update=update, left=left):  # type: ignore[no-untyped-def]
            if not left[0]:
                raise RuntimeError("killed")
            left[0] -= 1
            return update(batch, progress)

        monkeypatch.setattr(trainer.method, "update", dying)
        with pytest.raises(RuntimeError, match="killed"):
            trainer.run()
    Trainer(cell.config, data, parts, device=cpu).run()
    same(whole, parts)


def test_sigkill_then_same_command(tmp_path: Path) -> None:
    """Protects: a killed process loses nothing but time, with the real command line."""
    suite = tmp_path / "tiny.yaml"
    suite.write_text(json.dumps({**SUITE, "methods": ["generalist-d"]}))  # JSON is YAML

    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "benchmark", "run", str(suite), "--out", str(out)]
        return subprocess.Popen(
            [*command, "--set", "train.epochs=12", "--set", "train.validations=24"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start(tmp_path / "whole").wait(timeout=200) == 0
    process = start(tmp_path / "parts")
    deadline = time.monotonic() + 200
    while not list((tmp_path / "parts").glob("cells/*/checkpoint.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = (tmp_path / "parts").glob("cells/*")
    assert not (killed / "training.json").exists()
    assert start(tmp_path / "parts").wait(timeout=200) == 0
    (whole,) = (tmp_path / "whole").glob("cells/*")
    same(whole, killed)
