"""Comparing two runs: paired, on the images of both, corrected for the number of metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_records import write_suite
from tiny_suites import cli

from benchmark.core.errors import BenchmarkError
from benchmark.records.statistics import McNemar
from benchmark.report.compare import _verdict, compare

METHODS = {
    "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11.0),
    "joint": ("joint", 0.90, 0.40, 0.38, 12.0),
}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    write_suite(tmp_path, METHODS, n=1000, n_aa=50, corruptions=(), spread=0.0)
    first, second = (next(tmp_path.glob(f"cells/{name}-*")) for name in METHODS)
    return first, second


def test_figures_are_those_of_the_outcomes(runs: tuple[Path, Path]) -> None:
    rows = {row.metric: row for row in compare(*runs)}
    beside = rows.pop("pgd20_linf on the images of aa_linf")
    assert list(rows) == ["clean", "pgd20_linf", "pgd20_l2", "aa_linf"]
    a, b = (pd.read_parquet(run / "outcomes.parquet") for run in runs)
    attacked = a["aa_linf"].notna()
    assert (beside.n, beside.p) == (50, None)
    assert beside.first == a["pgd20_linf"][attacked].astype(float).mean()
    assert beside.second == b["pgd20_linf"][attacked].astype(float).mean()
    raw = []
    for metric, row in rows.items():
        one, other = a[metric].dropna().astype(bool), b[metric].dropna().astype(bool)
        assert row.n == len(one)
        assert (row.first, row.second) == (one.mean(), other.mean())
        assert row.difference == pytest.approx(one.mean() - other.mean())
        assert (row.only_first, row.only_second) == ((one & ~other).sum(), (~one & other).sum())
        assert row.low <= row.difference <= row.high
        raw.append(stats.binomtest(row.only_first, row.only_first + row.only_second).pvalue)
    # Holm: the smallest p times 4, the next times 3, never falling
    order = np.argsort(raw)
    expected = np.maximum.accumulate([min(1, (4 - i) * raw[k]) for i, k in enumerate(order)])
    for k, p in zip(order, expected, strict=True):
        assert list(rows.values())[k].p == pytest.approx(p)
    assert rows["clean"].verdict == "second is better"
    assert rows["pgd20_linf"].verdict == "first is better"
    assert rows["aa_linf"].verdict.startswith("no difference detected at n = 50, would need n = ")


def test_a_run_is_equal_to_itself(runs: tuple[Path, Path]) -> None:
    for row in compare(runs[0], runs[0]):
        assert row.difference == 0
        if row.p is not None:
            assert row.p == 1
            assert row.verdict == f"no difference detected at n = {row.n}"


def test_a_difference_below_the_printed_digits_is_not_claimed(tmp_path: Path) -> None:
    """Protects: "first is better" beside two equal figures."""
    test = McNemar(only_a=20, only_b=0, n=100_000, p=1e-5)
    assert _verdict(1e-5, 0.80010, 0.79990, test) == "no difference within the digits shown"
    assert _verdict(1e-5, 0.8010, 0.7990, test) == "first is better"


def test_trial_runs_and_undertrained_runs_are_named(tmp_path: Path) -> None:
    """Protects: a trial on a part of the data, or a net near chance, told apart from another with
    p < 0.001 and not a word of what it is."""
    methods = {"pgd-at": METHODS["pgd-at"], "weak": ("pgd-at", 0.17, 0.15, 0.14, 11.0)}
    write_suite(tmp_path, methods, n=1000, n_aa=50, corruptions=(), spread=0.0, limit=1000)
    runs = [next(tmp_path.glob(f"cells/{name}-*")) for name in methods]
    rows = compare(*runs)
    assert {row.limit for row in rows} == {1000}
    withheld = [row.verdict for row in rows if row.p is not None]
    for verdict in withheld:
        assert verdict.startswith(
            "withheld: second is under-trained: seed 0 is near chance, 17.0 %"
        )
    called = cli("compare", *runs)
    assert "limit = 1000, a trial run, not a result" in called.out
    assert f"{runs[1].name} is under-trained" in called.out


def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    with pytest.raises(BenchmarkError, match="is no run's folder, and holds no run"):
        compare(first, tmp_path / "cells")
    for name in ("one", "two"):
        shutil.copytree(second, tmp_path / "study" / "cells" / name)
        if name == "one":  # the only run of a study is meant
            assert compare(first, tmp_path / "study") == compare(first, second)
    with pytest.raises(BenchmarkError, match="holds 2 runs; name one of them: .*one, .*two"):
        compare(first, tmp_path / "study")
    record = json.loads((second / "evaluation.json").read_text())
    changed = json.loads(json.dumps(record))
    changed["metrics"]["aa_linf"]["settings"]["eps"] = "4/255"
    (second / "evaluation.json").write_text(json.dumps(changed))
    with pytest.raises(BenchmarkError, match="aa_linf was measured under other settings"):
        compare(first, second)
    record["dataset"]["images_hash"] = "other"
    (second / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(BenchmarkError, match="different test images"):
        compare(first, second)


def test_the_command(runs: tuple[Path, Path]) -> None:
    called = cli("compare", *runs)
    assert called.status == 0, called.err
    assert "exact McNemar" in called.out
    assert called.out.splitlines()[1].startswith("clean\t1000\t")
    rows = cli("compare", *runs, "--json").json()
    assert [row["metric"] for row in rows if row["p"] is not None] == [
        "clean", "pgd20_linf", "pgd20_l2", "aa_linf"
    ]  # fmt: skip
    assert {row["limit"] for row in rows} == {None}
    assert cli("compare", runs[0], "nowhere").status == 2
