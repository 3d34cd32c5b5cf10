"""Checkpoint files: damage is noticed, a full disk loses nothing."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.core.errors import BenchmarkError, CheckpointError
from benchmark.core.hashing import file_digest, tensors_hash
from benchmark.training import checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"w": torch.arange(1000.0), "step": 3})
    return path


def test_what_is_saved_is_loaded(saved: Path) -> None:
    state = checkpoint.load(saved)
    assert state["step"] == 3
    assert torch.equal(state["w"], torch.arange(1000.0))
    assert sorted(p.name for p in saved.parent.iterdir()) == [
        "checkpoint.pt", "checkpoint.pt.sha256"
    ]  # fmt: skip


def test_every_kind_of_damage_is_noticed(saved: Path) -> None:
    content = saved.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (bytes(flipped), content[:-1], content[:50], b""):
        saved.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.load(saved)


def test_a_missing_or_garbled_digest_is_noticed(saved: Path) -> None:
    digest = saved.with_name("checkpoint.pt.sha256")
    digest.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load(saved)
    digest.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.load(saved)


def test_code_in_a_checkpoint_is_not_run(saved: Path) -> None:
    saved.write_bytes(pickle.dumps(Path("x")))
    saved.with_name("checkpoint.pt.sha256").write_text(file_digest(saved))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed")],
)
def test_a_full_disk_keeps_the_old_checkpoint(
    failure: Exception, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: Any, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise failure

    before = saved.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(BenchmarkError, match=r"cannot write .*checkpoint\.pt.*space"):
            checkpoint.save(saved, {"step": 4})
    assert saved.read_bytes() == before
    assert checkpoint.load(saved)["step"] == 3
    assert len(list(saved.parent.iterdir())) == 2


def test_the_last_good_checkpoint_is_kept(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two writes, one of the two checkpoints is whole and known."""
    for step in (4, 5):
        checkpoint.rotate(saved)
        checkpoint.save(saved, {"step": step})
    assert checkpoint.load_last_good(saved) == ({"step": 5}, "")
    saved.write_bytes(b"damaged")
    state, damage = checkpoint.load_last_good(saved)
    assert state == {"step": 4}
    assert "checkpoint.pt is damaged" in damage

    class Killed(BaseException):
        pass

    replace, calls, last, step = os.replace, 0, -1, 5
    checkpoint.save(saved, {"step": 5})

    def counted(source: Any, target: Any) -> None:
        nonlocal calls
        if calls == last:
            raise Killed
        calls += 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", counted)
    for stop in range(7):  # a rotation and a save replace a file six times
        calls, last = 0, stop
        try:
            checkpoint.rotate(saved)
            checkpoint.save(saved, {"step": step + 1})
        except Killed:
            pass
        found = checkpoint.load_last_good(saved)[0]["step"]
        assert found in (step, step + 1)
        step = found
    assert calls == 6


def test_the_hash_of_weights_sees_names_types_shapes_and_values() -> None:
    state = {"a": torch.zeros(4), "b": torch.tensor(1)}
    reference = tensors_hash(state)
    assert tensors_hash(dict(reversed(state.items()))) == reference
    for other in (
        {"a": torch.zeros(2, 2), "b": torch.tensor(1)},
        {"a": torch.zeros(4).double(), "b": torch.tensor(1)},
        {"a": torch.zeros(4), "c": torch.tensor(1)},
        {"a": torch.tensor([0.0, 0, 0, 1e-30]), "b": torch.tensor(1)},
    ):
        assert tensors_hash(other) != reference
    conv = torch.rand(2, 3, 4, 4)
    layout = conv.to(memory_format=torch.channels_last)
    assert tensors_hash({"w": conv}) == tensors_hash({"w": layout})
