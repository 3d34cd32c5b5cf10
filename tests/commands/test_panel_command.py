"""``evaluate`` with panels, screening and kept examples, on a trained run and on a model of one's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from short_attacks import shorten
from tiny_suites import cli, write_suite

from benchmark.commands.panels import radii_of
from benchmark.config.panels import PANELS, ImageCounts, Radii
from benchmark.core.errors import ConfigError
from benchmark.metrics.metric import Metric, make_metric

THREAT = {"norm": "linf", "eps": "0.1", "step": "0.025", "steps": 20}
EVALUATION = [
    {"kind": "clean"},
    {"kind": "pgd", "name": "pgd20_linf", "threat": THREAT, "n": 10},
    {"kind": "autoattack", "name": "aa_linf", "eps": "0.1", "n": 6},
]


@pytest.fixture(scope="module", autouse=True)
def _short_attacks() -> Iterator[None]:
    """Ten steps of AutoAttack's first attack stand for all of it."""
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, "apgd-ce", steps=10)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("panels")
    suite = write_suite(folder, evaluation=EVALUATION, seeds=[0, 1],
                        train={"epochs": 12, "validations": 1})  # fmt: skip
    assert cli("run", suite, "--out", folder / "out", "-q").status == 0
    return folder / "out"


@pytest.fixture
def out(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "out"))


def runs(out: Path) -> list[Path]:
    return sorted((out / "cells").iterdir())


def metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())["metrics"]


def test_a_panel_follows_the_suite(out: Path) -> None:
    """Protects: its radius, its settings for the metrics that it has, and unions that do not
    replace one another."""
    run = runs(out)[0]
    before = metrics(run)["aa_linf"]
    assert cli("evaluate", run, "--panel", "cross-norm", "--n", 8, "--n-aa", 5, "-q").status == 0
    found = metrics(run)
    assert found["aa_linf"] == before
    assert (found["aa_l2"]["n"], found["aa_l2"]["detail"]["eps"]) == (5, "128/255")
    assert found["union@norms"]["detail"]["of"] == ["aa_linf", "aa_l2", "aa_l1"]
    without = ["--metric", "pgd20_linf@x2", "--metric", "pgd20_l2"]
    assert cli("evaluate", run, "--panel", "unseen", "--n", 8, *without, "-q").status == 0
    found = metrics(run)
    assert found["pgd20_linf@x2"]["detail"]["threat"]["eps"] == "0.2"
    assert "union@norms" in found


def test_a_union_is_measured_with_its_parts(out: Path) -> None:
    run = runs(out)[0]
    called = cli(
        "evaluate", run, "--panel", "cross-norm", "--n-aa", 5, "--metric", "union@norms", "-q"
    )
    assert called.status == 0, called.err
    assert {"aa_l2", "aa_l1", "union@norms"} <= metrics(run).keys()


def test_a_column_never_mixes_settings(out: Path) -> None:
    """Protects: panels measured on 5 images in one run and on 6 in the other."""
    one, other = runs(out)
    part = ["--panel", "paper", "--metric", "apgd-ce_linf", "-q", "--n-aa"]
    assert cli("evaluate", one, *part, 5).status == cli("evaluate", other, *part, 6).status == 0
    assert cli("report", out).status == 0
    table = (out / "report" / "table.md").read_text()
    assert "APGD-CE" not in table.splitlines()[2]
    assert cli("evaluate", one, *part, 6).status == 0
    assert cli("report", out).status == 0
    assert "APGD-CE" in (out / "report" / "table.md").read_text()


def test_a_union_of_stale_parts_is_not_shown(out: Path) -> None:
    for run in runs(out):
        assert cli("evaluate", run, "--panel", "cross-norm", "--n-aa", 5, "-q").status == 0
    suite = json.loads((out / "suite.json").read_text())
    suite["evaluation"][2]["eps"] = "0.05"
    (out / "suite.json").write_text(json.dumps(suite))
    assert cli("report", out).status == 0
    head = next(
        line for line in (out / "report" / "table.md").read_text().splitlines() if "Method" in line
    )
    assert "Union" not in head
    assert "AutoAttack l2" in head


def test_screening_from_the_command_line(out: Path) -> None:
    run = runs(out)[0]
    found = cli("evaluate", run, "--precision", "bf16", "--json", "-q").json()[run.name]
    assert found["aa_linf_screening"]["n"] == 6
    assert "precision=bf16" in found["aa_linf_screening"]["settings"]
    assert "precision=bf16" in found["pgd20_linf_screening"]["settings"]
    wrong = cli("evaluate", run, "--precision", "bf16", "--aa-budget", 3)
    assert "choose one of them" in wrong.err
    assert cli("report", out).status == 0
    assert "AutoAttack (screening)" in (out / "report" / "table.md").read_text()


