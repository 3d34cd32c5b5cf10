"""Accuracy against the radius of the attack in reports, and metrics that are no robust accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_entries import made
from synthetic_records import ELEVEN, write_suite
from tiny_suites import cli

from benchmark.data.corruptions import CORRUPTIONS
from benchmark.records.statistics import seed_interval
from benchmark.records.study import read_suite
from benchmark.report import plots
from benchmark.report.chart_data import chart_data
from benchmark.report.compare import compare
from benchmark.report.markdown import radii_md
from benchmark.report.page import heat_maps
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise
from benchmark.report.write import write_report

THREAT = {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 20}
RADII = ["4/255", "8/255", "16/255"]
METHODS = ("natural", "pgd-at", "generalist-d")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds with a curve, calibration errors and attacked corruptions, all in the ball of
    AutoAttack and ahead of PGD in the record."""
    folder = tmp_path_factory.mktemp("radii")
    methods = {m: ELEVEN[m] for m in METHODS}
    write_suite(folder, methods, seeds=(0, 1), n=500, n_aa=200)
    for number, cell in enumerate(sorted(folder.glob("cells/*"))):
        record = json.loads((cell / "evaluation.json").read_text())
        frame = pd.read_parquet(cell / "outcomes.parquet")
        accuracies = [share - 0.02 * number for share in (0.6, 0.4, 0.2)]
        for radius, accuracy in zip(RADII, accuracies, strict=True):
            frame[f"curve20_linf/{radius}"] = np.arange(500) < 500 * accuracy
        known = record["metrics"]
        fog = known["corruptions"]["detail"]
        detail = {"threat": THREAT, "radii": RADII, "clean": 0.8, "accuracies": accuracies}
        added = {
            "curve20_linf": made(
                {"kind": "curve", "threat": THREAT, "factors": [0.5, 1, 2]},
                detail, n=500, mean=0.5,
            ),
            "calibration": made({"kind": "calibration"}, n=500, mean=0.1, outcomes="none"),
            "calibration_pgd20_linf": made(
                {"kind": "calibration", "threat": THREAT}, {"threat": THREAT},
                n=500, mean=0.3, outcomes="none",
            ),
            "corruptions_pgd20_linf": made(
                {"kind": "corruptions", "threat": THREAT}, {**fog, "threat": THREAT},
                n=500, mean=0.2,
            ),
        }  # fmt: skip
        for name in [c for c in frame if c.startswith("corruptions/")]:
            frame[name.replace("corruptions", "corruptions_pgd20_linf", 1)] = frame[name]
        record["metrics"] = {"clean": known["clean"], **added, **known}
        (cell / "evaluation.json").write_text(json.dumps(record))
        frame.to_parquet(cell / "outcomes.parquet")
    return folder


@pytest.fixture(scope="module")
def study(out: Path) -> Study:
    return summarise(read_suite(out))


def test_the_curve_has_the_intervals_of_the_table(study: Study, out: Path) -> None:
    (curves,) = study.radii
    assert curves.radii == ("0", *RADII)
    assert curves.positions == (0, 4, 8, 16)
    assert curves.axis == "eps (linf, 1/255)"
    entries = [
        json.loads((cell / "evaluation.json").read_text())["metrics"]["curve20_linf"]["detail"]
        for cell in sorted(out.glob("cells/pgd-at-*"))
    ]
    middle = [detail["accuracies"][1] for detail in entries]
    assert curves.lines["pgd-at"][2] == seed_interval(middle, 500)
    text = radii_md(study)
    row = next(line for line in text.splitlines() if line.startswith("| pgd-at"))
    assert f"{100 * np.mean(middle):.1f}" in row
    assert "50.0 ± 0.0 [" in row, "the area with its interval"
    drawn = chart_data(study)["radii"]["curve20_linf"]["lines"]["pgd-at"]
    assert drawn["x"] == [0, 4, 8, 16]
    assert drawn["mean"][2] == round(100 * np.mean(middle), 2)


def test_the_drawing_has_a_line_and_a_name_per_method(study: Study) -> None:
    """In the figure, apart from each other, and with the family's marker."""
    fig = plots.radii(study)
    assert fig is not None
    fig.draw_without_rendering()
    (ax,) = fig.axes
    families = {row.method: row.family for row in study.table.rows}
    marked = [line for line in ax.lines if len(line.get_xdata()) == 4]
    assert [line.get_marker() for line in marked] == [families[m].marker for m in METHODS]
    renderer = fig.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = {text.get_text(): text.get_window_extent(renderer) for text in ax.texts}
    assert set(METHODS) == boxes.keys()
    names = list(boxes.values())
    for i, box in enumerate(names):
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert not any(box.overlaps(other) for other in names[i + 1 :])


def test_a_report_without_curves_leaves_none_behind(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.report.write.PLOTS", {"radii": plots.radii})
    write_report(study, tmp_path)
    names = [f"radii.{suffix}" for suffix in ("md", "png", "pdf")]
    assert all((tmp_path / name).exists() for name in names)
    assert "![radii](radii.png)" in (tmp_path / "report.md").read_text()
    plain = write_suite(tmp_path / "plain", {"pgd-at": ELEVEN["pgd-at"]}, corruptions=())
    write_report(summarise(read_suite(plain)), tmp_path)
    assert not any((tmp_path / name).exists() for name in names)


def test_errors_and_areas_are_no_robust_accuracy(study: Study) -> None:
    """Protects: a calibration error or an area as the weaker attack beside AutoAttack, or among
    robust accuracies across norms."""
    titles = [column.title for column in study.table.columns]
    assert "PGD-20 (n = 200)" in titles
    assert not {"Area PGD-20 (n = 200)", "ECE, PGD-20 (n = 200)"} & set(titles)
    across = heat_maps(study)[0]
    assert across.columns == ("PGD-20", "PGD-20 l2", "PGD-20 (n = 200)", "AutoAttack")
    notes = "\n".join(study.notes)
    assert "ECE, PGD-20: n = 500, expected calibration error" in notes


def test_corruptions_under_attack_are_not_held_against_a_reference_without(
    out: Path, tmp_path: Path
) -> None:
    """They have a table of their own, and no mean corruption error."""
    reference = tmp_path / "reference.csv"
    lines = [f"{name},{level},0.5" for name in CORRUPTIONS for level in range(1, 6)]
    reference.write_text("\n".join(["corruption,severity,error", *lines]) + "\n")
    tables = {table.metric: table for table in summarise(read_suite(out), reference).corruptions}
    errors = {metric: [name for name, _ in table.errors] for metric, table in tables.items()}
    assert errors == {"corruptions": ["mCE"], "corruptions_pgd20_linf": []}
    attacked = tables["corruptions_pgd20_linf"]
    assert attacked.title == "Corruptions, PGD-20"
    assert [name for name, _ in attacked.rows] == list(CORRUPTIONS)


def test_compare_shows_every_metric_of_both(out: Path) -> None:
    """Protects: corruptions, curves and calibration errors left out without a word."""
    first, second = (next(out.glob(f"cells/{m}-*-s0")) for m in ("natural", "pgd-at"))
    rows = {row.metric: row for row in compare(first, second)}
    for name in ("curve20_linf", "calibration", "calibration_pgd20_linf", "corruptions"):
        assert rows[name].p is None, name
    assert rows["calibration_pgd20_linf"].verdict.endswith("smaller is better")
    assert rows["corruptions"].first == pytest.approx(
        json.loads((first / "evaluation.json").read_text())["metrics"]["corruptions"]["mean"]
    )
    assert rows["pgd20_linf"].p is not None
    assert "curve20_linf\t500" in cli("compare", first, second).out
