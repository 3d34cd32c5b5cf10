"""``generalist-bench speed``: everything measured in one run, as data and as tables."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.core.precision import Precision
from benchmark.core.progress import Progress
from benchmark.core.registry import did_you_mean
from benchmark.models.architecture import MODELS
from benchmark.speed import libraries, overheads
from benchmark.speed.clock import Clock, Work, interleaved, one_thread
from benchmark.speed.growth import growth
from benchmark.speed.passes import (
    KINDS,
    Key,
    PassLimit,
    count_gflop,
    form_work,
    forms,
    gemm_rate,
    limits,
)
from benchmark.speed.setting import FULL, QUICK, Bench, Workload
from benchmark.speed.tasks import TASKS, TimedTask, build

MODELS_MEASURED = ("small-resnet", "resnet18")
_GEMM_REPEATS = 10


@dataclass(frozen=True)
class SpeedOptions:
    """What to measure.

    Raises:
        ConfigError: an unknown model or task, or a batch too small.
    """

    models: Sequence[str] = MODELS_MEASURED
    tasks: Sequence[str] = TASKS
    precision: Precision = "fp32"
    repeats: int = 3
    batch_size: int = 128
    amount: Workload = FULL

    def __post_init__(self) -> None:
        for model in self.models:
            MODELS.get(model)
        for task in self.tasks:
            if task not in TASKS:
                raise ConfigError(f"unknown task {task!r}; {did_you_mean(task, TASKS)}")
        if self.repeats < 1 or self.batch_size < 4:
            raise ConfigError(
                f"repeats = {self.repeats} and batch size = {self.batch_size} must be at least "
                "1 and 4"
            )


def options(
    models: Sequence[str],
    tasks: Sequence[str],
    precision: Precision,
    repeats: int,
    batch_size: int | None,
    quick: bool,
) -> SpeedOptions:
    """What a user asked for; what is left open depends on ``quick``."""
    return SpeedOptions(
        models=models or (("small-resnet",) if quick else MODELS_MEASURED),
        tasks=tasks or TASKS,
        precision=precision,
        repeats=repeats,
        batch_size=batch_size or (16 if quick else 128),
        amount=QUICK if quick else FULL,
    )


def measure(options: SpeedOptions, device: torch.device, progress: Progress) -> dict[str, Any]:
    """The document that ``--json`` prints: rows (see ``_rows``), a detail beside each of them,
    best passes, overheads and growth (unless single tasks are asked for), peak memory, and what was
    left out."""
    clock = Clock(device)
    with one_thread(device):
        rates = {
            precision: gemm_rate(precision, device, clock, _GEMM_REPEATS)
            for precision in dict.fromkeys(("fp32", options.precision))
        }
        document: dict[str, Any] = {
            "environment": environment(str(device), torch.get_num_threads()),
            "clock": clock.name,
            "precision": options.precision,
            "repeats": options.repeats,
            "batch_size": options.batch_size,
            "amount": asdict(options.amount),
            "gemm_gflop_per_s": {name: round(rate, 1) for name, rate in rates.items()},
            "left_out": [f"{name}: not installed" for name in libraries.missing()],
            **{part: [] for part in ("rows", "details", "passes", "overheads", "growth")},
            "peak_memory_mib": {},
        }
        for model in options.models:
            _measure_model(document, options, model, rates, clock, device, progress)
    return document


def _measure_model(
    document: dict[str, Any],
    options: SpeedOptions,
    model: str,
    rates: dict[Precision, float],
    clock: Clock,
    device: torch.device,
    progress: Progress,
) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    bench = Bench(model, options.batch_size, options.precision, options.amount, device)
    network = bench.method("natural").deployed()
    x, y = bench.batch
    progress.say(f"{model}: warming up")
    tasks = build(bench, options.tasks, progress.say)
    needed = {kind for compared in tasks.comparisons for kind, _ in compared.passes}
    kinds = [kind for kind in KINDS if kind in needed]
    tried = {str(form): form for form in forms(options.batch_size, list(rates), kinds)}
    ways: dict[str, Work] = {
        **tasks.ways,
        **{name: form_work(form, network, x, y) for name, form in tried.items()},
    }
    seconds = interleaved(ways, options.repeats, clock, progress.say)
    best = limits(
        {form: seconds[name] for name, form in tried.items()}, count_gflop(network, x, y), rates
    )
    for comparison in tasks.comparisons:
        _add_rows(document, comparison, bench, seconds, best)
    document["passes"] += [_pass(model, key, limit, rates) for key, limit in best.items()]
    if set(options.tasks) == set(TASKS):
        _add_surroundings(document, bench, options, clock, progress)
    document["peak_memory_mib"][model] = round(_peak_memory(device) / 2**20)


def _add_surroundings(
    document: dict[str, Any],
    bench: Bench,
    options: SpeedOptions,
    clock: Clock,
    progress: Progress,
) -> None:
    """Overheads, and how the cost of a small network grows."""
    steps = 1 if not bench.small else 3 if options.amount == QUICK else 20
    progress.say(f"{bench.model}: overheads")
    for method, own in (("generalist-d", "mixing"), ("ema", "averaging")):
        document["overheads"] += map(asdict, overheads.in_steps(bench, method, own, steps, clock))
    for method in ("natural", "pgd-at"):
        document["overheads"] += map(asdict, overheads.in_training(bench, method, steps, clock))
    if bench.small:
        progress.say(f"{bench.model}: growth")
        document["growth"] += map(asdict, growth(bench, options.repeats, clock))


def _add_rows(
    document: dict[str, Any],
    comparison: TimedTask,
    bench: Bench,
    seconds: dict[str, list[float]],
    best: dict[Key, PassLimit],
) -> None:
    """A row for each reference. ``ratio`` is the median of the ratios of single repeats."""
    ours = seconds[comparison.ours]
    limit = sum(n * best[key].seconds for key, n in comparison.passes.items())
    arithmetic = sum(n * best[key].arithmetic for key, n in comparison.passes.items())
    for reference, parts in comparison.references.items():
        theirs = [sum(repeat) for repeat in zip(*(seconds[part] for part in parts), strict=True)]
        disagree = comparison.disagree.get(reference)
        document["rows"].append(
            {
                "task": comparison.task,
                "model": bench.model,
                "ours_s": round(median(ours), 5),
                "reference": reference,
                "reference_s": round(median(theirs), 5),
                "ratio": round(median(b / a for a, b in zip(ours, theirs, strict=True)), 3),
                "limit_s": round(limit, 5),
            }
        )
        document["details"].append(
            {
                "task": comparison.task,
                "model": bench.model,
                "reference": reference,
                "n": comparison.images,
                "batch_size": min(bench.batch_size, comparison.images),
                "precision": bench.precision,
                "flags_equal": None if disagree is None else disagree == 0,
                "disagree": disagree,
                "images_per_s": round(comparison.images / median(ours), 1),
                "of_limit": round(limit / median(ours), 3),
                "arithmetic_s": round(arithmetic, 5),
                "passes": _named(comparison.passes),
                "seconds": [round(value, 5) for value in ours],
                "reference_seconds": [round(value, 5) for value in theirs],
            }
        )


def _named(passes: Counter[Key]) -> dict[str, int]:
    return {f"{kind} {precision}": count for (kind, precision), count in passes.items()}


def _pass(model: str, key: Key, limit: PassLimit, rates: dict[Precision, float]) -> dict[str, Any]:
    kind, precision = key
    return {
        "model": model,
        "kind": kind,
        "precision": precision,
        "best": str(limit.form),
        "ms_per_image": round(1e3 * limit.seconds, 4),
        "gflop_per_image": round(limit.gflop, 5),
        "share_of_gemm_rate": round(limit.gflop / limit.seconds / rates[precision], 3),
    }


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the device for this model; of the process so far, references included, on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used * (1 if sys.platform == "darwin" else 1024)


Table = tuple[str, list[str], list[list[str]]]  # title, columns, rows


def tables(document: dict[str, Any]) -> list[Table]:
    """The document for people."""
    columns = ["task", "model", "ours ms", "images/s", "reference", "its ms", "ratio"]
    columns += ["limit ms", "of limit", "arithmetic ms", "flags"]
    rows = [
        [
            row["task"],
            row["model"],
            f"{1e3 * row['ours_s']:.1f}",
            f"{detail['images_per_s']:.0f}",
            row["reference"],
            f"{1e3 * row['reference_s']:.1f}",
            f"{row['ratio']:.2f}",
            f"{1e3 * row['limit_s']:.1f}",
            f"{detail['of_limit']:.2f}",
            f"{1e3 * detail['arithmetic_s']:.1f}",
            _flags(detail),
        ]
        for row, detail in zip(document["rows"], document["details"], strict=True)
    ]
    heading = f"{document['precision']}, {document['clock']} time, median of {document['repeats']}"
    passes = [[str(value) for value in entry.values()] for entry in document["passes"]]
    spent = [
        [o["model"], o["method"], o["part"], f"{1e3 * o['seconds']:.3f}", f"{100 * o['share']:.2f}"]
        for o in document["overheads"]
    ]
    grown = [
        [
            g["model"],
            g["axis"],
            str(g["value"]),
            f"{1e3 * g['seconds']:.2f}",
            f"{1e3 * g['per_unit']:.3f}",
        ]
        for g in document["growth"]
    ]
    memory = [[model, str(value)] for model, value in document["peak_memory_mib"].items()]
    return [
        (heading, columns, rows),
        (
            "best passes",
            ["model", "pass", "precision", "best form", "ms/image", "GFLOP/image", "of gemm rate"],
            passes,
        ),
        ("overheads", ["model", "method", "part", "ms per step", "% of step"], spent),
        ("growth", ["model", "axis", "value", "ms", "ms per unit"], grown),
        ("peak memory", ["model", "MiB"], memory),
    ]


def _flags(detail: dict[str, Any]) -> str:
    if detail["flags_equal"] is None:
        return ""
    return "equal" if detail["flags_equal"] else f"{detail['disagree']} of {detail['n']} differ"
