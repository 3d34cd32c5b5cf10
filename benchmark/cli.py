"""The command line; each command is a function here, its work is elsewhere."""

from __future__ import annotations

import faulthandler
import inspect
import io
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from benchmark.core.errors import BenchmarkError, ConfigError, DivergenceError
from benchmark.core.files import at_home
from benchmark.core.registry import did_you_mean

F = TypeVar("F", bound=Callable[..., None])


class _Suggesting(TyperGroup):
    """A command group that names near misses of an unknown command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise ConfigError(
                f"unknown command {args[0]!r}; {did_you_mean(args[0], self.commands)}"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        # Here, since typer would make 130 of every signal.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            (number,) = interrupt.args or (signal.SIGINT,)
            raise SystemExit(128 + number) from interrupt


app = typer.Typer(
    name="generalist-bench",
    help="Train, attack and compare adversarially robust classifiers.",
    cls=_Suggesting,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _command(name: str | None = None) -> Callable[[F], F]:
    """Register a command, in whose paths ``~`` is the home folder however they were given."""

    def register(function: F) -> F:
        @wraps(function)
        def called(**given: Any) -> None:
            function(**{key: _at_home(value) for key, value in given.items()})

        app.command(name)(called)
        return function

    return register


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return at_home(value) if isinstance(value, Path) else value


class Precision(str, Enum):
    """Precision of the networks' passes."""

    fp32 = "fp32"
    bf16 = "bf16"


class TrainingPrecision(str, Enum):
    """Precision of the networks' passes in training."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class EngineName(str, Enum):
    """Where the cells of a suite run."""

    local = "local"
    ray = "ray"


class Threat(str, Enum):
    """Threat models of RobustBench's leaderboards."""

    linf = "linf"
    l2 = "l2"
    corruptions = "corruptions"


class Kind(str, Enum):
    """What ``list`` can list."""

    methods = "methods"
    datasets = "datasets"
    models = "models"
    metrics = "metrics"
    panels = "panels"
    suites = "suites"


DataRoot = Annotated[Path, typer.Option(help="Folder that holds the data sets.")]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method", help="Only this method (fat@authors: by its authors' recipe); repeatable."
    ),
]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed; repeatable.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a setting, e.g. train.epochs=3; repeatable."),
]
Limit = Annotated[
    int | None,
    typer.Option(min=2, help="Cap on images per split, for smoke tests; shown in every table."),
]
PrecisionOption = Annotated[TrainingPrecision | None, typer.Option(help="Training precision.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost; do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
TensorBoard = Annotated[bool, typer.Option(help="Also write TensorBoard files.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, help="CPU threads; default: OMP_NUM_THREADS, else the free cores."
    ),
]
LearnerGroups = Annotated[
    int | None,
    typer.Option(min=1, help="Under torchrun: groups of processes that share the learners."),
]


def _extra(limit: int | None, precision: TrainingPrecision | None) -> dict[str, Any]:
    return {
        "dataset": {"limit": limit},
        "train": {"precision": precision.value if precision else None},
    }


def _set_threads(asked: int | None, quiet: bool) -> None:
    """Choose torch's threads before anything is computed or estimated, and say how many unless the
    user did."""
    from benchmark.core.progress import Progress
    from benchmark.core.threads import use_threads

    chosen = use_threads(asked)
    quiet = quiet or chosen.by_user or os.environ.get("RANK", "0") != "0"
    Progress(quiet).say(f"threads: {chosen.why}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def _print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    console = Console()
    if not console.is_terminal:
        # Nothing is cut to a width that a file or a pipe does not have.
        print("\t".join(columns))
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


@_command()
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name, or a YAML file.")],
    data_root: DataRoot = Path("data"),
    method: Methods = None,
    seed: Seeds = None,
    device: Device = "auto",
    precision: PrecisionOption = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/SUITE.")] = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    json_: AsJson = False,
    quiet: Quiet = False,
    tensorboard: TensorBoard = False,
    learner_groups: LearnerGroups = None,
    threads: ThreadsOption = None,
    engine: Annotated[
        EngineName, typer.Option(help="Cells one by one here, or on a Ray cluster.")
    ] = EngineName.local,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster; default: RAY_ADDRESS, else a Ray on this machine."),
    ] = None,
    cpus_per_cell: Annotated[
        int | None, typer.Option(min=1, help="For Ray: cores and torch threads; default: 1.")
    ] = None,
    gpus_per_cell: Annotated[
        float | None, typer.Option(min=0, help="For Ray; default: 1 if the cluster has GPUs.")
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="With --dry-run: for a GPU that sustains so many 10^12 operations per second, "
            "and published sizes of data.",
        ),
    ] = None,
) -> None:
    """Train, evaluate and report every cell of SUITE. Run it again to continue."""
    from benchmark.config.suite import load_suite

    full = load_suite(suite, set_ or (), _extra(limit, precision))
    chosen = full.only(method or (), seed or ())
    target = out or Path("runs") / full.name
    if tflops:
        if not dry_run:
            raise ConfigError("--tflops is for an estimate; add --dry-run, or leave it out")
        _dry_run(chosen, target, data_root, None, chosen.evaluation, json_, tflops)
        return
    where = _engine(engine, address, cpus_per_cell, gpus_per_cell)
    if where and threads:
        raise ConfigError(
            "with --engine ray, --cpus-per-cell sets the threads; leave --threads out"
        )
    _set_threads(threads, quiet)
    _execute(
        chosen,
        full,
        target,
        data_root,
        device,
        dry_run,
        json_,
        quiet,
        tensorboard,
        learner_groups,
        engine=where,
    )


