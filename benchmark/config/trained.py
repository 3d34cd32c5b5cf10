"""Finds trained weights to which a configuration refers by a path; see ``core.weights``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import at_home, digest_path
from benchmark.core.hashing import file_digest
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_configuration


def found(given: Mapping[str, Any], *, with_model: bool) -> dict[str, Any]:
    """``given``, the mapping of a ``Weights`` with a path, with the absolute path of the file and
    the SHA-256 of its content.

    Args:
        with_model: add the architecture too, if a run's folder contains it.

    Raises:
        ValueError: there is no such file, the run is not trained, or the content does not match a
            SHA-256 that is given or stored next to it.
    """
    place = str(given["path"])
    complete = dict(given)
    try:
        path = at_home(Path(place)).resolve()
        if path.is_dir():
            path, model = _deployed(path, place)
            if with_model and complete.get("model") is None:
                complete["model"] = model
        if not path.is_file():
            raise ValueError(
                f"{place} does not exist; name the folder of a trained run or a checkpoint file, "
                "relative to the working directory"
            )
        digest = file_digest(path)
    except (BenchmarkError, OSError) as error:
        raise ValueError(f"{place} cannot be used: {error}") from error
    beside = digest_path(path)
    if beside.is_file() and digest not in beside.read_text(errors="replace").split():
        raise ValueError(
            f"{place} is damaged: the SHA-256 of {path.name} is not the one in {beside.name}; "
            "restore it from a copy, or name another"
        )
    if complete.get("sha256") not in (None, digest):
        raise ValueError(
            f"{place} is another file than the one asked for (its SHA-256 is {digest}); restore "
            "that one, or leave sha256 out"
        )
    return {**complete, "path": str(path), "sha256": digest}


def _deployed(run: Path, place: str) -> tuple[Path, dict[str, Any]]:
    """The weights that a run deploys, and the architecture of its suite."""
    files = RunFiles(run)
    if not files.configuration.exists():
        raise ValueError(
            f"{place} is no run's folder (it has no {files.configuration.name}); runs are in "
            "OUT/cells, or name a checkpoint file"
        )
    if not (files.training.exists() and files.deployed.exists()):
        raise ValueError(f"{place} is not trained to the end; finish that run first")
    return files.deployed, read_configuration(run)["config"]["model"]
