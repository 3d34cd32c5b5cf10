"""How often the regression gate raises an alarm although nothing changed.

    python -m studies.gate_repeats --baseline results/gate/quick.json > repeats.json

Checks unchanged code against the baseline again and again, each time with a seed that the baseline
has not seen. The record is results/gate/repeats.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmark.cli.options import DataRoot
from benchmark.commands.check import check
from benchmark.commands.run import pick_device
from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.core.progress import Progress
from benchmark.gate.baseline import read_baseline
from studies.command import new_app, start

app = new_app()


@app.command()
def main(
    baseline: Annotated[Path, typer.Option(help="The recorded baseline (.json).")],
    repeats: Annotated[int, typer.Option(min=1)] = 20,
    first_seed: Annotated[int, typer.Option(min=0, help="None may be the baseline's.")] = 100,
    data_root: DataRoot = Path("data"),
) -> None:
    """Check the code as it is against the baseline, a seed at a time; prints JSON.

    Every repeat trains again. The reference network is read from disk, so it is always the same.
    """
    progress, device, rows = Progress(), pick_device("cpu"), []
    known = set(read_baseline(baseline).scope.seeds) & set(range(first_seed, first_seed + repeats))
    if known:
        raise ConfigError(
            f"the baseline was made with seed {min(known)}; choose another --first-seed"
        )
    for seed in range(first_seed, first_seed + repeats):
        started = time.monotonic()
        verdict, _ = check(
            baseline,
            run=None,
            seeds=[seed],
            data_root=data_root,
            device=device,
            progress=Progress(quiet=True),
        )
        closest = min(verdict.comparisons, key=lambda item: item.p)
        row = {
            "seed": seed,
            "moved": [item.name for item in verdict.moved],
            "least_p": closest.p,  # adjusted for all comparisons
            "of": closest.name,
            "seconds": round(time.monotonic() - started, 1),
        }
        rows.append(row)
        progress.say(f"seed {seed}: {row['moved'] or 'nothing moved'}, {row['seconds']} s")
    document = {
        "baseline": baseline.name,
        "alarms": sum(bool(row["moved"]) for row in rows),
        "repeats": repeats,
        "environment": environment("cpu", torch.get_num_threads()),
        "rows": rows,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    start(app)
