"""A suite's threat models, optimiser and schedule must reach every learner of every method."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmark.config.suite import SuiteConfig, load_suite, suite_names


def found(value: Any) -> Iterator[dict[str, Any]]:
    """Every threat model anywhere in a recipe."""
    if isinstance(value, dict):
        if {"norm", "eps", "step", "steps"} <= value.keys():
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from found(item)


def training_threats(suite: SuiteConfig) -> list[dict[str, Any]]:
    return [
        threat for entry in suite.methods for threat in found(entry.recipe.model_dump(mode="json"))
    ]


@pytest.mark.parametrize("name", suite_names())
def test_training_attacks_are_those_of_the_suite(name: str) -> None:
    """Protects: training at the suite's eps and steps, not at the package's defaults."""
    suite = load_suite(name)
    threats = training_threats(suite)
    assert threats
    assert all(threat in [t.model_dump(mode="json") for t in suite.threats.values()]
               for threat in threats)  # fmt: skip


def test_an_override_reaches_the_learners() -> None:
    """Protects: --set threats.linf.steps=3 changes what is trained, and the run's hash."""
    plain, changed = load_suite("quick"), load_suite("quick", ["threats.linf.steps=3"])
    assert 3 in {threat["steps"] for threat in training_threats(changed)}
    hashes = [{cell.label: cell.config.hash for cell in s.cells()} for s in (plain, changed)]
    same = {label for label in hashes[0] if hashes[0][label] == hashes[1][label]}
    assert same == set()  # validation uses the same threat model, so all runs change