def test_several_radii_with_a_screening_and_an_estimate(out: Path) -> None:
    """Protects: aa_linf@1/255 is no name that a suite could give."""
    model = ["small-resnet", "--set", "model.stem_stride=1", "--dataset", "digits",
             "--checkpoint", runs(out)[0] / "deployed.pt", "--limit", 30, "-q"]  # fmt: skip
    radii = ["--eps", "0.1", "--eps", "1/20", "--metric", "aa_linf@0.1", "--metric", "aa_linf@1/20"]
    screened = (*model, *radii, "--n-aa", 4, "--precision", "bf16")
    found = cli("evaluate-model", *screened, "--json").json()["small-resnet"]
    assert found.keys() == {"aa_linf_screening@0.1", "aa_linf_screening@1/20"}
    found = cli("evaluate-model", *model, *radii, "--aa-budget", 2, "--json").json()["small-resnet"]
    assert "aa_linf_estimate@1/20" in found


def test_examples_are_of_this_measurement(out: Path) -> None:
    """Protects: kept at one radius, they must not pass for those of another."""
    run = runs(out)[0]
    path = run / "adversarial-aa_linf.pt"
    assert cli("evaluate", run, "--metric", "aa_linf", "--save-adversarial", "-q").status == 0
    first = torch.load(path, weights_only=True)
    suite = json.loads((out / "suite.json").read_text())
    suite["evaluation"][2]["eps"] = "0.5"  # so far that every image is changed
    (out / "suite.json").write_text(json.dumps(suite))
    assert cli("evaluate", run, "--metric", "aa_linf", "-q").status == 0
    assert not path.exists()
    assert cli("evaluate", run, "--metric", "aa_linf", "--save-adversarial", "-q").status == 0
    kept = torch.load(path, weights_only=True)
    assert len(kept["index"]) == 6
    # At the first radius again, its own examples come back with its figure.
    suite["evaluation"][2]["eps"] = "0.1"
    (out / "suite.json").write_text(json.dumps(suite))
    assert cli("evaluate", run, "--metric", "aa_linf", "-q").status == 0
    again = torch.load(path, weights_only=True)
    assert torch.equal(again["x_adv"], first["x_adv"])
    assert not torch.equal(again["x_adv"], kept["x_adv"])
    wrong = cli("evaluate", run, "--aa-budget", 3, "--save-adversarial")
    assert "an estimate has none" in wrong.err


def metric(**settings: Any) -> Metric:
    return make_metric(settings)


def test_the_radius_of_a_suite() -> None:
    unseen = PANELS.get("unseen")(Radii(linf="4/255"), ImageCounts())
    assert radii_of(unseen).linf == "4/255", "not 1.5 or 2 times it"
    assert radii_of([metric(kind="autoattack", name="aa_l2", norm="l2", eps="0.3")]).l2 == "0.3"
    with pytest.raises(ConfigError, match="several linf radii"):
        radii_of([metric(kind="pgd", name="pgd20_linf", threat=THREAT),
                metric(kind="autoattack", name="aa_linf", eps="8/255")])  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "autoattack-part", "name": "aa_linf", "attack": "apgd-ce"},
        {"kind": "autoattack-part", "name": "square_linf", "attack": "apgd-ce"},
        {"kind": "pgd", "name": "aa_linf", "threat": THREAT},
        {"kind": "pgd", "name": "mim20_linf", "threat": THREAT},
        {"kind": "pgd", "name": "cw20_linf", "threat": THREAT},
        {"kind": "pgd", "name": "pgd20_linf", "threat": THREAT, "momentum": 1},
        {"kind": "pgd", "name": "pgd10_linf", "tag": "x2", "threat": THREAT},
        {"kind": "spatial", "name": "aa_linf"},
        {"kind": "clean", "name": "corruptions"},
        {"kind": "autoattack", "name": "aa_linf_screening"},
        {"kind": "autoattack", "name": "aa_linf_estimate"},
        {"kind": "autoattack", "name": "aa_linf", "budget": 3},
        {"kind": "autoattack", "name": "aa_l2"},
    ],
)
def test_names_promise_what_is_measured(settings: dict[str, Any]) -> None:
    """Protects: a column that is headed AutoAttack and is one step of PGD."""
    with pytest.raises(ValueError, match="follows from its settings"):
        metric(**settings)


def test_a_radius_too_large_for_the_panel_is_one_message() -> None:
    called = cli("evaluate-model", "resnet2b", "--eps", "0.6", "--panel", "unseen",
                 "--dataset", "digits")  # fmt: skip
    assert called.status == 2
    assert called.err.splitlines()[-1].startswith("error: panel unseen:")


def test_the_batch_size_is_recorded(out: Path) -> None:
    run = runs(out)[0]
    named = ["--panel", "paper", "--metric", "pgd100_linf", "--n", 5]
    assert cli("evaluate", run, *named, "--batch-size", 3, "-q").status == 0
    assert metrics(run)["pgd100_linf"]["detail"]["batch_size"] == 3
    assert cli("evaluate", run, "--batch-size", 0).status == 2