def _engine(name: EngineName, address: str | None, cpus: int | None, gpus: float | None) -> Any:
    """A Ray engine, or None for the local one."""
    if name is EngineName.ray:
        from benchmark.commands.ray_engine import RayEngine

        return RayEngine(address, cpus or 1, gpus)
    given = {"--address": address, "--cpus-per-cell": cpus, "--gpus-per-cell": gpus}
    wrong = [option for option, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(f"{wrong[0]} is for --engine ray; add that, or leave {wrong[0]} out")
    return None


@_command()
def train(
    dataset: Annotated[str, typer.Option(help="Data set, see list datasets.")] = "digits",
    model: Annotated[str, typer.Option(help="Architecture, see list models.")] = "small-resnet",
    method: Annotated[list[str] | None, typer.Option(help="Method; repeatable.")] = None,
    data_root: DataRoot = Path("data"),
    seed: Seeds = None,
    device: Device = "auto",
    precision: PrecisionOption = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/train-DATASET.")] = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    json_: AsJson = False,
    quiet: Quiet = False,
    tensorboard: TensorBoard = False,
    learner_groups: LearnerGroups = None,
    threads: ThreadsOption = None,
) -> None:
    """Train methods without a suite; evaluate the result with ``evaluate OUT``."""
    from benchmark.config.suite import build_suite

    base: dict[str, Any] = {
        "name": f"train-{dataset}",
        "title": f"Methods on {dataset}",
        "dataset": {"name": dataset},
        "model": {"name": model},
        "methods": method or ["pgd-at"],
        "seeds": seed or [0],
    }
    suite = build_suite(base, set_ or (), _extra(limit, precision))
    _set_threads(threads, quiet)
    target = out or Path("runs") / suite.name
    _execute(
        suite,
        suite,
        target,
        data_root,
        device,
        dry_run,
        json_,
        quiet,
        tensorboard,
        learner_groups,
        evaluate=False,
    )


def _execute(
    chosen: Any,
    full: Any,
    out: Path,
    data_root: Path,
    device: str,
    dry_run: bool,
    json_: bool,
    quiet: bool,
    tensorboard: bool,
    learner_groups: int | None,
    evaluate: bool = True,
    engine: Any = None,
) -> None:
    from benchmark.commands.run import local_engine, pick_device, run_suite
    from benchmark.core.progress import Progress
    from benchmark.core.ranks import ranks

    if dry_run:
        metrics = chosen.evaluation if evaluate else ()
        _dry_run(chosen, out, data_root, pick_device(device), metrics, json_)
        return
    if tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the tensorboard package: pip install "
                "'generalist-bench[tensorboard]'"
            ) from error
    with ranks() as together:
        if engine and (together.world > 1 or learner_groups):
            raise ConfigError("--engine ray starts its own processes; leave out torchrun's")
        diverged = run_suite(
            chosen,
            full,
            out,
            data_root=data_root,
            # Ray's workers pick theirs on their own machine.
            device=device if engine else pick_device(device),
            progress=Progress(quiet or not together.first),
            evaluate=evaluate,
            tensorboard=tensorboard,
            engine=engine or local_engine,
            ranks=together,
            learner_groups=learner_groups,
        )
    if not together.first:
        return
    if evaluate:
        _render(out, None, json_)
    elif json_:
        _print_json({"out": str(out), "cells": [cell.slug for cell in chosen.cells()]})
    if diverged:
        count = f"{len(diverged)} of {len(chosen.cells())} cells diverged"
        raise DivergenceError(f"{count}; the first: {diverged[0]}")


