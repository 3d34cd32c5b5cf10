"""AutoAttack on a budget: final where it is final, honest where it is an estimate."""

from __future__ import annotations

import json
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
from benchmark.metrics.budget import LOOK, Draw, estimate, survivors_of
from benchmark.metrics.in_ball import InBall
from benchmark.metrics.metric import Metric
from benchmark.records.statistics import hypergeometric_interval, population_interval

CPU = torch.device("cpu")


def truth(images: int, survivors: int, robust: int) -> tuple[Tensor, Tensor]:
    """(survives the cheap attack, survives AutoAttack), bool [images], shuffled."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(1))
    alive, left = torch.zeros(images, dtype=torch.bool), torch.zeros(images, dtype=torch.bool)
    alive[order[:survivors]] = True
    left[order[:robust]] = True
    return alive, left


def test_a_larger_budget_extends_the_sample() -> None:
    """The same images first, nobody attacked twice, and the interval knows of the first look."""
    alive, left = truth(300, 120, 100)
    asked: list[int] = []

    def judge(indices: Tensor) -> Tensor:
        asked.extend(indices.tolist())
        return left[indices]

    small, first, kind = estimate(300, Draw.fresh(alive, 0), judge, budget=20)
    assert (len(asked), kind, small.looks) == (20, "exact, fixed sample", (20,))
    assert alive[asked].all()
    record = json.loads(json.dumps(small.detail()))
    again = Draw.recorded(record, pd.Series(small.column(300)))
    large, second, kind = estimate(300, again, judge, budget=60)
    assert (len(asked), len(set(asked)), kind) == (60, 60, "valid at every look")
    assert large.looks == (20, 60)
    whole, once, _ = estimate(300, Draw.fresh(alive, 0), judge, budget=60)
    assert torch.equal(whole.verdicts, large.verdicts)
    assert second.value == once.value
    assert second.low <= once.low  # it was looked at before
    assert first.low < second.low
    asked.clear()
    _, third, _ = estimate(300, large, judge, budget=40)  # less than there is: nothing to do
    assert not asked
    assert third == second
    _, all_of_it, _ = estimate(300, Draw.fresh(alive, 0), judge, budget=10**6)
    assert (all_of_it.low, all_of_it.value, all_of_it.high) == pytest.approx((1 / 3,) * 3)


def test_a_half_width_is_reached() -> None:
    alive, left = truth(1000, 500, 460)
    draw, interval, kind = estimate(1000, Draw.fresh(alive, 0), lambda i: left[i], halfwidth=0.03)
    assert (interval.high - interval.low) / 2 <= 0.03
    assert kind == "valid at every look"
    assert len(draw.verdicts) % LOOK == 0
    shorter = Draw(draw.order, draw.verdicts[:-LOOK], draw.looks[:-1]).interval(1000, fixed=False)
    assert (shorter.high - shorter.low) / 2 > 0.03
    assert interval.low <= 0.46 <= interval.high


def test_nothing_survives() -> None:
    alive, left = truth(50, 0, 0)
    draw, interval, kind = estimate(50, Draw.fresh(alive, 0), lambda i: left[i], budget=10)
    assert (interval.low, interval.high) == (0, 0)
    assert "nothing survives" in kind
    assert not pd.Series(draw.column(50)).any()


def test_coverage_over_a_thousand_samples() -> None:
    """The interval of a fixed sample holds the truth at least 94 % of the time."""
    alive, left = truth(1000, 240, 210)
    covered, cache = 0, {}
    for seed in range(1000):
        draw = Draw.fresh(alive, seed)
        right = int(left[draw.order[:40]].sum())
        if right not in cache:
            cache[right] = estimate(1000, draw, lambda i: left[i], budget=40)[1]
        covered += cache[right].low <= 0.21 + 1e-12 and cache[right].high >= 0.21 - 1e-12
    assert covered >= 940


@pytest.mark.parametrize("budget", [40, None])
@pytest.mark.parametrize(("images", "cheap", "robust"), [(1000, 0.24, 0.21), (300, 0.6, 0.57)])
def test_the_population_interval_covers(
    images: int, cheap: float, robust: float, budget: int | None
) -> None:
    """Protects: the interval that estimates are ranked by holds the accuracy on *new* images.

    Test images are drawn anew each time, then the sample among their survivors; with a half-width
    in place of a budget the sample grows until it is narrow enough. The interval for these images
    alone misses the truth far more often, which is why it must not be compared with others.
    """
    rng = np.random.default_rng([images, budget or 0])
    trials, covered, alone, cache = 1000, 0, 0, {}
    for _ in range(trials):
        survivors = int(rng.binomial(images, cheap))
        verdicts = torch.from_numpy(rng.random(survivors) < robust / cheap)
        draw = Draw(torch.arange(survivors), verdicts[:0])
        amount: dict[str, Any] = {"budget": budget} if budget else {"halfwidth": 0.03}
        drawn, own, _ = estimate(images, draw, lambda i, v=verdicts: v[i], **amount)
        key = (survivors, len(drawn.verdicts), int(drawn.verdicts.sum()))
        wide = cache.setdefault(key, population_interval(own, images))
        covered += wide.low <= robust <= wide.high
        alone += own.low <= robust <= own.high
    assert covered / trials >= 0.95
    assert alone / trials < 0.9 or images == 300


def cost(gradients: float, forwards: float) -> float:
    """In gradient passes; a forward pass is worth 0.45 of one (measured on small-resnet)."""
    return gradients + 0.45 * forwards


@pytest.mark.parametrize("halfwidth", [0.01, 0.02])
def test_cost_against_a_random_subset(halfwidth: float) -> None:
    """ResNet-18-like: 10,000 images, 85 % clean, 48 % after the cheap attack, 46 % AutoAttack.

    A plain random subset of equal half-width costs at least four times as much.
    """
    n, clean, cheap, robust = 10_000, 0.85, 0.48, 0.46
    full = cost(101 + 909 + 900, 10 + 910 + 5001)
    # images that fall: to APGD-CE, or (between 48 and 46 %) to APGD-T
    per_image = robust * full + (cheap - robust) * cost(101 + 909, 10) + (clean - cheap) * 101
    needed = robust * (1 - robust) * 1.96**2 / halfwidth**2
    subset = needed / (1 + needed / n)  # finite population
    plain = subset * per_image
    survivors = int(cheap * n)
    alive, _ = truth(n, survivors, int(robust * n))
    draw, sample = Draw.fresh(alive, 0), 40
    while True:
        expected = round(sample * robust / cheap)
        verdicts = torch.arange(sample) < expected
        interval = Draw(draw.order, verdicts, (sample,)).interval(n, fixed=True)
        if (interval.high - interval.low) / 2 <= halfwidth:
            break
        sample += 10
    # every step of the cheap attack on every clean image: an upper bound, fooled ones drop out
    ours = clean * n * cost(20, 21) + sample * full
    assert ours <= plain / 4, (ours / plain, sample, subset)


RECORD = Path(__file__).parents[2] / "results" / "aa-budget"


@pytest.fixture(scope="module")
def attacked() -> tuple[Tensor, Tensor, dict[str, float]]:
    """A small PGD-AT network on 1,000 test images, on record: which survive the cheap attack, which
    of them all of AutoAttack, and the share left after each of its attacks."""
    if not RECORD.exists():
        pytest.skip("results/ is not beside the tests")
    entry = json.loads((RECORD / "evaluation.json").read_text())["metrics"]
    outcomes = pd.read_parquet(RECORD / "outcomes.parquet")
    alive = torch.zeros(len(outcomes), dtype=torch.bool)
    alive[entry["aa_linf_estimate"]["detail"]["order"]] = True
    left = torch.tensor(outcomes["aa_linf"].to_numpy(dtype=bool)) & alive
    after = {"clean": entry["clean"]["mean"], **entry["aa_linf"]["detail"]["after"]}
    assert len(left) == 1000
    return alive, left, after


@pytest.mark.parametrize("budget", [30, 60, 100])
def test_coverage_on_a_fully_attacked_network(
    budget: int, attacked: tuple[Tensor, Tensor, dict[str, float]]
) -> None:
    """1,000 draws from recorded verdicts: the interval holds the truth at least 94 % of the time."""
    alive, left, _ = attacked
    truth = float(left.double().mean())
    covered = 0
    for seed in range(1000):
        _, interval, _ = estimate(
            1000, Draw.fresh(alive, seed), lambda rows: left[rows], budget=budget
        )
        covered += interval.low - 1e-9 <= truth <= interval.high + 1e-9
    assert covered >= 940, covered


def test_cost_on_a_fully_attacked_network(
    attacked: tuple[Tensor, Tensor, dict[str, float]],
) -> None:
    """At most half of what AutoAttack on a random subset costs whose exact interval is as wide."""
    alive, left, after = attacked
    stages = {
        "apgd-ce": cost(101, 0), "apgd-t": cost(909, 10), "fab-t": cost(900, 910),
        "square": cost(0, 5001),
    }  # fmt: skip
    shares = list(after.values())
    # each attack meets what the one before it left
    per_image = sum(share * work for share, work in zip(shares[:-1], stages.values(), strict=True))
    right, budget = int(left.sum()), 60
    share = right / int(alive.sum())
    verdicts = torch.arange(budget) < round(share * budget)
    ours_at = Draw(Draw.fresh(alive, 0).order, verdicts, (budget,)).interval(1000, fixed=True)
    width = ours_at.high - ours_at.low
    subset = next(
        size
        for size in range(20, 1001)
        if (found := hypergeometric_interval(round(right / 1000 * size), size, 1000)).high
        - found.low
        <= width
    )
    ours = after["clean"] * 1000 * cost(20, 21) + budget * sum(stages.values())
    assert ours <= subset * per_image / 2, (ours / (subset * per_image), subset)


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
    one = survivors_of(net, [(None, x, y)], "linf", 0.12, 0, lambda n: None)
    clean = net(x).argmax(1) == y
    assert not (one & ~clean).any()
    assert 0 < int(one.sum()) < int(clean.sum())
    weak = survivors_of(net, [(None, x, y)], "linf", 1e-6, 0, lambda n: None)
    assert torch.equal(weak, clean)


def test_the_record_of_an_estimate(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "apgd-ce", "apgd-t")
    data = tiny_data(120)
    evaluator = Evaluator(data, CPU)
    evaluator.evaluate(net, metric(budget=8), tmp_path)
    entry = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]["aa_linf_estimate"]
    detail = entry["detail"]
    column = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf_estimate"]
    assert (entry["correct"], detail["attacked"], detail["interval"]) == (
        None, 8, "exact, fixed sample"
    )  # fmt: skip
    assert column.isna().sum() == detail["survivors"] - 8
    robust = int(column.sum())
    assert entry["mean"] == pytest.approx(robust / 8 * detail["survivors"] / len(data.test))
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
    assert entry["detail"]["interval"] == "valid at every look"
    more = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf_estimate"]
    assert (more[column.notna()] == column[column.notna()]).all()
    evaluator.evaluate(net, metric(budget=16, seed=1), tmp_path)  # another sample: from the start
    assert runs == [8, 16]
    # against the whole truth
    evaluator.evaluate(net, metric(budget=10**6), tmp_path / "whole")
    whole = json.loads((tmp_path / "whole" / "evaluation.json").read_text())["metrics"]
    value = whole["aa_linf_estimate"]["mean"]
    assert entry["detail"]["low"] <= value <= entry["detail"]["high"]
    everything = pd.read_parquet(tmp_path / "whole" / "outcomes.parquet")["aa_linf_estimate"]
    assert value == pytest.approx(everything.astype(float).mean())
    assert np.isclose(whole["aa_linf_estimate"]["detail"]["low"], value)


def test_estimates_are_labelled_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, "apgd-ce", "apgd-t")
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
    shorten(monkeypatch, "apgd-ce", "apgd-t")
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
