"""Numbers on the command line: for every kind of metric they are honoured, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.commands.options import Options
from benchmark.config.panels import PANELS, ImageCounts, Radii
from benchmark.core.errors import ConfigError
from benchmark.metrics.metric import make_metric

THREAT = {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 20}
ALL = {
    form: make_metric(settings)
    for form, settings in {
        "clean": {"kind": "clean"},
        "pgd": {"kind": "pgd", "threat": THREAT},
        "pgd-screening": {"kind": "pgd", "threat": THREAT, "precision": "bf16"},
        "autoattack": {"kind": "autoattack"},
        "autoattack-part": {"kind": "autoattack-part", "attack": "square"},
        "autoattack-screening": {"kind": "autoattack", "precision": "bf16"},
        "autoattack-estimate": {"kind": "autoattack", "budget": 3},
        "corruptions": {"kind": "corruptions"},
        "spatial": {"kind": "spatial"},
        "shift": {"kind": "shift", "test_set": "cifar10.1"},
    }.items()
}
COSTLY = {"autoattack", "autoattack-part", "autoattack-screening", "spatial"}
PGD = {"pgd", "pgd-screening"}


def over(kind: str, **given: Any) -> Any:
    (metric,) = Options(**given).over([ALL[kind]])
    return metric


@pytest.mark.parametrize("kind", ALL)
def test_images_and_seed(kind: str) -> None:
    """Protects: a number that is ignored in silence."""
    assert over(kind, seed=7).seed == 7
    if kind == "autoattack-estimate":
        for given in ({"n": 50}, {"n_aa": 50}, {"n_pgd": 50}):
            with pytest.raises(ConfigError, match="applies to none of the metrics"):
                over(kind, **given)
        return
    assert over(kind, n=50).n == 50
    for option, kinds in (("n_aa", COSTLY), ("n_pgd", PGD)):
        if kind in kinds:
            assert over(kind, **{option: 20}).n == 20
            with pytest.raises(ConfigError, match="--n 50 applies to none"):
                over(kind, **{"n": 50, option: 20})
        else:
            with pytest.raises(ConfigError, match="applies to none of the metrics"):
                over(kind, **{option: 20})


@pytest.mark.parametrize("kind", ALL)
def test_steps_step_and_restarts(kind: str) -> None:
    """Protects: PGD-50 in a column that is called PGD-20."""
    if kind not in PGD:
        for given in ({"steps": 50}, {"step": "1/255"}, {"restarts": 5}):
            with pytest.raises(ConfigError, match="it is for PGD"):
                over(kind, **given)
        return
    word = "_screening" if kind.endswith("screening") else ""
    metric = over(kind, steps=50)
    assert (metric.name, metric.threat.steps) == (f"pgd50_linf{word}", 50)
    assert metric.threat.step.text == "2/255"
    metric = over(kind, step="1/255", restarts=5)
    assert metric.name == f"pgd20_linf{word}@step1/255-r5"
    assert (metric.threat.step.text, metric.restarts) == ("1/255", 5)
    assert over(kind, steps=20, step="2/255", restarts=1) == ALL[kind]
    with pytest.raises(ConfigError, match="did you mean 2/255"):
        over(kind, step="2")


def test_a_suites_columns_are_not_changed() -> None:
    """Protects: a figure on ten images in the column of a suite that has a thousand."""
    metrics = [ALL["clean"], ALL["autoattack"]]
    with pytest.warns(UserWarning, match="--n 10 is not applied to clean: it is a column of the"):
        found = Options(n=10).over(metrics, ["clean"])
    assert [metric.n for metric in found] == [None, 10]
    with pytest.raises(ConfigError, match="--n 10 applies to none"):
        Options(n=10).over(metrics, ["clean", "aa_linf"])
    # An attack of another name is another column.
    (changed,) = Options(restarts=3).over([ALL["pgd"]], ["pgd20_linf"])
    assert (changed.name, changed.restarts) == ("pgd20_linf@r3", 3)


def test_unions_follow_their_parts() -> None:
    panel = PANELS.get("unseen")(Radii(), ImageCounts())
    found = Options(n=30, n_aa=5, steps=7).over(panel)
    names = [metric.name for metric in found]
    union = found[-1]
    assert union.kind == "union"
    assert set(union.of) <= set(names)
    assert union.name != "union@unseen"
    assert {metric.n for metric in found[:-1]} == {30, 5}


def test_more_images_than_there_are() -> None:
    with pytest.raises(ConfigError, match="--n-aa 5000: the test split of digits has 360 images"):
        Options(n=10, n_aa=5000).check_size(360, "digits")
    Options(n=360).check_size(360, "digits")
