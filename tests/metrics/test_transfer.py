"""Images crafted on one network, measured on another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_suites import cli, tiny_data, write_suite
from torch import Tensor, nn

from benchmark.attacks import pgd
from benchmark.config.recorded import read_cell_config
from benchmark.core.threat import ThreatModel
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import make_metric
from benchmark.records.study import read_suite
from benchmark.report.summarise import summarise
from benchmark.training.selection import load_deployed

CPU = torch.device("cpu")
THREAT = {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 2}


def transfer(source: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "transfer", "source": source, "threat": THREAT, **more}


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())["metrics"]
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows; the first is measured on images of the second, which is trained after it."""
    folder = tmp_path_factory.mktemp("study")
    rows = [transfer({"method": label}) for label in ("pgd-at", "natural")]
    rows.append({"kind": "by-class", "of": "transfer2_linf_from_natural"})
    suite = write_suite(
        folder, methods=["pgd-at", "natural"], evaluation=[{"kind": "clean"}, *rows]
    )
    called = cli("run", suite, "--out", folder / "out", "--threads", 1)
    assert "transfer2_linf_from_natural waits until natural is trained" in called.err + called.out
    return folder / "out"


def cell(study: Path, label: str) -> Path:
    (folder,) = study.glob(f"cells/{label}-s0-*")
    return folder


def network(run: Path) -> nn.Module:
    return load_deployed(read_cell_config(run)[1], tiny_data(), run, CPU)


def test_a_study_is_a_matrix_of_sources_and_networks(study: Path) -> None:
    """Each entry against plain steps: all images attacked on the source, judged by the network."""
    split = tiny_data().test
    x, y = split.images.float() / 255, split.labels  # type: ignore[union-attr]
    threat = ThreatModel.model_validate(THREAT)
    weights = set()
    for source in ("pgd-at", "natural"):
        generator = torch.Generator().manual_seed(0)
        crafted_on = network(cell(study, source))
        x_adv = pgd(crafted_on, x, y, threat, generator=generator)
        for label in ("pgd-at", "natural"):
            run = cell(study, label)
            judge = network(run)
            wanted = (judge(x).argmax(1) == y) & (judge(x_adv).argmax(1) == y)
            name = f"transfer2_linf_from_{source}"
            found = pd.read_parquet(run / "outcomes.parquet")[name].astype(bool)
            # Crafted on a folded copy, whose rounding turns a few signs of gradients.
            assert int((torch.tensor(found.to_numpy()) != wanted).sum()) <= 1, (source, label)
            entry = metrics(run)[name]
            assert entry["title"] == f"PGD-2 from {source}"
            assert entry["detail"]["source"] == source
            assert entry["role"] == "other", "no robust accuracy"
            assert "worst_class_transfer2_linf_from_natural" in metrics(run)
            weights.add((source, entry["detail"]["source_weights"]))
    assert len(weights) == 2
    heat = summarise(read_suite(study)).transfer
    assert heat is not None
    assert heat.columns == ("PGD-2 from pgd-at", "PGD-2 from natural")
    assert dict(heat.rows)["pgd-at"][1] == metrics(cell(study, "pgd-at"))[name]["mean"]
    report = (study / "report" / "table.md").read_text()
    assert "PGD-2 from natural" in report
    assert "images crafted on natural, PGD linf, eps 0.1" in report


def test_a_source_by_its_path(study: Path, tmp_path: Path) -> None:
    """The folder of a run, or its weights with their architecture: the same figure."""
    run = tmp_path / "run"
    shutil.copytree(cell(study, "pgd-at"), run)
    source = cell(study, "natural")
    by_file = {"path": str(source / "deployed.pt"), "model": "small-resnet"}
    for place, tag in ((str(source), "run"), (by_file, "file")):
        setting = json.dumps(transfer(place, tag=tag))
        cli("evaluate", run, "--metric", setting, "-q", "--threads", 1)
    known = metrics(run)
    values = {k: e["mean"] for k, e in known.items() if "from" in k and "@" in k}
    assert len(values) == 2
    assert set(values.values()) == {known["transfer2_linf_from_natural"]["mean"]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/run", "neither the folder of a trained run nor a file"),
        ({"method": "natura"}, "no row 'natura' with this seed; did you mean 'natural'"),
        ({"path": "deployed.pt"}, "without an architecture; add model: NAME"),
        ({"path": "a", "method": "b"}, "write the path of a trained run"),
        ({"method": "b", "model": "c"}, "leave it out beside a method"),
    ],
)
def test_wrong_sources_stop_before_any_work(
    study: Path, source: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cell(study, "pgd-at")
    monkeypatch.chdir(run)
    before = (run / "evaluation.json").read_bytes()
    called = cli("evaluate", run, "--metric", json.dumps(transfer(source)), "-q")
    assert called.status != 0
    assert message in " ".join(called.err.split())
    assert (run / "evaluation.json").read_bytes() == before


def test_a_suite_with_a_wrong_source_trains_nothing(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, evaluation=[transfer({"method": "trades"})])
    called = cli("run", suite, "--out", tmp_path / "out", "-q")
    assert called.status != 0
    assert "no row 'trades'" in called.err
    assert not list((tmp_path / "out").glob("cells/*/checkpoint.pt"))


class Mode(nn.Module):
    """Ten logits of an image; notes in which mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 10, 3), nn.BatchNorm2d(10), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.modes |= {module.training for module in self.modules()}
        return self.layers(x)


def test_the_source_is_attacked_in_eval_mode_and_its_weights_are_part_of_the_key(
    tmp_path: Path,
) -> None:
    """Protects: batch statistics in an attack, and a figure that outlives its source."""
    sources = [Mode().train(), Mode().train()]
    judge = Mode().eval()
    kept = []
    for source in sources:

        class Own(Evaluator):
            def network(self, place: Path, model: str | None, source: nn.Module = source) -> Any:
                return source

        evaluator = Own(tiny_data(), CPU)
        evaluator.evaluate(judge, [make_metric(transfer("other.pt"))], tmp_path / "run")
        kept.append(metrics(tmp_path / "run")["transfer2_linf_from_other.pt"]["key"])
        assert source.modes == {False}
        assert source.training, "left as it was"
    assert kept[0] != kept[1]


def test_the_cost_is_that_of_the_attack() -> None:
    metric = make_metric(transfer("a/run", n=50))
    assert metric.passes(100) == pytest.approx(50 * (2 + 2 * 0.45))
    assert metric.name == "transfer2_linf_from_run"
