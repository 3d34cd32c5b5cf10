"""Fronts: their hulls, distances, areas, and the words about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_records import write_suite

from benchmark.config.suite import SuiteConfig
from benchmark.records.statistics import Interval
from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import fronts, plots
from benchmark.report.fronts import band, hull, nearest
from benchmark.report.markdown import findings_md, fronts_md
from benchmark.report.study_model import FrontCell, FrontPlane
from benchmark.report.summarise import summarise

# Hull of TRADES: (80, 50), (86, 47), (90, 40); joint lies below it throughout.
METHODS = {
    "trades-6": ("trades", 0.80, 0.50, 0.45, 12),
    "trades-3": ("trades", 0.86, 0.47, 0.42, 12),
    "trades-2": ("trades", 0.87, 0.43, 0.40, 12),
    "trades-1": ("trades", 0.90, 0.40, 0.35, 12),
    "joint-5": ("joint", 0.80, 0.46, 0.41, 12),
    "joint-3": ("joint", 0.88, 0.38, 0.33, 12),
    "g-4": ("generalist-d", 0.88, 0.48, 0.43, 12),
    "g-6": ("generalist-d", 0.78, 0.48, 0.43, 12),
    "natural": ("natural", 0.95, 0.01, 0.0, 1),
}
FRONTS = {
    "TRADES": ["trades-6", "trades-3", "trades-2", "trades-1"],
    "joint": ["joint-5", "joint-3"],
    "Generalist-D": ["g-4", "g-6"],
}


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fronts, "RESAMPLES", 400)


def _suite(
    out: Path, seeds: tuple[int, ...] = (0,), n: int = 2000, spread: float = 0.0
) -> SuiteRecord:
    write_suite(out, METHODS, seeds=seeds, n=n, n_aa=n // 4, corruptions=(), spread=spread)
    plan = json.loads((out / "suite.json").read_text())
    (out / "suite.json").write_text(json.dumps({**plan, "fronts": FRONTS}))
    return read_suite(out)


def _plane(suite: SuiteRecord) -> FrontPlane:
    return fronts.front_planes(suite, ())[0]


def test_the_hull_leaves_out_what_a_mixture_of_two_others_dominates() -> None:
    found = [(0.8, 0.5), (0.86, 0.47), (0.87, 0.43), (0.9, 0.4), (0.85, 0.2), (0.8, 0.4)]
    assert hull(found) == [0, 1, 3]
    assert hull([(0.5, 0.5)]) == [0]
    assert hull([(0.5, 0.5), (0.6, 0.6)]) == [1]
    assert hull([(0, 1), (0.5, 0.5), (1, 0)]) == [0, 2]  # on the line adds nothing


def test_the_band_of_seeds_spans_what_all_of_them_reach() -> None:
    """Lowest and highest at each corner of the hulls between 0.2 and 1, linear between corners."""
    one, other = [(0.0, 1.0), (1.0, 0.5)], [(0.2, 0.8), (0.6, 0.75), (1.2, 0.0)]
    assert band([one, other]) == tuple(
        (x, pytest.approx(low), pytest.approx(high))
        for x, low, high in ((0.2, 0.8, 0.9), (0.6, 0.7, 0.75), (1.0, 0.25, 0.5))
    )
    assert band([one]) == ()
    assert band([[(0.0, 1.0)], [(0.5, 0.5)]]) == ()


@pytest.mark.parametrize(
    ("point", "distance", "beyond"),
    [
        ((0.5, 0.5), 0.0, False),
        ((0.6, 0.6), 0.1 * 2**0.5, False),
        ((0.4, 0.4), -0.1 * 2**0.5, False),
        ((1.1, 0.05), 0.1118034, False),  # more of both than the end (1, 0)
        ((1.1, -0.05), 0.1118034, True),
        ((-0.1, 1.05), 0.1118034, False),
        ((-0.1, 0.9), -0.1414214, False),  # worse than (0, 1) on both axes
    ],
)
def test_distance_from_a_line_and_its_ends(
    point: tuple[float, float], distance: float, beyond: bool
) -> None:
    """The hull from (0, 1) to (1, 0): at right angles between its ends, else to the end itself."""
    found = nearest(point, [(0.0, 1.0), (1.0, 0.0)])
    if not beyond and point[0] >= 0:
        assert found.distance == pytest.approx(distance, abs=1e-6)
    assert found.beyond == (beyond or point == (-0.1, 1.05))


def test_distance_from_a_corner_is_along_the_way_to_it() -> None:
    """Above the vertex (0.5, 0.9) of a hull, both neighbouring lines are further away."""
    vertices = [(0.0, 1.0), (0.5, 0.9), (0.6, 0.0)]
    found = nearest((0.54, 0.96), vertices)
    assert found.shares == {1: 1.0}
    assert found.distance == pytest.approx(np.hypot(0.04, 0.06))
    assert found.normal == pytest.approx((0.04 / found.distance, 0.06 / found.distance))


def test_points_and_areas_of_a_plane(tmp_path: Path) -> None:
    plane = _plane(_suite(tmp_path))
    assert (plane.n, plane.seeds, plane.metric) == (2000, (0,), "pgd20_linf")
    trades, joint, own = plane.fronts
    assert [round(100 * x) for x, _ in trades.hull] == [80, 86, 90]
    assert plane.reference in {(0.77, 0.37), (0.77, 0.38), (0.78, 0.38)}
    x0, y0 = plane.reference
    stairs = (0.80 - x0) * (0.50 - y0) + (0.86 - 0.80) * (0.47 - y0)
    stairs += (0.87 - 0.86) * (0.43 - y0) + (0.90 - 0.87) * (0.40 - y0)
    assert trades.hypervolume.value == pytest.approx(stairs, abs=3e-4)
    assert trades.hypervolume.low < trades.hypervolume.value < trades.hypervolume.high
    assert joint.hypervolume.high < trades.hypervolume.low
    assert own.family.name == "Generalist"


def test_distances_are_signed_and_tested(tmp_path: Path) -> None:
    """g-4 lies above both fronts, g-6 inside that of TRADES and beyond the end of joint's."""
    plane = _plane(_suite(tmp_path))
    above, below = plane.distances["g-4", "TRADES"], plane.distances["g-6", "TRADES"]
    assert above.interval is not None
    assert below.interval is not None
    # from (86, 47) to (90, 40): normal (7, 4) / sqrt(65)
    assert above.interval.value == pytest.approx((7 * 2 + 4 * 1) / 65**0.5 / 100, abs=2e-3)
    assert below.interval.value == pytest.approx(-np.hypot(2, 2) / 100, abs=2e-3)
    assert above.interval.low > 0 > below.interval.high
    assert max(above.p, below.p) < 0.05
    assert plane.distances["g-6", "joint"].interval is None
    assert set(plane.distances) == {(g, r) for g in ("g-4", "g-6") for r in ("TRADES", "joint")}


