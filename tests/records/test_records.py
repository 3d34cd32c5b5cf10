"""Reading records: every state a run can be left in, and one clear error for damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmark.core.errors import BenchmarkError
from benchmark.records.schema import read_evaluation, write_evaluation
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
        {"epoch": 1, "progress": 0.3, "step": 10, "val_clean": 0.1},
        {"epoch": 2, "progress": 0.6, "step": 20, "val_clean": 0.2},
        {"epoch": 2, "progress": 0.6, "step": 20, "val_clean": 0.3},
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
        ("evaluation.json", '{"schema_version": 1, "metrics": {}}'),
        ("metrics.jsonl", '{"step": 1\n{"step": 2}\n'),
        ("metrics.jsonl", '{"step": 1, "progress": 0.5}\n{"step": 2}\n'),  # without its epoch
        ("outcomes.parquet", "PAR1 no"),
    ],
)
def test_damage_is_one_error_that_names_the_file(cell: Path, name: str, content: str) -> None:
    (cell / name).write_text(content)
    with pytest.raises(BenchmarkError) as error:
        read_cell(cell)
    assert str(cell / name) in str(error.value)


FILES = ["config.json", "environment.json", "training.json", "evaluation.json", "suite.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("version", "said"),
    [(0, "schema_version 0"), (2, "schema_version 2"), (None, "no schema_version"),
     (True, "schema_version True"), ("1", "schema_version 1")],
)  # fmt: skip
def test_another_version_is_refused_in_one_sentence(
    small_out: Path, tmp_path: Path, name: str, version: object, said: str
) -> None:
    """Protects: the form of another version taken for damage, or read as if it were this one's."""
    out = Path(shutil.copytree(small_out, tmp_path / "out"))
    cell = out / "cells" / "pgd-at-cifar10-s0"
    path = (out if name == "suite.json" else cell) / name
    content = json.loads(path.read_text())
    del content["schema_version"]
    path.write_text(
        json.dumps(content if version is None else {"schema_version": version} | content)
    )
    with pytest.raises(BenchmarkError) as error:
        read_suite(out)
    assert str(error.value).startswith(
        f"{path} has {said}, but this generalist-bench reads 1: use "
    )


# Mappings that are somebody else's, a configuration's ``dataset`` among them.
FREE = ("recipe", "model", "train", "detail", "settings", "functions")


def _keys(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all keys of the mappings in ``content``; those of free mappings are left out."""
    found = []
    if isinstance(content, list):
        for number, value in enumerate(content):
            found += _keys(value, (*at, number))
    elif isinstance(content, dict):
        for key, value in content.items():
            found.append((*at, key))
            if key == "metrics":
                found += _keys(value["clean"], (*at, key, "clean"))
            elif key not in FREE and not (key == "dataset" and "split" not in value):
                found += _keys(value, (*at, key))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_key_is_needed_and_no_other_is_known(
    small_out: Path, tmp_path: Path, name: str
) -> None:
    """Protects: a file that lacks a part, or has one that no writer writes, read as a whole one."""
    out = Path(shutil.copytree(small_out, tmp_path / "out"))
    path = out / name if name == "suite.json" else out / "cells" / "pgd-at-cifar10-s0" / name
    text = path.read_text()
    ways = [way for way in _keys(json.loads(text)) if way != ("schema_version",)]
    assert len(ways) > 4
    for way in ways:
        *parents, last = way
        for change in ("without", "beside"):
            content = json.loads(text)
            inner = content
            for key in parents:
                inner = inner[key]
            if change == "without":
                del inner[last]
            else:
                inner["unheard"] = 1
            path.write_text(json.dumps(content))
            with pytest.raises(BenchmarkError, match="is damaged"):
                read_suite(out)


def test_a_writer_refuses_what_no_reader_takes(cell: Path) -> None:
    """Protects: a figure that is noticed to be none only when the report is made."""
    before = (cell / "evaluation.json").read_bytes()
    record = read_evaluation(cell)
    record["metrics"]["clean"]["mean"] = 1.5
    with pytest.raises(BenchmarkError, match="cannot be written: metrics.clean.mean"):
        write_evaluation(cell, record)
    assert (cell / "evaluation.json").read_bytes() == before


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


def test_figures_without_their_outcomes_are_refused(cell: Path) -> None:
    (cell / "outcomes.parquet").unlink()
    with pytest.raises(BenchmarkError, match="outcomes.parquet is missing; evaluate again"):
        read_cell(cell)


def test_a_planned_cell_without_folder_is_kept(small: SuiteRecord) -> None:
    assert small.methods == ("natural", "pgd-at", "joint", "generalist-d")
    assert [(c.label, c.seed, c.status) for c in small.missing()] == [("joint", 1, "missing")]
    assert small.limit == 200


def test_a_run_is_read_as_a_suite_of_one(cell: Path) -> None:
    suite = read_suite(cell)
    assert (suite.name, suite.dataset, suite.model) == ("synthetic", "cifar10", "small-resnet")
    assert suite.methods == ("pgd-at",)
    assert suite.cells[0].family == "adversarial training"


@pytest.mark.parametrize("name", ["", "cells"])
def test_a_folder_without_a_suite_or_run_is_an_error(cell: Path, name: str) -> None:
    """Also one whose suite.json was lost: what its table was made of is not known then."""
    shutil.copytree(cell, cell.parent / "cells" / cell.name)
    with pytest.raises(BenchmarkError, match=r"neither a suite \(suite.json\) nor a run"):
        read_suite(cell.parent / name)


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


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds neither a suite"):
        read_suite(tmp_path)
