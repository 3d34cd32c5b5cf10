"""What the gate calls a change, on made-up figures; and what it refuses to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_suites import cli, write_suite

from benchmark.core.errors import BenchmarkError
from benchmark.gate import summary
from benchmark.gate.baseline import (
    Baseline,
    BaselineFigure,
    GateRun,
    ReferenceNetwork,
    Scope,
    read_baseline,
)
from benchmark.gate.verdict import Verdict, judge

N = 400


def outcomes(right: int, seed: int = 0) -> BaselineFigure:
    """``right`` of N images, in an order of the seed's."""
    order = np.random.default_rng(seed).permutation(N)
    return BaselineFigure.of("settings", order < right)


def run(seed: int, right: int, **more: Any) -> GateRun:
    given: dict[str, Any] = {
        "label": "trades",
        "seed": seed,
        "hash": "h",
        "data": "d",
        "metrics": {"clean": outcomes(390, seed), "pgd": outcomes(right, seed)},
        "ratios": {"natural": (0.0, 0.5)},
        "losses": {"trades": 0.5 + 0.001 * seed},
        "passes": 3.0,
    }
    return GateRun.model_validate(given | more)


def probe(shift: float = 0.0, seed: int = 0, **more: Any) -> ReferenceNetwork:
    noise = np.random.default_rng(seed).normal(0, 0.01, N)
    margins = np.linspace(-3, 3, N) + noise + shift
    given: dict[str, Any] = {
        "of": "pgd-at, seed 0",
        "weights": "w",
        "metrics": {"clean": outcomes(390), "pgd": outcomes(200)},
        "margins": {"pgd": tuple(margins)},
        "neighbours": 1e-6,
    }
    return ReferenceNetwork.model_validate(given | more)


BASELINE = Baseline(
    reason="test",
    scope=Scope(suite="quick", seeds=tuple(range(8))),
    environment={},
    runs=tuple(run(seed, right) for seed, right in enumerate((320, 324, 318, 322) * 2)),
    probe=probe(),
)


def moved(verdict: Verdict) -> list[str]:
    return [item.name for item in verdict.moved]


def test_the_same_figures_are_no_change() -> None:
    """Also with other random starts of the attack, and another seed of training."""
    again = judge(BASELINE, [BASELINE.runs[1]], BASELINE.probe)
    assert not again.moved
    assert not again.causes
    assert all(c.identical for c in again.comparisons if c.kind in ("probe-margins", "accuracy"))
    assert not judge(BASELINE, [run(9, 317)], probe(seed=5)).moved


@pytest.mark.parametrize(
    ("runs", "now", "names", "cause"),
    [
        ([run(0, 260)], probe(), ["trades pgd"], "trained less robust"),
        ([run(0, 380)], probe(), ["trades pgd"], "more robust"),
        ([run(0, 320, losses={"trades": 0.1})], probe(), ["trades loss/trades"], "smaller loss"),
        (
            [run(0, 320, ratios={"natural": (1.0, 0.5)})],
            probe(),
            ["trades mixing ratio of natural"],
            "mixing ratios",
        ),
        ([run(0, 320, passes=2.0)], probe(), ["trades gradient passes per image"], "another cost"),
        (
            [],
            probe(shift=-0.02),
            ["reference network (pgd-at, seed 0) pgd margin"],
            "fewer or smaller steps",
        ),
        ([], probe(shift=0.02), ["reference network (pgd-at, seed 0) pgd margin"], "reaches more"),
        (
            [],
            probe(neighbours=0.3),
            ["reference network (pgd-at, seed 0) logit change with the batch"],
            "BatchNorm in train mode",
        ),
        (
            [],
            probe(metrics={"clean": outcomes(350), "pgd": outcomes(200)}),
            ["reference network (pgd-at, seed 0) clean"],
            "normalisation",
        ),
    ],
)
def test_what_moved_is_named_with_a_likely_cause(
    runs: list[GateRun], now: ReferenceNetwork, names: list[str], cause: str
) -> None:
    """A shift of margins by a hundredth of their spread is seen, since it is on the same images."""
    verdict = judge(BASELINE, runs, now)
    assert moved(verdict) == names
    assert any(cause in text for text in verdict.causes), verdict.causes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "other"}, "the data set changed since"),
        ({"metrics": {"clean": outcomes(390)}}, "was not evaluated by pgd"),
        (
            {
                "metrics": {
                    "clean": outcomes(390),
                    "pgd": BaselineFigure.of("other", np.ones(N, bool)),
                }
            },
            "the settings of pgd changed",
        ),
        ({"losses": {}}, "the learners of trades changed"),
        ({"label": "mart"}, "no run of 'mart'"),
    ],
)
def test_what_cannot_be_compared_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        judge(BASELINE, [run(0, 320, **changed)], None)


