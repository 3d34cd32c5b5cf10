"""How much memory a suite's run takes, beyond what an interpreter takes that has imported torch.

    python -m studies.memory cifar10-cpu --data-root DIR > memory.json

Trains one method for some steps, evaluates it and writes the report, as ``generalist-bench run``
does, in a process of its own. Data, learners, optimisers, views and activations are all in memory
after the first step, so a longer training needs no more. CPU only: the peak is that of the resident
set. The record is results/speed/memory-cifar10-cpu.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from benchmark.core.errors import BenchmarkError
from studies.command import new_app, one_thread_environment, start

# Nothing here may import torch. The peak of a child, as the system counts it, is at least the size
# of the process that started it, so this process must be smaller than what it measures.

app = new_app()


def peak(arguments: Sequence[str]) -> int:
    """The largest resident set, in bytes, of a Python process with these arguments.

    Raises:
        BenchmarkError: the process failed.
    """
    child = subprocess.Popen(
        [sys.executable, *arguments], env=one_thread_environment(), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        command = " ".join(arguments)
        raise BenchmarkError(f"python {command} ended with status {child.returncode}; see above")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def beyond_torch(
    suite: str, method: str, data_root: str, epochs: float, limit: int | None
) -> dict[str, Any]:
    """What is printed: peaks of the run and of ``import torch``, and their difference, in GiB."""
    with tempfile.TemporaryDirectory() as out:
        command = ["-m", "benchmark", "run", suite, "--method", method, "--seed", "0", "--quiet"]
        command += ["--data-root", data_root, "--device", "cpu", "--out", out]
        command += ["--set", f"train.epochs={epochs}"]
        command += ["--limit", str(limit)] if limit else []
        run = peak(command)
    torch = peak(["-c", "import torch"])
    return {
        "suite": suite,
        "method": method,
        "epochs": epochs,
        "limit": limit,
        "peak_gib": round(run / 2**30, 3),
        "torch_gib": round(torch / 2**30, 3),
        "beyond_torch_gib": round((run - torch) / 2**30, 3),
    }


@app.command()
def main(
    suite: Annotated[str, typer.Argument(help="Name or file of a suite.")],
    method: Annotated[str, typer.Option()] = "generalist-t",
    data_root: Annotated[str, typer.Option()] = "data",
    epochs: Annotated[float, typer.Option(help="Of training.")] = 0.1,
    limit: Annotated[int | None, typer.Option(help="As in generalist-bench run.")] = None,
) -> None:
    """Run a method of a suite and measure its peak memory; prints JSON."""
    print(json.dumps(beyond_torch(suite, method, data_root, epochs, limit), indent=2))


if __name__ == "__main__":
    start(app)
