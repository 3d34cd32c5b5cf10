"""Atomic files: the old content or the new, whatever happens in between."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from benchmark.core import files
from benchmark.core.errors import BenchmarkError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "record.json"
    path.write_text("old")
    return path


def unharmed(path: Path) -> bool:
    """The old content, and no temporary file beside it."""
    return path.read_text() == "old" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_inside_leaves_the_old_content(old: Path, error: type[BaseException]) -> None:
    """Half-written files never take the name; other errors pass through as they are."""
    with pytest.raises(error), files.atomic_path(old) as temporary:
        temporary.write_text("half")
        assert old.read_text() == "old"
        raise error
    assert unharmed(old)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_is_one_clear_error(
    old: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, the cause and what to do; the old content stays."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(BenchmarkError, match=r"cannot write .*record\.json: No space left"):
        files.write_text(old, "new")
    assert unharmed(old)


def test_a_full_disk_while_writing(old: Path) -> None:
    """The same when the writer inside the block meets the error."""
    with pytest.raises(BenchmarkError, match="No space left"), files.atomic_path(old):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert unharmed(old)


def test_success_replaces_and_makes_folders(old: Path) -> None:
    """New content, readable by others, nothing else left; missing parents are made."""
    files.write_text(old, "new")
    assert old.read_text() == "new"
    assert old.stat().st_mode & 0o777 == 0o644
    assert list(old.parent.iterdir()) == [old]
    deep = old.parent / "a" / "b" / "c.json"
    files.write_json(deep, {"x": [1, 0.5]})
    assert files.read_json(deep) == {"x": [1, 0.5]}


def test_json_refuses_nan_and_keeps_the_old_file(old: Path) -> None:
    """A metric that is NaN must not be written as invalid JSON."""
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(old, {"accuracy": float("nan")})
    assert unharmed(old)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"{", "damaged"),
        (b"\xff\xfe", "damaged"),
        (b'{"mean": NaN}', "damaged"),
        (b"[" * 100_000, "damaged"),
        (b"9" * 5000, "damaged"),
    ],
)
def test_unreadable_json(tmp_path: Path, content: bytes | None, message: str) -> None:
    """Missing and damaged are told apart."""
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=message):
        files.read_json(path)