def test_the_area_interval_covers_seeds_and_images(tmp_path: Path) -> None:
    """Seeds that differ widen it; one seed alone is the bootstrap of images."""
    one = _plane(_suite(tmp_path / "1")).fronts[0].hypervolume
    many = _plane(_suite(tmp_path / "3", (0, 1, 2), spread=0.04)).fronts[0].hypervolume
    assert many.high - many.low > 1.5 * (one.high - one.low)


def test_words_files_and_plot(tmp_path: Path) -> None:
    study = summarise(_suite(tmp_path))
    words = findings_md(study.findings)
    assert "Fronts of Generalist against those of other methods" in words
    assert "the best rival front, TRADES" in words
    assert (
        "Of its 2 settings, 1 above that front, 1 below it and 0 not detectably different" in words
    )
    assert "trade-off line" not in words
    text = fronts_md(study)
    assert "| g-6" in text
    assert "beyond its end" in text
    assert "Hypervolume" in text
    assert "n = 2,000, 1 seed" in text
    assert plots.fronts(study) is not None


def test_a_suite_without_fronts_has_none(tmp_path: Path) -> None:
    write_suite(tmp_path, METHODS, corruptions=())
    study = summarise(read_suite(tmp_path))
    assert study.fronts == ()
    assert fronts_md(study) == ""
    assert plots.fronts(study) is None
    assert "Fronts of" not in findings_md(study.findings)


def test_settings_without_a_run_and_under_trained_ones_are_left_out(tmp_path: Path) -> None:
    suite = _suite(tmp_path)
    plane = fronts.front_planes(suite, ("trades-3", "joint-5", "joint-3"))[0]
    assert [front.name for front in plane.fronts] == ["TRADES", "Generalist-D"]
    assert [label for label, _ in plane.fronts[0].points] == ["trades-6", "trades-2", "trades-1"]


def test_a_front_names_methods_of_the_suite() -> None:
    data = {"name": "s", "methods": ["natural"], "fronts": {"TRADES": ["trades"]}}
    with pytest.raises(ValueError, match="front 'TRADES' names trades; name labels of"):
        SuiteConfig.model_validate(data)


def test_areas_and_distances_have_their_own_last_digit() -> None:
    """Protects: an area of 4.1 squared points, 0.00041, taken for too small to be seen."""
    cell = FrontCell(Interval(4.1e-4, 1.1e-4, 7.1e-4), 0.01)
    assert fronts.difference_text(cell) == "4.1 [1.1, 7.1] *"
    assert fronts.distance_text(cell) == "0.0 [0.0, 0.1]"
