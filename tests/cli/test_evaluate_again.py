"""``evaluate``, ``report``, ``compare`` and ``submit`` on runs of ``train``, runs copied elsewhere, other
test sets and models of one's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from tiny_suites import Called, cli, contents, write_suite

SHORT = {"epochs": 1, "validations": 1}
OWN = """
import torch
class Net(torch.nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(768, num_classes)
    def forward(self, x):
        return self.linear(x.flatten(1)) + NOISE * torch.randn(len(x), 10)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``suite`` and ``trained``: a run of a suite and one of ``train``, on the same 64 images."""
    folder = tmp_path_factory.mktemp("again")
    suite = write_suite(folder, methods=["natural"], train=SHORT)
    assert cli("run", suite, "--out", folder / "suite", "-q").status == 0
    command = ("train", "--method", "natural", "--limit", 64, "--set", "model.width=8")
    more = ("--set", "train.epochs=1", "--out", folder / "trained", "-q")
    assert cli(*command, *more).status == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def run_in(folder: Path) -> Path:
    (run,) = (folder / "cells").iterdir()
    return run


def said(called: Called) -> str:
    assert called.status == 2, called
    assert called.err.splitlines()[-1].startswith("error: ")
    return called.err


def test_a_run_of_train_takes_every_number(folder: Path) -> None:
    """Protects: --n and --n-aa were ignored in silence, so such a run could never be submitted."""
    run = run_in(folder / "trained")
    part = ["--metric", "clean", "--metric", "pgd20_linf", "-q", "--json"]
    found = cli("evaluate", run, *part, "--n", 30, "--n-pgd", 9, "--seed", 3).json()[run.name]
    assert {name: entry["n"] for name, entry in found.items()} == {"clean": 30, "pgd20_linf": 9}
    radii = ["--eps", "1/255", "--eps", "2/255", "--metric", "pgd20_linf@2/255"]
    found = cli("evaluate", run, *radii, "--steps", 3, "-q", "--json").json()[run.name]
    assert "eps=2/255 step=1/510 steps=3" in found["pgd3_linf@2/255"]["settings"]
    assert "did you mean 'aa_linf'" in said(cli("evaluate", run, "--metric", "autoattack"))
    assert cli("report", folder / "trained").status == 0


def test_what_to_do_next_and_what_to_doubt(folder: Path) -> None:
    """A report is proposed of the study, which shows the run; one of an unevaluated run proposes to
    evaluate it."""
    run = run_in(folder / "trained")
    assert f"next: generalist-bench evaluate {run}" in cli("report", run).out.splitlines()
    lines = cli("evaluate", run, "--metric", "clean", "-q").out.splitlines()
    assert lines[-1] == f"next: generalist-bench report {folder / 'trained'}"
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["train"]["epochs"] == 1
    assert any(line.startswith(f"[u] {run.name} is under-trained: seed 0 is near chance")
               for line in lines)  # fmt: skip


def test_another_test_set_stands_beside_the_first(folder: Path) -> None:
    run = run_in(folder / "suite")
    before = contents(folder)
    digits = load_digits()
    images = (digits.images / 16 * 255).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    arrays = {f"{part}_{what}": values[rows] for part, rows in (("train", slice(0, 90)),
              ("test", slice(90, 140))) for what, values in
              (("images", images), ("labels", digits.target[:, None]))}  # fmt: skip
    np.savez("other.npz", **arrays)
    other = ["--dataset", "npz", "--set", "dataset.path=other.npz", "-q", "--json"]
    ((name, found),) = cli("evaluate", run, *other, "--n", 40).json().items()
    assert found["clean"]["n"] == 40, "its columns are no suite's"
    assert name.startswith(f"{run.name}/evaluations/npz-")
    # The same images without any to train on, so without their statistics.
    np.savez("alone.npz", **{key: arrays[key] for key in arrays if key.startswith("test")})
    alone = [*other[:3], "dataset.path=alone.npz", *other[4:]]
    assert cli("evaluate", run, *alone, "--n", 40).json() == {name: found}
    after = contents(folder)
    assert {path: after[path] for path in before} == before
    # It is a record like others: compared with a model of one's own on the same images.
    there = run.parent / name
    assert cli("report", there, "--out", "report").status == 0
    assert cli("compare", there, there).status == 0
    assert "different test images" in said(cli("compare", run, there))
    assert "other test images" in said(cli("report", folder / "suite", there))
    assert "is for another test set: add --dataset" in said(
        cli("evaluate", run, "--set", "dataset.limit=20")
    )
    assert "made with; leave it out" in said(
        cli("evaluate", run, "--dataset", "digits", "--limit", 64)
    )


def test_a_test_set_that_does_not_fit_is_refused(folder: Path) -> None:
    """Protects: a traceback, or logits of ten classes held against five labels."""
    run = run_in(folder / "suite")
    assert "32 pixels" in said(
        cli("evaluate", run, "--dataset", "digits", "--set", "dataset.size=32")
    )
    images = np.zeros((20, 16, 16), dtype=np.uint8)
    images[::2] = 200
    labels = np.arange(20)[:, None] % 5
    np.savez("five.npz", train_images=images, train_labels=labels, test_images=images,
             test_labels=labels)  # fmt: skip
    assert "5 classes" in said(
        cli("evaluate", run, "--dataset", "npz", "--set", "dataset.path=five.npz")
    )


def test_a_run_copied_out_of_its_suite(folder: Path) -> None:
    """Protects: one run brought home from a cluster could be neither evaluated nor reported."""
    run = run_in(folder / "suite")
    home = Path(shutil.copytree(run, "home/run"))
    for folder_of_others in (home, Path(shutil.copytree(run, folder / "trained/cells/other"))):
        text = said(cli("evaluate", folder_of_others))
        assert "a run of the suite 'tiny', whose folder is not around it" in text
        assert "--panel" in text
    found = cli("evaluate", home, "--metric", "clean", "--n", 12, "-q", "--json").json()["run"]
    assert found["clean"]["n"] == 12
    assert [old["n"] for old in found["clean"]["earlier"]] == [64], "the suite's own is kept"
    assert list(found) == ["clean"], "only what was asked for is printed"
    called = cli("report", home, "--out", "home/report")
    assert called.status == 0, called.err
    assert "\nnatural" in called.out
    text = said(cli("interpolate", home, home))
    assert "name metrics (--metric clean)" in text
    assert cli("interpolate", home, run, "--points", 2, "--metric", "clean", "-q").status == 0


def own_model(noise: float, name: str, *more: object) -> Called:
    Path(f"{name}.py").write_text(OWN.replace("NOISE", str(noise)))
    spec = (f"{name}:Net", "--dataset", "digits", "--limit", 64)
    return cli("evaluate-model", *spec, "--metric", "clean", "--out", f"mine/{name}", *more)


def test_models_of_ones_own_beside_a_suite(folder: Path) -> None:
    assert own_model(0, "own_quiet").status == 0
    called = cli("report", folder / "suite", "mine/own_quiet", "--out", "report")
    assert called.status == 0, called.err
    table = Path("report/table.md").read_text()
    assert "| natural" in table
    assert "| own_quiet" in table
    assert "mine/own_quiet" in Path("report/report.md").read_text()
    rows = cli("compare", run_in(folder / "suite"), "mine/own_quiet", "--json").json()
    assert [(row["metric"], row["n"]) for row in rows] == [("clean", 64)]
    assert cli("report", "mine/own_quiet", "--html").status == 0
    twice = cli("report", folder / "suite", run_in(folder / "suite"), "--out", "twice")
    assert twice.status == 0, twice.err
    assert f"cells/{run_in(folder / 'suite').name}" in twice.out, "a row of its own, not a seed"
    assert "holds no evaluated run" in said(cli("report", folder / "suite", "nowhere"))


def test_findings_and_intervals_are_shown() -> None:
    """Protects: an accuracy that is printed without what makes it doubtful."""
    called = own_model(1.0, "own_noisy")
    assert called.status == 0
    head, row, *rest = called.out.splitlines()
    assert head.split("\t") == ["run", "metric", "accuracy", "95 % interval", "n"]
    assert row.split("\t")[3].startswith("[")
    assert any(line.startswith("warning: own_noisy:Net: random: ") for line in rest)
    entry = own_model(1.0, "own_noisy", "--json").json()["own_noisy:Net"]["clean"]
    assert entry["low"] < entry["mean"] < entry["high"]
    assert entry["findings"][0]["name"] == "random"
    assert (entry["warnings"], entry["earlier"]) == ([], [])


def test_a_corrected_network_is_measured_again() -> None:
    """Protects: the code is corrected, the weights stay, and the old figures are reported again."""
    before = own_model(0, "own_fixed", "--json").json()["own_fixed:Net"]["clean"]
    import sys

    del sys.modules["own_fixed"]
    text = OWN.replace("x.flatten(1)", "-x.flatten(1)").replace("NOISE", "0")
    Path("own_fixed.py").write_text(text)
    command = ("evaluate-model", "own_fixed:Net", "--dataset", "digits", "--limit", 64)
    more = ("--metric", "clean", "--json", "--out")
    after = cli(*command, *more, "mine/own_fixed").json()["own_fixed:Net"]["clean"]
    fresh = cli(*command, *more, "mine/fresh").json()["own_fixed:Net"]["clean"]
    assert after["correct"] == fresh["correct"] != before["correct"]
    (old,) = after["earlier"]
    assert (old["correct"], old["reason"]) == (
        before["correct"], "another function of the same weights"
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert torch.get_num_threads() == 1


def test_the_record_says_what_each_figure_was_measured_on(folder: Path) -> None:
    """Protects: the form that other readers rely on."""
    record = json.loads((run_in(folder / "suite") / "evaluation.json").read_text())
    for entry in record["metrics"].values():
        assert entry["function"] in record["functions"]
        assert entry["model"] == record["functions"][entry["function"]]["weights"]
        assert entry["data"] == record["dataset"]["images_hash"]
