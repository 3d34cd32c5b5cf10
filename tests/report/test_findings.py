"""The words: a claim only where the figures carry it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_records import write_suite

from benchmark.report import findings
from benchmark.report.records import SuiteRecord, read_suite
from benchmark.report.tables import latex_text, markdown_text

Figures = dict[str, tuple[str, float, float, float, float]]
BASE: Figures = {
    "natural": ("natural", 0.95, 0.01, 0.0, 1),
    "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11),
    "joint": ("joint", 0.90, 0.40, 0.35, 12),
}


def _suite(out: Path, methods: Figures, n: int = 2000, **options: object) -> SuiteRecord:
    write_suite(out, methods, n=n, n_aa=n, corruptions=(), spread=0.0, **options)  # type: ignore[arg-type]
    return read_suite(out)


@pytest.mark.parametrize(
    ("clean", "pgd", "says"), [(0.90, 0.50, "lies above"), (0.80, 0.38, "lies below")]
)
def test_a_method_clearly_off_the_line(tmp_path: Path, clean: float, pgd: float, says: str) -> None:
    figures = ("generalist-d", clean, pgd, pgd - 0.05, 12.0)
    suite = _suite(tmp_path, BASE | {"my-generalist": figures})
    sentence = findings.trade_off(suite)[0]
    assert sentence.startswith("my-generalist, clean/PGD-20:")
    assert f"{says} the line through pgd-at and joint" in sentence


def test_a_method_on_the_line_is_no_finding(tmp_path: Path) -> None:
    suite = _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)}, n=450)
    for sentence in findings.trade_off(suite):
        assert "no difference detected" in sentence
        assert "n = 450, 1 seed" in sentence


def test_the_distance_is_at_right_angles(tmp_path: Path) -> None:
    """Line from (80, 50) to (90, 40); (90, 50) lies 10 / sqrt(2) = 7.07 points above it."""
    suite = _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.90, 0.50, 0.4, 12)})
    test = findings.line_test(suite, "generalist-d", ("pgd-at", "joint"), "pgd20_linf")
    assert isinstance(test, findings.LineTest)
    assert test.distance.value == pytest.approx(0.0707, abs=0.001)
    assert test.distance.low < 0.0707 < test.distance.high
    assert test.share == pytest.approx(0.5, abs=0.01)


def test_natural_stands_in_for_a_missing_joint(tmp_path: Path) -> None:
    methods = {m: BASE[m] for m in ("natural", "pgd-at")}
    suite = _suite(tmp_path, methods | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)})
    assert "the line through pgd-at and natural" in findings.trade_off(suite)[0]


def test_anchors_that_do_not_trade_off_make_no_line(tmp_path: Path) -> None:
    methods: Figures = {
        "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11),
        "joint": ("joint", 0.90, 0.55, 0.50, 12),
        "generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12),
    }
    sentence = findings.trade_off(_suite(tmp_path, methods))[0]
    assert "no line to compare with" in sentence
    assert "do not trade off" in sentence


def test_leaders_are_named_and_tested(tmp_path: Path) -> None:
    suite = _suite(tmp_path, BASE, seeds=(0, 1))
    text = findings.words(suite)
    assert "Highest natural accuracy: natural with 95.0 %" in text
    assert "Highest PGD-20 accuracy: pgd-at with 50.0 %, 10.0 points before joint" in text
    assert "Highest mean of clean and AutoAttack accuracy: " in text
    assert "n = 2000, 2 seeds" in text
    assert "A test on 1 seed" not in text


def test_a_leader_within_noise_is_said_to_be_so(tmp_path: Path) -> None:
    methods = BASE | {"trades": ("trades", 0.798, 0.502, 0.45, 12)}
    text = findings.words(_suite(tmp_path, methods, n=400))
    assert "no difference detected at n = 400, 1 seed (exact McNemar" in text
    assert "A test on 1 seed" in text


def test_without_outcomes_nothing_is_tested(tmp_path: Path) -> None:
    methods = BASE | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)}
    _suite(tmp_path, methods)
    for path in tmp_path.glob("cells/*/outcomes.parquet"):
        path.unlink()
    text = findings.words(read_suite(tmp_path))
    assert "not tested" in text
    assert "p = " not in text


def test_an_autoattack_weaker_than_pgd_is_a_warning(tmp_path: Path) -> None:
    suite = _suite(tmp_path, {**BASE, "odd": ("odd", 0.8, 0.3, 0.45, 11)})
    found = [w for w in findings.warnings(suite) if "AutoAttack accuracy is above" in w]
    assert len(found) == 1
    assert found[0].startswith("odd:")


def test_different_test_sets_are_a_warning_and_never_paired(tmp_path: Path) -> None:
    _suite(tmp_path, BASE)
    path = tmp_path / "cells" / "joint-cifar10-s0" / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation["dataset"]["fingerprint"] = "other"
    path.write_text(json.dumps(evaluation))
    suite = read_suite(tmp_path)
    assert any("different test sets" in w for w in findings.warnings(suite))
    assert findings.contrast(suite, [(1, "joint", "clean"), (-1, "pgd-at", "clean")]) is None


def test_gaps_and_limits_are_warnings(small: SuiteRecord) -> None:
    text = " ".join(findings.warnings(small))
    assert "limit = 200" in text
    assert "joint seed 1 (not started)" in text


def test_warnings_of_autoattack_reach_the_reader(tmp_path: Path) -> None:
    _suite(tmp_path, BASE)
    for path in tmp_path.glob("cells/pgd-at*/evaluation.json"):
        record = json.loads(path.read_text())
        record["metrics"]["aa_linf"]["detail"]["warnings"] = ["zero gradient at 40 % of points"]
        path.write_text(json.dumps(record))
    text = findings.words(read_suite(tmp_path))
    assert "AutoAttack: zero gradient at 40 % of points (pgd-at seed 0)" in text


def test_a_generalist_without_a_natural_learner_has_no_clean_line(tmp_path: Path) -> None:
    _suite(tmp_path, BASE | {"generalist-d-norms": ("generalist-d-norms", 0.8, 0.5, 0.4, 12)})
    for path in tmp_path.glob("cells/generalist*/config.json"):
        record = json.loads(path.read_text())
        learners = [{"objective": {"name": "pgd-at"}}] * 2
        record["config"]["method"]["recipe"] = {"learners": learners}
        path.write_text(json.dumps(record))
    (sentence,) = findings.trade_off(read_suite(tmp_path))
    assert "has no natural learner" in sentence


def test_doubtful_runs_are_marked_in_every_table(tmp_path: Path) -> None:
    """Protects: a figure that looks like robustness, quoted without its warning."""
    _suite(tmp_path, BASE)
    for path in tmp_path.glob("cells/*/evaluation.json"):
        record = json.loads(path.read_text())
        found = [{"name": "random", "text": "two forward passes differ by 0.2"}]
        record["reliability"] = {"images": 64, "findings": found if "joint" in str(path) else []}
        path.write_text(json.dumps(record))
    suite = read_suite(tmp_path)
    line = "random: two forward passes differ by 0.2 (joint seed 0)"
    for text in (markdown_text(suite), latex_text(suite), findings.words(suite)):
        assert line in text
    assert "| joint [!] |" in " ".join(markdown_text(suite).split())
    assert "pgd-at [!]" not in markdown_text(suite)
    for path in tmp_path.glob("cells/*/evaluation.json"):
        record = json.loads(path.read_text())
        record["reliability"]["findings"] = []
        path.write_text(json.dumps(record))
    assert "Reliability checks: no finding in any run." in markdown_text(read_suite(tmp_path))
