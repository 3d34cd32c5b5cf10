"""What ``evaluate`` and ``evaluate-model`` have in common: their options, and the printed table."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import (
    COMPUTING,
    MEASURE,
    OUTPUT,
    AsJson,
    DataRoot,
    Device,
    Precision,
    Quiet,
    Threads,
    set_threads,
)
from benchmark.cli.output import print_json, print_table, print_text
from benchmark.core.errors import ConfigError

if TYPE_CHECKING:
    from benchmark.commands.figures import AskedFigures
    from benchmark.commands.request import EvaluationRequest

_IMAGES = "Test images"
_RADII = "Radii"
_PGD = "PGD"
_CHEAPER = "Cheaper than AutoAttack"


@dataclass
class EvaluationOptions:
    """Options of ``evaluate`` and ``evaluate-model``."""

    panel: Annotated[
        str | None,
        typer.Option(
            help="Metrics by name, see list panels; default: the suite's, else standard.",
            rich_help_panel=MEASURE,
        ),
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this metric: a name, e.g. clean, or settings, e.g. '{kind: calibration}'; "
            "repeatable.",
            rich_help_panel=MEASURE,
        ),
    ] = None
    n: Annotated[
        int | None,
        typer.Option(min=1, help="Test images; all unless given.", rich_help_panel=_IMAGES),
    ] = None
    n_aa: Annotated[
        int | None,
        typer.Option(
            min=1, help="Those for AutoAttack; as --n unless given.", rich_help_panel=_IMAGES
        ),
    ] = None
    n_pgd: Annotated[
        int | None,
        typer.Option(min=1, help="Those for PGD; as --n unless given.", rich_help_panel=_IMAGES),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of samples and attacks; default: 0.",
            rich_help_panel=_IMAGES,
        ),
    ] = None
    eps: Annotated[
        list[str] | None,
        typer.Option(help="l_inf radius, e.g. 8/255; repeatable.", rich_help_panel=_RADII),
    ] = None
    eps_l2: Annotated[
        str | None,
        typer.Option(help="l_2 radius; default: 128/255.", rich_help_panel=_RADII),
    ] = None
    eps_l1: Annotated[
        str | None, typer.Option(help="l_1 radius; default: 12.", rich_help_panel=_RADII)
    ] = None
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of PGD.", rich_help_panel=_PGD)
    ] = None
    step: Annotated[
        str | None, typer.Option(help="Step size of PGD, e.g. 2/255.", rich_help_panel=_PGD)
    ] = None
    restarts: Annotated[
        int | None, typer.Option(min=1, help="Restarts of PGD.", rich_help_panel=_PGD)
    ] = None
    aa_budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Estimate AutoAttack from so many survivors of a cheap attack.",
            rich_help_panel=_CHEAPER,
        ),
    ] = None
    aa_halfwidth: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=49,
            help="The same, until the interval is +- so many points.",
            rich_help_panel=_CHEAPER,
        ),
    ] = None
    precision: Annotated[
        Precision,
        typer.Option(
            help="bf16: screenings in the place of AutoAttack and PGD.", rich_help_panel=_CHEAPER
        ),
    ] = Precision.fp32
    data_root: DataRoot = Path("data")
    device: Device = "auto"
    threads: Threads = None
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images per forward pass.", rich_help_panel=COMPUTING)
    ] = 256
    save_adversarial: Annotated[
        bool,
        typer.Option(
            "--save-adversarial",
            help="Also write AutoAttack's examples, as float tensors.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    json_: AsJson = False
    quiet: Quiet = False


def measure(options: EvaluationOptions, work: Callable[[EvaluationRequest], AskedFigures]) -> None:
    """Do ``work`` on what the options ask for, and print the figures that it gives.

    Raises:
        ConfigError: options that contradict each other, an unknown panel or wrong settings.
    """
    from benchmark.commands.options import Options
    from benchmark.commands.panels import named_and_given
    from benchmark.commands.request import CheaperAttack, EvaluationRequest
    from benchmark.commands.run import pick_device
    from benchmark.config.panels import PANELS
    from benchmark.core.progress import Progress
    from benchmark.core.ranks import ranks
    from benchmark.records.files import RunFiles
    from benchmark.records.study import shown_by

    given = options
    if given.panel:
        PANELS.get(given.panel)
    if given.save_adversarial and (given.aa_budget or given.aa_halfwidth):
        raise ConfigError(
            "--save-adversarial keeps AutoAttack's examples, and an estimate has none"
        )
    only, metrics = named_and_given(given.metric or ())
    set_threads(given.threads, given.quiet)
    with ranks() as together:
        measured = work(
            EvaluationRequest(
                data_root=given.data_root,
                device=pick_device(given.device),
                progress=Progress(given.quiet or not together.first),
                only=only,
                given=metrics,
                panel=given.panel,
                eps_linf=given.eps or (),
                eps_l2=given.eps_l2,
                eps_l1=given.eps_l1,
                options=Options(
                    n=given.n,
                    n_aa=given.n_aa,
                    n_pgd=given.n_pgd,
                    seed=given.seed,
                    steps=given.steps,
                    step=given.step,
                    restarts=given.restarts,
                ),
                cheaper=CheaperAttack(given.aa_budget, given.aa_halfwidth, given.precision.value),
                keep_adversarial=given.save_adversarial,
                batch_size=given.batch_size,
                ranks=together,
            )
        )
    if not together.first:
        return
    if given.json_:
        print_json(measured.figures)
        return
    _print_figures(measured)
    folders = list(dict.fromkeys(measured.records.values()))
    for folder in folders:
        print(f"record: {RunFiles(folder).evaluation}")
    studies = dict.fromkeys(str(shown_by(folder)) for folder in folders)
    print(f"next: {shlex.join(['generalist-bench', 'report', *studies])}")


def _print_figures(measured: AskedFigures) -> None:
    """A table, then what makes its figures doubtful, and the figures whose place they took."""
    from benchmark.records.study import read_cell
    from benchmark.report.undertrained import undertrained, undertrained_lines

    figures = measured.figures

    def percent(entry: dict[str, Any]) -> list[str]:
        ends = [entry[key] for key in ("low", "high") if key in entry]
        interval = "[" + ", ".join(f"{100 * end:.1f}" for end in ends) + "]" if ends else "-"
        return [f"{100 * entry['mean']:.2f}", interval, str(entry["n"])]

    rows = [
        [run_name, name, *percent(entry)]
        for run_name, metrics in figures.items()
        for name, entry in metrics.items()
    ]
    print_table("Accuracy in per cent", ["run", "metric", "accuracy", "95 % interval", "n"], rows)
    settings = [
        f"{name}: {entry['settings']}"
        for metrics in figures.values()
        for name, entry in metrics.items()
        if entry["settings"]
    ]
    doubted = {name: undertrained([read_cell(at)]) for name, at in measured.records.items()}
    lines = settings + undertrained_lines({name: why for name, why in doubted.items() if why})
    for run_name, metrics in figures.items():
        for name, entry in metrics.items():
            lines += [f"warning: {run_name}: {f['name']}: {f['text']}" for f in entry["findings"]]
            lines += [f"warning: {run_name}: {name}: {text}" for text in entry["warnings"]]
            for other in entry["earlier"]:
                figure, interval, n = percent(other)
                lines.append(
                    f"earlier: {run_name}: {name}: {figure} {interval}, n = {n}, of "
                    f"{other['reason']} {other['settings']}".rstrip()
                )
    # Settings are of a metric in all runs, a finding is of all metrics of a network.
    for line in dict.fromkeys(lines):
        print_text(line)
