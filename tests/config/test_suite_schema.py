"""What a suite may say: each mistake is one sentence that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_suites import tiny

from benchmark.config.suite import build_suite, load_suite, suite_names
from benchmark.core.errors import ConfigError


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_are_valid(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    assert suite.title
    assert suite.hardware
    slugs = [cell.slug for cell in suite.cells()]
    assert len(slugs) == len(set(slugs)) == len(suite.methods) * len(suite.seeds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["pgd-at", "pgd-at"]}, "method 'pgd-at' is given twice; give each its own"),
        ({"methods": []}, "at least one method"),
        ({"methods": "pgd-at"}, "methods must be a list"),
        ({"methods": [3]}, "a method is a name"),
        ({"methods": [{"name": 3}]}, "a method is a name"),
        ({"methods": [{"recipe": {}}]}, "a method is a name"),
        ({"methods": ["pgdat"]}, "did you mean 'pgd-at'"),
        ({"methods": [{"name": "trades", "beat": 3}]}, "did you mean 'beta'"),
        ({"methods": [{"name": "pgd-at", "label": "../x"}]}, "'../x' names files"),
        ({"methods": [{"name": "pgd-at", "label": "a/b"}]}, "'a/b' names files"),
        ({"seeds": [0, 0]}, "seed 0 is given twice"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"seeds": []}, "at least one method and one seed"),
        ({"name": "../../x"}, "names files"),
        ({"threats": 3}, "threats must be a mapping"),
        ({"threats": {"linf": {"eps": 8}}}, "threats.linf: eps = 8 is too large for linf"),
        ({"threats": {"linf": {"eps": "eight"}}}, "threats.linf"),
        ({"threats": {"linf": {"epps": 0.1}}}, "did you mean 'eps'"),
        ({"train": {"epochs": -1}}, "train.epochs"),
        ({"train": {"epochs": float("inf")}}, "train.epochs"),
        ({"train": {"selection": "test"}}, "train.selection"),
        ({"evaluation": [{"kind": "clean"}, {"kind": "clean"}]}, "metric 'clean' is given twice"),
        ({"evaluation": [{"kind": "clean", "name": "label"}]}, "this one is 'clean', not 'label'"),
        ({"evaluation": [{"kind": "cleen"}]}, "cleen"),
        ({"evaluation": [{"kind": "autoattack", "eps": 8}]}, "did you mean 8/255"),
        ({"dataset": {"name": "digitz"}}, "did you mean 'digits'"),
        ({"model": {"name": "resnet19"}}, "did you mean"),
        ({"optimizer": {"nesterov": True, "momentum": 0}}, "nesterov needs a momentum"),
        ({"threats": {"linf": {"eps": 0.03, "step": 2}}}, "did you mean 2/255"),
        ({"evaluation": []}, "evaluation"),
        (
            {"evaluation": [{"kind": "pgd", "name": "pgd20_linf", "threat": {"steps": 10}}]},
            "this one is 'pgd10_linf'",
        ),
        (
            {"evaluation": [{"kind": "autoattack", "name": "aa_linf", "norm": "l2", "eps": 0.5}]},
            "this one is 'aa_l2'",
        ),
        ({"seeds": [2**40]}, "seeds.0"),
        ({"modle": {}}, "did you mean 'model'"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_suite(tiny(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shorthand_data_set_never_becomes_another() -> None:
    """Protects: `dataset: digits` with --limit once meant CIFAR-10."""
    with pytest.raises(ConfigError, match="dataset must be a group of settings"):
        build_suite(tiny(dataset="digits"), extra={"dataset": {"limit": 5}})


def test_part_of_a_default_threat_model_keeps_the_rest() -> None:
    """Protects: threats.l2.steps=3 once made an l_inf threat model of that name."""
    data = tiny()
    del data["threats"]
    l2 = build_suite(data, ["threats.l2.steps=3"]).threats["l2"]
    assert (l2.norm, str(l2.eps), l2.steps) == ("l2", "128/255", 3)
    assert float(l2.step) == pytest.approx(2.5 * 128 / 255 / 3)
    l2 = build_suite(data, ["threats.l2.step=0.01"]).threats["l2"]
    assert (l2.norm, l2.steps, str(l2.step)) == ("l2", 10, "0.01")


def test_overrides() -> None:
    suite = build_suite(tiny(), ["train.epochs=7", "optimizer={lr: 0.3}", "seeds=[1, 2]"])
    assert (suite.train.epochs, suite.optimizer.lr, suite.seeds) == (7, 0.3, (1, 2))
    for text in ("train.epochs", "=3", "train.epochs.x=1", "methods.0.lr=1", "train.epochs=[1"):
        with pytest.raises(ConfigError, match="--set"):
            build_suite(tiny(), [text])


def test_only_restricts_and_adds() -> None:
    suite = build_suite(tiny(methods=["natural", "pgd-at"], seeds=[0, 1]))
    chosen = suite.only(["trades", "pgd-at", "pgd-at"], [4, 4])
    assert [(c.label, c.config.seed) for c in chosen.cells()] == [("trades", 4), ("pgd-at", 4)]
    trades = chosen.methods[0].recipe
    assert str(trades.learner.objective.threat) == str(suite.threats["linf"])  # type: ignore[attr-defined]
    assert suite.only([], []).cells() == suite.cells()
    with pytest.raises(ConfigError, match="did you mean 'trades'"):
        suite.only(["trade"], [])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: quick\ntrain: {epochs: 1}\n")
    suite = load_suite(str(path))
    assert (suite.name, suite.train.epochs) == ("mine", 1)
    assert suite.train.batch_size == load_suite("quick").train.batch_size
    path.write_text("base: imagenet-resnet50\ntrain: {epochs: 1}\n")  # which has a base itself
    suite = load_suite(str(path))
    assert suite.model == load_suite("imagenet-resnet50").model
    assert suite.methods == load_suite("imagenet-resnet50").methods
    assert suite.train.epochs == 1
    for content, message in (
        (b"train: [1, 2\nmethods: x", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"- 1\n", "must be a mapping"),
        (b"base: 5\n", "unknown suite '5'"),
        (b"base: quik\n", "did you mean 'quick'"),
        (f"base: {path}\n".encode(), "has itself as its base"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_suite(str(path))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist$"):
        load_suite(str(tmp_path / "none.yaml"))
    for wrong in (path.with_suffix(".yml"), path.with_suffix("")):
        with pytest.raises(ConfigError, match=f"; did you mean {path}\\?"):
            load_suite(str(wrong))
    with pytest.raises(ConfigError, match="cannot be read"):
        folder = tmp_path / "folder.yaml"
        folder.mkdir()
        load_suite(str(folder))


def test_a_label_goes_before_a_method_of_that_name() -> None:
    """Protects: --method generalist-d also ran generalist-d-drift."""
    drift = {"name": "generalist-d", "label": "drift"}
    suite = build_suite(tiny(methods=["generalist-d", drift]))
    assert [m.label for m in suite.only(["generalist-d"], []).methods] == ["generalist-d"]
    assert [m.label for m in suite.only(["drift"], []).methods] == ["drift"]


def test_a_partial_optimizer_keeps_the_suites_kind() -> None:
    """Protects: {weight_decay: 1e-4} under Adam once became SGD with lr 0.1."""
    own = {"name": "natural", "optimizer": {"weight_decay": 1e-4}}
    suite = build_suite(tiny(methods=[own], optimizer={"name": "adam", "lr": 1e-3}))
    optimizer = suite.methods[0].recipe.learner.optimizer  # type: ignore[attr-defined]
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adam", 1e-3, 1e-4)


def _bomb(levels: int) -> str:
    """YAML of 8 ** ``levels`` values behind its last alias."""
    lines = ["a0: &a0 [1]"]
    for i in range(levels):
        lines.append(f"a{i + 1}: &a{i + 1} [" + ", ".join([f"*a{i}"] * 8) + "]")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: 2020-99-99", "not valid YAML"),  # looks like a date
        ("title: !!float x", "not valid YAML"),
        ("seeds: [" + "9" * 5000 + "]", "not valid YAML"),
        ("methods: " + "[" * 3000, "not valid YAML"),
        ("!!python/object/apply:os.mkdir [executed]", "not valid YAML"),
        (_bomb(10) + "methods: [*a10]", "use fewer aliases"),
        ("methods: &a [*a]", "use fewer aliases"),
    ],
)
def test_yaml_that_cannot_be_meant(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by fuzzing: tracebacks, and a message that would not have fitted into memory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_suite("x.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "ema", "objective": {"name": [1]}}, "unknown method"),
        # It was recorded as null, and the run could not be read again.
        ({"name": "trades", "beta": float("inf")}, "finite number"),
        ({"name": "trades", "threat": {"eps": "1e400"}}, "not a number"),
        ({"name": "trades", "threat": {"eps": "1e999999999"}}, "not a number"),
        ({"name": "pgd-at", "schedule": "1e-999999999"}, "not a number"),
    ],
)
def test_values_that_cannot_be_meant(method: dict[str, Any], said: str) -> None:
    """Found by fuzzing: tracebacks, and powers of ten that were written out digit by digit."""
    with pytest.raises(ConfigError, match=said):
        build_suite(tiny(methods=[method]))


def test_all_errors_of_a_suite_are_told_at_once() -> None:
    """Each once, where it is, in words of the file and not of the validator."""
    wrong: dict[str, Any] = {
        "name": "bad",
        "tittle": "x",
        "dataset": {"name": "digitz", "limit": "one"},
        "model": {"name": "small-resnet", "widht": 8},
        "train": {"epochs": -3, "batch_size": "many", "selection": ["lasst"]},
        "seeds": [-1, 2.5],
        "threats": {"linf": {"eps": 8}, "mine": {"norm": "l7", "eps": 1}},
        "optimizer": {"lr": "fast", "momentun": 0.9},
        "methods": [
            "pgdat",
            {"name": "trades", "betta": 6, "threat": "mine"},
            {"name": "trades", "beta": "big"},
        ],
        "evaluation": [{"kind": "pgdd"}, {"panel": "standart"}, {"kind": "clean", "n": 0}],
    }
    with pytest.raises(ConfigError) as caught:
        build_suite(wrong)
    head, *found = str(caught.value).split("\n- ")
    assert head == f"suite bad has {len(found)} errors:"
    assert sorted(found) == sorted([
        "unknown key 'tittle'; did you mean 'title'?",
        "dataset.name: unknown dataset 'digitz'; did you mean 'digits'?",
        "dataset.limit: 'one' is not a whole number",
        "model: unknown key 'widht'; did you mean 'width'?",
        "train.epochs: -3 must be greater than 0",
        "train.batch_size: 'many' is not a whole number",
        "train.selection.0: 'lasst' is unknown; did you mean 'last'?",
        "seeds.0: -1 must be at least 0",
        "seeds.1: 2.5 is not a whole number",
        "threats.linf: eps = 8 is too large for linf: pixels are in [0, 1]; did you mean 8/255?",
        "threats.mine: norm: 'l7' is unknown; known: l1, l2, linf",
        "optimizer.lr: 'fast' is not a number",
        "unknown key 'optimizer.momentun'; did you mean 'momentum'?",
        "unknown method 'pgdat'; did you mean 'pgd-at' or 'lbgat'?",
        "method trades: unknown key 'betta'; did you mean 'beta'?",
        "method trades: beta: 'big' is not a number",
        "unknown metric kind 'pgdd'; did you mean 'pgd'?",
        "unknown panel 'standart'; did you mean 'standard'?",
        "metric clean: n: 0 must be at least 1",
    ])  # fmt: skip
