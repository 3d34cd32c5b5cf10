"""What ``run`` and ``report`` print on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmark.cli import output
from benchmark.cli.output import print_study, print_table
from benchmark.records.study import read_suite
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def study() -> Study:
    return summarise(read_suite(RESULTS / "cifar10-cpu-norms"))


def _terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    def console(**options: bool) -> Console:
        return Console(force_terminal=True, width=width, color_system=None, **options)

    monkeypatch.setattr(output, "Console", console)


def test_a_study_on_a_terminal(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As many columns as fit, the most important first; the others are named."""
    _terminal(monkeypatch, 80)
    print_study(study, intervals=False)
    text = capsys.readouterr().out
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "|" not in text
    head = next(line for line in lines if "Method" in line)
    above = lines[lines.index(head) - 1]
    assert above.split() == ["Clean", "PGD-20", "AutoAttack", "Union"]
    assert head.split("n = ")[0].split() == ["Method", "Seeds"]
    assert "n = 1,000" in head
    (row,) = (line for line in lines if line.split()[:1] == ["msd"])
    assert row.split() == ["msd", "1", "38.3", "24.0", "23.0", "23.0"]
    joined = " ".join(lines)
    assert "Not shown here: PGD-20 l2, PGD-20 l1," in joined
    assert "The data are too few to separate the leading methods: in union accuracy, msd" in joined

    print_study(study, intervals=True)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    after = lines[next(i for i, line in enumerate(lines) if line.split()[:1] == ["msd"]) + 1]
    assert after.split("]")[0].strip() == "[35.3, 41.4"
    _terminal(monkeypatch, 40)
    print_study(study, intervals=False)
    assert max(len(line.rstrip()) for line in capsys.readouterr().out.splitlines()) <= 40


def test_a_study_in_a_pipe(study: Study, capsys: pytest.CaptureFixture) -> None:
    """All columns, tabs between them, and the verdict in one line."""
    print_study(study, intervals=False)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split("\t")[:4] == ["Method", "Seeds", "Clean", "PGD-20"]
    methods = len(study.table.rows)
    assert [row.count("\t") for row in rows[:methods]] == [head.count("\t")] * methods
    assert rows[methods] == ""
    assert rows[methods + 1].startswith("The data are too few")
    print_study(study, intervals=True)
    assert "\t38.3 [35.3, 41.4]\t" in capsys.readouterr().out


def test_long_names_stay_different(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Cut in the middle; a table without rows is none."""
    _terminal(monkeypatch, 50)
    names = [f"generalist-official-learning-rate-0.{i}-ema-seed-0" for i in range(3)]
    print_table("title", ["run", "value"], [[name, "[1, 2]"] for name in names])
    text = capsys.readouterr().out
    shown = [line.split()[0] for line in text.splitlines() if "[1, 2]" in line]
    assert len(set(shown)) == 3
    assert max(map(len, shown)) <= 20
    print_table("title", ["run", "value"], [])
    assert capsys.readouterr().out == ""
