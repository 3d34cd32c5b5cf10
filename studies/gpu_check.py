"""What a machine with a GPU should be asked first: do the tests pass, and how fast is it.

    python -m studies.gpu_check --data-root DIR --out gpu.json

Runs the tests marked ``gpu``; ``generalist-bench speed`` for ResNet-18 and WideResNet-28-10 in
bf16, against plain loops, torchattacks (where it is installed) and the rate of a matrix product;
and one cell of the suite cifar10-resnet18-hour for an epoch. Everything goes into one file, which
is written after every part, so half an hour that was too short leaves what was done. Without
--data-root the cell is trained on scikit-learn's digits at 32 pixels: the same cost of a step, but
no meaningful accuracy. With --tiny, a small network and few steps, for a CPU. The exit status is 1
if a part failed. There is no record yet.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree

import torch
import typer

from benchmark.commands.run import pick_device
from benchmark.config.suite import load_suite
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_json, write_json
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import read_evaluation
from studies.command import new_app, start

app = new_app()

ROOT = Path(__file__).resolve().parents[1]
SUITE = "cifar10-resnet18-hour"
METHOD = "generalist-d"
MODELS = ("resnet18", "wrn-28-10")
# Files with tests marked ``gpu``.
TESTS = (
    "tests/training/test_cuda.py",
    "tests/training/test_no_waiting.py",
    "tests/data/test_loader.py",
)
# Seconds after which a part is given up: the tests, each network, the cell. In all, half an hour.
_LIMITS = {"tests": 480, "speed": 480, "cell": 360}

Part = dict[str, Any]


def command(arguments: list[str], seconds: float) -> str:
    """What a Python process with these arguments prints.

    Raises:
        BenchmarkError: it failed, or took longer.
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"not over after {seconds:g} seconds") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise BenchmarkError(f"status {done.returncode}: {''.join(said)}")
    return done.stdout


def tests(tiny: bool) -> Part:
    """Numbers of tests that passed, failed and were skipped, and the names of those that failed."""
    files = TESTS[:1] if tiny else TESTS
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        try:
            command(["-m", "pytest", *options, *files], _LIMITS["tests"])
        except BenchmarkError:
            if not report.exists():
                raise
        return counts(ElementTree.parse(report).getroot())


def counts(report: ElementTree.Element) -> Part:
    """The same from a report in JUnit's form."""
    cases = list(report.iter("testcase"))
    failed = [f"{case.get('classname')}::{case.get('name')}" for case in cases
              if case.find("failure") is not None or case.find("error") is not None]  # fmt: skip
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    return {"passed": passed, "skipped": skipped, "failed": failed}


def speed(model: str, device: str, tiny: bool) -> Part:
    """The document of ``generalist-bench speed`` for one network, and what its best passes sustain
    in 10^12 operations per second."""
    arguments = ["-m", "benchmark", "speed", "--model", model, "--precision", "bf16"]
    arguments += ["--device", device, "--json", "--quiet"]
    if tiny:
        arguments += ["--quick", "--repeats", "1", "--task", "pgd-at", "--task", "pgd-20"]
    document: Part = json.loads(command(arguments, _LIMITS["speed"]))
    document["sustained_tflops"] = {
        f"{row['kind']} {row['precision']}": round(row["gflop_per_image"] / row["ms_per_image"], 3)
        for row in document["passes"]
    }
    return document


def cell(data_root: Path | None, device: str, tiny: bool) -> Part:
    """Seconds, passes and accuracies of a cell of ``SUITE`` at reduced length, and the hours of
    training that the whole suite would take at the cell's passes per second."""
    epochs = 1 if data_root or tiny else 20  # the digits have ten steps an epoch
    settings = [f"train.epochs={epochs}", "train.validations=1", "evaluation=" + json.dumps(
        [{"kind": "clean"}, {"kind": "pgd", "n": 20 if tiny else 1000,
         "threat": {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 20}}]
    )]  # fmt: skip
    if data_root is None:
        settings += ["dataset={name: digits, val_size: 100, size: 32}"]
    if tiny:
        settings += ["model={name: small-resnet, width: 8}", "train.batch_size=16"]
    else:
        settings += ["train.crafting=fastest"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "benchmark", "run", SUITE, "--method", METHOD, "--seed", "0"]
        arguments += ["--device", device, "--quiet", "--out", folder]
        arguments += ["--data-root", str((data_root or Path(folder)).resolve())]
        arguments += ["--limit", "40"] if tiny else []
        arguments += [part for setting in settings for part in ("--set", setting)]
        command(arguments, _LIMITS["cell"])
        (run,) = SuiteFiles(Path(folder)).cells.iterdir()
        training = read_json(RunFiles(run).training)
        metrics = read_evaluation(run)["metrics"]
    rate = training["gradient_passes"] / training["seconds"]
    return {
        "suite": SUITE,
        "method": METHOD,
        "settings": settings,
        "images": training["images"],
        "steps": training["steps"],
        "seconds": round(training["seconds"], 3),
        "gradient_passes": training["gradient_passes"],
        "passes_per_second": round(rate, 1),
        "crafting": training.get("crafting"),
        "hours_of_the_whole_suite": None if tiny else round(_passes_of_suite() / rate / 3600, 2),
        "accuracies": {
            name: round(metric["correct"] / metric["n"], 4) for name, metric in metrics.items()
        },
    }


def _passes_of_suite() -> float:
    """Gradient passes of training all cells of ``SUITE``."""
    arguments = ["-m", "benchmark", "run", SUITE, "--dry-run", "--tflops", "1", "--json"]
    plan = json.loads(command([*arguments, "--data-root", os.devnull], _LIMITS["cell"]))
    return float(sum(row["gradient_passes"] for row in plan["cells"]))


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="The JSON file.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Holds cifar10; without it, digits are trained on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    tiny: Annotated[bool, typer.Option("--tiny", help="Minutes on a CPU.")] = False,
) -> None:
    """Test and measure this machine's GPU; writes JSON."""
    name = str(pick_device(device))
    models = ("small-resnet",) if tiny else MODELS
    load_suite(SUITE)  # a clone without its suites should fail now
    parts: dict[str, Callable[[], Part]] = {"tests": lambda: tests(tiny)}
    for model in models:
        parts[f"speed {model}"] = partial(speed, model, name, tiny)
    parts["cell"] = lambda: cell(data_root, name, tiny)
    document: Part = {
        "environment": environment(name, torch.get_num_threads()),
        "tiny": tiny,
        "parts": {},
        "failed": {},
    }
    for part, work in parts.items():
        print(f"{part} ...", file=sys.stderr)
        try:
            document["parts"][part] = work()
        except BenchmarkError as error:
            document["failed"][part] = str(error)
            print(f"  failed: {error}", file=sys.stderr)
        write_json(out, document)
    broken = document["parts"].get("tests", {}).get("failed")
    if document["failed"] or broken:
        raise BenchmarkError(f"not all is well with this machine; see {out}")


if __name__ == "__main__":
    start(app)
