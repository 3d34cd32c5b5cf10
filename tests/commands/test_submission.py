"""The bundle for RobustBench: complete, true to the run, and refused or marked where it must be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from board_records import autoattack, corruptions
from PIL import Image
from short_attacks import shorten
from tiny_suites import cli, contents, write_suite

from benchmark.data import sources
from benchmark.data.source import DATASETS, Board, DatasetConfig

SHORT = {"epochs": 2, "validations": 1}

PAPER = {
    "id": "Doe2026Example_tiny",
    "name": "An Example of a Title",
    "authors": "Jane Doe, John Doe",
    "link": "https://arxiv.org/abs/2601.00001",
    "venue": "arXiv, Jan 2026",
    "architecture": "ResNet-8",
    "reported": 12.5,
    "additional_data": False,
}

# Of a file in RobustBench's model_info/cifar10/Linf.
PUBLISHED = {
    "link": str,
    "name": str,
    "authors": str,
    "additional_data": bool,
    "number_forward_passes": int,
    "dataset": str,
    "venue": str,
    "architecture": str,
    "eps": str,
    "clean_acc": str,
    "reported": str,
    "autoattack_acc": str,
}

ALONE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("benchmark", "baselines", "generalist"):
            raise ImportError(name + " is not here")

sys.meta_path.insert(0, Block())
sys.path.insert(0, sys.argv[1])
import torch
from model import load
images, labels = torch.load(sys.argv[2], weights_only=True)
torch.set_num_threads(1)
with torch.no_grad():
    print(int((load()(images).argmax(1) == labels).sum()))
assert not {"benchmark", "baselines", "generalist"} & set(sys.modules)
"""