def _dry_run(
    suite: Any,
    out: Path,
    data_root: Path,
    device: Any,
    metrics: Any,
    json_: bool,
    tflops: float | None = None,
) -> None:
    from benchmark.commands.plan import plan
    from benchmark.core.progress import duration
    from benchmark.data import sources
    from benchmark.data.official import official

    data = official(suite.dataset) if tflops else None
    data = data or sources.load(suite.dataset, data_root)
    for note in data.notes:
        print(note, file=sys.stderr)
    rows = plan(suite, data, out, device, metrics, tflops)
    training = sum(row["train_seconds"] for row in rows)
    evaluation = sum(row["evaluation_seconds_at_most"] for row in rows)
    if json_:
        _print_json(
            {
                "cells": rows,
                "train_seconds": training,
                "evaluation_seconds_at_most": evaluation,
                "hardware": suite.hardware,
                "limit": suite.dataset.limit,
                "tflops": tflops,
            }
        )
        return

    def time(seconds: float) -> str:
        return f"{seconds / 3600:.1f} h" if tflops else duration(seconds)

    on = f"a GPU of {tflops:g} TFLOP/s, sustained" if tflops else device
    _print_table(
        f"{suite.name}: {len(rows)} cells on {on}",
        ["cell", "recipe", "state", "steps", "gradient passes", "training", "evaluation (at most)"],
        [
            [
                row["cell"],
                row["recipe"],
                row["state"],
                str(row["steps"]),
                f"{row['gradient_passes']:,.0f}",
                time(row["train_seconds"]),
                time(row["evaluation_seconds_at_most"]),
            ]
            for row in rows
        ],
    )
    print(
        f"training {time(training)}, evaluation at most {time(evaluation)} "
        "(if every image survived every attack)"
        + (f" on {on}, which is assumed, not measured" if tflops else "")
        + (f"; limit = {suite.dataset.limit}: a trial run" if suite.dataset.limit else "")
    )


