"""The path between two trained runs, and unions of outcomes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from tiny_suites import cli, write_suite

from benchmark.commands.interpolate import _grid

PANEL = [
    {"kind": "clean"},
    *(
        {"kind": "pgd", "name": f"pgd2_{norm}", "n": n,
         "threat": {"norm": norm, "eps": eps, "step": eps, "steps": 2}}
        for norm, eps, n in (("linf", 0.05, 40), ("l2", 0.6, 30))
    ),
    {"kind": "union", "of": ["pgd2_linf", "pgd2_l2"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("path")
    train = {"epochs": 12, "validations": 1, "snapshots": 3}  # after steps 8, 24, 40 and 48
    # handed back after steps 24, 36 and 48
    mixed = {"name": "generalist-d", "warmup": "50%", "every": "25%", "mixing": {"linf": 0.5}}
    suite = write_suite(folder, methods=["natural", "pgd-at", mixed], train=train,
                        evaluation=PANEL, fronts={"plain": ["natural", "pgd-at"]})  # fmt: skip
    called = cli("run", suite, "--out", folder / "out")
    assert called.status == 0, called.err
    return folder / "out"


def cell(out: Path, label: str) -> Path:
    (found,) = (out / "cells").glob(f"{label}-s0-*")
    return found


def test_a_union_is_computed_image_by_image(out: Path) -> None:
    for label in ("natural", "pgd-at"):
        table = pd.read_parquet(cell(out, label) / "outcomes.parquet")
        record = json.loads((cell(out, label) / "evaluation.json").read_text())["metrics"]["union"]
        both = table[["pgd2_linf", "pgd2_l2"]].dropna().astype(bool)
        assert record["n"] == len(both) <= 30
        assert record["correct"] == int((both["pgd2_linf"] & both["pgd2_l2"]).sum())
        assert record["detail"]["broken_only_by"] == {
            "pgd2_linf": int((~both["pgd2_linf"] & both["pgd2_l2"]).sum()),
            "pgd2_l2": int((both["pgd2_linf"] & ~both["pgd2_l2"]).sum()),
        }
    text = (out / "report" / "table.md").read_text()
    assert "robust under each of pgd2_linf, pgd2_l2" in text


def test_a_union_must_follow_its_parts(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, evaluation=[PANEL[0], PANEL[3], *PANEL[1:3]])
    called = cli("run", suite)
    assert called.status == 2
    assert "union is computed from 'pgd2_linf', which must be a metric before it" in called.err


def test_a_union_does_not_outlive_its_parts(out: Path, tmp_path: Path) -> None:
    """Protects: a part measured anew beside a union of the old one."""
    copy = tmp_path / "copy"
    train = {"epochs": 2, "validations": 1}
    panel = [PANEL[0], PANEL[1], PANEL[2], PANEL[3]]
    suite = write_suite(tmp_path, train=train, evaluation=panel)
    assert cli("run", suite, "--out", copy).status == 0
    changed = json.loads((copy / "suite.json").read_text())
    changed["evaluation"][1]["n"] = 20
    (copy / "suite.json").write_text(json.dumps(changed))
    assert cli("evaluate", copy, "--metric", "pgd2_linf").status == 0
    (folder,) = (copy / "cells").iterdir()
    assert "union" not in json.loads((folder / "evaluation.json").read_text())["metrics"]
    assert cli("evaluate", copy).status == 0
    assert json.loads((folder / "evaluation.json").read_text())["metrics"]["union"]["n"] <= 20


@pytest.mark.figures
def test_a_path_joins_its_ends(out: Path, tmp_path: Path) -> None:
    ends = cell(out, "natural"), cell(out, "pgd-at")
    target = tmp_path / "path"
    command = ("interpolate", *ends, "--points", 5, "--out", target, "--metric", "clean",
               "--metric", "pgd2_linf")  # fmt: skip
    rows = cli(*command, "--json").json()
    assert [row["alpha"] for row in rows if row["metric"] == "clean"] == [0, 0.25, 0.5, 0.75, 1]
    table = pd.read_csv(target / "interpolation.csv")
    assert table["mean"].tolist() == pytest.approx([row["mean"] for row in rows])
    assert (target / "interpolation.png").stat().st_size > 1000
    hashes = {json.loads((p / "evaluation.json").read_text())["metrics"]["clean"]["model"]
              for p in target.glob("alpha-*")}  # fmt: skip
    assert len(hashes) == 5
    # the ends are the runs, but for their re-estimated BatchNorm statistics
    for end, alpha in zip(ends, (0, 1), strict=True):
        own = json.loads((end / "evaluation.json").read_text())["metrics"]["clean"]["mean"]
        (row,) = (r for r in rows if r["alpha"] == alpha and r["metric"] == "clean")
        assert row["mean"] == pytest.approx(own, abs=0.15)
    before = (target / "alpha-0.5000" / "evaluation.json").stat().st_mtime_ns
    said = cli(*command).out
    assert "clean\t" in said
    assert re.search(r"\nclean: [\d.]+ % at alpha 0, [\d.]+ % at alpha 1", said)
    assert "\nplot: " in said
    assert (target / "alpha-0.5000" / "evaluation.json").stat().st_mtime_ns == before


def test_base_learners_of_a_run_make_a_front(out: Path, tmp_path: Path) -> None:
    """Protects: learners of the last step, which are one network again."""
    target = tmp_path / "sweep"
    command = ("interpolate", cell(out, "generalist-d"), "--points", 3, "--out", target,
               "--metric", "clean", "--metric", "pgd2_linf")  # fmt: skip
    rows = cli(*command, "--json").json()
    assert [row["alpha"] for row in rows if row["metric"] == "clean"] == [0, 0.5, 1]
    record = json.loads((target / "path.json").read_text())
    assert record["ends"] == ["natural", "linf"]
    assert record["step"] == 40
    assert cli("report", out, target, "--out", tmp_path / "report").status == 0
    table, fronts = ((tmp_path / "report" / name).read_text() for name in ("table.md", "fronts.md"))
    assert "| generalist-d mixed 0.50 |" in table
    assert "| generalist-d mixed after training |" in fronts
    called = cli("interpolate", cell(out, "pgd-at"), "--metric", "clean")
    assert called.status == 2
    assert "kept no base learners that differ; give a second run" in called.err


def test_grids_of_shares() -> None:
    assert _grid(2, 2) == [(1, 0), (0.5, 0.5), (0, 1)]
    three = _grid(3, 4)
    assert len(set(three)) == len(three) == 15
    assert {sum(shares) for shares in three} == {1}
    assert (three[0], three[-1]) == ((1, 0, 0), (0, 0, 1))


def test_paths_that_cannot_be(out: Path, tmp_path: Path) -> None:
    train = {"epochs": 1, "validations": 1}
    suite = write_suite(tmp_path, train=train, evaluation=PANEL, methods=["output-ensemble"],
                        model={"name": "small-resnet", "width": 9})  # fmt: skip
    assert cli("run", suite, "--out", tmp_path / "other").status == 0
    other = cell(tmp_path / "other", "output-ensemble")
    called = cli("interpolate", cell(out, "natural"), other, "--out", tmp_path / "path")
    assert called.status == 2
    assert "differ in data set or architecture" in called.err
    called = cli("interpolate", cell(out, "natural"), tmp_path)
    assert called.status == 2
    assert "config.json is missing" in called.err
