"""Whether training in bf16 gives the same accuracies as training in fp32.

    python -m studies.precision --data-root DIR --out FOLDER > precision.json

Trains methods of a suite in both precisions with the same seeds, evaluates all of them in fp32,
and compares accuracies on the same images. The same command goes on after an interruption. The
records are results/speed/precision.json and precision-amx.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import stdev
from typing import Annotated, Any

import typer

from benchmark.cli.options import DataRoot
from benchmark.config.suite import load_suite
from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.records.statistics import holm, paired_contrast
from benchmark.records.study import SuiteRecord, outcome_matrices, read_suite
from studies.command import new_app, one_thread_environment, start

app = new_app()

PRECISIONS = ("fp32", "bf16")
METRICS = ("clean", "pgd20_linf")


@dataclass(frozen=True)
class PrecisionGap:
    """One method under one metric; accuracies in per cent, one per seed.

    Attributes:
        n: test images.
        difference: bf16 minus fp32, in points.
        low, high: its 95 % interval, over seeds and over the choice of test images.
        p: p-value of the difference, corrected after Holm for the number of rows.
        seed_sd: standard deviation over the seeds of fp32.
    """

    method: str
    metric: str
    n: int
    fp32: list[float]
    bf16: list[float]
    difference: float
    low: float
    high: float
    p: float
    seed_sd: float


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="For the runs of both precisions.")],
    data_root: DataRoot = Path("data"),
    suite: Annotated[str, typer.Option()] = "cifar10-cpu",
    method: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=2)] = None,
) -> None:
    """Train and evaluate in both precisions; prints JSON."""
    methods, seeds = method or ["pgd-at", "generalist-d"], seed or [0, 1, 2]
    arguments = [suite, "--data-root", str(data_root), "-q"]
    arguments += [part for name in methods for part in ("--method", name)]
    arguments += [part for number in seeds for part in ("--seed", str(number))]
    arguments += ["--limit", str(limit)] if limit else []
    arguments += ["--device", "cpu", "--set", f"evaluation={_metrics(suite)}"]
    records: dict[str, SuiteRecord] = {}
    for precision in PRECISIONS:
        own = ["--precision", precision, "--out", str(out / precision)]
        command = [sys.executable, "-m", "benchmark", "run", *arguments, *own]
        subprocess.run(command, env=one_thread_environment(), stdout=subprocess.DEVNULL, check=True)
        records[precision] = read_suite(out / precision)
    rows = [_row(records, seeds, name, metric) for name in methods for metric in METRICS]
    adjusted = holm([row.p for row in rows])
    rows = [replace(row, p=round(p, 4)) for row, p in zip(rows, adjusted, strict=True)]
    document = {
        "suite": suite,
        "seeds": seeds,
        "limit": limit,
        "environment": environment("cpu", 1),
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document, indent=2))


def _metrics(suite: str) -> str:
    """The suite's settings of ``METRICS``, as JSON, which is YAML too."""
    chosen = [m for m in load_suite(suite).evaluation if m.name in METRICS]
    if len(chosen) < len(METRICS):
        raise ConfigError(f"{suite} does not measure {' and '.join(METRICS)}; choose another suite")
    return json.dumps([metric.model_dump(mode="json") for metric in chosen])


def _row(
    records: dict[str, SuiteRecord], seeds: Sequence[int], method: str, metric: str
) -> PrecisionGap:
    cells = {
        name: [cell for cell in records[name].of(method) if cell.seed in seeds]
        for name in PRECISIONS
    }
    pair: Any = outcome_matrices([(cells["bf16"], metric), (cells["fp32"], metric)])
    bf16, fp32 = pair
    found = paired_contrast([(1.0, bf16), (-1.0, fp32)])
    accuracies = [[round(100 * v, 2) for v in part.mean(axis=1)] for part in (fp32, bf16)]
    return PrecisionGap(
        method=method,
        metric=metric,
        n=found.n,
        fp32=accuracies[0],
        bf16=accuracies[1],
        difference=round(100 * found.value, 2),
        low=round(100 * found.low, 2),
        high=round(100 * found.high, 2),
        p=found.p,
        seed_sd=round(stdev(accuracies[0]), 2) if len(fp32) > 1 else 0.0,
    )


if __name__ == "__main__":
    start(app)
