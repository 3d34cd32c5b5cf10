"""Metrics by name and radius, as the command line and Python ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.commands.panels import find_panel, metrics_at
from benchmark.config.panels import Radii
from benchmark.core.errors import ConfigError

NOWHERE = Path("nowhere")


def test_names_of_several_panels_at_once() -> None:
    """Protects: a request that is refused because its metrics stand in two lists."""
    names = ["aa_l2", "pgd100_linf", "clean", "spatial"]
    found = {metric.name: metric for metric in find_panel(names, [Radii()], "cifar10", NOWHERE)}
    assert set(names) <= set(found)
    # of the panel standard, not of quick, which takes 32 images
    assert found["aa_linf"].n is None
    with pytest.raises(ConfigError, match="unknown metric 'pgd99_linf'; did you mean"):
        find_panel(["clean", "pgd99_linf"], [Radii()], "cifar10", NOWHERE)


def test_a_union_brings_its_parts_at_the_same_radius() -> None:
    found = metrics_at(["union@norms"], "2/255", "cifar10", NOWHERE)
    assert [metric.name for metric in found] == ["aa_linf", "aa_l2", "aa_l1", "union@norms"]
    assert {str(metric.ball[1]) for metric in found if metric.ball} == {"2/255"}


def test_a_radius_is_checked_under_the_norms_that_are_attacked() -> None:
    """Protects: a radius that is refused because of a norm that nobody asked for."""
    (found,) = metrics_at(["pgd20_l2"], 2, "cifar10", NOWHERE)
    assert found.ball == ("l2", 2)
    with pytest.raises(ConfigError, match="eps = 2 is too large for linf"):
        metrics_at(["pgd20_l2", "pgd20_linf"], 2, "cifar10", NOWHERE)
    with pytest.raises(ConfigError, match="given twice"):
        metrics_at(["clean", {"kind": "clean"}], None, "cifar10", NOWHERE)
