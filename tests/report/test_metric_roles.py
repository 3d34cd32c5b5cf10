"""Which metrics take part in words and plots: what the record says counts, a name does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_records import ELEVEN, write_suite

from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import metric_roles
from benchmark.report.families import OTHER, family_of
from benchmark.report.findings import findings_of
from benchmark.report.markdown import corruptions_md
from benchmark.report.page import heat_maps
from benchmark.report.summarise import summarise

Record = dict[str, Any]


def rewritten(out: Path, change: Callable[[Record, pd.DataFrame], None]) -> SuiteRecord:
    """The suite in ``out`` after ``change`` of the metrics and outcomes of every run."""
    for cell in out.glob("cells/*"):
        record = json.loads((cell / "evaluation.json").read_text())
        frame = pd.read_parquet(cell / "outcomes.parquet")
        change(record["metrics"], frame)
        (cell / "evaluation.json").write_text(json.dumps(record))
        frame.to_parquet(cell / "outcomes.parquet")
    return read_suite(out)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    methods = {m: ELEVEN[m] for m in ("pgd-at", "joint", "generalist-d")}
    return write_suite(tmp_path / "out", methods, n=400, n_aa=400, corruptions=("fog", "snow"))


def test_an_attack_of_a_package_leads_and_is_drawn(out: Path) -> None:
    """Protects: words and plots about PGD and AutoAttack alone, whatever else was measured."""

    def change(metrics: Record, frame: pd.DataFrame) -> None:
        metrics["corners3_linf"] = {**metrics["pgd20_linf"], "kind": "corners", "title": "Corners"}
        frame["corners3_linf"] = frame["pgd20_linf"]

    suite = rewritten(out, change)
    assert metric_roles.main_attacks(suite) == ["pgd20_linf", "aa_linf", "corners3_linf"]
    study = summarise(suite)
    assert any(s.startswith("Highest Corners accuracy: pgd-at") for s in study.findings.leaders)
    assert any(s.startswith("generalist-d, clean/Corners: ") for s in study.findings.line)
    drawn = [one.title for one in study.trade_offs.of.values() if one.main]
    assert drawn == ["PGD-20", "AutoAttack", "Corners"]


def test_other_balls_screenings_and_errors_lead_in_nothing(out: Path) -> None:
    """Each of the three is what keeps a metric out of the words: another ball, no whole attack, and
    smaller is better."""

    def change(metrics: Record, frame: pd.DataFrame) -> None:
        odd: Record = {
            "screened": {"form": "screening"},
            "error": {"higher_is_better": False},
            "wider": {"ball": ["linf", "16/255"]},
        }
        for name, differs in odd.items():
            metrics[name] = {**metrics["pgd20_linf"], **differs}
            frame[name] = frame["pgd20_linf"]

    suite = rewritten(out, change)
    assert metric_roles.main_attacks(suite) == ["pgd20_linf", "aa_linf"]
    assert metric_roles.attacks(suite) == ["pgd20_linf", "pgd20_l2", "aa_linf", "wider"]


def test_names_of_metrics_do_not_matter(out: Path) -> None:
    """Protects: sections that are empty because a metric has another name."""
    names = {"clean": "plain", "aa_linf": "strong", "corruptions": "weather"}

    def change(metrics: Record, frame: pd.DataFrame) -> None:
        for old, new in names.items():
            metrics[new] = metrics.pop(old)
            for column in [c for c in frame.columns if c == old or c.startswith(f"{old}/")]:
                frame[column.replace(old, new, 1)] = frame.pop(column)

    before = summarise(read_suite(out))
    after = summarise(rewritten(out, change))
    for words in ("warnings", "leaders", "line", "caveats"):
        assert getattr(after.findings, words) == getattr(before.findings, words)
    assert corruptions_md(after) == corruptions_md(before)
    assert [heat.key for heat in heat_maps(after)] == ["norms", "weather"]
    pairs = (("aa_linf", "strong"), ("pgd20_linf", "pgd20_linf"))
    for old, new in pairs:
        assert after.trade_offs.of[new].points == before.trade_offs.of[old].points


def test_a_reference_attack_weaker_than_any_other_is_a_warning(out: Path) -> None:
    """Protects: AutoAttack compared with PGD-20 in l_inf alone."""

    def change(metrics: Record, frame: pd.DataFrame) -> None:
        metrics["strong_l2"] = {**metrics["pgd20_l2"], "reference": True, "title": "Strong l2"}
        frame["strong_l2"] = frame["clean"]
        metrics["strong_l2"] |= {key: metrics["clean"][key] for key in ("correct", "mean")}

    found = findings_of(rewritten(out, change), {}).warnings
    assert sum("Strong l2 accuracy is above PGD-20 l2 accuracy" in w for w in found) == 3


def test_a_family_is_what_the_record_says(out: Path) -> None:
    """Protects: a family guessed from a name; one without a look here keeps its own name."""
    cell = read_suite(out).cells[0]
    for family, colour in (("Generalist", "#D55E00"), ("my family", OTHER.colour)):
        found = family_of([replace(cell, family=family)])
        assert (found.name, found.colour) == (family, colour)