@_command()
def evaluate(
    run_: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Folders of trained runs, or a suite's folder."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A model of your own: module:factory, a listed model, a .ts, .pt2 or .onnx file, "
            "or robustbench:ID."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Its state dict; a file or an ID brings its own.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set for --model, default: cifar10; another test set for runs."),
    ] = None,
    eps: Annotated[
        list[str] | None, typer.Option(help="l_inf radius, e.g. 8/255; repeatable.")
    ] = None,
    eps_l2: Annotated[str | None, typer.Option(help="l_2 radius; default: 128/255.")] = None,
    eps_l1: Annotated[str | None, typer.Option(help="l_1 radius; default: 12.")] = None,
    panel: Annotated[
        str | None, typer.Option(help="Metrics by name, see list panels; default: the suite's own.")
    ] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Test images; all unless given.")] = None,
    n_aa: Annotated[
        int | None, typer.Option(min=1, help="Test images for AutoAttack; as --n unless given.")
    ] = None,
    n_pgd: Annotated[
        int | None, typer.Option(min=1, help="Test images for PGD; as --n unless given.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of PGD.")] = None,
    step: Annotated[str | None, typer.Option(help="Step size of PGD, e.g. 2/255.")] = None,
    restarts: Annotated[int | None, typer.Option(min=1, help="Restarts of PGD.")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric, e.g. clean; repeatable.")
    ] = None,
    aa_budget: Annotated[
        int | None,
        typer.Option(min=1, help="Estimate AutoAttack from so many survivors of a cheap one."),
    ] = None,
    aa_halfwidth: Annotated[
        float | None,
        typer.Option(min=0.01, max=49, help="The same, until the interval is +- so many points."),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16: screenings in the place of AutoAttack and PGD.")
    ] = Precision.fp32,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward pass.")] = 256,
    save_adversarial: Annotated[
        bool, typer.Option(help="Also write AutoAttack's examples, as float tensors.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of samples and attacks; default: 0.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="dataset.KEY=VALUE; for --model also model.KEY=VALUE; repeatable."
        ),
    ] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="For --model; default: a folder in runs/evaluate.")
    ] = None,
    limit: Limit = None,
    threads: ThreadsOption = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate trained runs, or a model of your own (--model module:factory --checkpoint FILE)."""
    from benchmark.commands.evaluate import (
        How,
        Instead,
        OtherImages,
        evaluate_external,
        evaluate_runs,
    )
    from benchmark.commands.options import Options
    from benchmark.commands.run import pick_device
    from benchmark.config.panels import PANELS
    from benchmark.core.progress import Progress
    from benchmark.core.ranks import ranks

    if bool(run_) == bool(model):
        raise ConfigError("give either folders of runs, or --model (with --checkpoint)")
    if panel:
        PANELS.get(panel)
    if run_:
        _refuse_given({"--checkpoint": checkpoint, "--out": out}, "is for --model")
        if dataset is None:
            _refuse_given(
                {"--set": set_, "--limit": limit},
                "is for --model, or for another test set of runs (--dataset)",
            )
    if save_adversarial and (aa_budget or aa_halfwidth):
        raise ConfigError(
            "--save-adversarial keeps AutoAttack's examples, and an estimate has none"
        )
    _set_threads(threads, quiet)
    with ranks() as together:
        how = How(
            data_root=data_root,
            device=pick_device(device),
            progress=Progress(quiet or not together.first),
            only=metric or (),
            panel=panel,
            eps_linf=eps or (),
            eps_l2=eps_l2,
            eps_l1=eps_l1,
            options=Options(n, n_aa, n_pgd, seed, steps, step, restarts),
            instead=Instead(aa_budget, aa_halfwidth, precision.value),
            keep_adversarial=save_adversarial,
            batch_size=batch_size,
            ranks=together,
        )
        if run_:
            other = OtherImages(dataset, set_ or (), limit) if dataset else None
            results = evaluate_runs(run_, how, other)
        else:
            assert model is not None
            results = evaluate_external(
                str(at_home(Path(model))) if model.startswith("~") else model,
                checkpoint,
                how,
                dataset=dataset or "cifar10",
                limit=limit,
                out=out,
                settings=set_ or (),
            )
    if not together.first:
        return
    if json_:
        _print_json(results)
    else:
        _print_figures(results)


def _refuse_given(options: dict[str, Any], why: str) -> None:
    """Raise ConfigError if one of them was given."""
    wrong = next((option for option, value in options.items() if value is not None), None)
    if wrong:
        raise ConfigError(f"{wrong} {why}; trained runs bring their own")


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"


def _print_figures(results: dict[str, dict[str, dict[str, Any]]]) -> None:
    """A table, then what makes its figures doubtful, and the figures whose place they took."""

    def percent(entry: dict[str, Any]) -> list[str]:
        ends = [entry[key] for key in ("low", "high") if key in entry]
        interval = "[" + ", ".join(f"{100 * end:.1f}" for end in ends) + "]" if ends else "-"
        return [f"{100 * entry['mean']:.2f}", interval, str(entry["n"])]

    rows = [
        [run_name, name, *percent(entry), entry["settings"]]
        for run_name, metrics in results.items()
        for name, entry in metrics.items()
    ]
    columns = ["run", "metric", "accuracy %", "95 % interval", "n", "settings"]
    _print_table("accuracy in per cent", columns, rows)
    lines = []
    for run_name, metrics in results.items():
        for name, entry in metrics.items():
            lines += [f"warning: {run_name}: {f['name']}: {f['text']}" for f in entry["findings"]]
            lines += [f"warning: {run_name}: {name}: {text}" for text in entry["warnings"]]
            for other in entry["earlier"]:
                figure, interval, n = percent(other)
                lines.append(
                    f"earlier: {run_name}: {name}: {figure} {interval}, n = {n}, of "
                    f"{other['reason']} {other['settings']}".rstrip()
                )
    for line in dict.fromkeys(lines):  # a finding is of all metrics of a network
        print(line)


@_command()
def interpolate(
    first: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    second: Annotated[Path, typer.Argument(help="Folder of another, same architecture.")],
    points: Annotated[int, typer.Option(min=2, help="Points of the path, ends included.")] = 11,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric, e.g. clean; repeatable.")
    ] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Default: runs/interpolate/A--B.")] = None,
    threads: ThreadsOption = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate the straight path in weight space between two runs, and plot it."""
    from benchmark.commands.interpolate import interpolate as evaluate_path
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.records.schema import read_path
    from benchmark.report import plots

    _set_threads(threads, quiet)
    target = out or Path("runs/interpolate") / f"{first.name}--{second.name}"
    table = evaluate_path(
        first,
        second,
        target,
        points=points,
        only=metric or (),
        data_root=data_root,
        device=pick_device(device),
        progress=Progress(quiet),
    )
    names = read_path(target)
    plots.save(
        plots.interpolation(table, names["first"], names["second"]), target / "interpolation"
    )
    found = table.to_dict(orient="records")
    if json_:
        _print_json(found)
        return
    rows = [
        [f"{row['alpha']:.2f}", row["metric"], f"{100 * row['mean']:.2f}", str(row["n"])]
        for row in found
    ]
    _print_table("path", ["alpha", "metric", "accuracy %", "n"], rows)
    print(f"plot: {target / 'interpolation.png'}")


