"""AutoAttack on a budget: final where it is final, honest where it is an estimate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from short_attacks import shorten
from tiny_suites import cli, tiny_data, write_suite
from torch import Tensor, nn
from trained_networks import build, train

from benchmark.config.suite import build_suite
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics import budget
from benchmark.metrics.budget import Cheap, Draw, begin, cheap_attacks, estimate, thin_stratum
from benchmark.metrics.in_ball import InBall
from benchmark.metrics.metric import Metric
from benchmark.records.statistics import Interval, looks_interval, population_interval
from studies.budget import compare, known, recorded, unknown

CPU = torch.device("cpu")


def left_by_cheap(images: int, survivors: int, late: int = 0) -> Cheap:
    """The first images survive, in order of their lead; ``late`` others fell to APGD, at small
    leads."""
    alive, fell = torch.arange(images) < survivors, torch.zeros(images, dtype=torch.bool)
    fell[survivors : survivors + late] = True
    lead = torch.arange(images, dtype=torch.float)
    after_pgd = torch.where(fell, (lead - survivors) / 10, lead)
    return Cheap(alive, lead, after_pgd, fell)


def withstanding(images: int, survivors: int, broken: Iterable[int]) -> Tensor:
    """AutoAttack's verdicts, bool [images]."""
    left = torch.arange(images) < survivors
    left[list(broken)] = False
    return left


