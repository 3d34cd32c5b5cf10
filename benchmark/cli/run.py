"""``generalist-bench run``."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.cells import CellOptions, print_plan, run_cells
from benchmark.cli.options import OUTPUT, Intervals, Methods, set_threads
from benchmark.core.errors import ConfigError

if TYPE_CHECKING:
    from benchmark.commands.ray_engine import RayEngine

_RAY = "On a Ray cluster"


class EngineName(str, Enum):
    """Where the cells of a suite run."""

    local = "local"
    ray = "ray"


def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite's name, or a YAML file.")],
    options: CellOptions,
    method: Methods = None,
    intervals: Intervals = False,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="With --dry-run: for a GPU that sustains so many 10^12 operations per second, "
            "and published sizes of data.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    device_name: Annotated[
        str | None,
        typer.Option(
            help="With --dry-run: the same for a card by its data sheet, such as a100 or rtx4090.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    engine: Annotated[
        EngineName,
        typer.Option(help="Cells one by one here, or on a Ray cluster.", rich_help_panel=_RAY),
    ] = EngineName.local,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of a Ray cluster; default: RAY_ADDRESS, else a Ray on this machine.",
            rich_help_panel=_RAY,
        ),
    ] = None,
    cpus_per_cell: Annotated[
        int | None,
        typer.Option(
            min=1, help="For Ray: cores and torch threads; default: 1.", rich_help_panel=_RAY
        ),
    ] = None,
    gpus_per_cell: Annotated[
        float | None,
        typer.Option(
            min=0, help="For Ray; default: 1 if the cluster has GPUs.", rich_help_panel=_RAY
        ),
    ] = None,
) -> None:
    """Train, evaluate and report every cell of SUITE. Run it again to continue."""
    from benchmark.config.suite import load_suite

    full = load_suite(suite, options.set_ or (), options.extra())
    chosen = full.only(method or (), options.seed or ())
    if tflops or device_name:
        from benchmark.commands.gpus import sustained

        if not options.dry_run:
            option = "--tflops" if tflops else "--device-name"
            raise ConfigError(f"{option} is for an estimate; add --dry-run, or leave it out")
        assumed = sustained(device_name, tflops, chosen.train.precision)
        print_plan(chosen, options, chosen.evaluation, assumed)
        return
    where = _engine(engine, address, cpus_per_cell, gpus_per_cell)
    if where and options.threads:
        raise ConfigError(
            "with --engine ray, --cpus-per-cell sets the threads; leave --threads out"
        )
    set_threads(options.threads, options.quiet)
    run_cells(chosen, full, options, evaluate=True, engine=where, intervals=intervals)


def _engine(
    name: EngineName, address: str | None, cpus: int | None, gpus: float | None
) -> RayEngine | None:
    """A Ray engine, or None for the local one."""
    if name is EngineName.ray:
        from benchmark.commands.ray_engine import RayEngine

        return RayEngine(address, cpus or 1, gpus)
    given = {"--address": address, "--cpus-per-cell": cpus, "--gpus-per-cell": gpus}
    wrong = [option for option, value in given.items() if value is not None]
    if wrong:
        raise ConfigError(f"{wrong[0]} is for --engine ray; add that, or leave {wrong[0]} out")
    return None
