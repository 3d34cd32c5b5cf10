"""Reads the configuration of a run from its record."""

from __future__ import annotations

from pathlib import Path

from benchmark.config.suite import CellConfig
from benchmark.core.config import parse
from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_configuration


def read_cell_config(directory: Path) -> tuple[str, CellConfig]:
    """Label and configuration of a run.

    Raises:
        BenchmarkError: no run, or one whose configuration does not have the recorded hash.
    """
    record = read_configuration(directory)
    config = record["config"]
    method, _ = config.pop("method"), config.pop("suite")
    path = RunFiles(directory).configuration
    try:
        cell = parse(CellConfig, {**config, "recipe": method["recipe"]}, where=str(directory))
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(
            f"{path} is damaged ({type(error).__name__}: {error}); delete the run's folder to "
            "train it from the start"
        ) from error
    if cell.hash != record["hash"]:
        raise BenchmarkError(
            f"{path} does not have the hash it states: it was edited, or written by another "
            "version; restore it, or delete the run's folder"
        )
    return method["label"], cell
