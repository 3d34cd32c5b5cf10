"""What ``run`` and ``report`` print on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from synthetic_records import write_suite

from benchmark.cli import check, output
from benchmark.cli.compare import compare
from benchmark.cli.output import print_study, print_table
from benchmark.gate.baseline import read_baseline
from benchmark.gate.verdict import judge
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


def test_a_narrow_terminal_does_without_spare_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = [["pgd-at", "0.5", "a long remark on it", "7"]]
    for width, head in ((60, "run value remark n"), (30, "run value n"), (18, "run value")):
        _terminal(monkeypatch, width)
        print_table("title", ["run", "value", "remark", "n"], rows, spare=("remark", "n"))
        text = capsys.readouterr().out
        assert head.split() in [line.split() for line in text.splitlines()]
        missing = [name for name in ("remark", "n") if name not in head.split()]
        said = f"Not shown here: {', '.join(missing)}; --json has them."
        assert (said in " ".join(text.split())) == bool(missing)


def test_a_comparison_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A figure stays on its row; the verdicts follow below."""
    methods = {
        "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11.0),
        "joint": ("joint", 0.90, 0.40, 0.38, 12.0),
    }
    write_suite(tmp_path, methods, n=1000, n_aa=50, corruptions=(), spread=0.0)
    _terminal(monkeypatch, 80)
    compare(*(next(tmp_path.glob(f"cells/{name}-*")) for name in methods))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    (row,) = (line for line in lines if line.startswith(" pgd20_linf  "))
    assert row.split()[1] == "1000"
    assert row.count("[") == row.count("]") == 1
    assert "pgd20_linf: first is better (p < 0.001)" in lines


def test_a_check_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The project's own baseline, with its runs as those of today."""
    kept = read_baseline(RESULTS / "gate" / "quick.json")
    _terminal(monkeypatch, 80)
    check._print(judge(kept, kept.runs, kept.probe))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "nothing moved" in lines
    (row,) = (line.split() for line in lines if "generalist-d" in line and "pgd20_l2" in line)
    assert row == ["generalist-d", "pgd20_l2", "87.78", "87.78", "identical"]
