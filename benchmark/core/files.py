"""Atomic files: a reader sees either the old content or the new, never a part of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.core.errors import BenchmarkError, ConfigError

if TYPE_CHECKING:
    import pandas as pd

# The environment variable that names the folder of the data sets, and the folder without it.
DATA_VARIABLE, _DATA = "GENERALIST_BENCH_DATA", "data"


def data_folder(given: str | Path | None) -> Path:
    """The folder ``given``, else that of the variable, else ``data``."""
    return Path(os.environ.get(DATA_VARIABLE) or _DATA) if given is None else Path(given)


def at_home(path: Path) -> Path:
    """``path`` with a leading ``~`` replaced by the home folder. A shell does this too, but not in
    ``--out=~/x`` and not in files.

    Raises:
        ConfigError: there is no such home folder.
    """
    if not str(path).startswith("~"):
        return path
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path}: there is no such home folder; write the whole path (or ./{path} for a folder "
            "of that name)"
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success flush it to disk and rename it to ``path``.

    Raises:
        BenchmarkError: the disk is full or the folder cannot be written; ``path`` is unchanged.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.part-", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o644)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise BenchmarkError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "--out, then run the same command again to resume"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Delete unfinished files of a killed process in ``folder``. No other process may be writing
    there."""
    for path in folder.glob(".*.part-*"):
        path.unlink(missing_ok=True)


def save_tensors(content: Any, temporary: Path, path: Path) -> None:
    """``torch.save`` to a temporary path of ``path``.

    Raises:
        BenchmarkError: the disk is full.
    """
    import torch  # noqa: PLC0415 - start-up time: reports are rendered without it

    try:
        with open(temporary, "wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch reports a full disk this way
        # torch's message is "unexpected pos 768 vs 662"; the file's own error is its context.
        behind = error.__context__
        reason = behind.strerror if isinstance(behind, OSError) else error
        raise BenchmarkError(
            f"cannot write {path}: {reason}; free some space and run the same command again"
        ) from error


def digest_path(path: Path) -> Path:
    """The file that holds the SHA-256 of a checkpoint."""
    return path.with_suffix(path.suffix + ".sha256")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically as UTF-8; bytes of file names that are not UTF-8 become ``?``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BenchmarkError: missing or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
    except FileNotFoundError as error:
        raise BenchmarkError(f"{path} is missing") from error
    except OSError as error:
        raise BenchmarkError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} is damaged ({error}); delete it and run again") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Equal keys are an error; ``json`` alone would silently keep the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:100]!r} is given twice")
        found[key] = value
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write ``frame`` atomically as Parquet with a checksum per page, without its index."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, engine="pyarrow", write_page_checksum=True)


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet file and verify its checksums, if it has them.

    Raises:
        Exception: the file is damaged; pyarrow raises exceptions of several classes.
    """
    import pandas as pd  # noqa: PLC0415 - start-up time: evaluation.json is read without it

    # Without checksums, one flipped bit in seven is read as a different outcome, without an error.
    return pd.read_parquet(path, engine="pyarrow", page_checksum_verification=True)