def test_other_settings_are_said() -> None:
    """Protects: a suite file that was edited, whose figures are then blamed on the code."""
    assert not judge(BASELINE, [run(0, 320)], None).other_settings
    for found in (
        judge(BASELINE, [run(0, 320, hash="new")], None),
        judge(BASELINE, [run(9, 320)], None, {("trades", 1): "new", ("trades", 9): "h"}),
    ):
        assert "settings of trades are not those that the baseline" in found.other_settings
        assert "**Other settings.** The settings of trades" in summary.markdown(found, BASELINE)
        assert not found.passed
        suite = ElementTree.fromstring(summary.junit(found, BASELINE))
        cases = suite.findall("testcase")
        assert (suite.get("tests"), suite.get("failures")) == (str(len(cases)), "1")
        assert cases[-1].find("failure") is not None


def test_identical_stands_beside_identical_numbers_alone() -> None:
    """Protects: "80.5, 80, identical": one seed's run beside the mean of eight."""
    text = summary.markdown(judge(BASELINE, [BASELINE.runs[0]], BASELINE.probe), BASELINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    found = {row[2]: row[3:6] for row in rows if len(row) > 6}
    before, now, difference = found["pgd"]  # the last row of that name is the trained method's
    assert (before, now) == ("80.25", "80")
    assert difference.startswith("as in the baseline's run of the same seed on every image; -0.25")
    for before, now, difference in list(found.values())[2:]:
        assert difference != "identical" or before == now
    assert found["clean"] == ["97.5", "97.5", "identical"]


def test_outcomes_survive_packing() -> None:
    """A number of images that is no multiple of eight."""
    right = np.random.default_rng(0).random(13) < 0.5
    assert (BaselineFigure.of("s", right).outcomes == right).all()


def test_summaries_say_what_moved() -> None:
    """Markdown for people, JUnit for CI: a test case per comparison."""
    verdict = judge(BASELINE, [run(0, 260)], probe())
    text = summary.markdown(verdict, BASELINE)
    assert "1 figure moved" in text
    assert "**trades pgd**: 80.25 to 65" in text
    suite = ElementTree.fromstring(summary.junit(verdict, BASELINE))
    assert suite.get("failures") == "1"
    assert len(suite.findall("testcase")) == len(verdict.comparisons)
    (failure,) = suite.iter("failure")
    assert "80.25 to 65" in str(failure.get("message"))


def test_command_line_from_recording_to_alarm(tmp_path: Path) -> None:
    """Record, check (0), check runs that were made before (0), another baseline (1), refusals (2)."""
    suite = write_suite(tmp_path)
    baseline = tmp_path / "b.json"
    common = ("check", "--baseline", baseline, "-q")
    assert cli(*common).status == 2  # not recorded yet
    record = ("record-baseline", baseline, "-q", "--seed", 0, "--seed", 1)
    called = cli(*record, "--suite", suite)
    assert (called.status, "--reason" in called.err) == (2, True)
    assert "needs --suite" in cli(*record, "--reason", "first").err
    called = cli(*record, "--suite", suite, "--reason", "first")
    assert called.status == 0, called.err
    assert read_baseline(baseline).reason == "first"
    called = cli(*common)
    assert called.status == 0, called.out + called.err
    assert "nothing moved" in called.out

    assert cli("run", suite, "--out", tmp_path / "out", "-q").status == 0
    assert cli(*common[:1], tmp_path / "out", *common[1:]).status == 0

    kept = read_baseline(baseline)
    wrong = {"pgd-at": (0.9,)}
    changed = kept.model_copy(
        update={"runs": tuple(r.model_copy(update={"ratios": wrong}) for r in kept.runs)}
    )
    baseline.write_text(changed.model_dump_json())
    called = cli(*common)
    assert called.status == 1
    assert "mixing ratio of pgd-at" in called.out

    baseline.write_text(kept.model_dump_json())
    write_suite(tmp_path, optimizer={"lr": 0.051})
    called = cli(*common)
    assert called.status == 1
    assert "the settings are not the baseline's, so the code was not checked" in called.out
    assert "nothing moved" not in called.out
    write_suite(tmp_path)

    wider = kept.scope.model_copy(update={"set": ("model.width=16",)})
    baseline.write_text(kept.model_copy(update={"scope": wider}).model_dump_json())
    called = cli(*common)
    assert called.status == 2
    assert "does not fit the network of pgd-at" in called.err

    weights = baseline.with_suffix(".pt")
    weights.write_bytes(weights.read_bytes()[:-1])
    called = cli(*common)
    assert called.status == 2
    assert "missing or damaged (the reference network" in called.err
    baseline.write_text("{}")
    assert "no baseline of this version" in cli(*common).err
