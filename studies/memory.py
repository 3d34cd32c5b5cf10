"""Peak memory of a suite's run, beyond that of an interpreter that has imported torch.

    python -m studies.memory cifar10-cpu --data-root DIR --method generalist-t

The method is trained for some steps, evaluated and reported in a process of its own, in the way
``generalist-bench run`` does it: data, learners, optimisers, views and activations are all there
after the first step, so a longer training needs no more. CPU only: the peak is the resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

# Nothing of torch is imported here: a child's peak, as the system counts it, is at least the size
# of the process that started it.


def peak(arguments: Sequence[str]) -> int:
    """The largest resident set, in bytes, of a Python process with these arguments.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with status {child.returncode}")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def beyond_torch(suite: str, method: str, data_root: str, epochs: str, limit: int | None) -> dict:
    """What is printed."""
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
        "epochs": float(epochs),
        "limit": limit,
        "peak_gib": round(run / 2**30, 3),
        "torch_gib": round(torch / 2**30, 3),
        "beyond_torch_gib": round((run - torch) / 2**30, 3),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("suite")
    parser.add_argument("--method", default="generalist-t")
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--epochs", default="0.1")
    parser.add_argument("--limit", type=int, help="as in generalist-bench run")
    given = parser.parse_args()
    found = beyond_torch(given.suite, given.method, given.data_root, given.epochs, given.limit)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
