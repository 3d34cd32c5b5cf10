"""Whose optimiser and schedule a method is trained with: the suite's, or those of its authors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_suites import tiny

from benchmark.commands.catalogue import methods_page
from benchmark.commands.run import cell_record
from benchmark.config.suite import CellConfig, build_suite, load_suite
from benchmark.core.errors import ConfigError
from benchmark.core.learner import LearnerConfig
from benchmark.core.method import authors_recipe
from benchmark.core.objective import METHODS

# lr, weight decay, (fraction of training, factor of the lr) on both sides of each change, of the
# authors' code.
AUTHORS = {
    "pgd-at": (0.1, 5e-4, [(0.49, 1), (0.5, 0.1), (0.74, 0.1), (0.75, 0.01)]),
    "awp": (0.1, 5e-4, [(0.49, 1), (0.5, 0.1), (0.74, 0.1), (0.75, 0.01)]),
    # counted from 1, epoch 75 begins after 74
    "trades": (0.1, 2e-4, [(73.9 / 76, 1), (74.1 / 76, 0.1), (1, 0.1)]),
    "mart": (0.01, 3.5e-3, [(73 / 120, 1), (75 / 120, 0.1), (90 / 120, 0.01), (1, 0.001)]),
    "fat": (0.1, 2e-4, [(58 / 120, 1), (60 / 120, 0.1), (90 / 120, 0.01), (110 / 120, 0.005)]),
    "fat-trades": (0.1, 2e-4, [(73 / 85, 1), (75 / 85, 0.1)]),
    "iat": (0.1, 2e-4, [(0.49, 1), (0.5, 0.1), (0.75, 0.01)]),
    "rst-without-extra-data": (0.1, 5e-4, [(0, 1), (0.5, 0.5), (1, 0)]),
    "hat": (0.21, 5e-4, [(0, 1 / 25), (0.25, 1), (1, 1 / 25e4)]),
    "lbgat": (0.1, 2e-4, [(0, 0.2), (0.02, 1), (0.76, 0.1), (0.91, 0.01)]),
    "ema": (0.01, 3.5e-3, [(0.3, 1), (2 / 3, 0.1), (1, 0.01)]),
    "msd": (0.1, 5e-4, [(0, 0), (0.4, 1), (0.8, 0.05), (1, 0)]),
    "sat": (0.21, 5e-4, [(0, 0), (0.2, 0.5), (0.4, 1), (1, 0)]),
    "adp": (0.001, 1e-4, [(0.49, 1), (0.5, 0.1), (0.75, 0.01)]),
}


def learners_of(recipe: Any) -> list[LearnerConfig]:
    return [recipe.learner] if hasattr(recipe, "learner") else list(recipe.learners)


@pytest.mark.parametrize("name", AUTHORS)
def test_every_learner_has_the_numbers_of_the_authors_code(name: str) -> None:
    """Protects: in a suite with other settings, FAT once had lr 0.01 and weight decay 3.5e-3."""
    suite = build_suite(
        tiny(methods=[{"name": name, "recipe": "authors"}], optimizer={"lr": 9, "nesterov": True})
    )
    lr, decay, factors = AUTHORS[name]
    for learner in learners_of(suite.methods[0].recipe):
        assert (learner.optimizer.lr, learner.optimizer.weight_decay) == (lr, decay)
        assert learner.optimizer.nesterov == (name in ("rst-without-extra-data", "hat"))
        assert learner.optimizer.name == ("adam" if name == "adp" else "sgd")
        assert learner.grad_clip == (0.5 if name == "sat" else None)
        for progress, factor in factors:
            assert learner.schedule(progress) == pytest.approx(factor, abs=1e-9), progress


def test_generated_data_has_the_one_cycle_of_its_code() -> None:
    """Against torch's own, as the code calls it: one step per epoch."""
    learner = build_suite(
        tiny(methods=[{"name": "trades-generated", "recipe": "authors"}])
    ).methods[0].recipe.learner  # type: ignore[attr-defined]  # fmt: skip
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, pct_start=0.025, total_steps=400
    )
    for epoch in range(400):
        (expected,) = theirs.get_last_lr()
        found = learner.optimizer.lr * learner.schedule(epoch / 400)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-12), epoch
        optimizer.step()
        if epoch < 399:
            theirs.step()
    assert learner.optimizer.nesterov


