"""Every rule of RobustBench's boards refuses, with its reason, and a run within them passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from board_records import autoattack, evaluation
from tiny_suites import tiny_cell

from benchmark.commands.leaderboard import (
    Paper,
    Threat,
    board_of,
    boards,
    reported_metric,
    violations,
)
from benchmark.config.suite import CellConfig
from benchmark.core.config import parse
from benchmark.core.errors import ConfigError

Change = Callable[[dict[str, Any]], object]


def config(**dataset: object) -> CellConfig:
    return tiny_cell(dataset={"name": "cifar10", **dataset}).config


def reasons(
    record: dict[str, Any], threat: Threat = "linf", cell: CellConfig | None = None
) -> list[str]:
    return violations(threat, cell or config(), record)


@pytest.mark.parametrize(("name", "threat"), boards())
def test_a_run_within_the_rules_passes(name: str, threat: Threat) -> None:
    record = evaluation(board_of(name, threat).images)
    assert reasons(record, threat, config(name=name)) == []


@pytest.mark.parametrize("eps", ["0.5", "128/255"])
def test_both_forms_of_the_l2_radius_pass(eps: str) -> None:
    assert reasons(evaluation(aa_l2=autoattack("l2", eps)), "l2") == []


def _set(*path: str) -> Callable[[Any], Change]:
    def at(value: Any) -> Change:
        def change(record: dict[str, Any]) -> None:
            *parents, last = path
            for key in parents:
                record = record[key]
            record[last] = value

        return change

    return at


@pytest.mark.parametrize(
    ("threat", "change", "message"),
    [
        ("linf", _set("metrics", "aa_linf", "n")(1000), "aa_linf was measured on 1,000 of 10,000"),
        ("linf", _set("metrics", "clean", "n")(9999), "clean was measured on 9,999 of 10,000"),
        ("linf", _set("metrics", "aa_linf", "detail", "eps")("0.031"), "eps = 0.031; the board's"),
        ("linf", _set("metrics", "aa_linf", "detail", "eps")("4/255"), "the board's is 8/255"),
        ("l2", _set("metrics", "aa_l2", "detail", "eps")("0.25"), "board's is 0.5 or 128/255"),
        ("linf", _set("metrics", "aa_linf", "detail", "version")("plus"), "not standard"),
        ("linf", _set("metrics", "aa_linf", "detail", "attacks")(["apgd-ce"]), "not standard"),
        ("linf", _set("metrics", "aa_linf", "detail", "targets")({"apgd-t": 3}), "not standard"),
        ("linf", _set("metrics", "aa_linf", "detail", "warnings")(["random"]), "warns: random"),
        ("linf", lambda record: record["metrics"].pop("aa_linf"), "AutoAttack under linf was not"),
        ("l2", lambda record: record["metrics"].pop("aa_l2"), "AutoAttack under l2 was not"),
        ("linf", lambda record: record["metrics"].pop("clean"), "clean accuracy was not measured"),
        ("corruptions", lambda record: record["metrics"].pop("corruptions"), "corruptions was not"),
        (
            "corruptions",
            _set("metrics", "corruptions", "detail", "source")("generated"),
            "generated images",
        ),
        (
            "corruptions",
            _set("metrics", "corruptions", "detail", "severities")([5]),
            "lacks some of the severities",
        ),
        ("linf", _set("dataset", "limit")(100), "limit of 100 images"),
        ("linf", _set("dataset", "images")(9000), "test set has 9,000 images"),
        ("linf", _set("reliability", "checked")([]), "checks were not made"),
        (
            "linf",
            _set("reliability", "findings")([{"name": "zero-gradient", "text": "none arrives"}]),
            "reliability finding zero-gradient: none arrives",
        ),
    ],
)
def test_each_rule_refuses_alone(threat: Threat, change: Change, message: str) -> None:
    """One departure, one reason: neither overlooked nor counted against other boards' figures."""
    record = evaluation()
    change(record)
    (reason,) = reasons(record, threat)
    assert message in reason


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"name": "digits"}, "no board for digits under linf"),
        ({"limit": 50}, "limit of 50"),
        ({"test_limit": 70}, "limit of 70"),
        ({"size": 64}, "resized to 64"),
    ],
)
def test_the_data_of_the_run_refuses(cell: dict[str, Any], message: str) -> None:
    (reason,) = reasons(evaluation(), cell=config(**cell))
    assert message in reason


def test_boards_that_do_not_exist() -> None:
    for name in ("cifar100", "imagenet"):
        assert any(
            "no board" in reason for reason in reasons(evaluation(), "l2", config(name=name))
        )


@pytest.mark.parametrize("form", ["estimate", "screening"])
def test_an_estimate_is_never_autoattack(form: str) -> None:
    """However many images it is on: the record says what the figure is."""
    name = f"aa_linf_{form}"
    record = evaluation()
    record["metrics"][name] = {**record["metrics"].pop("aa_linf"), "form": form}
    assert reported_metric(record["metrics"], "linf", board_of("cifar10", "linf")) is None
    found = reasons(record)
    assert any(f"{name} is a" in reason and form in reason for reason in found)
    assert any("AutoAttack under linf was not measured" in reason for reason in found)


def test_the_metric_within_the_rules_is_the_one_reported() -> None:
    """Of several radii; the other one is not held against the run."""
    record = evaluation()
    right = record["metrics"].pop("aa_linf")
    wrong = copy.deepcopy(right)
    wrong["detail"]["eps"] = "2/255"
    record["metrics"] |= {"aa_linf@2/255": wrong, "aa_linf@8/255": right}
    found = reported_metric(record["metrics"], "linf", board_of("cifar10", "linf"))
    assert found == "aa_linf@8/255"
    assert reasons(record) == []


def test_attacked_corruptions_are_not_the_boards() -> None:
    record = evaluation()
    known = record["metrics"].pop("corruptions")
    attacked = {**known, "detail": {**known["detail"], "threat": {"norm": "linf"}}}
    record["metrics"] |= {"corruptions_pgd20_linf": attacked, "corruptions": known}
    board = board_of("cifar10", "corruptions")
    assert reported_metric(record["metrics"], "corruptions", board) == "corruptions"
    del record["metrics"]["corruptions"]
    assert reported_metric(record["metrics"], "corruptions", board) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("id", "my model", "NameYearFirstWordOfTitle"),
        ("id", "../Rade2021Helper", "NameYearFirstWordOfTitle"),
        ("link", "arxiv.org/abs/1", "not a URL"),
        ("reported", 0.53, "write 53.08"),
        ("reported", "many", "not a number"),
        ("reported", True, "per cent"),
        ("external", 101, "per cent"),
        ("additional_data", "perhaps", "additional_data"),
        ("authers", "A", "did you mean 'authors'"),
    ],
)
def test_wrong_facts_of_a_paper_are_explained(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Paper, {key: value})


def test_accuracies_are_written_with_two_decimals() -> None:
    assert parse(Paper, {"reported": 53}).reported == "53.00"
    assert parse(Paper, {"reported": "53.456"}).reported == "53.46"


def test_ids_of_published_models_are_accepted() -> None:
    for name in ("Rade2021Helper_R18_ddpm", "Amini2024MeanSparse_S-WRN-70-16", "Wong2020Fast"):
        assert Paper(id=name).id == name
