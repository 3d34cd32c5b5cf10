"""Differences from one method, ranks over seeds, unions of attacks, and accuracy against cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from synthetic_records import ELEVEN, write_suite

from benchmark.records.statistics import holm, paired_contrast
from benchmark.records.study import read_suite
from benchmark.report import comparison_plots
from benchmark.report.chart_data import chart_data
from benchmark.report.markdown import differences_md
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise

ROOT = Path(__file__).parents[2]
METHODS = ("natural", "pgd-at", "trades", "generalist-d", "generalist-t")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    return write_suite(folder, {m: ELEVEN[m] for m in METHODS}, seeds=(0, 1, 2), n=500, n_aa=200)


@pytest.fixture(scope="module")
def study(out: Path) -> Study:
    return summarise(read_suite(out))


def outcomes(out: Path, method: str, metric: str) -> np.ndarray:
    """(seeds, images) of one method."""
    cells = sorted(out.glob(f"cells/{method}-cifar10-s*"))
    assert len(cells) == 3
    return np.stack(
        [pd.read_parquet(c / "outcomes.parquet")[metric].to_numpy(dtype=float) for c in cells]
    )


def test_differences_are_paired_and_adjusted_over_all(out: Path, study: Study) -> None:
    assert {one.reference for one in study.differences} == {"generalist-d"}  # the first Generalist
    rows = [row for one in study.differences for row in one.rows]
    natural = next(one for one in study.differences if one.score == "natural accuracy")
    assert [row.method for row in natural.rows] == [m for m in METHODS if m != "generalist-d"]
    raw = []
    for one in study.differences:
        for row in one.rows:
            metrics = {
                "natural accuracy": ["clean"],
                "PGD-20 accuracy": ["pgd20_linf"],
                "AutoAttack accuracy": ["aa_linf"],
                "mean of clean and AutoAttack accuracy": ["clean", "aa_linf"],
            }[one.score]
            w = 1 / len(metrics)
            test = paired_contrast(
                [(w, outcomes(out, row.method, m)) for m in metrics]
                + [(-w, outcomes(out, "generalist-d", m)) for m in metrics]
            )
            raw.append(test.p)
            assert (row.interval.low, row.interval.value, row.interval.high) == pytest.approx(
                (test.low, test.value, test.high)
            )
    assert [row.p for row in rows] == pytest.approx(holm(raw))
    assert "n = 200, 3 seeds" in {one.where for one in study.differences}
    text = differences_md(study)
    assert "| natural" in text
    assert "## Mean of clean and AutoAttack accuracy" in text


def test_ranks_are_those_of_the_seeds(out: Path, study: Study) -> None:
    one = next(one for one in study.ranks if one.score == "natural accuracy")
    by_seed = np.array([outcomes(out, m, "clean").mean(axis=1) for m in METHODS])
    mean = rankdata(-by_seed, axis=0).mean(axis=1)
    assert one.mean == pytest.approx(dict(zip(METHODS, mean, strict=True)))
    assert list(one.mean) == sorted(one.mean, key=lambda m: one.mean[m])
    assert (one.seeds, len(one.pairs)) == (3, 10)
    # With few seeds, only methods that are far apart in rank can be told apart.
    far = one.pairs["natural", "trades"]
    near = one.pairs["generalist-d", "generalist-t"]
    assert far < near <= 1
    assert 0 < one.friedman < 0.05


def test_groups_are_the_bars_of_the_diagram(study: Study) -> None:
    """The page draws the model's groups; the library finds the bars of the plot by itself."""
    fig = comparison_plots.ranks(study)
    assert fig is not None
    for ax, one in zip(fig.axes, study.ranks, strict=True):
        bars = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 1.6]
        wanted = sorted(sorted(map(float, bar)) for bar in bars)
        assert wanted
        found = sorted(sorted(one.mean[method] for method in group) for group in one.groups)
        assert found == [pytest.approx(bar) for bar in wanted]


def test_the_diagram_is_the_same_in_every_process(out: Path, tmp_path: Path) -> None:
    """Protects: the order of a set of names, which each process has anew, was in the file."""
    draw = (
        "from pathlib import Path; from benchmark.records.study import read_suite; "
        "from benchmark.report.comparison_plots import ranks; "
        "from benchmark.report.figures import save; "
        "from benchmark.report.summarise import summarise; "
        f"save(ranks(summarise(read_suite(Path({str(out)!r})))), Path('ranks'))"
    )
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", draw], cwd=folder, env=environment, check=True)
        files.append((folder / "ranks.svg").read_bytes())
    assert files[0] == files[1]
    assert b"natural (" in files[0]


