"""The examples in the docstrings of ``generalist_bench`` run as they stand there."""

from __future__ import annotations

import doctest

import pytest

import generalist_bench as gb

EXAMPLES = [
    test
    for name in gb.__all__
    for test in doctest.DocTestFinder(recurse=False).find(getattr(gb, name), name)
    if test.examples
]


def test_every_function_has_an_example() -> None:
    assert {test.name for test in EXAMPLES} >= {"attack", "evaluate", "load", "train"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_an_example_runs(example: doctest.DocTest) -> None:
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert failed.failed == 0