@_command()
def compare(
    first: Annotated[
        Path, typer.Argument(help="Folder of an evaluated run, or of a model of your own.")
    ],
    second: Annotated[Path, typer.Argument(help="Folder of another, same test images.")],
    json_: AsJson = False,
) -> None:
    """Compare two networks on the same images: paired differences and exact tests."""
    from benchmark.report.compare import as_records, warnings
    from benchmark.report.compare import compare as compare_runs

    rows = compare_runs(first, second)
    if json_:
        _print_json(as_records(rows))
        return
    shown = [
        [
            row.metric,
            str(row.n),
            f"{100 * row.first:.1f}",
            f"{100 * row.second:.1f}",
            f"{100 * row.difference:+.1f}" + _ends(row.low, row.high),
            "-" if row.only_first is None else f"{row.only_first}/{row.only_second}",
            "-" if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}",
            row.verdict,
        ]
        for row in rows
    ]
    columns = ["metric", "n", "first %", "second %", "difference", "right alone", "p", "verdict"]
    _print_table(f"{first.name} - {second.name}", columns, shown)
    for line in warnings(first, second):
        print(f"WARNING: {line}")
    print(
        "difference: percentage points with 95 % bootstrap interval over images; p: exact McNemar, "
        "adjusted after Holm; one trained network each, so nothing is said about other seeds"
    )


