"""The answer of a study in one sentence, on recorded studies and on what they could have been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.records.study import read_suite
from benchmark.report.markdown import report_md
from benchmark.report.study_model import Lead, Study
from benchmark.report.summarise import summarise
from benchmark.report.verdict import verdict

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def quick() -> Study:
    return summarise(read_suite(RESULTS / "quick"))


def test_too_few_data(quick: Study) -> None:
    """No difference is sure, and the sentence says so before it names anybody."""
    assert verdict(quick) == (
        "449 images and 1 seed are too few to separate the leading methods: in PGD-20 accuracy, "
        "trades leads with 83.3 %, 0.9 points ahead of pgd-at; in clean accuracy, joint leads with "
        "99.3 %, 0.2 points ahead of pgd-at; on average, no method beats trades, pgd-at or joint "
        "in both."
    )


def test_the_report_begins_with_the_answer(quick: Study) -> None:
    """report.md, page and terminal show one sentence; without results it is there once."""
    _, answer, _ = report_md(quick, []).split("\n\n", 2)
    assert answer == f"**{verdict(quick)}**"
    nothing = replace(quick, evaluated=0, findings=replace(quick.findings, leads=()))
    assert report_md(nothing, []).count(verdict(nothing)) == 1


def test_a_sure_lead() -> None:
    """With the interval of the lead, which is as wide as the choice of the leader demands."""
    assert verdict(summarise(read_suite(RESULTS / "cifar10-cpu-overfit"))) == (
        "In PGD-20 accuracy, trades leads with 17.9 %, 5.2 points ahead of pgd-at (95 % interval "
        "0.6 to 9.7); in clean accuracy, natural leads with 57.6 %, 4.6 points ahead of joint, "
        "which may be chance (n = 1,000, 3 seeds); on average, no method beats trades, pgd-at, "
        "generalist-d, joint or natural in both."
    )


def _with(study: Study, *leads: Lead) -> Study:
    return replace(study, findings=replace(study.findings, leads=leads))


def test_other_endings(quick: Study) -> None:
    """What is held against a leader, a union, another number of images, no runner-up, no figure."""
    leads = {lead.kind: lead for lead in quick.findings.leads}
    attack = next(lead for lead in quick.findings.leads if lead.metrics == ("pgd20_linf",))
    clean = leads["clean"]

    sure = verdict(_with(quick, replace(attack, certainty="sure"), clean))
    assert "0.9 points ahead of pgd-at (95 % interval" in sure
    assert "0.2 points ahead of pgd-at, which may be chance (n = 449, 1 seed)" in sure
    assert sure.endswith("1 seed, this is sure of these trained networks, not of the methods.")

    withheld = replace(clean, certainty="withheld", withheld=("joint", "pgd-at"), n=0, margin=None)
    said = verdict(_with(quick, attack, withheld))
    assert "which may be chance (n = 449, 1 seed); in clean accuracy, joint leads" in said
    assert "before pgd-at, but nothing is concluded, for joint and pgd-at are under-trained" in said
    untested = verdict(_with(quick, replace(attack, certainty="untested", margin=None, n=0), clean))
    assert "trades leads with 83.3 % before pgd-at, which could not be tested" in untested

    union = replace(attack, kind="union", score="union accuracy", n=100)
    said = verdict(_with(quick, attack, union, clean))
    assert said.startswith("The data are too few to separate the leading methods: in union acc")
    assert "0.9 points ahead of pgd-at (n = 100, 1 seed)" in said
    assert "level with pgd-at" in verdict(_with(quick, replace(attack, certainty="level"), clean))

    alone = [
        replace(lead, certainty="alone", first="trades", second="") for lead in (attack, clean)
    ]
    assert verdict(_with(quick, *alone)).startswith(
        "Only trades is evaluated, over 1 seed: clean accuracy 99.3 % [95.4, 98.5], n = 449; PGD-20"
    )
    assert verdict(_with(quick)).startswith("No method has an accuracy on clean or attacked")
    assert verdict(replace(quick, evaluated=0)) == "No cell has been evaluated yet."
    part = replace(quick, evaluated=9, limit=400)
    assert verdict(part).startswith(
        "A trial run on a part of the data, so far 9 of 10 runs are evaluated: 449 images"
    )

    rows = [replace(r, doubts=("masked",)) if r.method == "trades" else r for r in quick.table.rows]
    doubted = replace(quick, table=replace(quick.table, rows=tuple(rows)))
    assert "ahead of pgd-at, where the attack on trades is doubtful; in clean" in verdict(doubted)


def test_the_front(quick: Study) -> None:
    """Names while they are few; the ends of it where they are many."""
    names = tuple(row.method for row in quick.table.rows)
    of = quick.trade_offs.of["pgd20_linf"]

    def said(front: tuple[str, ...], untrained: tuple[str, ...] = ()) -> str:
        found = {"pgd20_linf": replace(of, front=front)}
        rows = [replace(r, undertrained="u" * (r.method in untrained)) for r in quick.table.rows]
        table = replace(quick.table, rows=tuple(rows))
        study = replace(quick, table=table, trade_offs=replace(quick.trade_offs, of=found))
        return verdict(study).rpartition("; ")[2]

    assert said(names) == "on average, no method beats another in both."
    assert said(names[:1]) == (
        "on average, natural is as good as every other method in both, or better."
    )
    assert said(names[:6]) == (
        "on average, 6 of 10 are beaten by no other in both, from natural at the robust end to "
        "weight-interpolation at the clean end."
    )
    assert said(names[:2], names[5:6]) == (
        "on average, among the methods that were trained long enough, no method beats natural or "
        "pgd-at in both."
    )
    assert said(names[:1], names[1:]).startswith("in clean accuracy")
