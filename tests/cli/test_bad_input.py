"""Bad input ends with one clear message and status 2, before anything is written or trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmark import cli


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must fail."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["generalist-bench", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quik"], "did you mean 'quick'?"),
        (["rnu", "quick"], "did you mean 'run'?"),
        (["run", "quick", "--method", "trade"], "did you mean 'trades'"),
        (["run", "quick", "--set", "train.epoch=3"], "did you mean 'epochs'"),
        (["run", "quick", "--set", "threats.linf.eps=8"], "did you mean 8/255?"),
        (["run", "cifar10-cpu", "--data-root", "nowhere"], "CIFAR-10 was not found"),
        (["train", "--dataset", "cifar11"], "did you mean 'cifar10'"),
        (["train", "--model", "resnet19"], "did you mean"),
        (["evaluate"], "--model"),
        (["evaluate", "--model", "resnet18", "--checkpoint", "no.pth", "--dataset", "digits"],
         "no.pth"),
        (["evaluate", "--model", "resnet18", "--eps", "8"], "did you mean 8/255?"),
        (["report", "nowhere"], "nowhere"),
    ],
)  # fmt: skip
def test_wrong_words(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: a typing error costs a second, not a training run."""
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert not list(tmp_path.rglob("cells"))


@pytest.mark.parametrize(("fault", "message"), [("label", "label"), ("nan", "NaN")])
def test_wrong_data(
    fault: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: labels out of range and NaN pixels are found at the door."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = draw.random((20, 16, 16), dtype=np.float32)
        arrays[f"{split}_labels"] = np.arange(20).reshape(-1, 1) % 4
    if fault == "label":
        arrays["test_labels"][3] = -7
    else:
        arrays["train_images"][2, 5, 5] = np.nan
    np.savez(tmp_path / "set.npz", **arrays)
    text = fails(capsys, "train", "--dataset", "npz", "--set", "dataset.path=set.npz")
    assert message.lower() in text.lower()
    assert not list(tmp_path.rglob("training.json"))


def test_damaged_checkpoint_and_second_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: damage is named and a run has one writer; nothing that exists is touched."""
    from filelock import FileLock

    monkeypatch.chdir(tmp_path)
    train = ["train", "--method", "natural", "--limit", "32", "--out", "out", "-q"]
    train += ["--set", "train.epochs=1", "--set", "model.width=8", "--set", "train.batch_size=16"]
    monkeypatch.setattr(sys, "argv", ["generalist-bench", *train])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    (run,) = (tmp_path / "out" / "cells").glob("*")
    with FileLock(run / ".lock"):
        assert "another process" in fails(capsys, *train)
    (run / "training.json").unlink()
    content = bytearray((run / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "checkpoint.pt").write_bytes(content)
    assert "damaged" in fails(capsys, *train)
    assert (run / "checkpoint.pt").read_bytes() == bytes(content)
    assert (run / "deployed.pt").exists()
