"""Runs that were trained too little, and runs that were trained elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_records import write_suite

from benchmark.records.study import read_suite
from benchmark.report.markdown import provenance_md, table_md
from benchmark.report.provenance import provenance_of, same_configuration_elsewhere
from benchmark.report.summarise import summarise
from benchmark.report.tables import csv_text
from benchmark.report.undertrained import all_undertrained

METHODS = {"pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11.0)}


def write(out: Path, curve: dict[float, float], images: int, accuracy: float = 0.8) -> Path:
    """A suite of one run whose validation accuracy follows ``curve`` (progress to accuracy)."""
    figures = ("pgd-at", accuracy, accuracy / 2, accuracy / 3, 11.0)
    write_suite(out, {"pgd-at": figures}, n=1000, n_aa=100, corruptions=(), spread=0.0)
    (cell,) = out.glob("cells/*")
    points = [
        {"epoch": i, "step": i, "progress": progress, "val_clean": value, "val_pgd": 0.4}
        for i, (progress, value) in enumerate(curve.items())
    ]
    (cell / "metrics.jsonl").write_text("\n".join(map(json.dumps, points)))
    record = json.loads((cell / "training.json").read_text())
    (cell / "training.json").write_text(json.dumps(record | {"val_images": images}))
    return out


@pytest.mark.parametrize(
    ("end", "images", "says"),
    [
        (0.60, 1000, "still improving at the end, validation clean 50.0 % at three quarters"),
        (0.51, 100_000, ""),  # sure, but small
        (0.60, 50, ""),  # large, but within the noise of so few images
        (0.40, 1000, ""),  # overfitting is no lack of training
    ],
)
def test_runs_that_still_improve(tmp_path: Path, end: float, images: int, says: str) -> None:
    """Protects: conclusions from runs that were stopped on their way up."""
    suite = read_suite(write(tmp_path, {0.25: 0.3, 0.75: 0.5, 0.9: 0.55, 1.0: end}, images))
    reason = all_undertrained(suite).get("pgd-at", "")
    assert reason.startswith(says)
    assert bool(reason) == bool(says)
    assert ("pgd-at [u]" in table_md(summarise(suite))) == bool(says)
    assert ("under-trained" in csv_text(summarise(suite))) == bool(says)


@pytest.mark.parametrize(("accuracy", "near"), [(0.178, True), (0.2, False)])
def test_runs_near_chance(tmp_path: Path, accuracy: float, near: bool) -> None:
    """Protects: 17.8 % of ten classes passing as a trained net; 20 % is beyond the threshold."""
    out = write(tmp_path, {0.5: 0.15, 1.0: 0.15}, 1000, accuracy)
    suite = read_suite(out)
    assert bool(all_undertrained(suite)) == near
    if near:
        assert "17.8 % clean of 10 classes" in all_undertrained(suite)["pgd-at"]


def test_equal_configurations_with_other_weights_are_explained(tmp_path: Path) -> None:
    """Protects: one configuration hash with two model hashes in two reports, and no word why."""
    for study in ("here", "there"):
        write_suite(tmp_path / study, METHODS, n=100, n_aa=20, corruptions=())
    suite = read_suite(tmp_path / "here")
    assert same_configuration_elsewhere(suite) == []
    (cell,) = (tmp_path / "there").glob("cells/*")
    path = cell / "evaluation.json"
    record = json.loads(path.read_text())
    for entry in record["metrics"].values():
        entry["model"] = "cafe"
    path.write_text(json.dumps(record))
    (line,) = same_configuration_elsewhere(suite)
    assert "there has other weights (cafe) of the same configuration" in line
    assert "nothing on record tells the two trainings apart" in line
    path = cell / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor": "other", "threads": 4}))
    (line,) = same_configuration_elsewhere(suite)
    assert "another machine, version or precision" in line
    assert "processor here unknown, there other; threads here 1, there 4" in line
    text = provenance_md(provenance_of(suite))
    assert line in text
    assert "cpu, 1 thread, fp32, 0123abc" in text
    path.write_text("{")  # a damaged neighbour is no part of this report
    assert same_configuration_elsewhere(suite) == []
