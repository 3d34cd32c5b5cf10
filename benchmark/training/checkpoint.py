"""Checkpoints: written atomically with their hash beside them, loaded with ``weights_only``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmark.core.errors import CheckpointError
from benchmark.core.files import atomic_path, digest_path, save_tensors, write_text
from benchmark.core.hashing import file_digest

_REMEDY = "restore it from a copy, or delete the run's folder to train it from the start"


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def rotate(path: Path) -> None:
    """Make the file at ``path`` the previous checkpoint; a ``save`` should follow.

    Raises:
        BenchmarkError: the folder cannot be written.
    """
    if not path.exists():
        return
    kept = previous(path)
    # The digests of both files are written first: whenever the process is killed, the file that is
    # in place has its digest on record.
    known = [*_digests(digest_path(path)), *_digests(digest_path(kept))]
    write_text(digest_path(kept), "".join(f"{digest}\n" for digest in dict.fromkeys(known)))
    os.replace(path, kept)
    write_text(digest_path(kept), "".join(f"{d}\n" for d in _digests(digest_path(path))))


def load_last_good(path: Path) -> tuple[dict[str, Any], str]:
    """The checkpoint at ``path``, or the previous one if that is damaged or missing.

    Returns:
        The state, and what is wrong with the newer file ("" if nothing).

    Raises:
        CheckpointError: neither file can be used.
    """
    try:
        return load(path), ""
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        try:
            return load(previous(path)), str(error).partition(";")[0]  # without the advice
        except CheckpointError as other:
            raise CheckpointError(f"{error}; {other}") from other


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` to ``path``, and its SHA-256 to a file beside it.

    A state dict keeps torch's ``_metadata``, which records the architecture's options.

    The new digest is added before the file is written, and older digests are removed after it:
    whenever the process is killed, the file that is in place has its digest on record.

    Raises:
        BenchmarkError: the disk is full or the folder cannot be written; ``path`` is unchanged.
    """
    digests = digest_path(path)
    with atomic_path(path) as temporary:
        save_tensors(state, temporary, path)
        digest = file_digest(temporary)
        write_text(digests, "".join(f"{known}\n" for known in [digest, *_digests(digests)]))
    write_text(digests, f"{digest}\n")


def _digests(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").split() if path.is_file() else []


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint written by ``save``, on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged (wrong hash), or holds something that is
            neither a tensor nor a plain value.
    """
    digests = digest_path(path)
    if not path.is_file() or not digests.is_file():
        missing = path if not path.is_file() else digests
        raise CheckpointError(f"checkpoint file {missing} is missing; {_REMEDY}")
    # Several digests are valid, since a kill can come between writing the digest and the file.
    if file_digest(path) not in _digests(digests):
        raise CheckpointError(
            f"checkpoint {path} is damaged (its SHA-256 is not the recorded one); {_REMEDY}"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error}); {_REMEDY}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {path} does not hold a mapping; {_REMEDY}")
    return state
