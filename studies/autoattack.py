"""What AutoAttack costs, beside a plain call of pyautoattack on the same images.

    python -m studies.autoattack judged RUN --data-root DIR --n 256 --repeats 2 > judged.json
    python -m studies.autoattack shared RUN --data-root DIR --repeats 2 > shared.json
    python -m studies.autoattack parts --precision bf16 > parts.json

``judged`` compares our AutoAttack, in fp32 and screened in bf16, with the plain call: seconds and
verdicts. Its records are results/speed/autoattack-judged.json and autoattack-judged-avx512.json.
``shared`` compares two processes that share an evaluation with one; its record is
results/speed/autoattack-shared.json. ``parts`` compares each of the four attacks, as long as in an
evaluation, with the fastest that its passes through the network could be; its records are in
results/speed/autoattack-parts/.

``judged`` and ``parts`` take the CPU time of the process with one thread, which other work on the
machine hardly changes. ``shared`` takes wall-clock time, so run it on an idle machine.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, get_args

import torch
import typer
from torch import Tensor, nn

from benchmark.attacks.autoattack import AutoAttackResult, run_autoattack
from benchmark.cli.options import DataRoot
from benchmark.commands.run import pick_device, read_cell_config
from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.core.precision import Precision
from benchmark.core.progress import Progress
from benchmark.core.threat import Pixels
from benchmark.data import sources
from benchmark.data.loader import evaluation_batches
from benchmark.metrics.outcomes import sample
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.outcomes import read_outcomes
from benchmark.records.schema import read_evaluation
from benchmark.speed import plain
from benchmark.speed.clock import one_thread
from benchmark.speed.measure import SpeedOptions, measure
from benchmark.speed.setting import Workload
from benchmark.speed.tasks import PARTS
from benchmark.training.selection import load_deployed
from studies.command import new_app, one_thread_environment, start

BATCH_SIZE = 256
# The plain call on the network as it is, and on a copy whose weights are in channels_last layout:
# on a CPU, much of our gain comes from that layout alone.
PLAIN = {"plain": "pyautoattack", "plain-channels-last": "pyautoattack, channels_last weights"}
OURS = ("autoattack", "autoattack-screening")
app = new_app()


@dataclass(frozen=True)
class TimedPair:
    """One way of attacking beside its reference; seconds are medians over repeats.

    Attributes:
        ratio: reference_s / ours_s, the median of the ratios of single repeats.
        flags_equal: whether every image has the reference's verdict.
        disagree: on how many images the verdicts differ.
    """

    task: str
    model: str
    n: int
    ours_s: float
    reference: str
    reference_s: float
    ratio: float
    flags_equal: bool
    disagree: int
    detail: dict[str, Any]


@app.command()
def judged(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    data_root: DataRoot = Path("data"),
    eps: Annotated[str, typer.Option()] = "8/255",
    n: Annotated[int, typer.Option(min=1)] = 256,
    repeats: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Our AutoAttack and its bf16 screening against a plain call of pyautoattack; prints JSON.

    Each measurement is a process of its own, because an evaluation changes how the C library keeps
    freed memory, which would make the plain call faster too.
    """
    progress = Progress()
    ways = (*PLAIN, *OURS)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Tensor] = {}
    details: dict[str, dict[str, Any]] = {}
    for repeat in range(repeats):
        for way in ways:
            measured = _once_in_a_process(run, data_root, way, eps, n)
            seconds[way].append(measured["seconds"])
            found[way], details[way] = torch.tensor(measured["robust"]), measured["detail"]
            progress.say(f"repeat {repeat + 1} of {repeats}: {way} {measured['seconds']:.0f} s")
    _, config = read_cell_config(run)
    rows = [
        _row(way, config.model.name, seconds, found, details[way], reference)
        for way in OURS
        for reference in PLAIN
    ]
    _print(rows, repeats)


