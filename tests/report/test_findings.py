"""The words: a claim only where the figures carry it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from made_entries import FUNCTION, made
from synthetic_records import write_suite

from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import findings, leaders
from benchmark.report.latex import table_tex
from benchmark.report.markdown import findings_md, table_md
from benchmark.report.paired import contrast
from benchmark.report.study_model import Findings
from benchmark.report.summarise import summarise
from benchmark.report.trade_off_line import LineTest, line_sentences, line_test
from benchmark.report.undertrained import all_undertrained

Figures = dict[str, tuple[str, float, float, float, float]]
BASE: Figures = {
    "natural": ("natural", 0.95, 0.01, 0.0, 1),
    "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11),
    "joint": ("joint", 0.90, 0.40, 0.35, 12),
}


def _suite(out: Path, methods: Figures, n: int = 2000, **options: object) -> SuiteRecord:
    write_suite(out, methods, n=n, n_aa=n, corruptions=(), spread=0.0, **options)  # type: ignore[arg-type]
    return read_suite(out)


def _found(suite: SuiteRecord) -> Findings:
    return findings.findings_of(suite, all_undertrained(suite))


def _words(suite: SuiteRecord) -> str:
    return findings_md(_found(suite))


def _warnings(suite: SuiteRecord) -> list[str]:
    return findings.warnings(suite, all_undertrained(suite))


def _line(suite: SuiteRecord) -> list[str]:
    return line_sentences(suite, all_undertrained(suite))


@pytest.mark.parametrize(
    ("clean", "pgd", "says"), [(0.90, 0.50, "points above"), (0.80, 0.38, "points below")]
)
def test_a_method_clearly_off_the_line(tmp_path: Path, clean: float, pgd: float, says: str) -> None:
    figures = ("generalist-d", clean, pgd, pgd - 0.05, 12.0)
    suite = _suite(tmp_path, BASE | {"my-generalist": figures})
    sentence = _line(suite)[0]
    assert sentence.startswith("my-generalist, clean/PGD-20:")
    assert f"{says} the line through pgd-at and joint" in sentence


def test_a_method_on_the_line_is_no_finding(tmp_path: Path) -> None:
    suite = _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)}, n=450)
    for sentence in _line(suite):
        assert "no difference detected" in sentence
        assert "n = 450, 1 seed" in sentence


def test_the_distance_is_at_right_angles(tmp_path: Path) -> None:
    """Line from (80, 50) to (90, 40); (90, 50) lies 10 / sqrt(2) = 7.07 points above it."""
    suite = _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.90, 0.50, 0.4, 12)})
    test = line_test(suite, "generalist-d", ("pgd-at", "joint"), "pgd20_linf")
    assert isinstance(test, LineTest)
    assert test.distance.value == pytest.approx(0.0707, abs=0.001)
    assert test.distance.low < 0.0707 < test.distance.high
    assert test.share == pytest.approx(0.5, abs=0.01)


def test_lines_are_not_extrapolated(tmp_path: Path) -> None:
    """Protects: a verdict about a method where there is no line, beyond an end point."""
    suite = _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.76, 0.51, 0.46, 12)})
    sentence = _line(suite)[0]
    assert "beyond the end of the line through pgd-at and joint at pgd-at" in sentence
    assert "p = " not in sentence
    suite = _suite(tmp_path / "b", BASE | {"generalist-d": ("generalist-d", 0.94, 0.36, 0.3, 12)})
    assert "beyond the end of the line through pgd-at and joint at joint" in (_line(suite)[0])


def test_clean_and_autoattack_are_compared_on_the_same_images(tmp_path: Path) -> None:
    """Protects: sums and distances whose clean part is of all images and whose robust part is of a
    few easy ones; all is as if the other images did not exist."""
    methods = BASE | {"generalist-d": ("generalist-d", 0.85, 0.46, 0.41, 12)}
    write_suite(tmp_path / "all", methods, n=600, n_aa=150, corruptions=(), spread=0.0)
    suite = read_suite(tmp_path / "all")
    clean = suite.of("joint")[0].outcomes["clean"].astype(float)  # type: ignore[index]
    attacked = suite.of("joint")[0].outcomes["aa_linf"]  # type: ignore[index]
    wanted = (clean[:150].mean() + attacked[:150].astype(float).mean()) / 2
    (score,) = (s for s in leaders.scores(suite) if s.kind == "sum")
    assert leaders.mean_score(suite, "joint", score.weights) == pytest.approx(wanted)
    assert clean[:150].mean() != clean.mean()
    whole = line_test(suite, "generalist-d", ("pgd-at", "joint"), "aa_linf")
    for path in tmp_path.glob("all/cells/*/outcomes.parquet"):  # only the attacked images are left
        frame = pd.read_parquet(path).head(150)
        frame.to_parquet(path)
        record = json.loads((path.parent / "evaluation.json").read_text())
        for name, entry in record["metrics"].items():
            correct = int(frame[name].sum())
            entry |= {"n": 150, "correct": correct, "mean": correct / 150}
        (path.parent / "evaluation.json").write_text(json.dumps(record))
    alone = line_test(read_suite(tmp_path / "all"), "generalist-d", ("pgd-at", "joint"), "aa_linf")
    assert isinstance(whole, LineTest)
    assert whole == alone
    assert whole.where == "n = 150, 1 seed"


def test_figures_equal_in_print_are_level(tmp_path: Path) -> None:
    """Protects: "0.1 points ahead of (33.3 against 33.3)"."""
    suite = _suite(tmp_path, {"a": BASE["pgd-at"], "b": BASE["joint"]}, n=1000)
    score = leaders.Scored("score", "clean", {"clean": 1.0})
    for first, second, says in ((0.33338, 0.33262, "level with b"), (0.334, 0.332, "0.2 points")):
        scores = {"a": first, "b": second}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leaders, "mean_score", lambda s, m, w, known=scores: known[m])
            found = leaders.lead(suite, score, ())
        assert found
        sentence = found.sentence
        assert says in sentence
        assert bool(re.search("p [=<]", sentence)) == (says != "level with b")


def test_the_union_is_named_first(tmp_path: Path) -> None:
    """Protects: a suite about several norms whose summary never says who survives them all."""
    _suite(tmp_path, BASE)
    for cell in tmp_path.glob("cells/*"):
        frame = pd.read_parquet(cell / "outcomes.parquet")
        frame["union"] = frame["aa_linf"] & frame["pgd20_l2"]
        frame.to_parquet(cell / "outcomes.parquet")
        record = json.loads((cell / "evaluation.json").read_text())
        correct = int(frame["union"].sum())
        parts = {"of": ["aa_linf", "pgd20_l2"]}
        union = made({"kind": "union", **parts}, parts, n=len(frame), correct=correct)
        record["metrics"]["union"] = union
        (cell / "evaluation.json").write_text(json.dumps(record))
    leaders = _found(read_suite(tmp_path)).leaders
    assert leaders[0].startswith("Highest union accuracy: pgd-at with")
    assert leaders[1].startswith("Highest natural accuracy")


def test_a_leaders_p_value_counts_the_methods_it_was_chosen_from(tmp_path: Path) -> None:
    """Protects: the more methods a suite has, the more easily the best of them looks special."""
    few = {"a": ("pgd-at", 0.8, 0.50, 0.4, 1), "b": ("pgd-at", 0.8, 0.475, 0.4, 1)}
    many = few | {f"c{i}": ("pgd-at", 0.8, 0.40, 0.35, 1) for i in range(4)}
    found = []
    for name, methods in {"few": few, "many": many}.items():
        suite = _suite(tmp_path / name, methods, n=1000)
        score = leaders.Scored("PGD-20 accuracy", "attack", {"pgd20_linf": 1.0})
        ahead = leaders.lead(suite, score, ())
        assert ahead
        assert ahead.margin
        found.append(float(re.search(r"p = ([\d.]+)", ahead.sentence)[1]))  # type: ignore[index]
        assert (ahead.margin.low > 0) == (ahead.certainty == "sure") == (found[-1] <= 0.05)
    assert found[1] == pytest.approx(3 * found[0], abs=0.002)


def test_no_conclusion_is_drawn_from_undertrained_runs(tmp_path: Path) -> None:
    """Protects: "significant" about a net that knows little more than chance."""
    weak = ("generalist-d", 0.17, 0.155, 0.15, 12)
    suite = _suite(tmp_path, {"weak": weak, "worse": ("pgd-at", 0.11, 0.02, 0.01, 1)})
    found = _found(suite)
    assert all("conclusion withheld, under-trained: weak and worse" in s for s in found.leaders)
    assert any("[u] weak is under-trained: seed 0 is near chance" in w for w in found.warnings)
    text = table_md(summarise(suite))
    assert "weak [u]" in text
    assert "*17.0*" not in text
    assert "**17.0**" not in text


def test_natural_stands_in_for_a_missing_joint(tmp_path: Path) -> None:
    methods = {m: BASE[m] for m in ("natural", "pgd-at")}
    suite = _suite(tmp_path, methods | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)})
    assert "the line through pgd-at and natural" in _line(suite)[0]


def test_anchors_that_do_not_trade_off_make_no_line(tmp_path: Path) -> None:
    methods: Figures = {
        "pgd-at": ("pgd-at", 0.80, 0.50, 0.45, 11),
        "joint": ("joint", 0.90, 0.55, 0.50, 12),
        "generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12),
    }
    sentence = _line(_suite(tmp_path, methods))[0]
    assert "no line to compare with" in sentence
    assert "do not trade off" in sentence


def test_leaders_are_named_and_tested(tmp_path: Path) -> None:
    suite = _suite(tmp_path, BASE, seeds=(0, 1))
    text = _words(suite)
    assert "Highest natural accuracy: natural with 95.0 %" in text
    assert "Highest PGD-20 accuracy: pgd-at with 50.0 %, 10.0 points ahead of joint" in text
    assert "Highest mean of clean and AutoAttack accuracy: " in text
    assert "n = 2000, 2 seeds" in text
    assert "A test on 1 seed" not in text


def test_a_leader_within_noise_is_said_to_be_so(tmp_path: Path) -> None:
    methods = BASE | {"trades": ("trades", 0.798, 0.502, 0.45, 12)}
    text = _words(_suite(tmp_path, methods, n=400))
    assert "no difference detected at n = 400, 1 seed (exact McNemar" in text
    assert "A test on 1 seed" in text


def test_an_autoattack_weaker_than_pgd_is_a_warning(tmp_path: Path) -> None:
    suite = _suite(tmp_path, {**BASE, "odd": ("trades", 0.8, 0.3, 0.45, 11)})
    found = [w for w in _warnings(suite) if "AutoAttack accuracy is above" in w]
    assert len(found) == 1
    assert found[0].startswith("odd:")


def test_different_test_sets_are_a_warning_and_never_paired(tmp_path: Path) -> None:
    _suite(tmp_path, BASE | {"generalist-d": ("generalist-d", 0.85, 0.45, 0.4, 12)})
    for label in BASE:
        path = tmp_path / "cells" / f"{label}-cifar10-s0" / "evaluation.json"
        evaluation = json.loads(path.read_text())
        evaluation["dataset"]["images_hash"] = f"of {label}"
        path.write_text(json.dumps(evaluation))
    suite = read_suite(tmp_path)
    assert any("different test sets" in w for w in _warnings(suite))
    assert contrast(suite, [(1, "joint", "clean"), (-1, "pgd-at", "clean")]) is None
    text = _words(suite)
    assert "not tested" in text
    assert "p = " not in text


def test_gaps_and_limits_are_warnings(small: SuiteRecord) -> None:
    text = " ".join(_warnings(small))
    assert "limit = 200" in text
    assert "joint seed 1 (not started)" in text


def test_warnings_of_autoattack_reach_the_reader(tmp_path: Path) -> None:
    _suite(tmp_path, BASE)
    for path in tmp_path.glob("cells/pgd-at*/evaluation.json"):
        record = json.loads(path.read_text())
        record["metrics"]["aa_linf"]["detail"]["warnings"] = ["zero gradient at 40 % of points"]
        path.write_text(json.dumps(record))
    text = _words(read_suite(tmp_path))
    assert "AutoAttack: zero gradient at 40 % of points (pgd-at seed 0)" in text


def test_a_generalist_without_a_natural_learner_has_no_clean_line(tmp_path: Path) -> None:
    _suite(tmp_path, BASE | {"generalist-d-norms": ("generalist-d-norms", 0.8, 0.5, 0.4, 12)})
    for path in tmp_path.glob("cells/generalist*/config.json"):
        record = json.loads(path.read_text())
        learners = [{"objective": {"name": "pgd-at"}}] * 2
        record["config"]["method"]["recipe"] = {"learners": learners}
        path.write_text(json.dumps(record))
    (sentence,) = _line(read_suite(tmp_path))
    assert "has no natural learner" in sentence


def test_doubtful_runs_are_marked_in_every_table(tmp_path: Path) -> None:
    """Protects: a figure that looks like robustness, quoted without its warning."""
    _suite(tmp_path, BASE)
    for path in tmp_path.glob("cells/*/evaluation.json"):
        record = json.loads(path.read_text())
        text = "two forward passes differ by 0.2"
        found = [{"name": "random", "text": text, "function": FUNCTION}]
        record["reliability"]["findings"] = found if "joint" in str(path) else []
        path.write_text(json.dumps(record))
    suite = read_suite(tmp_path)
    line = "random: two forward passes differ by 0.2 (joint seed 0)"
    for text in (table_md(summarise(suite)), table_tex(summarise(suite)), _words(suite)):
        assert line in text
    assert "| joint [!] |" in " ".join(table_md(summarise(suite)).split())
    assert "pgd-at [!]" not in table_md(summarise(suite))
    for path in tmp_path.glob("cells/*/evaluation.json"):
        record = json.loads(path.read_text())
        record["reliability"]["findings"] = []
        path.write_text(json.dumps(record))
    assert "Reliability checks: no finding in any run." in table_md(summarise(read_suite(tmp_path)))
