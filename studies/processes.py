"""How much time two processes save in training, one thread each.

    python -m studies.processes --data-root DIR > processes.json

Trains with one process and with two, in turns, and takes the wall-clock time of the whole command
(with start-up and validation) and of its training steps alone. Run it on an idle machine. The
records are results/speed/processes.json and processes-amx.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmark.cli.options import DataRoot
from benchmark.core.environment import environment
from benchmark.core.progress import Progress
from benchmark.core.registry import did_you_mean
from benchmark.records.schema import read_training
from studies.command import new_app, one_thread_environment, start

app = new_app()

# Four learners that attack cost about the same, so the processes have equal shares of the work.
FOUR = [
    {"name": "linf", "objective": "pgd-at"},
    {"name": "l2", "objective": {"name": "pgd-at", "threat": "l2"}},
    {"name": "trades", "objective": "trades"},
    {"name": "mart", "objective": "mart"},
]
TASKS: dict[str, dict[str, Any]] = {
    "generalist-t": {"name": "generalist-t"},
    "generalist, 4 adversarial learners": {"name": "generalist", "learners": FOUR},
    "pgd-at": {"name": "pgd-at"},
}


@dataclass(frozen=True)
class ProcessRatio:
    """One method; seconds are medians over repeats.

    Attributes:
        ratio: two_s / one_s, the median of the ratios of single repeats.
        train_ratio: the same ratio of the seconds spent in training steps.
        grid: how the two processes divide the work: by learners, by data.
    """

    task: str
    one_s: float
    two_s: float
    ratio: float
    train_ratio: float
    grid: dict[str, Any]
    seconds: dict[str, list[float]]


@app.command()
def main(
    data_root: DataRoot = Path("data"),
    dataset: Annotated[str, typer.Option()] = "cifar10",
    model: Annotated[str, typer.Option()] = "small-resnet",
    epochs: Annotated[float, typer.Option(min=0.01)] = 0.5,
    limit: Annotated[int | None, typer.Option(min=2)] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    task: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
) -> None:
    """Train each task by one and by two processes, in turns; prints JSON."""
    for name in task or ():
        if name not in TASKS:
            raise typer.BadParameter(f"unknown task {name!r}; {did_you_mean(name, TASKS)}")
    progress, rows = Progress(), []
    for name in task or TASKS:
        seconds: dict[str, list[float]] = {"one": [], "two": [], "train_one": [], "train_two": []}
        grid: dict[str, Any] = {}
        for repeat in range(repeats):
            for way, processes in (("one", 1), ("two", 2)):
                suite = _suite(dataset, model, TASKS[name], epochs, limit)
                wall, summary = _trained(suite, data_root, processes)
                seconds[way].append(round(wall, 2))
                seconds[f"train_{way}"].append(summary["seconds"])
                grid = summary["processes"]
                progress.say(f"{name}, repeat {repeat + 1}: {way} {wall:.0f} s")
        rows.append(
            ProcessRatio(
                task=name,
                one_s=median(seconds["one"]),
                two_s=median(seconds["two"]),
                ratio=_ratio(seconds["one"], seconds["two"]),
                train_ratio=_ratio(seconds["train_one"], seconds["train_two"]),
                grid=grid,
                seconds=seconds,
            )
        )
    settings = {"dataset": dataset, "model": model, "epochs": epochs, "limit": limit}
    document = {
        "repeats": repeats,
        "settings": settings,
        "environment": environment("cpu", 1),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document, indent=2))


def _ratio(one: list[float], two: list[float]) -> float:
    return round(median(b / a for a, b in zip(one, two, strict=True)), 3)


def _suite(
    dataset: str, model: str, recipe: dict[str, Any], epochs: float, limit: int | None
) -> dict[str, Any]:
    return {
        "title": "Timing",
        "dataset": {"name": dataset, **({"limit": limit} if limit else {})},
        "model": {"name": model},
        "train": {"epochs": epochs, "validations": 1, "validation_images": 64},
        "methods": [recipe],
        "evaluation": [{"kind": "clean", "n": 2}],
    }


def _trained(
    suite: dict[str, Any], data_root: Path, processes: int
) -> tuple[float, dict[str, Any]]:
    """Wall-clock seconds of ``run`` on that suite, and the record of its training."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timing.yaml"
        path.write_text(json.dumps(suite), encoding="utf-8")  # JSON is YAML
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = ["-m", "benchmark", "run", str(path), "--data-root", str(data_root), "-q"]
        started = time.monotonic()
        subprocess.run(
            [sys.executable, *(launch if processes > 1 else []), *command, "--out", folder],
            env=one_thread_environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        wall = time.monotonic() - started
        (run,) = (Path(folder) / "cells").iterdir()
        return wall, read_training(run)


if __name__ == "__main__":
    start(app)
