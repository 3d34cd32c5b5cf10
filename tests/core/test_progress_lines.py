"""Progress without a terminal: plain lines on standard error, now and then."""

from __future__ import annotations

from functools import partial

import pytest
from rich.console import Console
from tqdm import tqdm

from benchmark.core import progress
from benchmark.core.progress import Progress, duration


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (95, "1m35s"), (7260, "2h01m")]
)
def test_duration(seconds: float, text: str) -> None:
    """No "60s" and no "0m"."""
    assert duration(seconds) == text


def test_lines_come_every_15_seconds_with_time_left(
    clock: Clock, capsys: pytest.CaptureFixture
) -> None:
    """Ten units in ten seconds are silent; later lines give share, pace and note."""
    with Progress().task("train", 100, done=20) as task:
        clock.now = 10.0
        task.advance(10)
        assert capsys.readouterr().err == ""
        clock.now = 20.0
        task.advance(10, note="loss 1.5")
        output = capsys.readouterr()
        # 20 fresh units in 20 s: the 60 that are left take 60 s; the first 20 are not counted.
        assert output.err == "  train: 40/100 (40 %), 1m00s left  loss 1.5\n"
        assert output.out == ""
        clock.now = 30.0
        task.advance(1)
        assert capsys.readouterr().err == ""
        task.resize(62)
        clock.now = 42.0
        task.advance(1)
        assert capsys.readouterr().err.startswith("  train: 42/62 (68 %)")


def test_quiet_says_nothing_but_counts(clock: Clock, capsys: pytest.CaptureFixture) -> None:
    """--quiet is silent; the task still works."""
    quiet = Progress(quiet=True)
    quiet.say("hello")
    with quiet.task("train", 2) as task:
        assert task.eta() is None
        clock.now = 60.0
        task.advance()
        assert task.eta() == pytest.approx(60)
    assert capsys.readouterr().err == ""


def test_say_goes_to_standard_error(capsys: pytest.CaptureFixture) -> None:
    """Standard output is for results, so that it can be piped; brackets are no markup."""
    Progress().say("[bold] 3/4")
    output = capsys.readouterr()
    assert output.err == "[bold] 3/4\n"
    assert output.out == ""


def test_a_notebook_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Also where the notebook has no widgets, as here."""
    shown = Progress()
    monkeypatch.setattr(shown, "_console", Console(stderr=True, force_jupyter=True))
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, mininterval=0))
    with shown.task("train", 4, done=1) as task:
        task.advance(1, note="loss 1.5")
        task.resize(8)
        task.advance(6)
    output = capsys.readouterr()
    assert "train" in output.err
    assert "8/8" in output.err
    assert output.out == ""
