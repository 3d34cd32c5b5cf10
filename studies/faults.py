"""Whether a run that is killed again and again ends with the same result as an undisturbed run.

    python -m studies.faults --kills 20 > kills.json

Kills a run with SIGKILL at random moments, starts it again each time, and compares weights, curves,
outcomes and records with those of a run that was left alone. The exit status is 1 if anything but
seconds differs. The record is results/faults/kills.json.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
import yaml
from torch import Tensor

from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame, read_json
from benchmark.core.progress import Progress
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import read_evaluation, read_plan
from benchmark.training import checkpoint
from studies.command import new_app, one_thread_environment, start

# Methods that keep more than weights and an optimiser, which a checkpoint must hold too:
# generalist-t hands its global learner back to the others, awp displaces weights within a step, ema
# keeps an average.
SUITE: dict[str, Any] = {
    "name": "faults",
    "dataset": {"name": "digits", "limit": 200},
    "model": {"name": "small-resnet", "width": 8, "stem_stride": 2},
    "threats": {
        "linf": {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 3},
        "l2": {"norm": "l2", "eps": 1.0, "step": 0.5, "steps": 3},
    },
    "train": {"epochs": 12, "batch_size": 32, "validations": 12, "selection": "best"},
    "optimizer": {"lr": 0.05},
    "methods": ["generalist-t", "awp", {"name": "ema", "decay": 0.9}],
    "evaluation": [
        {"kind": "clean"},
        {
            "kind": "pgd",
            "name": "pgd20_linf",
            "threat": {"norm": "linf", "eps": 0.1, "step": 0.025, "steps": 20},
        },
        {"kind": "autoattack", "name": "aa_linf", "eps": 0.1, "n": 6},
        {"kind": "union", "of": ["pgd20_linf", "aa_linf"]},
    ],
}
# Seconds after which a process that should have ended counts as hanging.
_LONGEST_S = 1800.0


@dataclass(frozen=True)
class Kill:
    """One kill and what it cost.

    Attributes:
        round: number of the run, from 1. If a run ends before all kills are made, another one
            starts from nothing.
        after_s: seconds that the process had lived.
        where: what it was doing: start-up, reading, ``train CELL``, ``evaluate CELL: METRIC`` or
            report.
        writing: whether it was writing a file.
        checkpoint_step, logged_step: steps of the checkpoint and of the log on disk, if it was
            training. Steps after the checkpoint are made again.
        lost_s: seconds since the process started or last finished a file: work that is done again.
    """

    round: int
    after_s: float
    where: str
    writing: bool
    checkpoint_step: int | None
    logged_step: int | None
    lost_s: float


@dataclass(frozen=True)
class Outcome:
    """What ``kill_and_compare`` found; ``differences`` is empty if all is equal."""

    kills: list[Kill]
    rounds: int
    alone_s: float
    killed_s: float
    differences: list[str]


def kill_and_compare(
    suite: Mapping[str, Any], folder: Path, *, kills: int, seed: int, progress: Progress
) -> Outcome:
    """Run ``suite`` below ``folder`` once undisturbed, then with SIGKILLs, and compare the results.

    A process is killed after a random time, every second one not before it is in the middle of
    writing a file.

    Raises:
        BenchmarkError: a run failed or hung without being killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(dict(suite)), encoding="utf-8")
    alone = folder / "alone"
    progress.say("an undisturbed run")
    alone_s = _to_the_end(path, alone)
    random_ = random.Random(seed)
    done: list[Kill] = []
    differences: list[str] = []
    started, round_ = time.monotonic(), 0
    while len(done) < kills:
        round_ += 1
        out = folder / f"killed-{round_}"
        while len(done) < kills:
            # Mostly short, so that a run is killed several times; at times as long as a whole run.
            seconds = random_.triangular(0, alone_s, 0)
            kill = _run_and_kill(path, out, seconds, len(done) % 2 == 1, round_)
            if kill is None:
                break
            done.append(kill)
            progress.say(f"kill {len(done)}/{kills} after {kill.after_s:.1f} s: {kill.where}")
        else:
            _to_the_end(path, out)
        differences += [f"{out.name}: {text}" for text in differing(alone, out)]
    killed_s = time.monotonic() - started
    return Outcome(done, round_, round(alone_s, 1), round(killed_s, 1), differences)


def _start(suite: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmark", "run", str(suite), "--out", str(out)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread_environment(),
    )


