"""Golden tables, the CSV schema, marks, notes and escaping."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from synthetic_records import write_suite

from benchmark.evaluation.statistics import Interval
from benchmark.report import tables
from benchmark.report.records import CellRecord, SuiteRecord, read_suite

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", ["table.md", "table.csv", "table.tex", "report.md"])
def test_golden(rendered: Path, name: str) -> None:
    """A wanted change: GOLDEN=write pytest tests/report, then read the diff."""
    text = (rendered / name).read_text(encoding="utf-8")
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_tidy_schema_is_exact(rendered: Path) -> None:
    with open(rendered / "table.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(tables.CSV_COLUMNS)
    assert ",".join(rows[0]) == "suite,dataset,model,method,metric,seeds,n,mean,low,high"
    metrics = ["clean", "pgd20_linf", "pgd20_l2", "aa_linf", "corruptions"]
    assert [r[4] for r in rows[1:6]] == metrics
    assert len(rows) == 1 + 4 * len(metrics)
    for row in rows[1:]:
        mean, low, high = map(float, row[7:])
        assert 0 <= low <= mean <= high <= 1
        assert all(len(value.split(".")[1]) == 6 for value in row[7:])
    seeds = {row[3]: row[5] for row in rows[1:]}
    assert seeds == {"natural": "2", "pgd-at": "2", "joint": "1", "generalist-d": "2"}


def test_a_method_without_any_result_stays_in_every_table(tmp_path: Path) -> None:
    methods = {
        "pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0),
        "trades": ("trades", 0.8, 0.5, 0.4, 11.0),
    }
    write_suite(tmp_path, methods, n=50, n_aa=20, corruptions=(), missing=[("trades", 0)])
    suite = read_suite(tmp_path)
    assert "synthetic,cifar10,small-resnet,trades,clean,0,0,,,\n" in tables.csv_text(suite)
    line = next(t for t in tables.markdown_text(suite).splitlines() if t.startswith("| trades"))
    assert line.count("missing") == 4
    assert "0/1" in line
    assert "trades seed 0 (not started)" in tables.markdown_text(suite)
    assert r"trades & 0/1 & missing" in tables.latex_text(suite)


def test_nothing_evaluated_is_still_a_table(tmp_path: Path) -> None:
    methods = {"pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0)}
    write_suite(tmp_path, methods, missing=[("pgd-at", 0)])
    suite = read_suite(tmp_path)
    assert "Missing 1 of 1 cells" in tables.markdown_text(suite)
    assert tables.csv_text(suite).count("\n") == 1


def _summary(method: str, value: float, half: float) -> tables.Summary:
    return tables.Summary(
        method, "clean", 1, 100, Interval(value, value - half, value + half), None
    )


def test_bold_needs_an_interval_of_its_own() -> None:
    assert tables.ranks([_summary("a", 0.9, 0.01), _summary("b", 0.8, 0.01)]) == {"a": "best"}
    assert tables.ranks([_summary("a", 0.9, 0.06), _summary("b", 0.8, 0.06)]) == {"a": "tied"}
    assert tables.ranks([_summary("a", 0.9, 0.01), _summary("b", 0.9, 0.01)]) == {
        "a": "tied",
        "b": "tied",
    }
    assert tables.ranks([_summary("a", 0.9, 0.01)]) == {}


def test_the_limit_is_loud_in_every_text(small: SuiteRecord) -> None:
    assert tables.markdown_text(small).split("\n")[2].startswith("> **WARNING: limit = 200")
    assert r"\textbf{WARNING: limit = 200" in tables.latex_text(small)


def test_the_notes_say_how_each_figure_was_made(small: SuiteRecord) -> None:
    text = "\n".join(tables.notes(small))
    for part in (
        "PGD-20: n = 200, linf, eps 8/255, step 2/255, 20 steps, 1 restart(s)",
        "AutoAttack: n = 100, linf, eps 8/255",
        "BatchNorm in eval mode",
        "Checkpoint: last of training",
        "corrupted images generated",
        "joint seed 1 (not started)",
    ):
        assert part in text


def test_costs_are_relative_to_natural_training(small: SuiteRecord) -> None:
    assert tables.relative_cost(small) == pytest.approx(
        {
            "natural": 1,
            "pgd-at": 11,
            "joint": 12,
            "generalist-d": 12,
        }
    )


def test_costs_without_a_natural_run_are_against_one_pass(tmp_path: Path) -> None:
    methods = {"pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0)}
    write_suite(tmp_path, methods, n=50, n_aa=20, corruptions=())
    assert tables.relative_cost(read_suite(tmp_path)) == {"pgd-at": 11}


def test_latex_escapes_every_special_character() -> None:
    assert tables.latex_escape("a_b & 50% #1 {x} $y$ ~ ^ \\ <±>") == (
        r"a\_b \& 50\% \#1 \{x\} \$y\$ \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textless{}$\pm$\textgreater{}"
    )
    assert tables.latex_escape("漢") == "?"


def test_markdown_cells_cannot_break_the_table() -> None:
    assert "a\\|b c" in tables.markdown_table(["x"], [["a|b\nc"]])


def test_notes_say_whose_recipe_and_which_checkpoint() -> None:
    """A reader must see that rows have different optimisers, and how each checkpoint was chosen."""
    chosen = {"selected_epoch": 1.0, "val_clean": 0.5, "val_pgd": 0.3}
    training = {
        "checkpoint_rule": "last", **chosen,
        "also": {"best-sum": chosen}, "selection_floor": 0.88, "floor_missed": True,
    }  # fmt: skip
    cells = tuple(
        CellRecord(
            Path(label), label, 0, "evaluated",
            config={"method": {"name": label, "recipe": {"name": label, **whose}}},
            training=training,
            evaluation={"metrics": {}},
        )
        for label, whose in (("pgd-at", {}), ("fat", {"recipe": "authors"}))
    )  # fmt: skip
    suite = SuiteRecord(Path("out"), "s", "S", "", ("pgd-at", "fat"), (0,), "d", "m", None, cells)
    text = "\n".join(tables.notes(suite))
    assert "optimiser and schedule of the method's authors for fat; the suite's common" in text
    assert "Checkpoint: last of training." in text
    assert "Columns marked (best-sum): largest clean + PGD accuracy on held-out" in text
    assert (
        "No checkpoint was at least 0.88 clean, so best-sum chose among all: pgd-at seed 0" in text
    )
    assert tables.title("pgd20_linf@best") == "PGD-20 (best)"
    assert tables.title("aa_linf@8/255") == "aa_linf@8/255"  # a radius is no rule
