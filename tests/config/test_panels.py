"""Panels are what their names say, at the radii they are given."""

from __future__ import annotations

from fractions import Fraction

import pytest
from tiny_suites import tiny

from benchmark.config.panels import PANELS, ImageCounts, Radii
from benchmark.config.suite import build_suite
from benchmark.core.errors import ConfigError
from benchmark.core.threat import exact
from benchmark.metrics.pgd import PGD
from benchmark.metrics.union import Union


@pytest.mark.parametrize("name", PANELS.names())
def test_every_panel_is_a_valid_evaluation(name: str) -> None:
    suite = build_suite(tiny(evaluation=[{"panel": name, "n": 50, "n_aa": 10}]))
    assert suite.evaluation == PANELS.get(name)(Radii(), ImageCounts(50, 10))
    again = build_suite(tiny(evaluation=[m.model_dump(mode="json") for m in suite.evaluation]))
    assert again.evaluation == suite.evaluation
    for metric in suite.evaluation:
        assert metric.n in (None, 50, 10)


def test_the_papers_columns() -> None:
    names = [metric.name for metric in PANELS.get("paper")(Radii(), ImageCounts())]
    assert names == [
        "clean", "pgd20_linf", "pgd100_linf", "mim20_linf", "cw20_linf", "pgd10_linf@released", "apgd-ce_linf",
        "apgd-dlr_linf", "apgd-t_linf", "fab-t_linf", "square_linf", "aa_linf",
    ]  # fmt: skip
    pgd = {m.name: m for m in PANELS.get("paper")(Radii(), ImageCounts()) if isinstance(m, PGD)}
    assert pgd["pgd100_linf"].threat.steps == 100
    assert pgd["pgd20_linf"].threat.steps == pgd["cw20_linf"].threat.steps == 20
    assert pgd["mim20_linf"].momentum == 1
    assert pgd["cw20_linf"].loss == "cw"
    released = pgd.pop("pgd10_linf@released")
    assert str(released.threat) == "linf eps=0.031 step=0.007 steps=10"
    assert (released.loss, released.momentum, released.restarts) == ("ce", 0, 1)
    assert {str(metric.threat.step) for metric in pgd.values()} == {"2/255"}
    # at another radius there is nothing that it could be compared with
    elsewhere = PANELS.get("paper")(Radii(linf="4/255"), ImageCounts())
    assert "pgd10_linf@released" not in [metric.name for metric in elsewhere]


def test_unseen_radii_are_multiples_of_the_trained_one() -> None:
    """Protects: "larger eps than trained on" must follow the eps that is given."""
    panel = PANELS.get("unseen")(Radii(linf="2.5/255"), ImageCounts())
    eps = {m.name: m.threat.eps.text for m in panel if isinstance(m, PGD)}
    assert eps["pgd20_linf"] == "2.5/255"
    assert eps["pgd20_linf@x1.5"] == "3.75/255"
    assert eps["pgd20_linf@x2"] == "5/255"
    assert exact(eps["pgd20_linf@x2"]) == Fraction(5, 255)
    union = panel[-1]
    assert isinstance(union, Union)
    assert "spatial" in union.of


def test_a_panel_beside_metrics_and_without_some() -> None:
    items = [{"panel": "standard", "without": ["corruptions"]}, {"kind": "spatial", "n": 5}]
    suite = build_suite(tiny(evaluation=items))
    names = [metric.name for metric in suite.evaluation]
    assert names == ["clean", "pgd20_linf", "pgd20_l2", "aa_linf", "spatial"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"panel": "papre"}, "did you mean 'paper'"),
        ({"panel": "paper", "nn": 3}, "unknown key 'nn'"),
        ({"panel": "paper", "linf": "8"}, "did you mean 8/255"),
        ({"kind": "shift", "test_set": "cifar10.3"}, "unknown test set 'cifar10.3'; did you mean"),
        (
            {"kind": "autoattack", "precision": "bf16", "name": "aa_linf"},
            "this one is 'aa_linf_screening', not 'aa_linf'",
        ),
        (
            {"kind": "pgd", "precision": "bf16", "name": "pgd20_linf", "threat": {"steps": 20}},
            "this one is 'pgd20_linf_screening'",
        ),
        ({"kind": "pgdd"}, "unknown metric kind 'pgdd'; did you mean 'pgd'"),
        ({"kind": "union", "of": ["clean", "spatial"]}, "'clean', which must be a metric before"),
    ],
)
def test_wrong_panels(item: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_suite(tiny(evaluation=[item]))