@_command()
def report(
    out: Annotated[
        list[Path],
        typer.Argument(
            metavar="OUT...",
            help="A suite's folder, e.g. runs/quick; runs and models of your own (folders that "
            "evaluate --model wrote) alone or beside it.",
        ),
    ],
    target: Annotated[
        Path | None, typer.Option("--out", help="Where to write; default: OUT/report.")
    ] = None,
    corruption_reference: Annotated[
        Path | None,
        typer.Option(help="CSV (corruption,severity,error) of a reference network, for mCE."),
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="Also one interactive page, report.html.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Render tables and plots from the records of a suite. Trains and attacks nothing."""
    _render(out[0], target, json_, corruption_reference, html, out[1:])


def _render(
    out: Path,
    target: Path | None,
    json_: bool,
    reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
) -> None:
    from benchmark.records.study import read_suite
    from benchmark.report import render
    from benchmark.report.tables import tidy

    files = render(out, target, reference, html, beside)
    if json_:
        # null for what is missing; NaN is no JSON
        rows = tidy(read_suite(out, beside)).replace({"": None}).to_dict(orient="records")
        _print_json({"report": [str(path) for path in files], "table": rows})
        return
    table = next((path for path in files if path.name == "table.md"), None)
    if table:
        print(table.read_text(encoding="utf-8"))
    print(f"report: {files[0]}")
    if html:
        print(f"page: {next(path for path in files if path.suffix == '.html')}")


@_command()
def check(
    run_: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Folder of a suite that was run; else it is run."),
    ] = None,
    baseline: Annotated[Path, typer.Option(help="The recorded baseline (.json).")] = Path(
        "baseline.json"
    ),
    seed: Seeds = None,
    update: Annotated[
        bool, typer.Option("--update", help="Record a new baseline instead; needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why the baseline changes.")] = None,
    suite: Annotated[
        str | None, typer.Option(help="With --update: a suite's name or YAML file.")
    ] = None,
    method: Methods = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric, e.g. clean; repeatable.")
    ] = None,
    set_: Overrides = None,
    limit: Limit = None,
    junit: Annotated[Path | None, typer.Option(help="Also write a JUnit XML file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the summary there.")] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: ThreadsOption = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare the code as it is with a recorded baseline; exit status 1 if something moved."""
    from dataclasses import asdict

    from benchmark.commands.check import check as hold_against
    from benchmark.commands.check import update as record
    from benchmark.commands.run import pick_device
    from benchmark.core.files import write_text
    from benchmark.core.progress import Progress
    from benchmark.gate import summary
    from benchmark.gate.baseline import Scope, read_scope

    where, progress = pick_device(device), Progress(quiet)
    _set_threads(threads, quiet)
    if update:
        if not reason or not reason.strip():
            raise ConfigError("--update needs --reason, which is kept in the baseline")
        if run_:
            raise ConfigError("--update runs the suite itself; leave the folder out")
        given = {"suite": suite, "methods": method, "metrics": metric, "seeds": seed,
                 "set": set_, "limit": limit}  # fmt: skip
        before = read_scope(baseline).model_dump() if baseline.exists() else {}
        before |= {key: value for key, value in given.items() if value}
        if "suite" not in before:
            raise ConfigError("a first baseline needs --suite")
        before.setdefault("seeds", tuple(range(6)))
        scope = Scope.model_validate(before)
        record(
            baseline, scope, reason.strip(), data_root=data_root, device=where, progress=progress
        )
        print(f"baseline: {baseline} and {baseline.with_suffix('.pt')}")
        return
    foreign = {"--suite": suite, "--method": method, "--metric": metric, "--set": set_,
               "--limit": limit, "--reason": reason}  # fmt: skip
    wrong = [option for option, value in foreign.items() if value]
    if wrong:
        raise ConfigError(f"{wrong[0]} is for --update; a check takes it from the baseline")
    verdict, kept = hold_against(
        baseline,
        run=run_,
        seeds=seed or (),
        data_root=data_root,
        device=where,
        progress=progress,
    )
    text = summary.markdown(verdict, kept)
    if markdown:
        write_text(markdown, text)
    if junit:
        write_text(junit, summary.junit(verdict, kept))
    if json_:
        rows = [{**asdict(item), "moved": item.moved} for item in verdict.comparisons]
        _print_json({"moved": len(verdict.moved), "causes": verdict.causes, "comparisons": rows})
    else:
        print(text, end="")
    if verdict.moved:
        raise typer.Exit(1)


@_command()
def submit(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluated run.")],
    data_root: DataRoot = Path("data"),
    out: Annotated[Path | None, typer.Option(help="Default: RUN/submission.")] = None,
    threat: Annotated[Threat, typer.Option(help="Which leaderboard.")] = Threat.linf,
    info: Annotated[
        Path | None, typer.Option(help="YAML file: id, name, authors, link, venue, ...")
    ] = None,
    draft: Annotated[
        bool, typer.Option("--draft", help="Also what the leaderboard would not take, marked so.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Write a bundle for RobustBench: model, weights, figures and the issue to open."""
    from benchmark.commands.submit import submit as write_bundle

    _set_threads(threads, quiet=False)
    target = write_bundle(
        run_, data_root=data_root, out=out, threat=threat.value, info=info, draft=draft
    )
    print(f"bundle: {target}")


@_command()
def speed(
    model: Annotated[
        list[str] | None, typer.Option(help="Architecture; default: small-resnet, resnet18.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="Only this task, e.g. pgd-at or pgd-20; repeatable."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of our passes.")] = Precision.fp32,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved; the median counts.")] = 3,
    batch_size: Annotated[int | None, typer.Option(min=4, help="Default: 128; quick: 16.")] = None,
    device: Device = "auto",
    quick: Annotated[bool, typer.Option("--quick", help="Seconds, for a first look.")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure training steps and attacks against plain loops, other libraries and the limit."""
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.speed.measure import measure, options, tables

    asked = options(model or (), task or (), precision.value, repeats, batch_size, quick)
    document = measure(asked, pick_device(device), Progress(quiet))
    if json_:
        _print_json(document)
        return
    for title, columns, rows in tables(document):
        _print_table(title, columns, rows)
    for line in document["left_out"]:
        print(f"left out: {line}")


@_command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Whole descriptions.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The page docs/methods.md (methods only).")
    ] = False,
    json_: AsJson = False,
) -> None:
    """List methods, datasets, models, metrics, panels or suites."""
    if markdown:
        if kind is not Kind.methods:
            raise ConfigError("--markdown is for list methods")
        from benchmark.commands.catalogue import methods_page

        print(methods_page(), end="")
        return
    items = _listing(kind, verbose)
    if json_:
        _print_json([{"name": name, "description": text} for name, text in items])
    elif verbose:
        for name, text in items:
            print(f"{name}\n{'-' * len(name)}\n{text}\n")
    else:
        rows = [[name, text.splitlines()[0] if text else ""] for name, text in items]
        _print_table(kind.value, [kind.value[:-1], "description"], rows)


def _listing(kind: Kind, verbose: bool) -> list[tuple[str, str]]:
    """(name, description) of everything of that kind."""
    if kind is Kind.methods:
        from benchmark.commands.catalogue import methods

        return [(entry.name, entry.text() if verbose else entry.doc) for entry in methods()]
    if kind is Kind.datasets:
        from benchmark.data.source import DATASETS

        return [(name, entry.description) for name, entry in DATASETS.items()]
    if kind is Kind.models:
        from benchmark.models.architecture import MODELS

        return [(name, entry.description) for name, entry in MODELS.items()]
    if kind is Kind.metrics:
        from benchmark.commands.catalogue import metrics

        return metrics()
    if kind is Kind.panels:
        from benchmark.config.panels import PANELS

        return [(name, inspect.getdoc(panel) or "") for name, panel in PANELS.items()]
    from benchmark.config.suite import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    return [
        (suite.name, f"{suite.title} ({suite.hardware})\n{suite.description.strip()}")
        for suite in suites
    ]


_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # a shell's convention


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def main() -> None:
    """Entry point: errors meant for people in one line, exit status 2; 130 after Ctrl-C, 143 after
    SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?"
            stream.reconfigure(errors="replace")
    # A scheduler's SIGTERM is an interruption like any other.
    signal.signal(signal.SIGTERM, _terminate)
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash inside a library is no silent death
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        status = app(sys.argv[1:] or ["--help"], "generalist-bench", standalone_mode=False)
    except BenchmarkError as error:
        status = _fail(str(error))
    except SystemExit as end:
        status = end.code
    except Exception as error:
        # Typer's usage errors, whose class differs between its versions.
        if not hasattr(error, "format_message"):
            raise
        status = _fail(error.format_message())
    if status in _INTERRUPTED and os.environ.get("RANK", "0") == "0":
        command = shlex.join([*_started_as(), *sys.argv[1:]])
        print(f"\ninterrupted; finished work is kept. Continue with:\n  {command}", file=sys.stderr)
    sys.exit(status or 0)


def _started_as() -> list[str]:
    """What stands before the arguments, by oneself or under torchrun."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if processes == "1":
        return ["generalist-bench"]
    return ["torchrun", "--nproc-per-node", processes, "-m", "benchmark"]


def _fail(message: str) -> int:
    lines = (line.strip() for line in message.splitlines())
    print("error: " + " ".join(line for line in lines if line), file=sys.stderr)
    return 2