def write_cifar(root: Path) -> None:
    """Ten classes of brightness as class folders named cifar10: 4 training and 2 test images each."""
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for label in range(10):
            folder = root / "cifar10" / part / f"{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(0, 12, (32, 32, 3))
                image = Image.fromarray((noise + 24 * label).astype(np.uint8))
                image.save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` and two evaluated runs, ``single`` and ``ensemble``, in ``out/cells``."""
    folder = tmp_path_factory.mktemp("finished")
    write_cifar(folder / "data")
    path = write_suite(
        folder,
        dataset={"name": "cifar10", "val_fraction": 0.25},
        methods=[{"name": "pgd-at", "label": "single"}, {"name": "output-ensemble"}],
        train=SHORT,
        evaluation=[{"kind": "clean"}],
    )
    called = cli("run", path, "--data-root", folder / "data", "--out", folder / "out", "-q")
    assert called.status == 0, called.err
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy, whose records are edited as if of a sound network on the official test set."""
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    for path in copy.glob("out/cells/*/evaluation.json"):
        record = json.loads(path.read_text())
        record["dataset"]["images"] = 10_000
        record["reliability"]["findings"] = []
        record["metrics"]["clean"] |= {"n": 10_000, "correct": 8_123}
        record["metrics"]["aa_linf"] = _beside_clean(
            record, {**autoattack("linf", "8/255"), "correct": 4_567}
        )
        path.write_text(json.dumps(record))
    (copy / "info.yaml").write_text(yaml.safe_dump(PAPER))
    return copy


def _beside_clean(record: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a record, measured on what its clean accuracy was."""
    clean = record["metrics"]["clean"]
    return entry | {key: clean[key] for key in ("model", "function", "data")}


def cell(folder: Path, label: str) -> Path:
    (path,) = folder.glob(f"out/cells/{label}-*")
    return path


def submit(folder: Path, label: str = "single", *more: object, info: bool = True) -> Any:
    given = ["--info", folder / "info.yaml"] if info else []
    return cli("submit", cell(folder, label), "--data-root", folder / "data", *given, *more)


@pytest.mark.parametrize(("label", "passes"), [("single", 1), ("output-ensemble", 2)])
def test_a_complete_bundle(folder: Path, label: str, passes: int) -> None:
    """Keys and types are the published ones; weights are the run's; figures are the record's."""
    called = submit(folder, label)
    assert called.status == 0, called.err
    bundle = cell(folder, label) / "submission"
    assert called.out == f"bundle: {bundle}\n"
    entry = "model_info/cifar10/Linf/Doe2026Example_tiny.json"
    texts = {"README.md", "evaluation.log", "issue.md", "model.py"}
    assert set(contents(bundle)) == texts | {"checkpoint.pt", entry}

    found = json.loads((bundle / entry).read_text())
    assert {key: type(value) for key, value in found.items()} == PUBLISHED
    assert list(found) == list(PUBLISHED)
    figures = {key: found[key] for key in ("eps", "clean_acc", "reported", "autoattack_acc")}
    assert figures == {
        "eps": "8/255",
        "clean_acc": "81.23",
        "reported": "12.50",
        "autoattack_acc": "45.67",
    }
    assert found["number_forward_passes"] == passes

    weights = torch.load(bundle / "checkpoint.pt", weights_only=True)
    trained = torch.load(cell(folder, label) / "deployed.pt", weights_only=True)
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in trained)

    for name in texts:
        assert "DRAFT" not in (bundle / name).read_text()
    issue = (bundle / "issue.md").read_text()
    for text in ("[New Model] Doe2026Example_tiny", "45.67 %", "8/255", "Additional data: false"):
        assert text in issue
    log = yaml.safe_load((bundle / "evaluation.log").read_text())
    assert log["metrics"]["aa_linf"]["n"] == 10_000
    assert log["metrics"]["aa_linf"]["versions"] == {"pyautoattack": "0.2.0"}
    assert log["reliability"]["findings"] == []
    assert "torch" in log["environment of training"]


@pytest.mark.parametrize("label", ["single", "output-ensemble"])
def test_the_bundle_alone_reproduces_the_clean_accuracy(finished: Path, label: str) -> None:
    """In an isolated interpreter that cannot import our packages."""
    run = cell(finished, label)
    bundle = finished / f"bundle-{label}"
    called = submit(finished, label, "--draft", "--out", bundle, info=False)
    assert called.status == 0, called.err
    test = sources.load(DatasetConfig(name="cifar10", val_fraction=0.25), finished / "data").test
    torch.save([test.images.float() / 255, test.labels], finished / "images.pt")
    command = [sys.executable, "-I", "-c", ALONE, bundle, finished / "images.pt"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=finished, check=False)
    assert done.returncode == 0, done.stderr
    clean = json.loads((run / "evaluation.json").read_text())["metrics"]["clean"]
    assert clean["n"] == len(test) == 20
    assert int(done.stdout) == clean["correct"]


def test_a_draft_says_so_everywhere(folder: Path) -> None:
    """In a file of its own, on top of both texts and in the entry; every reason in each."""
    path = cell(folder, "single") / "evaluation.json"
    record = json.loads(path.read_text())
    record["metrics"]["aa_linf"] |= {"n": 1000, "correct": 456}
    function = record["metrics"]["aa_linf"]["function"]
    finding = {"name": "random", "text": "two passes differ", "function": function}
    record["reliability"]["findings"] = [finding]
    path.write_text(json.dumps(record))
    reasons = ("1,000 of 10,000", "two passes differ", "id, name, authors, link, venue")

    refused = submit(folder, info=False)
    assert refused.status == 2
    bundle = cell(folder, "single") / "submission"
    assert not bundle.exists()
    called = submit(folder, "single", "--draft", info=False)
    assert called.status == 0, called.err
    (entry,) = bundle.glob("model_info/cifar10/Linf/*.json")
    footnote = json.loads(entry.read_text())["footnote"]
    readme, issue = ((bundle / name).read_text() for name in ("README.md", "issue.md"))
    notice = (bundle / "DRAFT-DO-NOT-SUBMIT.txt").read_text()
    assert readme.startswith("> DRAFT")
    assert issue.startswith("> DRAFT")
    assert "Additional data: not stated" in issue
    assert "None" not in issue
    for reason in reasons:
        for text in (refused.err, readme, issue, notice, footnote):
            assert reason in text


def test_a_later_submission_replaces_a_draft(folder: Path) -> None:
    """No trace of the draft or of its entry stays behind."""
    assert submit(folder, "single", "--draft", info=False).status == 0
    assert submit(folder).status == 0
    files = contents(cell(folder, "single") / "submission")
    assert not [name for name in files if "raft" in name.lower()]


def test_an_estimate_never_becomes_the_accuracy(folder: Path) -> None:
    path = cell(folder, "single") / "evaluation.json"
    record = json.loads(path.read_text())
    estimate = {**record["metrics"].pop("aa_linf"), "form": "estimate"}
    record["metrics"]["aa_linf_estimate"] = estimate
    path.write_text(json.dumps(record))
    called = submit(folder)
    assert called.status == 2
    assert "aa_linf_estimate is an estimate" in called.err
    assert submit(folder, "single", "--draft").status == 0
    (entry,) = (cell(folder, "single") / "submission").glob("model_info/*/*/*.json")
    found = json.loads(entry.read_text())
    assert (found["autoattack_acc"], found["eps"]) == (None, None)


def test_other_boards(folder: Path) -> None:
    """l_2 under its own folder with the radius as measured; corruptions without a radius."""
    path = cell(folder, "single") / "evaluation.json"
    record = json.loads(path.read_text())
    record["metrics"] |= {
        "aa_l2": _beside_clean(record, autoattack("l2", "0.5")),
        "corruptions": _beside_clean(
            record,
            corruptions(mean=0.71236),
        ),
    }
    path.write_text(json.dumps(record))
    bundle = cell(folder, "single") / "submission"
    assert submit(folder, "single", "--threat", "l2").status == 0
    (entry,) = bundle.glob("model_info/*/*/*.json")
    assert entry.parent.name == "L2"
    assert json.loads(entry.read_text())["eps"] == "0.5"
    assert submit(folder, "single", "--threat", "corruptions").status == 0
    (entry,) = bundle.glob("model_info/*/*/*.json")
    found = json.loads(entry.read_text())
    assert entry.parent.name == "corruptions"
    assert (found["eps"], found["corruptions_acc"]) == (None, "71.24")
    assert "autoattack_acc" not in found


def test_a_run_of_train_can_be_submitted(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: AutoAttack on a thousand images, which no option could change."""
    monkeypatch.chdir(tmp_path)
    small = replace(DATASETS.get("cifar10"), boards={"linf": Board(20, 32, ("8/255",))})
    monkeypatch.setitem(DATASETS._items, "cifar10", small)
    shorten(monkeypatch, "apgd-ce", steps=5)
    root = ("--data-root", finished / "data")
    short = ("--set", "train.epochs=1", "--set", "model.width=8", "--set", "train.batch_size=16")
    command = ("train", "--dataset", "cifar10", "--method", "natural", "--out", "mine", "-q")
    called = cli(*command, *short, "--set", "dataset.val_fraction=0.25", *root)
    assert called.status == 0, called.err
    names = ("--metric", "clean", "--metric", "aa_linf", "-q")
    for n in (5, 20):
        assert cli("evaluate", "mine", *names, *root, "--n-aa", n).status == 0
    (run,) = Path("mine/cells").iterdir()
    (tmp_path / "info.yaml").write_text(yaml.safe_dump(PAPER))
    called = cli("submit", run, *root, "--info", "info.yaml", "--draft")
    assert called.status == 0, called.err
    notice = (run / "submission" / "DRAFT-DO-NOT-SUBMIT.txt").read_text()
    reasons = [line for line in notice.splitlines() if line.startswith("- ")]
    # What is left is what this test cuts short, and what a net of one epoch deserves.
    assert "aa_linf is not standard AutoAttack" in notice
    assert "was measured on" not in notice
    assert all("not standard" in reason or "finding" in reason for reason in reasons), reasons


def _spoil(folder: Path, what: str) -> list[object]:
    """Make one thing wrong; further options of the call."""
    run = cell(folder, "single")
    if what == "untrained":
        (run / "training.json").unlink()
    elif what == "unevaluated":
        (run / "evaluation.json").unlink()
    elif what == "threat":
        return ["--threat", "l7"]
    elif what == "weights":
        path = run / "evaluation.json"
        path.write_text(re.sub(r'"model": "\w', '"model": "x', path.read_text()))
    elif what == "data":
        (folder / "data" / "cifar10" / "train" / "3" / "0.png").unlink()
    elif what == "folder":
        (folder / "clone").mkdir()
        (folder / "clone" / "setup.py").touch()
        return ["--out", folder / "clone"]
    else:
        texts = {"yaml": "id: [", "list": "- id", "key": "venu: here", "missing": "venue: here"}
        (folder / "info.yaml").write_text(texts.get(what, ""))
        if what == "absent":
            (folder / "info.yaml").unlink()
    return []


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("untrained", "is not trained to the end"),
        ("unevaluated", "is not evaluated; run: generalist-bench evaluate"),
        ("threat", "'l7' is not one of"),
        ("weights", "of other weights than deployed.pt"),
        ("data", "was made with other images"),
        ("folder", "holds other files"),
        ("yaml", "is not valid YAML"),
        ("list", "must be a mapping"),
        ("key", "did you mean 'venue'"),
        ("absent", "cannot be read"),
        (
            "missing",
            "does not state id, name, authors, link, architecture, reported, additional_data",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder: Path, what: str, message: str) -> None:
    more = _spoil(folder, what)
    before = contents(folder)
    called = submit(folder, "single", *more)
    assert called.status == 2
    assert message in called.err
    assert called.err.count("\n") == 1
    assert contents(folder) == before


def test_no_run(tmp_path: Path) -> None:
    called = cli("submit", tmp_path / "nothing", "--draft")
    assert called.status == 2
    assert "there is no folder" in called.err
