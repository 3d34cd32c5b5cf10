"""Reading records: every state a run can be left in, and one clear error for damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from synthetic_records import ELEVEN, write_suite

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import SuiteRecord, outcome_matrices, read_cell, read_suite


@pytest.fixture
def cell(small_out: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_out / "cells" / "pgd-at-cifar10-s0", tmp_path / "cell"))


def test_the_states_of_a_cell(cell: Path) -> None:
    assert read_cell(cell).status == "evaluated"
    (cell / "evaluation.json").unlink()
    assert read_cell(cell).status == "trained"
    (cell / "training.json").unlink()
    assert read_cell(cell).status == "training"
    assert read_cell(cell.parent / "nothing").status == "missing"


def test_a_cell_is_read_in_full(cell: Path) -> None:
    record = read_cell(cell)
    assert (record.label, record.method, record.seed) == ("pgd-at", "pgd-at", 0)
    assert record.accuracy("clean") == record.metrics["clean"]["correct"] / 200
    assert record.accuracy("corruptions") == record.metrics["corruptions"]["mean"]
    assert record.accuracy("union") is None
    assert record.outcomes is not None
    assert record.outcomes["aa_linf"].notna().sum() == 100
    assert str(record.outcomes["clean"].dtype) == "boolean"


def test_the_last_of_two_lines_of_a_step_counts_and_a_cut_line_is_ignored(cell: Path) -> None:
    lines = [
        {"epoch": 1, "step": 10, "val_clean": 0.1},
        {"epoch": 2, "step": 20, "val_clean": 0.2},
        {"epoch": 2, "step": 20, "val_clean": 0.3},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"epoch": 3, "st'
    (cell / "metrics.jsonl").write_text(text)
    curves = read_cell(cell).curves
    assert curves["step"].tolist() == [10, 20]
    assert curves["val_clean"].tolist() == [0.1, 0.3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "{}"),
        ("environment.json", "[1]"),
        ("training.json", "not json"),
        ("evaluation.json", "{}"),
        ("evaluation.json", '{"metrics": {"clean": {"n": 10, "correct": 11}}}'),
        ("evaluation.json", '{"metrics": {"clean": {"n": 0, "correct": 0}}}'),
        ("evaluation.json", '{"metrics": {"clean": {"correct": 1}}}'),
        ("metrics.jsonl", '{"step": 1\n{"step": 2}\n'),
        ("outcomes.parquet", "PAR1 no"),
    ],
)
def test_damage_is_one_error_that_names_the_file(cell: Path, name: str, content: str) -> None:
    (cell / name).write_text(content)
    with pytest.raises(BenchmarkError) as error:
        read_cell(cell)
    assert str(cell / name) in str(error.value)


@pytest.mark.parametrize("rows", ["none", "fewer", "turned"])
def test_figures_that_are_not_those_of_the_images_are_refused(cell: Path, rows: str) -> None:
    """Protects: a table of counts that the outcomes beside them contradict, or a traceback."""
    path = cell / "outcomes.parquet"
    outcomes = pd.read_parquet(path)
    if rows == "turned":
        outcomes.loc[0, "clean"] = not outcomes.loc[0, "clean"]
    else:
        outcomes = outcomes.head(0 if rows == "none" else 5)
    outcomes.to_parquet(path)
    with pytest.raises(BenchmarkError, match="damaged.*by image.*on record.*evaluate again"):
        read_cell(cell)


def test_a_planned_cell_without_folder_is_kept(small: SuiteRecord) -> None:
    assert small.methods == ("natural", "pgd-at", "joint", "generalist-d")
    assert [(c.label, c.seed, c.status) for c in small.missing()] == [("joint", 1, "missing")]
    assert small.limit == 200


def test_a_suite_without_suite_json_is_derived_from_its_cells(tmp_path: Path) -> None:
    methods = {m: ELEVEN[m] for m in ("natural", "pgd-at")}
    write_suite(tmp_path, methods, n=50, n_aa=20, corruptions=(), suite_json=False)
    suite = read_suite(tmp_path)
    assert (suite.name, suite.dataset, suite.model) == ("synthetic", "cifar10", "small-resnet")
    assert set(suite.methods) == {"natural", "pgd-at"}


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no suite"):
        read_suite(tmp_path)


def test_cells_outside_the_plan_are_named(small_out: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(small_out, tmp_path / "out"))
    shutil.copytree(out / "cells" / "natural-cifar10-s0", out / "cells" / "old")
    suite = read_suite(out)
    assert suite.extra == ("old",)
    assert len(suite.cells) == 8


def test_outcomes_of_two_attacks_share_one_image_axis(small: SuiteRecord) -> None:
    cells = small.of("natural")
    clean, attacked = outcome_matrices([(cells, "clean"), (cells, "aa_linf")]) or []
    assert clean.shape == attacked.shape == (2, 200)
    assert (clean == clean).all()
    assert (attacked == attacked).sum() == 200  # 100 images of each seed
    assert outcome_matrices([(small.of("joint"), "clean")]) is None  # one seed has no outcomes