def _once_in_a_process(run: Path, data_root: Path, way: str, eps: str, n: int) -> dict[str, Any]:
    command = ["once", str(run), "--data-root", str(data_root), "--way", way]
    called = subprocess.run(
        [sys.executable, "-m", "studies.autoattack", *command, "--eps", eps, "--n", str(n)],
        env=one_thread_environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: dict[str, Any] = json.loads(called.stdout)
    return measured


@app.command(hidden=True)
def once(
    run: Annotated[Path, typer.Argument()],
    way: Annotated[str, typer.Option()],
    data_root: DataRoot = Path("data"),
    eps: Annotated[str, typer.Option()] = "8/255",
    n: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """One measurement of ``judged``: CPU seconds and verdicts; prints JSON."""
    cpu = torch.device("cpu")
    if way in OURS:
        pick_device("cpu")  # as the command line does
    model, x, y = _setting(run, data_root, n)
    radius, detail = float(Pixels(eps)), {}
    if way in PLAIN:
        layout = torch.contiguous_format if way == "plain" else torch.channels_last
        bare = copy.deepcopy(model).eval().to(memory_format=layout).requires_grad_()
    with one_thread(cpu):
        started = time.process_time()
        if way in PLAIN:
            robust = plain.autoattack(bare, x, y, radius, batch_size=BATCH_SIZE)
        else:
            result = run_autoattack(
                model,
                x,
                y,
                norm="linf",
                eps=radius,
                seed=0,
                batch_size=BATCH_SIZE,
                precision="bf16" if way == "autoattack-screening" else "fp32",
            )
            robust = result.robust
        taken = time.process_time() - started
        if way in OURS:
            detail = _rejudged(model, result, y)
    print(json.dumps({"seconds": round(taken, 2), "robust": robust.tolist(), "detail": detail}))


@app.command()
def parts(
    model: Annotated[str, typer.Option()] = "resnet18",
    task: Annotated[list[str] | None, typer.Option(help="Only this part; repeatable.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    n: Annotated[int, typer.Option(min=1, help="Images, at most 64 for a large network.")] = 64,
    steps: Annotated[int, typer.Option(min=1)] = 100,
    targets: Annotated[int, typer.Option(min=1, max=9)] = 9,
    queries: Annotated[int, typer.Option(min=1)] = 5000,
    repeats: Annotated[int, typer.Option(min=1)] = 1,
    batch_size: Annotated[int, typer.Option(min=4)] = 128,
) -> None:
    """Each attack of AutoAttack at full length against its limit; prints JSON.

    On ResNet-18 in fp32 an image that no attack fools takes a minute or two, so 64 take hours.
    """
    amount = Workload(
        attacked=n, attacked_large=n, part_steps=steps, part_targets=targets, part_queries=queries,
        part_references=False, trained=2,
    )  # fmt: skip
    if precision not in get_args(Precision):
        raise ConfigError(f"unknown precision {precision!r}; known: fp32, bf16")
    asked = SpeedOptions(
        models=(model,),
        tasks=task or PARTS,
        precision=precision,  # type: ignore[arg-type]
        repeats=repeats,
        batch_size=batch_size,
        amount=amount,
    )
    print(json.dumps(measure(asked, pick_device("cpu"), Progress()), indent=2))


@app.command()
def shared(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    data_root: DataRoot = Path("data"),
    metric: Annotated[str, typer.Option(help="An AutoAttack metric of its suite.")] = "aa_linf",
    repeats: Annotated[int, typer.Option(min=1)] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Processes share out batches.")] = 16,
) -> None:
    """Evaluation by two processes against one, one thread each, start-up included; prints JSON."""
    seconds: dict[str, list[float]] = {"one process": [], "shared": []}
    found: dict[str, Tensor] = {}
    arguments = ["-m", "benchmark", "evaluate", "--data-root", str(data_root), "-q"]
    arguments += ["--batch-size", str(batch_size)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for _ in range(repeats):
        for task, command in (("one process", arguments), ("shared", launch + arguments)):
            seconds[task].append(_evaluated(run, [*command, "--metric", metric], task, found))
    _, config = read_cell_config(run)
    detail: dict[str, Any] = {"processes": 2, "metric": metric, "batch_size": batch_size}
    _print([_row("shared", config.model.name, seconds, found, detail, "one process")], repeats)


def _evaluated(run: Path, command: list[str], task: str, found: dict[str, Tensor]) -> float:
    """Wall-clock seconds of an evaluation of a copy of ``run``; its verdicts go into ``found``."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "suite"
        here = copied / "cells" / run.name
        record, outcomes = RunFiles(here).evaluation, RunFiles(here).outcomes
        ignored = shutil.ignore_patterns("*.unfinished", record.name, outcomes.name)
        shutil.copytree(run, here, ignore=ignored)
        shutil.copy(SuiteFiles(run.resolve().parent.parent).plan, copied)
        started = time.monotonic()
        subprocess.run(
            [sys.executable, *command, str(here)],
            env=one_thread_environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        taken = time.monotonic() - started
        table = read_outcomes(outcomes, read_evaluation(here)["metrics"]).drop(columns="label")
        column = table.iloc[:, 0].dropna()  # null: not in the sample
        found[task] = torch.tensor(column.to_numpy(dtype=bool))
    return taken


def _setting(run: Path, data_root: Path, n: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The deployed model of ``run``, and ``n`` of its test images with labels."""
    _, config = read_cell_config(run)
    data = sources.load(config.dataset, data_root)
    model = load_deployed(config, data, run, torch.device("cpu"))
    indices = sample(len(data.test), n, seed=0)
    batches = list(evaluation_batches(data.test, BATCH_SIZE, indices=indices, device="cpu"))
    x, y = (torch.cat([batch[part] for batch in batches]) for part in (1, 2))
    # pyautoattack flattens images with view(), which needs this layout
    x = x.contiguous()
    return model, x, y


def _rejudged(model: nn.Module, result: AutoAttackResult, y: Tensor) -> dict[str, Any]:
    """How many images are fooled, and how many of them ``model`` classifies correctly after all
    when asked again in fp32 with another batch size."""
    fooled = result.clean & ~result.robust
    with torch.no_grad():
        parts = [model(part).argmax(1) for part in result.x_adv[fooled].split(37)]
    right = int((torch.cat(parts) == y[fooled]).sum()) if parts else 0
    return {"successes": int(fooled.sum()), "not_confirmed": right, "folded": result.folded}


def _row(
    task: str,
    model: str,
    seconds: dict[str, list[float]],
    found: dict[str, Tensor],
    detail: dict[str, Any],
    reference: str,
) -> TimedPair:
    disagree = int((found[task] != found[reference]).sum())
    ratios = [b / a for a, b in zip(seconds[task], seconds[reference], strict=True)]
    return TimedPair(
        task=task,
        model=model,
        n=len(found[task]),
        ours_s=round(median(seconds[task]), 2),
        reference=PLAIN.get(reference, reference),
        reference_s=round(median(seconds[reference]), 2),
        ratio=round(median(ratios), 3),
        flags_equal=disagree == 0,
        disagree=disagree,
        detail={**detail, "seconds": seconds[task], "reference_seconds": seconds[reference]},
    )


def _print(rows: list[TimedPair], repeats: int) -> None:
    surroundings = environment("cpu", torch.get_num_threads())
    document = {"repeats": repeats, "environment": surroundings, "rows": [asdict(r) for r in rows]}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    start(app)
