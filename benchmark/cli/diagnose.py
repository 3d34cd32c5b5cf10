"""``generalist-bench diagnose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import AsJson, DataRoot, Device, Quiet, Threads, set_threads
from benchmark.cli.output import print_json


def diagnose(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of trained runs, or of suites.")
    ],
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Name what went wrong in trained runs, and what to change."""
    from benchmark.commands.diagnose import diagnose_runs
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress

    set_threads(threads, quiet)
    found = diagnose_runs(
        runs, data_root=data_root, device=pick_device(device), progress=Progress(quiet)
    )
    if json_:
        print_json(
            [
                {
                    "run": str(path),
                    "found": {
                        name: {"evidence": evidence, "remedy": remedy}
                        for name, (evidence, remedy) in diagnosis.found.items()
                    },
                    "not_found": list(diagnosis.absent),
                    "not_judged": diagnosis.unjudged,
                }
                for path, diagnosis in found.items()
            ]
        )
        return
    for path, diagnosis in found.items():
        print(f"{path}: {len(diagnosis.found) or 'no'} signature(s) of failure")
        for name, (evidence, remedy) in diagnosis.found.items():
            print(f"  {name}: {evidence}\n    to change: {remedy}")
        if diagnosis.absent:
            print(f"  not found: {', '.join(diagnosis.absent)}")
        for name, reason in diagnosis.unjudged.items():
            print(f"  not judged: {name} ({reason})")
