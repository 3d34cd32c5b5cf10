"""An AutoAttack that is killed and started again ends as one that never stopped."""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from test_autoattack import EPS, attack, digits, trained
from torch import Tensor, nn

from benchmark.attacks import autoattack
from benchmark.attacks.autoattack import AutoAttackResult
from benchmark.attacks.folding import FoldedView
from benchmark.core.errors import BenchmarkError

SETTINGS: dict[str, Any] = {"attacks": ["apgd-ce", "fab-t", "apgd-t"], "batch_size": 4}


class Killed(BaseException):
    """Stands for a signal at any moment."""


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return trained(6)


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    x, y = digits(6)
    return x[-12:].clone(), y[-12:].clone()


@pytest.fixture(scope="module")
def whole(model: nn.Module, data: tuple[Tensor, Tensor]) -> AutoAttackResult:
    return attack(model, *data, **SETTINGS)


class Bomb:
    """Raises ``Killed`` at the n-th forward pass of an attack; counts the batches that were run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.batches = 0
        forward, make = FoldedView.forward, autoattack.attack_objects

        def pass_(view: FoldedView, x: Tensor) -> Tensor:  # which only the attacks call
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            return forward(view, x)

        def watched(perturb: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def run(x: Tensor, y: Tensor) -> Tensor:
                self.batches += 1
                return perturb(x, y)

            return run

        def objects(*arguments: Any) -> AutoAttack:
            made = make(*arguments)
            for method in (made.apgd, made.apgd_targeted, made.fab, made.square):
                method.perturb = watched(method.perturb)
            return made

        monkeypatch.setattr(FoldedView, "forward", pass_)
        monkeypatch.setattr(autoattack, "attack_objects", objects)


@pytest.fixture
def bomb(monkeypatch: pytest.MonkeyPatch) -> Bomb:
    return Bomb(monkeypatch)


def same(one: AutoAttackResult, other: AutoAttackResult) -> bool:
    tensors = ("robust", "clean", "disputed", "x_adv")
    return all(torch.equal(getattr(one, t), getattr(other, t)) for t in tensors) and (
        (one.after, one.attacks, one.targets) == (other.after, other.attacks, other.targets)
    )


def test_twenty_kills_at_random_moments(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    whole: AutoAttackResult,
    bomb: Bomb,
    tmp_path: Path,
) -> None:
    """Bit by bit the same, and each kill costs at most the batch it fell into."""
    attack(model, *data, **SETTINGS)
    needed, bomb.batches = bomb.batches, 0
    draw, kills = random.Random(0), 0
    while True:
        bomb.left = draw.randrange(400) if kills < 20 else None
        try:
            result = attack(model, *data, **SETTINGS, journal=tmp_path / "journal")
            break
        except Killed:
            kills += 1
    assert kills == 20
    assert same(result, whole)
    assert bomb.batches <= needed + kills
    # what is finished is not run again at all
    bomb.batches, bomb.left = 0, None
    assert same(attack(model, *data, **SETTINGS, journal=tmp_path / "journal"), whole)
    assert bomb.batches == 0


def test_a_disk_that_is_full_again_and_again(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    whole: AutoAttackResult,
    bomb: Bomb,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One clear error, no rest of a file, finished batches kept, and in the end the same result."""
    save, room = torch.save, 0

    def small(content: Any, file: Any) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            file.write(b"half a batch")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(content, file)

    monkeypatch.setattr(torch, "save", small)
    messages: list[str] = []
    while True:
        room, bomb.batches = 2, 0
        try:
            result = attack(model, *data, **SETTINGS, journal=tmp_path / "journal")
            break
        except BenchmarkError as error:
            messages.append(str(error))
        assert bomb.batches == 3  # two that found room, and the one that did not
        assert not list(tmp_path.rglob("*.part-*"))
    assert len(messages) >= 2
    for message in messages:
        assert re.search("cannot write .*: No space left on device; free some", message)
    assert same(result, whole)


def test_without_a_journal_nothing_is_written(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack(model, *data, attacks=["apgd-ce"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"eps": EPS["linf"] / 2}, "eps"),
        ({"seed": 1}, "seed"),
        ({"norm": "l2", "eps": EPS["l2"]}, "eps, norm"),
        ({"batch_size": 5}, "batch_size"),
        ({"attacks": ["apgd-ce"]}, "attacks"),
        ({"fold": False}, "folded"),
        ("weights", "weights"),
        ("images", "images"),
    ],
)
def test_another_attack_is_refused(
    change: Any, named: str, data: tuple[Tensor, Tensor], bomb: Bomb, tmp_path: Path
) -> None:
    """Protects: outcomes of one model or eps must never be reused for another."""
    model, (x, y) = trained(6, steps=20), data
    bomb.left = 300
    with pytest.raises(Killed):
        attack(model, x, y, **SETTINGS, journal=tmp_path)
    bomb.left = None
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    settings = dict(SETTINGS)
    if change == "weights":
        with torch.no_grad():
            next(model.parameters()).mul_(1.001)
    elif change == "images":
        x = (x + 0.01).clamp(0, 1)
    else:
        settings |= change
    with pytest.raises(BenchmarkError, match=f"another {named}"):
        attack(model, x, y, **settings, journal=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_a_damaged_batch_is_made_anew(
    damage: str,
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    whole: AutoAttackResult,
    bomb: Bomb,
    tmp_path: Path,
) -> None:
    attack(model, *data, **SETTINGS, journal=tmp_path)
    path = sorted(tmp_path.glob("apgd-ce-*.pt"))[0]
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-200:]
    elif damage == "flip":
        place = content.find(b"predictions/data") if b"predictions/data" in content else 700
        content[place] ^= 0xFF
    else:
        content = bytearray(b"not a file of torch")
    path.write_bytes(bytes(content))
    bomb.batches = 0
    assert same(attack(model, *data, **SETTINGS, journal=tmp_path), whole)
    assert bomb.batches <= 1


def test_warnings_survive_a_kill(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    bomb: Bomb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Protects: a zero-gradient warning of a finished batch, on which a submission is refused."""
    perturb = APGDAttack.perturb

    def warning(self: APGDAttack, x: Tensor, y: Tensor) -> Tensor:
        self.logger.warning("seen in a batch")
        return perturb(self, x, y)

    monkeypatch.setattr(APGDAttack, "perturb", warning)
    settings: dict[str, Any] = {"attacks": ["apgd-ce", "fab-t"], "batch_size": 12}
    whole = attack(model, *data, **settings)
    assert "seen in a batch" in whole.warnings
    bomb.left = 300  # APGD-CE is over
    with pytest.raises(Killed):
        attack(model, *data, **settings, journal=tmp_path)
    assert list(tmp_path.glob("apgd-ce-*.pt"))
    bomb.left = None
    assert attack(model, *data, **settings, journal=tmp_path).warnings == whole.warnings
