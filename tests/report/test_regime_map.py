"""The map of regimes: distances by place, their correction, and what cannot be mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_records import write_suite
from tiny_suites import cli

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import fronts
from benchmark.report.regime_map import draw, map_md, regime_map

FRONTS = {"rivals": ["trades", "joint"], "Generalist-D": ["g"]}
RIVALS = {"trades": ("trades", 0.80, 0.50, 0.45, 12), "joint": ("joint", 0.90, 0.40, 0.35, 12)}
# (clean, robust): far above the line from (80, 50) to (90, 40), far below it, beyond its end
GENERALISTS = {"above": (0.88, 0.47), "below": (0.82, 0.42), "beyond": (0.93, 0.40)}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "RESAMPLES", 200)


def study(folder: Path, accuracies: tuple[float, float], **more: Any) -> Path:
    clean, robust = accuracies
    methods = {**RIVALS, "g": ("generalist-d", clean, robust, robust - 0.05, 12)}
    write_suite(folder, methods, n=2000, n_aa=500, corruptions=(), spread=0.0, **more)
    plan = json.loads((folder / "suite.json").read_text())
    (folder / "suite.json").write_text(json.dumps({**plan, "fronts": FRONTS}))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two widths by two limits, one place missing."""
    places = {"above": (16, 500), "below": (32, 500), "beyond": (16, 900)}
    return [
        study(tmp_path / name, GENERALISTS[name], width=width, limit=limit)
        for name, (width, limit) in places.items()
    ]


def read(folders: list[Path]) -> list[SuiteRecord]:
    return [read_suite(folder) for folder in folders]


def test_distances_are_those_of_the_fronts_and_corrected_together(folders: list[Path]) -> None:
    found = regime_map(read(folders), "model.width", "dataset.limit")
    places = {(p.row, p.column): p for p in found.places}
    assert list(places) == [(16, 500), (16, 900), (32, 500)]
    raw = [p for place in places.values() for p in (c.p for c in place.plane.distances.values())]
    smallest = min(raw)  # Holm: of two, the smaller is doubled
    for at, sign in (((16, 500), 1), ((32, 500), -1)):
        place = places[at]
        (alone,) = place.plane.distances.values()
        assert place.cell.interval == alone.interval
        assert place.cell.interval is not None
        assert sign * place.cell.interval.value > 0.02
        p = alone.p * (2 if alone.p == smallest else 1)
        assert place.cell.p == pytest.approx(p, rel=1e-6, abs=1e-15)
    assert places[16, 900].cell.interval is None
    text = map_md(found)
    assert (
        "in 3 regimes the Generalist is above the front of its rivals in 1, below it in 1" in text
    )
    assert "beyond its end" in text
    drawn = [item.get_text() for item in draw(found).axes[0].texts]
    assert [text.split("\n")[0].endswith("*") for text in drawn] == [True, False, True, False]
    assert drawn[3] == "not run"


def test_on_the_command_line(folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "map"
    settings = ("--map", "model.width", "dataset.limit")
    called = cli("report", *folders, *settings, "--out", out, "--json")
    rows = called.json()["places"]
    assert [(row["model.width"], row["dataset.limit"]) for row in rows] == [
        (16, 500), (16, 900), (32, 500),
    ]  # fmt: skip
    table = pd.read_csv(out / "map.csv")
    assert table["distance"].isna().tolist() == [False, True, False]
    assert {path.name for path in out.iterdir()} == {
        "map.md", "map.csv", "map.png", "map.pdf", "map.svg",
    }  # fmt: skip


def test_what_cannot_be_mapped_is_named(folders: list[Path], tmp_path: Path) -> None:
    studies = read(folders)
    with pytest.raises(
        BenchmarkError, match="both have model.width 16 and model.name small-resnet"
    ):
        regime_map(studies, "model.width", "model.name")
    with pytest.raises(BenchmarkError, match="has no model.depth"):
        regime_map(studies, "model.depth", "model.width")
    plan = json.loads((folders[0] / "suite.json").read_text())
    one_front = {**plan, "fronts": {"rivals": FRONTS["rivals"]}}
    (folders[0] / "suite.json").write_text(json.dumps(one_front))
    with pytest.raises(BenchmarkError, match="needs a front of one Generalist"):
        regime_map(read(folders), "model.width", "dataset.limit")
