"""``generalist-bench export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import OUTPUT, DataRoot, Threads, set_threads
from benchmark.core.errors import ConfigError


def export(
    run_: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluated run.")],
    hub: Annotated[
        bool, typer.Option("--hub", help="As a model repository of the Hugging Face Hub.")
    ] = False,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights, as the Hub spells it, e.g. cc-by-4.0."),
    ] = None,
    data_root: DataRoot = Path("data"),
    threads: Threads = None,
    out: Annotated[
        Path | None, typer.Option(help="Default: RUN/hub.", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Write a run as a Hugging Face model repository."""
    from benchmark.commands.export import export_to_hub

    if not hub:
        raise ConfigError("say what to export for: --hub, a model repository of Hugging Face")
    set_threads(threads, quiet=False)
    folder = export_to_hub(run_, data_root=data_root, out=out or run_ / "hub", license=license_)
    print(f"repository: {folder}")
    print(f"upload it by: hf upload OWNER/NAME {folder}")
