"""``generalist-bench tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import (
    OUTPUT,
    AsJson,
    DataRoot,
    Device,
    Limit,
    Methods,
    Overrides,
    Quiet,
    Threads,
    set_threads,
)
from benchmark.cli.output import print_json, print_table
from benchmark.core.errors import ConfigError


def tune(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name, or a YAML file.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings of each method.")] = None,
    passes: Annotated[
        float | None,
        typer.Option(min=1, help="Instead: gradient passes that each method may spend."),
    ] = None,
    method: Methods = None,
    tuning_seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Seed of the trials and of the search."),
    ] = 1000,
    set_: Overrides = None,
    limit: Limit = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    threads: Threads = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where results go; default: runs/SUITE-tuning.", rich_help_panel=OUTPUT),
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tune all methods of SUITE with the same effort.

    Trials are judged on the validation split. Run it again to continue.
    """
    from benchmark.commands.run import pick_device
    from benchmark.commands.tune import tune as search
    from benchmark.config.suite import load_suite
    from benchmark.core.progress import Progress
    from benchmark.records.schema import read_tuning

    if (trials is None) == (passes is None):
        raise ConfigError("give either --trials or --passes: what each method may spend")
    full = load_suite(suite, set_ or (), {"dataset": {"limit": limit}})
    chosen = full.only(method or (), ())
    set_threads(threads, quiet)
    folder = out or Path("runs") / f"{full.name}-tuning"
    path = search(
        chosen,
        folder,
        trials=trials,
        passes=passes,
        seed=tuning_seed,
        data_root=data_root,
        device=pick_device(device),
        progress=Progress(quiet),
    )
    record = read_tuning(folder)
    if json_:
        print_json({**record, "suite_file": str(path)})
        return
    rows = []
    for label, done in record["trials"].items():
        scored = [trial for trial in done if trial["score"] is not None]
        if not scored:
            continue
        best, first = max(scored, key=lambda trial: trial["score"]), done[0]
        values = ", ".join(f"{name} {value:.3g}" for name, value in best["values"].items())
        rows.append(
            [
                label,
                str(len(done)),
                "diverged" if first["score"] is None else f"{100 * first['score']:.1f}",
                f"{100 * best['score']:.1f}",
                values or "the suite's own",
            ]
        )
    if not rows:
        print("no trial has a score yet: every training diverged; see the trials in", folder)
        return
    print_table(
        f"{full.name}: mean of clean and PGD accuracy on the validation split, in per cent",
        ["method", "trials", "suite's settings", "best", "best settings"],
        rows,
    )
    print(f"\nThe best settings, for fresh seeds: generalist-bench run {path}")