def test_the_rows_of_the_paper_suites() -> None:
    suite = load_suite("cifar10-resnet18")
    whose = {entry.label: entry.recipe.recipe for entry in suite.methods}
    by_authors = {"trades", "fat", "iat", "rst-without-extra-data", "mart", "awp"}
    assert {label for label, recipe in whose.items() if recipe == "authors"} == by_authors
    assert {"natural", "pgd-at", "generalist-d", "generalist-d-adam"} <= whose.keys()
    (fat,) = (entry.recipe.learner for entry in suite.methods if entry.label == "fat")  # type: ignore[attr-defined]
    assert (fat.optimizer.lr, fat.optimizer.weight_decay) == (0.1, 2e-4)
    assert str(fat.objective.threat.eps) == "0.031"  # attacks stay the suite's
    natural, robust = next(e for e in suite.methods if e.label == "generalist-d-adam").recipe.learners  # type: ignore[attr-defined]  # fmt: skip
    assert (natural.optimizer.name, natural.optimizer.lr) == ("adam", 0.001)
    assert (robust.optimizer.name, robust.optimizer.lr) == ("sgd", 0.01)


def test_the_command_line_chooses_the_recipe_of_a_row() -> None:
    """``--method NAME@authors`` is a row of its own, which a later call finds again."""
    suite = load_suite("cifar10-resnet18")
    chosen = suite.only(["pgd-at", "pgd-at@authors", "mart@common", "hat@authors"], [0])
    rows = {entry.label: entry.recipe for entry in chosen.methods}
    assert list(rows) == ["pgd-at", "pgd-at@authors", "mart@common", "hat@authors"]
    settings = {
        label: (recipe.recipe, learners_of(recipe)[0].optimizer.lr)
        for label, recipe in rows.items()
    }
    assert settings == {
        "pgd-at": ("common", 0.01),
        "pgd-at@authors": ("authors", 0.1),
        "mart@common": ("common", 0.01),
        "hat@authors": ("authors", 0.21),
    }
    assert build_suite(tiny(methods=["fat@authors"])).methods[0].recipe.recipe == "authors"


def test_the_common_recipe_leaves_hashes_as_they_were_and_the_other_is_on_record() -> None:
    plain, common, authors = (
        build_suite(tiny(methods=[{"name": "trades", **more}])).cells()[0]
        for more in ({}, {"recipe": "common"}, {"recipe": "authors"})
    )
    assert plain.config.hash == common.config.hash != authors.config.hash
    assert "recipe" not in plain.config.recipe.model_dump()
    record = cell_record(authors, "tiny")["config"]
    assert record["method"]["recipe"]["recipe"] == "authors"
    config = {key: value for key, value in record.items() if key not in ("method", "suite")}
    again = CellConfig.model_validate({**config, "recipe": record["method"]["recipe"]})
    assert again.hash == authors.config.hash


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "joint", "recipe": "authors"}, "joint has no authors' recipe here"),
        ("e-at@authors", "e-at has no authors' recipe here"),
        ({"name": "fat", "recipe": "authors", "optimizer": {"lr": 1}}, "already sets optimizer"),
        ({"name": "fat", "recipe": "ours"}, "recipe"),
        ("fat@ours", "fat@ours"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(method: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_suite(tiny(methods=[method]))
    assert "\n" not in str(caught.value)


def test_what_is_inherited_is_another_methods() -> None:
    """A method derived from TRADES says nothing of how its own authors train it."""

    class Derived(METHODS.get("trades")):  # type: ignore[misc]
        pass

    assert authors_recipe(METHODS.get("trades"))
    assert authors_recipe(Derived) is None


def test_the_page_of_methods_states_every_recipe() -> None:
    stated = methods_page().count("Authors' recipe")
    assert stated == sum(authors_recipe(cls) is not None for _, cls in METHODS.items())