def test_a_larger_budget_extends_the_sample() -> None:
    """The same images first, nobody attacked twice, and the interval knows of the first look."""
    cheap, left = left_by_cheap(300, 120), withstanding(300, 120, range(60, 80))
    asked: list[int] = []

    def judge(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return left[indices]

    fresh = Draw.fresh(cheap, 0, 5)
    small, first, kind = estimate(300, fresh, judge, budget=20)
    assert (len(asked), kind, small.looks) == (20, "exact, 1 look", (20,))
    assert asked[:5] == [0, 1, 2, 3, 4]  # the thinnest, whole
    assert max(asked) < 120
    record = json.loads(json.dumps(small.detail()))
    again = Draw.recorded(record, pd.Series(small.column(300)))
    large, second, kind = estimate(300, again, judge, budget=60)
    assert (len(asked), len(set(asked)), kind) == (60, 60, "exact, 2 looks")
    assert large.looks == (20, 60)
    once, alone, _ = estimate(300, fresh, judge, budget=60)
    assert torch.equal(once.verdicts, large.verdicts)
    assert second.value == alone.value
    assert first.low <= second.low < second.high <= first.high
    asked.clear()
    _, third, _ = estimate(300, large, judge, budget=40)  # less than there is: nothing to do
    assert not asked
    assert third == second
    _, all_of_it, _ = estimate(300, fresh, judge, budget=10**6)
    assert (all_of_it.low, all_of_it.value, all_of_it.high) == pytest.approx((1 / 3,) * 3)


@pytest.mark.parametrize("broken", [range(0), range(100, 200)])
def test_a_half_width_is_reached(broken: range) -> None:
    """In one look where nothing is broken, in several where the sample meets breaks."""
    cheap, left = left_by_cheap(1000, 500), withstanding(1000, 500, broken)
    draw = begin(cheap, 0, halfwidth=0.03)
    draw, interval, kind = estimate(1000, draw, lambda i: left[i], halfwidth=0.03)
    assert (interval.high - interval.low) / 2 <= 0.03
    assert (len(draw.looks) > 1) == bool(broken)
    assert kind.startswith(f"exact, {len(draw.looks)} look")
    if broken:
        shorter = Draw(draw.order, draw.thin, draw.verdicts[: draw.looks[-2]], draw.looks[:-1])
        before = shorter.interval(1000)
        assert (before.high - before.low) / 2 > 0.03
    assert interval.low <= float(left.double().mean()) <= interval.high


def test_nothing_survives() -> None:
    draw = begin(left_by_cheap(50, 0), 0, budget=10)
    draw, interval, kind = estimate(50, draw, lambda i: i > 0, budget=10)
    assert (interval.low, interval.high) == (0, 0)
    assert "nothing survives" in kind
    assert not pd.Series(draw.column(50)).any()


def test_the_thin_stratum_pays_only_where_breaks_are_expected() -> None:
    """APGD that found many at small leads promises more of them; one that found none does not."""
    assert thin_stratum(left_by_cheap(10_000, 4600), 400) == 0
    assert 0 < thin_stratum(left_by_cheap(10_000, 4600, late=400), 400) <= 200
    assert thin_stratum(left_by_cheap(100, 10, late=5), 400) <= 5


PLACES = {
    "thinnest": lambda count, rng: range(count),
    "behind the thin stratum": lambda count, rng: range(15, 15 + count),
    "thickest": lambda count, rng: range(240 - count, 240),
    "anywhere": lambda count, rng: rng.choice(240, count, replace=False).tolist(),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("count", [1, 12, 60, 240])
def test_coverage_wherever_the_breaks_lie(
    places: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The truth lies in *all* intervals that four looks show, 95 % of the time or more: whoever
    stops at the one they like best gains nothing. No place of the breaks is an exception."""
    monkeypatch.setattr(budget, "looks_interval", cached_looks)
    rng = np.random.default_rng(0)
    cheap, trials, covered = left_by_cheap(1000, 240), 250, 0
    for seed in range(trials):
        left = withstanding(1000, 240, PLACES[places](count, rng))
        truth = float(left.double().mean())
        draw = Draw.fresh(cheap, seed, 15)
        for size in (45, 80, 120, 200):
            draw, found, _ = estimate(1000, draw, lambda i, v=left: v[i], budget=size)
            if not found.low - 1e-9 <= truth <= found.high + 1e-9:
                break
        else:
            covered += 1
    assert covered >= 0.95 * trials, covered


@cache
def _cached(looks: tuple[tuple[int, int], ...], total: int) -> Interval:
    return looks_interval(looks, total)


def cached_looks(looks: Sequence[tuple[int, int]], total: int) -> Interval:
    return _cached(tuple(looks), total)


@pytest.mark.parametrize("amount", [{"budget": 40}, {"halfwidth": 0.03}])
@pytest.mark.parametrize(("images", "cheap", "robust"), [(1000, 0.24, 0.21), (300, 0.6, 0.57)])
def test_the_population_interval_covers(
    images: int, cheap: float, robust: float, amount: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: the interval that estimates are ranked by holds the accuracy on *new* images.

    Test images are drawn anew each time, then the sample among their survivors; with a half-width
    in place of a budget the sample grows until it is narrow enough. The interval for these images
    alone misses that accuracy far more often, which is why it must not be compared with others.
    """
    monkeypatch.setattr(budget, "looks_interval", cached_looks)
    rng = np.random.default_rng([images, len(amount)])
    trials, covered, alone = 400, 0, 0
    for _ in range(trials):
        survivors = int(rng.binomial(images, cheap))
        verdicts = torch.from_numpy(rng.random(survivors) < robust / cheap)
        draw = Draw(torch.arange(survivors), 0, verdicts[:0])
        _, own, _ = estimate(images, draw, lambda i, v=verdicts: v[i], **amount)
        wide = population_interval(own, images)
        covered += wide.low <= robust <= wide.high
        alone += own.low <= robust <= own.high
    assert covered / trials >= 0.95
    assert alone / trials < 0.93 or images == 300


def test_what_it_is_worth_at_a_tenth_of_the_passes() -> None:
    """10,000 images at 85 / 48 / 46: half a point where APGD and margins tell of the breaks; where
    nothing does, valid all the same, and not much wider than one random sample."""
    helped, unhelped = (compare(network, 410, 200) for network in (known(), unknown()))
    assert helped["share_of_whole"] <= 0.1
    assert helped["halfwidth"] <= min(0.5, helped["halfwidth_formerly"] / 2)
    assert helped["halfwidth"] <= helped["halfwidth_subset"] / 4
    assert unhelped["halfwidth"] <= 1.2 * unhelped["halfwidth_formerly"]
    assert min(helped["coverage"], unhelped["coverage"]) >= 0.94


RECORDS = sorted((Path(__file__).parents[2] / "results" / "aa-budget").glob("*/evaluation.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.parent.name)
def test_on_fully_attacked_networks(record: Path) -> None:
    """By draws from recorded verdicts: covers, narrower than the former way at equal cost, and far
    narrower than a random subset. What the estimate found on record holds the truth too."""
    entries = json.loads(record.read_text())["metrics"]
    for network in recorded(record.parent):
        detail = entries[network.name.split(", ")[1].replace("aa_linf", "aa_linf_estimate")][
            "detail"
        ]
        assert (
            detail["low"] - 1e-9 <= float(network.robust.double().mean()) <= detail["high"] + 1e-9
        )
        found = compare(network, 100, 300)
        assert found["coverage"] >= 0.94
        assert found["ratio"] < 0.95
        assert found["halfwidth"] < found["halfwidth_subset"] / 5


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return train(build("small-resnet"), robust=True)


def metric(**settings: Any) -> tuple[Metric, ...]:
    entry = {"kind": "autoattack", "name": "aa_linf_estimate", "eps": 0.12, **settings}
    return build_suite({"name": "x", "dataset": {"name": "digits"}, "model": {"name": "small-resnet"},
                        "methods": ["natural"], "evaluation": [entry]}).evaluation  # fmt: skip


def test_the_cheap_attack_is_verified_and_drops_what_it_fools(net: nn.Module) -> None:
    """Protects: its successes are final, so each must be a real one."""
    split = tiny_data(None).test
    x, y = split.images[:100].float() / 255, split.labels[:100]  # type: ignore[union-attr]
    one = cheap_attacks(net, [(None, x, y)], "linf", 0.12, 0, lambda n: None)
    clean = net(x).argmax(1) == y
    assert not (one.survived & ~clean).any()
    assert 0 < int(one.survived.sum()) < int(clean.sum())
    assert (one.lead[one.survived] > 0).all()
    assert (one.lead[clean & ~one.survived] <= 0).all()
    assert (one.lead <= one.after_pgd).all()
    assert torch.equal(one.late, clean & (one.after_pgd > 0) & ~one.survived)
    weak = cheap_attacks(net, [(None, x, y)], "linf", 1e-6, 0, lambda n: None)
    assert torch.equal(weak.survived, clean)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_cheap_attacks_in_other_norms(net: nn.Module, norm: Any) -> None:
    """Every admissible step keeps to the ball, so that a tiny one fools nobody."""
    split = tiny_data(None).test
    x, y = split.images[:40].float() / 255, split.labels[:40]  # type: ignore[union-attr]
    clean = net(x).argmax(1) == y
    tiny, large = (
        cheap_attacks(net, [(None, x, y)], norm, eps, 0, lambda n: None) for eps in (1e-5, 3.0)
    )
    assert torch.equal(tiny.survived, clean)
    assert int(large.survived.sum()) < int(clean.sum())


def test_the_record_of_an_estimate(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "apgd-ce", "apgd-t", steps=20)
    data = tiny_data(120)
    evaluator = Evaluator(data, CPU)
    evaluator.evaluate(net, metric(budget=8), tmp_path)
    entry = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]["aa_linf_estimate"]
    detail = entry["detail"]
    column = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf_estimate"]
    assert (entry["correct"], detail["attacked"], detail["interval"]) == (
        None, 8, "exact, 1 look"
    )  # fmt: skip
    assert column.isna().sum() == detail["survivors"] - 8
    thin, survivors = detail["thin"], detail["survivors"]
    met = column[detail["order"][:8]].astype(bool).to_numpy()
    expected = met[:thin].sum() + met[thin:].mean() * (survivors - thin)
    assert entry["mean"] == pytest.approx(expected / len(data.test))
    assert detail["low"] <= entry["mean"] <= detail["high"]

    runs = []
    real = InBall.attacked

    def noted(self: InBall, context: Any, indices: Tensor, *rest: Any) -> Any:
        runs.append(len(indices))
        return real(self, context, indices, *rest)

    monkeypatch.setattr(InBall, "attacked", noted)
    evaluator.evaluate(net, metric(budget=16), tmp_path)
    entry = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]["aa_linf_estimate"]
    assert runs == [8]
    assert (entry["detail"]["attacked"], entry["detail"]["looks"]) == (16, [8, 16])
    assert entry["detail"]["interval"] == "exact, 2 looks"
    more = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf_estimate"]
    assert (more[column.notna()] == column[column.notna()]).all()
    evaluator.evaluate(net, metric(budget=16, seed=1), tmp_path)  # another sample: from the start
    assert runs == [8, 16]
    # all of them: nothing is left to chance
    evaluator.evaluate(net, metric(budget=10**6), tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "evaluation.json").read_text())["metrics"]
    value = whole["aa_linf_estimate"]["mean"]
    everything = pd.read_parquet(tmp_path / "whole" / "outcomes.parquet")["aa_linf_estimate"]
    assert value == pytest.approx(everything.astype(float).mean())
    assert np.isclose(whole["aa_linf_estimate"]["detail"]["low"], value)


def test_estimates_are_labelled_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, "apgd-ce", "apgd-t", steps=20)
    entry = {"kind": "autoattack", "eps": 0.01, "budget": 3}
    suite = write_suite(
        tmp_path, evaluation=[{"kind": "clean"}, entry], methods=["natural", "pgd-at"]
    )
    called = cli("run", suite, "--out", tmp_path / "out")
    assert called.status == 0, called.err
    for name in ("table.md", "table.tex", "report.md"):
        assert "AutoAttack (estimate)" in (tmp_path / "out" / "report" / name).read_text()
    assert "aa_linf_estimate" in (tmp_path / "out" / "report" / "table.csv").read_text()
    cells = sorted((tmp_path / "out" / "cells").iterdir())
    assert "estimate" not in cli("compare", *cells).out
    called = cli("evaluate", cells[0], "--aa-budget", 5)
    assert called.status == 2
    assert "need an AutoAttack among the metrics" in called.err
    for wrong in (
        {**entry, "name": "aa_linf"},
        {**entry, "halfwidth": 1.0},
    ):
        bad = write_suite(tmp_path, evaluation=[wrong])
        assert cli("run", bad, "--dry-run").status == 2


def test_the_options_of_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, "apgd-ce", "apgd-t", steps=20)
    entry = {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": 0.01, "n": 4}
    suite = write_suite(tmp_path, evaluation=[{"kind": "clean"}, entry])
    assert cli("run", suite, "--out", tmp_path / "out").status == 0
    called = cli("evaluate", tmp_path / "out", "--aa-budget", 6)
    assert called.status == 0, called.err
    assert "ESTIMATE [" in called.out
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    metrics = json.loads((cell / "evaluation.json").read_text())["metrics"]
    assert set(metrics) == {"clean", "aa_linf", "aa_linf_estimate"}
    found = cli("evaluate", cell, "--aa-halfwidth", 20, "--json").json()[cell.name]
    estimated = found["aa_linf_estimate"]
    assert estimated["high"] - estimated["low"] <= 0.4
    assert cli("evaluate", cell, "--aa-budget", 3, "--aa-halfwidth", 2).status == 2
