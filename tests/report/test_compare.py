"""Comparing two runs: paired, on the images of both, corrected for the number of metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_records import write_suite
from tiny_suites import cli

from benchmark.core.errors import BenchmarkError
from benchmark.report.compare import compare

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
    assert list(rows) == ["clean", "pgd20_linf", "pgd20_l2", "aa_linf"]
    a, b = (pd.read_parquet(run / "outcomes.parquet") for run in runs)
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
        assert (row.difference, row.p) == (0, 1)
        assert row.verdict == f"no difference detected at n = {row.n}"


def test_what_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    with pytest.raises(BenchmarkError, match="holds no evaluated run"):
        compare(first, tmp_path)
    record = json.loads((second / "evaluation.json").read_text())
    changed = json.loads(json.dumps(record))
    changed["metrics"]["aa_linf"]["detail"]["threat"]["eps"] = "4/255"
    (second / "evaluation.json").write_text(json.dumps(changed))
    with pytest.raises(BenchmarkError, match="aa_linf was measured under other settings"):
        compare(first, second)
    record["dataset"]["fingerprint"] = "other"
    (second / "evaluation.json").write_text(json.dumps(record))
    with pytest.raises(BenchmarkError, match="different test images"):
        compare(first, second)


def test_the_command(runs: tuple[Path, Path]) -> None:
    called = cli("compare", *runs)
    assert called.status == 0, called.err
    assert "exact McNemar" in called.out
    assert called.out.splitlines()[1].startswith("clean\t1000\t")
    rows = cli("compare", *runs, "--json").json()
    assert [row["metric"] for row in rows] == ["clean", "pgd20_linf", "pgd20_l2", "aa_linf"]
    assert cli("compare", runs[0], "nowhere").status == 2