def _end(process: subprocess.Popen[str], suite: Path) -> str:
    """What the process wrote to stderr. Raises BenchmarkError if it failed or hangs."""
    try:
        _, said = process.communicate(timeout=_LONGEST_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise BenchmarkError(f"the run of {suite} hangs; see --folder") from error
    if process.returncode not in (0, -signal.SIGKILL):
        raise BenchmarkError(f"the run of {suite} failed: {said[-2000:]}")
    return said


def _to_the_end(suite: Path, out: Path) -> float:
    started = time.monotonic()
    _end(_start(suite, out), suite)
    return time.monotonic() - started


def _run_and_kill(
    suite: Path, out: Path, seconds: float, in_a_write: bool, round_: int
) -> Kill | None:
    """Run for ``seconds``, then kill; None if the run ended first."""
    left = _half_written(out)
    started = time.time()
    process = _start(suite, out)
    while time.time() < started + seconds and process.poll() is None:
        time.sleep(0.002)
    while in_a_write and process.poll() is None and not _half_written(out) - left:
        time.sleep(0.0005)  # a write takes a few milliseconds
    process.kill()
    died = time.time()
    said = _end(process, suite)
    if process.returncode == 0:
        return None
    where, cell = _where(out, said)
    training = where.startswith("train")
    times = [path.stat().st_mtime for path in _files(out) if not path.name.startswith(".")]
    return Kill(
        round=round_,
        after_s=round(died - started, 2),
        where=where,
        writing=bool(_half_written(out) - left),
        checkpoint_step=_checkpoint_step(cell) if cell and training else None,
        logged_step=_logged_step(cell) if cell and training else None,
        lost_s=round(died - max([started, *times]), 2),
    )


def _files(out: Path) -> Iterator[Path]:
    return (path for path in out.rglob("*") if path.is_file())


def _half_written(out: Path) -> set[Path]:
    return {path for path in _files(out) if ".part-" in path.name}


def _where(out: Path, said: str) -> tuple[str, Path | None]:
    """What the killed process was doing, and the folder of the cell."""
    if "cells ->" not in said:
        return "start-up", None
    files = SuiteFiles(out)
    if not files.plan.exists() or "test images;" not in said:
        return "reading", None
    suite = read_plan(out)
    names = [metric["name"] for metric in suite["evaluation"]]
    for slug in (planned["slug"] for planned in suite["plan"]):
        cell = files.cell(slug)
        if not RunFiles(cell).training.exists():
            return f"train {slug}", cell
        measured = read_evaluation(cell)["metrics"] if RunFiles(cell).evaluation.exists() else {}
        missing = [name for name in names if name not in measured]
        if missing:
            return f"evaluate {slug}: {missing[0]}", cell
    return "report", None


def _checkpoint_step(cell: Path) -> int:
    path = RunFiles(cell).checkpoint
    if not path.exists() and not checkpoint.previous(path).exists():
        return 0
    return int(checkpoint.load_last_good(path)[0]["step"])


def _logged_step(cell: Path) -> int:
    path = RunFiles(cell).curves
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def differing(one: Path, other: Path) -> list[str]:
    """One sentence for each record of two suite folders that differs in more than seconds."""
    names = sorted({_relative(path, root) for root in (one, other) for path in _recorded(root)})
    found = []
    for name in names:
        if not ((one / name).exists() and (other / name).exists()):
            found.append(f"{name} is missing in one of them")
        elif not _equal(_content(one / name), _content(other / name)):
            found.append(f"{name} differs")
    # Reports are left out: several processes may render the same one at the same time.
    leftovers = [
        path.name
        for path in _files(other)
        if ".part-" in path.name and not path.is_relative_to(other / "report")
    ]
    return found + [f"{name} was left behind" for name in leftovers]


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def _recorded(root: Path) -> Iterator[Path]:
    """The files that are compared: all records but environment.json, which holds dates. The report
    is made from them."""
    kept = (".json", ".jsonl", ".parquet", ".pt")
    for path in _files(root):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        # when a checkpoint replaces the one before depends on the clock
        previous = path.stem.endswith("-previous")
        dated = path == RunFiles(path.parent).environment
        if path.suffix in kept and not hidden and not dated and not previous:
            yield path


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        return checkpoint.load(path)
    if path.suffix == ".parquet":
        return read_frame(path)
    if path.suffix == ".json":
        return read_json(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _equal(one: Any, other: Any) -> bool:
    """Whether both are the same bit for bit, but for times and memory."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(
            _equal(one[key], other[key]) for key in one if key not in ("seconds", "peak_memory")
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, pd.DataFrame):
        return bool(one.equals(other))
    return bool(one == other)


app = new_app()


@app.command()
def main(
    kills: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Of the random moments.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Empty folder that keeps the runs; default: a temporary.")
    ] = None,
) -> None:
    """Kill, resume and compare; prints JSON."""
    with tempfile.TemporaryDirectory() as temporary:
        outcome = kill_and_compare(
            SUITE, folder or Path(temporary), kills=kills, seed=seed, progress=Progress()
        )
    document = {
        "environment": environment("cpu", 1),
        "suite": SUITE,
        "seed": seed,
        **asdict(outcome),
        "equal": not outcome.differences,
    }
    print(json.dumps(document, indent=2))
    sys.exit(0 if document["equal"] else 1)


if __name__ == "__main__":
    start(app)
