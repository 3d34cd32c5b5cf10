"""A suite that trains in a second, and the command line called in this process."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark.cli import main
from benchmark.config.suite import Cell, build_suite
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.data.source import DatasetConfig
from benchmark.training.loop import Trainer

# 64 images in batches of 20: three full batches and a ragged one; 2.5 epochs are 10 steps.
# Width 8: below that oneDNN corrupts the heap in training (seen with torch 2.14 on AVX2).
TINY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits", "limit": 64},
    "model": {"name": "small-resnet", "width": 8},
    "threats": {
        "linf": {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 2},
        "l2": {"norm": "l2", "eps": 1.0, "step": 0.5, "steps": 2},
    },
    "train": {"epochs": 2.5, "batch_size": 20, "validations": 3, "validation_images": 30},
    "optimizer": {"lr": 0.05},
    "methods": ["pgd-at"],
    "evaluation": [
        {"kind": "clean"},
        {
            "kind": "pgd",
            "name": "pgd2_linf",
            "n": 20,
            "threat": {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 2},
        },
    ],
}


def tiny(**changes: Any) -> dict[str, Any]:
    """``TINY`` with some keys replaced; ``train`` is changed key by key."""
    suite = copy.deepcopy(TINY)
    suite["train"].update(changes.pop("train", {}))
    suite.update(changes)
    return suite


def tiny_cell(**changes: Any) -> Cell:
    """The first cell of that suite."""
    return build_suite(tiny(**changes)).cells()[0]


class Stopped(Exception):
    """Stands for whatever ends a process between two steps."""


def stop_after(trainer: Trainer, updates: int) -> None:
    """Let ``trainer`` raise ``Stopped`` once it has made so many updates."""
    update, calls = trainer.method.update, 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        if calls == updates:
            raise Stopped
        calls += 1
        return update(*arguments)

    trainer.method.update = counted  # type: ignore[method-assign]


def tiny_data(limit: int | None = 64) -> Dataset:
    return sources.load(DatasetConfig(name="digits", limit=limit), Path("data"))


def write_suite(folder: Path, **changes: Any) -> Path:
    """``folder/tiny.yaml``."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny(**changes)))
    return path


def torchrun(processes: int, *arguments: object) -> subprocess.Popen[str]:
    """``generalist-bench ARGUMENTS`` in several processes, started."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.Popen(
        [*launcher, f"--nproc-per-node={processes}", "-m", "benchmark", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def children(pid: int) -> list[int]:
    """Processes started by ``pid``."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True)
class Called:
    """What a call of the command line gave."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def cli(*arguments: object) -> Called:
    """``generalist-bench ARGUMENTS`` in this process; an exception that gets out is a failure."""
    out, err = io.StringIO(), io.StringIO()
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["generalist-bench", *map(str, arguments)]
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as error:
        status = error.code
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return Called(int(status or 0), out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but locks, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def result_of(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: weights, curves and record, times and memory left
    out."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = json.loads((run / "training.json").read_text())
    for record in (*metrics, training):
        del record["seconds"]
    training.pop("peak_memory", None)
    weights = {
        f"{path.name}/{name}": value
        for path in sorted(run.glob("deployed*.pt"))
        for name, value in torch.load(path, weights_only=True).items()
    }
    return {"metrics": metrics, "training": training, "weights": weights}


def assert_same_result(one: Path, other: Path) -> None:
    """Bit for bit."""
    first, second = result_of(one), result_of(other)
    weights, others = first.pop("weights"), second.pop("weights")
    assert first == second
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name]), name
