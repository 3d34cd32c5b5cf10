"""``theory``: a tiny run with its networks kept, and the same without one training image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_suites import Called, cli, tiny_cell, tiny_data, write_suite

from benchmark.commands.run import cell_record
from benchmark.records.schema import read_theory, write_configuration
from benchmark.records.theory import DEPLOYED
from benchmark.report.theory import theory_md
from benchmark.training.loop import Trainer
from benchmark.training.snapshots import load_snapshot, snapshot_steps

METHODS = [
    {"name": "generalist-d", "warmup": "25%", "every": "25%",
     "mixing": {"linf": [[0, 0.8], [1, 0.4]]}},
    {"name": "ema", "decay": 0.9},
    {"name": "output-ensemble"},
]  # fmt: skip
TRAIN = {"epochs": 4, "snapshots": 6, "validations": 1}
STEPS = [1, 4, 7, 9, 12, 15, 16]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By label; ``less`` is generalist-d without an image."""
    folder = tmp_path_factory.mktemp("theory")
    suite = write_suite(folder, methods=METHODS, train=TRAIN, evaluation=[{"kind": "clean"}])
    assert cli("run", suite, "--out", folder / "full").status == 0
    less = ("--set", "dataset.without=3", "--method", "generalist-d", "--out", folder / "less")
    assert cli("run", suite, *less).status == 0
    found = {path.name.rpartition("-s0-")[0]: path for path in (folder / "full/cells").iterdir()}
    return {**found, "less": next((folder / "less/cells").iterdir())}


@pytest.mark.figures
def test_the_record_of_two_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    called = cli("theory", runs["generalist-d"], runs["less"], "--out", tmp_path, "--json")
    measured = read_theory(tmp_path)
    assert called.json() == measured.model_dump(mode="json")
    assert [point.step for point in measured.points] == STEPS == snapshot_steps(6, 16)
    assert measured.without == [None, 3]
    assert measured.images == 30
    assert measured.tasks == {
        "natural": "cross-entropy on clean images",
        "linf": "cross-entropy under PGD-2, linf eps 0.1",
    }
    # handed back after steps 4, 8, 12 and 16
    assert [p.step for p in measured.points if p.checked] == [7, 9, 15]
    last = measured.points[-1]
    assert last.risks["natural"] == last.risks["linf"] == last.risks[DEPLOYED]
    assert last.stability is not None
    assert last.stability.distances["natural"] == last.stability.distances[DEPLOYED] > 0
    for point in measured.points:
        assert sum(point.weights.values()) == pytest.approx(1)
        assert all(of["linf"] >= of["natural"] for of in point.risks.values())
    path = [point.risks["linf"]["linf"] for point in measured.points]
    assert measured.regrets["linf"].mean == pytest.approx(sum(path) / len(path))
    assert measured.regrets["linf"].best == pytest.approx(min(path))
    text = (tmp_path / "theory.md").read_text()
    for part in ("| own tasks alone |", "| parameters | 3 of 3 |", "left out: none and image 3"):
        assert part in text
    assert {p.name for p in tmp_path.glob("*.png")} == {"risks.png", "slack.png", "stability.png"}
    # planted: a deployed network that is worse than its bound says
    worse = measured.points[3].bounds["linf"]
    worse.left = worse.right + 5 * worse.error + 0.1
    assert "| task linf | 2 of 3 | 1 | −0" in theory_md(measured)


def test_a_run_alone(runs: dict[str, Path], tmp_path: Path) -> None:
    """The moving average of one learner: one task, and the learner never handed back."""
    assert cli("theory", runs["ema"], "--out", tmp_path).status == 0
    measured = read_theory(tmp_path)
    assert [point.checked for point in measured.points] == [False, *[True] * 6]
    assert all(point.stability is None for point in measured.points)
    assert not (tmp_path / "stability.png").exists()
    assert "What one training image changes" not in (tmp_path / "theory.md").read_text()


def test_what_cannot_be_measured(runs: dict[str, Path], tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        called: Called = cli("theory", *arguments, "--out", tmp_path / "out")
        assert called.status == 2
        assert not (tmp_path / "out").exists()
        return called.err

    one = runs["generalist-d"]
    assert "is no moving average of its learners'" in refused(runs["output-ensemble"])
    assert "both runs were trained on the same images" in refused(one, one)
    assert "differ in more than dataset.without" in refused(runs["ema"], runs["less"])
    for snapshots, message in (
        (0, "kept no networks while training; train it with train.snapshots"),
        (3, "holds no trained run"),
    ):
        cell = tiny_cell(train={"snapshots": snapshots})
        write_configuration(tmp_path / cell.slug, cell_record(cell, "tiny"))
        assert message in refused(tmp_path / cell.slug)


def test_keeping_networks_changes_nothing(tmp_path: Path) -> None:
    """Protects: random draws or statistics that are touched while a network is kept."""
    kept = {}
    for count in (0, 100):
        cell = tiny_cell(methods=METHODS[:1], train={"snapshots": count})
        folder = tmp_path / str(count)
        folder.mkdir()
        Trainer(cell.config, tiny_data(), folder, device=torch.device("cpu")).run()
        kept[count] = torch.load(folder / "deployed.pt", weights_only=True)
    assert not (tmp_path / "0/snapshots").exists()
    steps = json.loads((tmp_path / "100/training.json").read_text())["steps"]
    last = load_snapshot(tmp_path / "100", steps)  # more snapshots than steps: one for each
    assert len(list((tmp_path / "100/snapshots").glob("*.pt"))) == steps
    for name, value in kept[0].items():
        assert torch.equal(value, kept[100][name])
        assert torch.equal(value, last.deployed[name])
