"""Loggers follow the record of a run: they get what it says and they were not sent yet."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmark.core.errors import BenchmarkError
from benchmark.core.progress import Progress
from benchmark.loggers.logger import LOGGERS, End, LoggedRun, Logger
from benchmark.records.files import RunFiles
from benchmark.records.schema import (
    Followed,
    Logged,
    read_configuration,
    read_logged,
    write_logged,
)
from benchmark.records.study import read_curves


class Following:
    """The loggers of one run; see ``following``."""

    def __init__(self, names: Sequence[str], directory: Path, progress: Progress) -> None:
        self._directory, self._progress = directory, progress
        self._names = list(dict.fromkeys(names))
        self._open: dict[str, Logger] = {}
        self._sent: dict[str, Followed] = {}
        if names and RunFiles(directory).logged.exists():
            self._sent = read_logged(directory).loggers

    def begin(self) -> None:
        """Open every logger, before there is anything to lose, and send it what is on record.

        Raises:
            BenchmarkError: one of them cannot be opened.
        """
        for name in list(self._names):  # which loses those that fail
            if name not in self._open:
                self._begin(name)

    def line(self, line: Mapping[str, float]) -> None:
        """A line that was just added to the curves. A step that was sent before training was
        interrupted, and is now repeated, is not sent again."""
        for name in list(self._open):
            self._send_line(name, line)

    def catch_up(self, step: int, figures: Mapping[str, float]) -> None:
        """Send what is on record and was not sent yet, as after a failure, or where a run was made
        without loggers. Those for which there is nothing stay closed.

        Args:
            step: the last of training.
            figures: of the evaluation; empty if there is none.

        Raises:
            BenchmarkError: a logger cannot be opened.
        """
        for name in list(self._names):
            known = self._sent.get(name)
            changed = figures if known is None or known.figures != figures else {}
            if name not in self._open and (changed or self._rest(name)):
                self._begin(name)
            if changed and name in self._open:
                self._send_figures(name, step, changed)

    def close(self, end: End) -> None:
        """Close what is open."""
        for name, logger in list(self._open.items()):
            del self._open[name]
            try:
                logger.close(end)
            except Exception as error:  # of somebody else's code and network
                self._warn(name, f"could not be closed ({_reason(error)})")

    def _begin(self, name: str) -> None:
        record, known = read_configuration(self._directory)["config"], self._sent.get(name)
        run = LoggedRun(
            name=self._directory.name,
            method=record["method"]["label"],
            suite=record["suite"],
            folder=self._directory.resolve(),
            study=self._directory.resolve().parent.parent,
            config=record,
            id=known.id if known else None,
            quiet=self._progress.quiet,
        )
        try:
            logger = LOGGERS.get(name)(run)
        except Exception as error:  # of somebody else's code and network
            anew = f", or delete {RunFiles(run.folder).logged} to log the run anew"
            raise BenchmarkError(
                f"--log {name} cannot begin: {_reason(error)}; mend that, or leave --log {name} out"
                + (anew if run.id else "")
            ) from error
        self._open[name] = logger
        self._note(
            name,
            Followed(
                id=logger.id,
                step=known.step if known else None,
                figures=known.figures if known else {},
            ),
        )
        self._progress.say(f"  {name}: {logger.place}")
        for line in self._rest(name):
            self._send_line(name, line)

    def _rest(self, name: str) -> list[dict[str, float]]:
        """The lines of the curves that the logger was not sent."""
        curves = read_curves(RunFiles(self._directory).curves).to_dict("records")
        lines = [{str(key): value for key, value in line.items()} for line in curves]
        return [line for line in lines if line["step"] > self._last(name)]

    def _last(self, name: str) -> float:
        """The step of the last line that the logger was sent."""
        known = self._sent.get(name)
        return -1 if known is None or known.step is None else known.step

    def _send_line(self, name: str, line: Mapping[str, float]) -> None:
        step = int(line["step"])
        if name not in self._open or step <= self._last(name):
            return
        values = {
            key: float(value)
            for key, value in line.items()
            if key != "step" and value is not None and math.isfinite(value)
        }
        try:
            self._open[name].line(step, values)
            self._note(name, self._sent[name].model_copy(update={"step": step}))
        except Exception as error:  # of somebody else's code and network
            self._give_up(name, error)

    def _send_figures(self, name: str, step: int, figures: Mapping[str, float]) -> None:
        try:
            self._open[name].figures(step, figures)
            known = self._sent[name].model_copy(update={"figures": dict(figures)})
            self._note(name, known)
        except Exception as error:  # of somebody else's code and network
            self._give_up(name, error)

    def _note(self, name: str, followed: Followed) -> None:
        self._sent[name] = followed
        write_logged(self._directory, Logged(loggers=self._sent))

    def _give_up(self, name: str, error: Exception) -> None:
        """The work is worth more than its log."""
        self._warn(
            name,
            f"failed ({_reason(error)}) and gets nothing more of this run now. The work goes on, "
            "and its record is whole; run the same command again to send the rest",
        )
        logger = self._open.pop(name)
        self._names.remove(name)
        try:
            logger.close("failed")
        except Exception as second:  # most often the same
            self._warn(name, f"could not be closed ({_reason(second)})")

    def _warn(self, name: str, text: str) -> None:
        said = f"{self._directory.name}: --log {name} {text}"
        self._progress.say(f"  WARNING, {said}")
        if self._progress.quiet:  # it is to be heard all the same
            warnings.warn(said, stacklevel=2)


@contextmanager
def following(names: Sequence[str], directory: Path, progress: Progress) -> Iterator[Following]:
    """Loggers that follow the run in ``directory`` inside the block, and are closed after it.

    What goes wrong while a logger is opened is an error, since nothing is computed by then. What
    goes wrong later ends the logger with a warning, and not the work.

    Args:
        names: of ``LOGGERS``; see ``check_loggers``.

    Raises:
        BenchmarkError: a damaged ``logged.json``.
    """
    loggers = Following(names, directory, progress)
    end: End = "failed"
    try:
        yield loggers
        end = "finished"
    except KeyboardInterrupt:
        end = "interrupted"
        raise
    finally:
        loggers.close(end)


def _reason(error: Exception) -> str:
    """The first line of a foreign error."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:200].rstrip('.')}" if line else type(error).__name__
