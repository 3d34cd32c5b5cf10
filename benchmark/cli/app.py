"""All commands in the order of ``--help``, and the entry point ``main``.

The files of commands import what they need inside their functions: ``--help`` and a typing error
answer at once, while torch takes seconds to import.
"""

from __future__ import annotations

import faulthandler
import io
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from benchmark.cli.check import check
from benchmark.cli.compare import compare
from benchmark.cli.config import config
from benchmark.cli.diagnose import diagnose
from benchmark.cli.evaluate import evaluate
from benchmark.cli.evaluate_model import evaluate_model
from benchmark.cli.export import export
from benchmark.cli.interpolate import interpolate
from benchmark.cli.list import list_
from benchmark.cli.record_baseline import record_baseline
from benchmark.cli.report import report
from benchmark.cli.run import run
from benchmark.cli.signature import flat
from benchmark.cli.speed import speed
from benchmark.cli.submit import submit
from benchmark.cli.theory import theory
from benchmark.cli.train import train
from benchmark.cli.tune import tune
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.registry import did_you_mean


class _Suggesting(TyperGroup):
    """A command group that names near misses of an unknown command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise ConfigError(
                f"unknown command {args[0]!r}; {did_you_mean(args[0], self.commands)}"
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        # Here, since typer would make 130 of every signal.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            (number,) = interrupt.args or (signal.SIGINT,)
            raise SystemExit(128 + number) from interrupt


app = typer.Typer(
    name="generalist-bench",
    help="Train, attack and compare adversarially robust classifiers.",
    epilog="A first look, in minutes and without data: generalist-bench run quick",
    cls=_Suggesting,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"generalist-bench {version('generalist-bench')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


_PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Start here": {
        "run": run,
        "report": report,
        "compare": compare,
        "evaluate": evaluate,
        "list": list_,
    },
    "More": {
        "train": train,
        "config": config,
        "tune": tune,
        "evaluate-model": evaluate_model,
        "diagnose": diagnose,
        "interpolate": interpolate,
        "theory": theory,
        "submit": submit,
        "export": export,
        "check": check,
        "record-baseline": record_baseline,
        "speed": speed,
    },
}
for _panel, _commands in _PANELS.items():
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_panel)(flat(_function))


_INTERRUPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # a shell's convention


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def main() -> None:
    """Entry point: errors meant for people in one line, exit status 2; 130 after Ctrl-C, 143 after
    SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?"
            stream.reconfigure(errors="replace")
    # A scheduler's SIGTERM is an interruption like any other.
    signal.signal(signal.SIGTERM, _terminate)
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash inside a library is no silent death
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        status = app(sys.argv[1:] or ["--help"], "generalist-bench", standalone_mode=False)
    except BenchmarkError as error:
        status = _fail(str(error))
    except SystemExit as end:
        status = end.code
    except Exception as error:
        # Typer's usage errors, whose class differs between its versions.
        if not hasattr(error, "format_message"):
            raise
        status = _fail(error.format_message())
    if status in _INTERRUPTED and os.environ.get("RANK", "0") == "0":
        command = shlex.join([*_started_as(), *sys.argv[1:]])
        print(f"\ninterrupted; finished work is kept. Continue with:\n  {command}", file=sys.stderr)
    sys.exit(status or 0)


def _started_as() -> list[str]:
    """What stands before the arguments, by oneself or under torchrun."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if processes == "1":
        return ["generalist-bench"]
    return ["torchrun", "--nproc-per-node", processes, "--no-python", "generalist-bench"]


def _fail(message: str) -> int:
    """Print an error in one line, or several errors in one line each."""
    text, *more = message.split("\n- ")
    print("error: " + " ".join(text.split()), file=sys.stderr)
    for line in more:
        print("  - " + " ".join(line.split()), file=sys.stderr)
    return 2
