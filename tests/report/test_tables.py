"""Golden tables, the CSV schema, marks, notes and escaping."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from made_entries import made
from synthetic_records import ELEVEN, write_suite

from benchmark.records.statistics import Interval, wilson
from benchmark.records.study import CellRecord, SuiteRecord, read_suite
from benchmark.report import heat_maps, metric_roles, notes, paired, summary, tables
from benchmark.report.latex import latex_escape, table_tex
from benchmark.report.markdown import markdown_table, table_md
from benchmark.report.study_model import Study, Summary
from benchmark.report.summarise import summarise
from benchmark.report.texts import interval_text

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
    assert ",".join(rows[0]) == "suite,dataset,model,method,metric,seeds,n,mean,low,high,note"
    metrics = [
        "clean", "pgd20_linf", "pgd20_l2", "pgd20_linf_on_aa_linf", "aa_linf", "corruptions"
    ]  # fmt: skip
    assert [r[4] for r in rows[1:7]] == metrics
    assert len(rows) == 1 + 4 * len(metrics)
    for row in rows[1:]:
        mean, low, high = map(float, row[7:10])
        assert 0 <= low <= mean <= high <= 1
        assert all(len(value.split(".")[1]) == 6 for value in row[7:10])
    seeds = {row[3]: row[5] for row in rows[1:]}
    assert seeds == {"natural": "2", "pgd-at": "2", "joint": "1", "generalist-d": "2"}


def test_a_method_without_any_result_stays_in_every_table(tmp_path: Path) -> None:
    methods = {
        "pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0),
        "trades": ("trades", 0.8, 0.5, 0.4, 11.0),
    }
    write_suite(tmp_path, methods, n=50, n_aa=20, corruptions=(), missing=[("trades", 0)])
    study = summarise(read_suite(tmp_path))
    assert "synthetic,cifar10,small-resnet,trades,clean,0,0,,,,\n" in tables.csv_text(study)
    line = next(t for t in table_md(study).splitlines() if t.startswith("| trades"))
    assert line.count("missing") == 5  # four metrics, and PGD on AutoAttack's images
    assert "0/1" in line
    assert "trades seed 0 (not started)" in table_md(study)
    assert r"trades & 0/1 & missing" in table_tex(study)


def test_nothing_evaluated_is_still_a_table(tmp_path: Path) -> None:
    methods = {"pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0)}
    write_suite(tmp_path, methods, missing=[("pgd-at", 0)])
    study = summarise(read_suite(tmp_path))
    assert "Missing 1 of 1 cells" in table_md(study)
    assert tables.csv_text(study).count("\n") == 1


def test_pgd_on_the_images_of_autoattack_stands_beside_it(
    small: SuiteRecord, small_study: Study
) -> None:
    """Protects: AutoAttack on few images standing above PGD on all, as if it were the weaker."""
    headings = [column.title for column in small_study.table.columns]
    assert headings[3:5] == ["PGD-20 (n = 100)", "AutoAttack"]
    for method in small.methods:
        cells = small.evaluated(method)
        outcomes = [
            c.outcomes[c.outcomes["aa_linf"].notna()] for c in cells if c.outcomes is not None
        ]
        wanted = sum(frame["pgd20_linf"].astype(float).mean() for frame in outcomes) / len(cells)
        found = small_study.table.row(method).summaries["pgd20_linf_on_aa_linf"]
        assert found.interval is not None
        assert found.interval.value == pytest.approx(wanted)
        assert (found.n, found.seeds) == (100, len(cells))
    assert "PGD-20 (n = 100): PGD-20 on only the images of AutoAttack" in "\n".join(
        small_study.notes
    )


def test_with_equal_n_no_column_is_repeated(tmp_path: Path) -> None:
    methods = {"pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0)}
    write_suite(tmp_path, methods, n=50, n_aa=50, corruptions=())
    suite = read_suite(tmp_path)
    assert [column.key for column in summary.columns_of(suite)] == suite.metrics()


def test_a_figure_of_some_runs_says_so_in_its_cell(small_out: Path, tmp_path: Path) -> None:
    """Protects: a row of two seeds with a column that one of them alone was measured for."""
    out = Path(shutil.copytree(small_out, tmp_path / "out"))
    cell = out / "cells" / "pgd-at-cifar10-s1"
    record = json.loads((cell / "evaluation.json").read_text())
    del record["metrics"]["aa_linf"]
    (cell / "evaluation.json").write_text(json.dumps(record))
    study = summarise(read_suite(out))
    row = next(t for t in table_md(study).splitlines() if t.startswith("| pgd-at"))
    cells = [text.strip() for text in row.split("|")]
    assert cells[2] == "2"
    assert cells[7].endswith("(1 of 2 seeds)*")
    assert "(1 of 2 seeds)" in table_tex(study)
    assert ",pgd-at,aa_linf,1,100," in tables.csv_text(study)
    assert "1 of 2 seeds" in tables.csv_text(study)
    assert "how many of the method's runs have the figure" in "\n".join(study.notes)
    other = next(t for t in table_md(study).splitlines() if t.startswith("| natural"))
    assert "seeds" not in other


def test_an_estimate_has_two_intervals_and_is_ranked_by_the_wider(tmp_path: Path) -> None:
    """Protects: [26.4, 28.2] ranked against intervals that hold the choice of test images."""
    methods = {
        "pgd-at": ("pgd-at", 0.8, 0.5, 0.4, 11.0),
        "trades": ("trades", 0.8, 0.5, 0.4, 11.0),
    }
    write_suite(tmp_path, methods, n=1000, n_aa=20, corruptions=())
    for cell, mean in zip(sorted(tmp_path.glob("cells/*")), (0.272, 0.258), strict=True):
        frame = pd.read_parquet(cell / "outcomes.parquet").drop(columns="aa_linf")
        frame["aa_linf_estimate"] = pd.array([False] * 500 + [None] * 500, dtype="boolean")
        frame.to_parquet(cell / "outcomes.parquet")
        record = json.loads((cell / "evaluation.json").read_text())
        del record["metrics"]["aa_linf"]
        detail = {"low": mean - 0.004, "high": mean + 0.004, "interval": "exact"}
        estimate = made(
            {"kind": "autoattack", "budget": 3}, detail, n=1000, correct=None, mean=mean
        )
        record["metrics"]["aa_linf_estimate"] = estimate
        (cell / "evaluation.json").write_text(json.dumps(record))
    suite = read_suite(tmp_path)
    study = summarise(suite)
    figures = {row.method: row.summaries["aa_linf_estimate"] for row in study.table.rows}
    found = figures["pgd-at"]
    assert found.these is not None
    assert found.interval is not None
    assert (found.these.low, found.these.high) == pytest.approx((0.268, 0.276))
    whole = wilson(272, 1000)
    assert found.interval.low < whole.low
    assert found.interval.high > whole.high
    # told apart on these images, not on new ones
    assert {method: figure.mark for method, figure in figures.items()} == {
        "pgd-at": "tied", "trades": ""
    }  # fmt: skip
    text = table_md(study)
    assert interval_text(found) in text
    assert "; [26.8, 27.6]" in interval_text(found)
    assert "Estimate: first the interval for new images" in text
    assert "for these images alone [0.268000; 0.276000]" in tables.csv_text(study)
    # its outcomes are those of a sample of survivors: nothing is computed from them image by image
    assert "aa_linf_estimate" not in heat_maps.class_metrics(suite)
    terms = [(1.0, "pgd-at", "aa_linf_estimate"), (-1.0, "trades", "aa_linf_estimate")]
    assert paired.contrast(suite, terms) is None


def _summary(method: str, value: float, half: float) -> Summary:
    return Summary(method, "clean", 1, 100, Interval(value, value - half, value + half), None)


def test_bold_needs_an_interval_of_its_own() -> None:
    assert summary.ranks([_summary("a", 0.9, 0.01), _summary("b", 0.8, 0.01)]) == {"a": "best"}
    assert summary.ranks([_summary("a", 0.9, 0.06), _summary("b", 0.8, 0.06)]) == {"a": "tied"}
    assert summary.ranks([_summary("a", 0.9, 0.01), _summary("b", 0.9, 0.01)]) == {
        "a": "tied",
        "b": "tied",
    }
    assert summary.ranks([_summary("a", 0.9, 0.01)]) == {}
    # equal to the digit that is printed, and not to be claimed: a difference that nobody can see
    assert summary.ranks([_summary("a", 0.90004, 0), _summary("b", 0.90001, 0)]) == {
        "a": "tied",
        "b": "tied",
    }
    # nothing is concluded from an under-trained net
    assert summary.ranks([_summary("a", 0.9, 0.01), _summary("b", 0.8, 0.01)], ["a"]) == {}


def test_the_limit_is_loud_in_every_text(small_study: Study) -> None:
    assert table_md(small_study).split("\n")[2].startswith("> **WARNING: limit = 200")
    assert r"\textbf{WARNING: limit = 200" in table_tex(small_study)


def test_the_notes_say_how_each_figure_was_made(small_study: Study) -> None:
    text = "\n".join(small_study.notes)
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
    assert summary.relative_cost(small) == pytest.approx(
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
    assert summary.relative_cost(read_suite(tmp_path)) == {"pgd-at": 11}


def test_latex_escapes_every_special_character() -> None:
    assert latex_escape("a_b & 50% #1 {x} $y$ ~ ^ \\ <±>") == (
        r"a\_b \& 50\% \#1 \{x\} \$y\$ \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textless{}$\pm$\textgreater{}"
    )
    assert latex_escape("漢") == "?"


def test_markdown_cells_cannot_break_the_table() -> None:
    assert "a\\|b c" in markdown_table(["x"], [["a|b\nc"]])


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
    text = "\n".join(notes.notes(suite, summary.table_of(suite, {})))
    assert "fat with the optimiser and schedule of the method's authors; the others" in text
    assert "Checkpoint: last of training." in text
    assert "Columns marked (best-sum): largest clean + PGD accuracy on held-out" in text
    assert (
        "No checkpoint had a clean accuracy of 0.88 or more, so best-sum chose among all: pgd-at"
        in text
    )


def test_headings_are_the_records(tmp_path: Path) -> None:
    """A radius is a tag, a further checkpoint a rule; both stand in brackets. The order is that of
    the suite's evaluation, then of appearance, a checkpoint's column behind the first one's."""
    aa = made({"kind": "autoattack", "tag": "8/255"}, n=9, correct=3)
    pgd = made({"kind": "pgd", "threat": {"steps": 20}}, n=9, correct=4)
    metrics = {
        "pgd20_linf": pgd,
        "aa_linf@8/255": aa,
        "pgd20_linf@best": {**pgd, "checkpoint": "best"},
    }
    cell = CellRecord(tmp_path, "a", 0, "evaluated", evaluation={"metrics": metrics})
    suite = SuiteRecord(
        tmp_path, "s", "S", "", ("a",), (0,), "d", "m", None, (cell,), evaluation=("aa_linf@8/255",)
    )
    assert [metric_roles.title(suite, name) for name in suite.metrics()] == [
        "AutoAttack (8/255)", "PGD-20", "PGD-20 (best)"
    ]  # fmt: skip


def test_an_error_is_best_where_it_is_smallest(tmp_path: Path) -> None:
    """Protects: the worst calibrated network in bold, with an interval that a mean over images has."""
    write_suite(tmp_path, {m: ELEVEN[m] for m in ("pgd-at", "trades")}, corruptions=())
    for cell, mean in zip(sorted(tmp_path.glob("cells/*")), (0.25, 0.125), strict=True):
        record = json.loads((cell / "evaluation.json").read_text())
        error = {"title": "ECE", "higher_is_better": False, "outcomes": "none", "role": "other"}
        entry = {**made({"kind": "clean"}, n=1000, correct=None, mean=mean), **error}
        record["metrics"]["ece"] = entry
        (cell / "evaluation.json").write_text(json.dumps(record))
    study = summarise(read_suite(tmp_path))
    figures = {row.method: row.summaries["ece"] for row in study.table.rows}
    assert {m: f.mark for m, f in figures.items()} == {"pgd-at": "", "trades": "tied"}
    assert interval_text(figures["trades"]) == "none"
    assert ",ece,1,1000,0.125000,,," in tables.csv_text(study)
    assert "smaller is better" in "\n".join(study.notes)
