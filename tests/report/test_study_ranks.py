"""Ranks over studies: each study ranks once, and what cannot be ranked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import rankdata
from synthetic_records import ELEVEN, write_suite
from tiny_suites import cli

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import read_suite
from benchmark.report.study_ranks import study_ranks, study_ranks_md

SHARED = ("natural", "pgd-at", "trades", "generalist-d")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three studies with four methods in common; one has two seeds, another a method of its own."""
    return [
        write_suite(
            tmp_path / f"study-{number}",
            {m: ELEVEN[m] for m in (*SHARED, *own)},
            seeds=seeds,
            n=300,
            n_aa=150,
            dataset=dataset,
            corruptions=(),
            spread=0.03,
        )
        for number, (seeds, dataset, own) in enumerate(
            [((0, 1), "cifar10", ()), ((0,), "cifar100", ("joint",)), ((5,), "digits", ())]
        )
    ]


def test_each_study_ranks_once_by_the_mean_of_its_seeds(folders: list[Path]) -> None:
    studies = [read_suite(folder) for folder in folders]
    found = study_ranks(studies)
    words = [one.score for one in found.ranks]
    assert words[:2] == ["natural accuracy", "PGD-20 accuracy"]
    expected = [
        [sum(c.accuracy("clean") or 0 for c in study.of(m)) / len(study.of(m)) for m in SHARED]
        for study in studies
    ]
    ranks = rankdata([[-value for value in row] for row in expected], axis=1).mean(axis=0)
    assert found.ranks[0].mean == pytest.approx(dict(zip(SHARED, ranks, strict=True)))
    assert [dataset for _, dataset in found.studies] == ["cifar10", "cifar100", "digits"]
    text = study_ranks_md(found)
    assert "Each ranks the methods once" in text
    assert "With 3 studies, only large differences can be detected" in text


def test_on_the_command_line(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "ranks"
    said = cli("report", *folders, "--ranks", "--out", out, "--json").json()
    assert set(said["mean_ranks"]["natural accuracy"]) == set(SHARED)
    table = pd.read_csv(out / "ranks.csv")
    assert set(table["study"]) == {"synthetic"}
    assert len(table) == 3 * len(SHARED) * len(said["mean_ranks"])
    assert (out / "ranks.svg").read_text().count("3 studies") == len(said["mean_ranks"])


def test_what_cannot_be_ranked_is_said(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="need at least 3 studies, and 2 are given"):
        study_ranks([read_suite(folder) for folder in folders[:2]])
    other = write_suite(
        tmp_path / "other", {"joint": ELEVEN["joint"]}, n=100, n_aa=50, corruptions=()
    )
    with pytest.raises(BenchmarkError, match="have 0 evaluated methods in common"):
        study_ranks([read_suite(folder) for folder in (*folders, other)])
