"""``generalist-bench record-baseline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import (
    DataRoot,
    Device,
    Limit,
    Methods,
    Metrics,
    Overrides,
    Quiet,
    Threads,
    set_threads,
)
from benchmark.core.errors import ConfigError


def record_baseline(
    reason: Annotated[str, typer.Option(help="Why it is recorded; kept in the file.")],
    baseline: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The file (.json); what it holds is replaced."),
    ] = Path("baseline.json"),
    suite: Annotated[
        str | None,
        typer.Option(help="A suite's name or YAML file; default: as recorded before."),
    ] = None,
    method: Methods = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Seed; repeatable, two at least. Default: as recorded before, else 0 to 5.",
        ),
    ] = None,
    set_: Overrides = None,
    limit: Limit = None,
    metric: Metrics = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Run a suite and record its results for check. Options that are not given stay as recorded."""
    from benchmark.commands.check import record_baseline as record
    from benchmark.commands.run import pick_device
    from benchmark.core.progress import Progress
    from benchmark.gate.baseline import Scope, read_scope

    if not reason.strip():
        raise ConfigError("--reason is empty; say why the baseline is recorded")
    where = pick_device(device)
    set_threads(threads, quiet)
    given = {"suite": suite, "methods": method, "metrics": metric, "seeds": seed,
             "set": set_, "limit": limit}  # fmt: skip
    scope = read_scope(baseline).model_dump() if baseline.exists() else {}
    scope |= {key: value for key, value in given.items() if value}
    if "suite" not in scope:
        raise ConfigError("a first baseline needs --suite")
    scope.setdefault("seeds", tuple(range(6)))
    Progress(quiet).say(f"seeds: {', '.join(map(str, scope['seeds']))}")
    record(
        baseline,
        Scope.model_validate(scope),
        reason.strip(),
        data_root=data_root,
        device=where,
        progress=Progress(quiet),
    )
    print(f"baseline: {baseline} and {baseline.with_suffix('.pt')}")
