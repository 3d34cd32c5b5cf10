"""The contract of a logger, which shows runs in another tool while they train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from benchmark.core.errors import ConfigError
from benchmark.core.registry import Registry

# How the work on a run ended in this process.
End = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is told of a run when it opens.

    Attributes:
        name: of the run's folder, with method, seed and hash; unique in its study.
        method: the row of the tables that it belongs to.
        suite: the name of its suite.
        folder: of the run, absolute; study: the folder that the suite writes to, absolute.
        config: the resolved configuration, as in ``config.json``.
        id: by which the logger knows the run from before; None if it is new to it.
        quiet: print nothing.
    """

    name: str
    method: str
    suite: str
    folder: Path
    study: Path
    config: Mapping[str, Any]
    id: str | None
    quiet: bool


class Logger(ABC):
    """One run in another tool. Its entry point (group ``generalist_bench.loggers``) gives the class
    its name.

    A logger copies what is on record and may raise any exception: the record is whole without it.

    Args:
        run: to be opened, or to be gone on with where it has an ``id``.

    Attributes:
        package: the module that must be installed; install: what pip installs it by.
        id: by which a later process goes on with the run; None where none is needed.
        place: one line that says where the run can be seen.
    """

    package: ClassVar[str]
    install: ClassVar[str]
    id: str | None = None
    place: str = ""

    @abstractmethod
    def __init__(self, run: LoggedRun) -> None: ...

    @abstractmethod
    def line(self, step: int, values: Mapping[str, float]) -> None:
        """A line of the curves, after ``step`` optimiser steps."""

    @abstractmethod
    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of the evaluation, after the last step; again if some are measured anew."""

    @abstractmethod
    def close(self, end: End) -> None:
        """Bring out all that was logged, and say how the work ended."""


LOGGERS: Registry[type[Logger]] = Registry("logger", "generalist_bench.loggers")


def check_loggers(names: Iterable[str]) -> None:
    """Raise ConfigError: an unknown logger, or one whose package is not installed."""
    for name in names:
        logger = LOGGERS.get(name)
        if find_spec(logger.package) is None:
            raise ConfigError(
                f"--log {name} needs the {logger.package} package: pip install '{logger.install}'"
            )