def test_two_seeds_make_no_ranks(tmp_path: Path) -> None:
    methods = {m: ELEVEN[m] for m in METHODS[:3]}
    suite = read_suite(write_suite(tmp_path, methods, seeds=(0, 1), n=200, n_aa=100))
    study = summarise(suite)
    assert study.ranks == ()
    assert comparison_plots.ranks(study) is None
    # Without a Generalist, differences are from plain adversarial training.
    assert {one.reference for one in study.differences} == {"pgd-at"}


def test_points_of_the_plots(study: Study) -> None:
    fig = comparison_plots.cost(study)
    assert fig is not None
    passes = next(cost.values for cost in study.table.costs if cost.key == "training")
    ax = fig.axes[0]
    drawn = sorted(float(_marker(bar).get_xdata()[0]) for bar in ax.containers)
    assert drawn == pytest.approx(sorted(v for v in passes.values() if v))
    forest = comparison_plots.differences(study)
    assert forest is not None
    for ax, one in zip(forest.axes, study.differences, strict=True):
        values = [float(_marker(bar).get_xdata()[0]) for bar in ax.containers]
        assert values == pytest.approx([100 * row.interval.value for row in one.rows])
        filled = [_marker(bar).get_markerfacecolor() != "white" for bar in ax.containers]
        assert filled == [row.p <= 0.05 for row in one.rows]


def test_the_page_draws_the_same_points(study: Study) -> None:
    """From the same model as the plots, in the table's order, with attack, eps, n and seeds."""
    charts = chart_data(study)
    for drawn, one in zip(charts["differences"], study.differences, strict=True):
        assert [row["method"] for row in drawn["rows"]] == [row.method for row in one.rows]
        values = [100 * row.interval.value for row in one.rows]
        assert [row["x"][0] for row in drawn["rows"]] == pytest.approx(values, abs=0.01)
        assert [row["sure"] for row in drawn["rows"]] == [row.p <= 0.05 for row in one.rows]
    for drawn, ranks in zip(charts["ranks"], study.ranks, strict=True):
        ranked = {row["method"]: row["rank"] for row in drawn["rows"]}
        assert list(ranked) == list(ranks.mean)
        assert ranked == pytest.approx(ranks.mean, abs=0.01)
    cost = next(one for one in charts["cost"] if one["title"] == "AutoAttack")
    assert {p["method"]: p["passes"] for p in cost["points"]} == pytest.approx(study.passes)
    captions = {
        key: [_plain(one) for one in charts[key]] for key in ("differences", "ranks", "cost")
    }
    where = "AutoAttack accuracy (ℓ∞, eps 8/255), n = 200, 3 seeds"
    assert where in captions["differences"]
    assert where in captions["cost"]
    assert "Natural accuracy, n = 500, 3 seeds" in captions["differences"]
    assert any(text.startswith(f"{where}; Friedman p ") for text in captions["ranks"])


def _plain(chart: dict[str, Any]) -> str:
    """The caption of a chart, its spaces plain."""
    return str(chart["caption"]).replace("\N{NO-BREAK SPACE}", " ")


def _marker(bar: Any) -> Any:
    """The marker of an error bar."""
    return bar.lines[0]


def test_bars_of_a_union() -> None:
    study = summarise(read_suite(ROOT / "results/cifar10-cpu-norms"))
    (union,) = study.unions
    assert [key for key, _ in union.parts] == ["aa_linf", "aa_l2", "aa_l1"]
    fig = comparison_plots.unions(study)
    assert fig is not None
    patches: Any = fig.axes[0].patches
    bars = [patch.get_width() for patch in patches]
    rows = study.table.rows
    expected = [
        100 * row.summaries[key].interval.value  # type: ignore[union-attr]
        for key in ("aa_linf", "aa_l2", "aa_l1", union.key)
        for row in rows
    ]
    assert bars == pytest.approx(expected)
    (drawn,) = chart_data(study)["unions"]
    by_attack = zip(*([v[0] for v in row["values"]] for row in drawn["rows"]), strict=True)
    assert [v for values in by_attack for v in values] == pytest.approx(expected, abs=0.01)
    assert [bar["look"] for bar in drawn["bars"]] == [0, 1, 2, None]
    assert _plain(drawn) == (
        "Union (AutoAttack ℓ∞, eps 8/255; AutoAttack ℓ2, eps 128/255; AutoAttack ℓ1, eps 12), "
        "n = 100, 1 seed"
    )
