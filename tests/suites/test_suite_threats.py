"""A suite's threat models, optimiser and schedule must reach every learner of every method."""

from __future__ import annotations

import pytest

from benchmark.core.method import SingleLearner
from benchmark.suites.schema import SuiteConfig, load_suite, suite_names


def objectives(suite: SuiteConfig) -> list[tuple[str, str, object]]:
    """(label, learner, objective) of every learner of a suite."""
    return [
        (entry.label, learner.name, learner.objective)
        for entry in suite.methods
        for learner in (
            (entry.recipe.learner,)
            if isinstance(entry.recipe, SingleLearner)
            else entry.recipe.learners
        )
    ]


@pytest.mark.parametrize("name", suite_names())
def test_training_attacks_are_those_of_the_suite(name: str) -> None:
    """Protects: training at the suite's eps and steps, not at the package's defaults."""
    suite = load_suite(name)
    threats = [o.threat for _, _, o in objectives(suite) if hasattr(o, "threat")]
    assert len(threats) >= 5
    assert {str(threat) for threat in threats} <= {str(t) for t in suite.threats.values()}


def test_an_override_reaches_the_learners() -> None:
    """Protects: --set threats.linf.steps=3 changes what is trained, and the run's hash."""
    plain, changed = load_suite("quick"), load_suite("quick", ["threats.linf.steps=3"])
    steps = {o.threat.steps for _, _, o in objectives(changed) if hasattr(o, "threat")}
    assert 3 in steps
    hashes = [{cell.label: cell.config.hash for cell in s.cells()} for s in (plain, changed)]
    same = {label for label in hashes[0] if hashes[0][label] == hashes[1][label]}
    assert same == set()  # validation uses the same threat model, so all runs change
