"""Progress without a terminal: plain lines on standard error, now and then."""

from __future__ import annotations

import io
import re
from functools import partial

import pytest
from rich.console import Console
from tqdm import tqdm

from benchmark.commands import time_left
from benchmark.core import progress
from benchmark.core.progress import Progress, duration
from benchmark.core.shorten import shorten, shorten_all


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
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (95, "1m35s"),
        (7260, "2h01m"),
        (172_800, "48h00m"),
        (277_200, "3d05h"),
    ],
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


def test_the_suite_has_its_own_time_left(
    clock: Clock, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two cells: the running training's rest, the other's at its pace, and evaluations, first at
    most at the pace of training, then at that of an evaluation that is over."""
    monkeypatch.setattr(time_left, "time", clock)
    names = {kind: [f"{kind} {cell}" for cell in "ab"] for kind in ("training", "evaluation")}
    work = dict.fromkeys(names["training"], 1000.0) | dict.fromkeys(names["evaluation"], 2000.0)
    progress = Progress()
    progress.whole = time_left.TimeLeft(work)
    with progress.stage(names["training"][0]), progress.task("train a", 100) as task:
        clock.now = 20.0
        task.advance(50)
        # 1000 passes take 40 s: 20 + 40 of training, 2 x 80 of evaluation
        assert capsys.readouterr().err == (
            "  train a: 50/100 (50 %), 20s left, suite: at most 3m40s\n"
        )
        clock.now = 40.0
    with progress.stage(names["evaluation"][0]), progress.task("a: clean", 10) as task:
        clock.now = 60.0
        task.advance(10)
        assert "0s left, suite: at most 3m00s" in capsys.readouterr().err  # 60 + 40 + 80
    with progress.stage(names["training"][1]), progress.task("train b", 100, done=50) as task:
        clock.now = 80.0
        task.advance(25)
        assert "20s left, suite: 40s" in capsys.readouterr().err  # evaluation took 20 s
        clock.now = 100.0
    assert isinstance(progress.whole, time_left.TimeLeft)
    with pytest.raises(ValueError, match="x"), progress.stage(names["evaluation"][1]):
        raise ValueError("x")
    with progress.stage("evaluation c"), progress.task("c", 10) as task:
        clock.now = 120.0
        task.advance(5)
        assert "20s left, suite: 20s" in capsys.readouterr().err  # nothing else is left


def test_bars_keep_what_tells_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: "train generalist-official-wi" in 80 columns, for each of three seeds."""
    monkeypatch.setenv("COLUMNS", "80")
    screen = io.StringIO()
    shown = Progress()
    monkeypatch.setattr(
        shown, "_console", Console(file=screen, force_terminal=True, width=80, highlight=False)
    )
    shown.whole = time_left.TimeLeft({"training a": 9e9})
    with (
        shown.stage("training a"),
        shown.task("train generalist-official-wide-s2-0123456789", 255_030) as task,
    ):
        task.started -= 3000
        task.advance(3000, note="val clean 97.0 pgd 25.4")
    text = re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if "train" in line]
    assert all("train gen" in line and "wide-s2 " in line for line in lines)
    assert lines[-1].endswith("3000/255030 2d22h left, suite: 2d22h")
    assert max(map(len, lines)) <= 80


def test_names_are_cut_in_the_middle_and_stay_different() -> None:
    assert shorten("train trades-s0-0123456789", 26) == "train trades-s0-0123456789"
    assert shorten("train trades-s0-0123456789", 20) == "train trades-s0"
    assert shorten("evaluate-many-things: aa_linf", 15) == "evaluat…aa_linf"
    names = ["generalist-d-beta1-ema", "generalist-d-beta6-ema", "trades"]
    assert shorten_all(names, 12) == ["gener…a1-ema", "gener…a6-ema", "trades"]
    assert shorten_all(["a1" + "x" * 9, "a2" + "x" * 9], 7) == ["a1x…xxx", "a2x…xxx"]
    assert shorten_all(["a" * 9 + str(i) + "a" * 9 for i in range(2)], 6) == [
        "a" * 9 + str(i) + "a" * 9 for i in range(2)
    ]
