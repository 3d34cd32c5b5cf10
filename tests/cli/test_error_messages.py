"""Bad input ends with one line, ``error: ...``, and status 2; nothing that exists is touched."""

from __future__ import annotations

import errno
import importlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_suites import Called, cli, contents, tiny, write_suite

from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model

SHORT = {"epochs": 1, "validations": 1}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths, such as the default runs/, stay inside the test's folder."""
    importlib.import_module("matplotlib.font_manager")  # it may write a cache when first imported
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and ``out``, the suite run to the end."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_suite(folder, train=SHORT)
    assert cli("run", path, "--out", folder / "out").status == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of ``finished`` to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def the_cell(folder: Path) -> Path:
    (cell,) = (folder / "out" / "cells").iterdir()
    return cell


def message(called: Called) -> str:
    """The error line, which is the last and the only one of its kind."""
    assert called.status == 2, called
    *before, last = called.err.splitlines()
    assert last.startswith("error: "), called.err
    assert not any("error" in line or "Traceback" in line for line in before), called.err
    return last


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("runn quick", "did you mean 'run'?"),
        ("run", "Missing argument 'SUITE'"),
        ("run quik", "did you mean 'quick'?"),
        ("run none.yaml", "does not exist"),
        ("run quick --set seeds=3", "3 is not a list; write [3]"),
        ("run quick --sed 1", "--sed"),
        ("run quick --seed -1", "--seed"),
        ("run quick --seed x", "--seed"),
        ("run quick --limit 1", "--limit"),
        ("run quick --precision fp8", "--precision"),
        ("run quick --method trade", "did you mean 'trades'"),
        ("run quick --set train.epoch=3", "did you mean 'epochs'"),
        ("run quick --set epochs=3", "did you mean 'train.epochs'?"),
        ("run quick --set train.epochs", "write it as key=value"),
        ("run quick --set train.epochs=[", "not valid YAML"),
        ("run quick --set threats.linf.eps=8", "did you mean 8/255?"),
        ("run quick --set dataset.name=digit", "did you mean 'digits'"),
        ("run quick --set optimizer.lr=fast", "optimizer.lr"),
        ("run quick --device tpu", "unknown device 'tpu'"),
        ("run cifar10-cpu --data-root nowhere", "--set dataset.download=true"),
        ("evaluate-model my_net", "unknown model 'my_net'; write module:factory"),
        ("run cifar10-cpu --data-root nowhere --dry-run", "not found"),
        ("train --method pgdat", "did you mean 'pgd-at'"),
        ("train --method trades --method trades", "given twice"),
        ("train --dataset cifar11", "did you mean 'cifar10'"),
        ("train --model resnet19", "did you mean"),
        ("train --epochs 2 --set train.epochs=3", "train.epochs is given twice"),
        ("train --eps 8", "did you mean 8/255?"),
        ("train --set train.epochs=0.001", "less than one step"),
        ("train --set train.batch_size=5000", "batch_size = 5000 is more than"),
        ("train --set train.batch_size=1", "train.batch_size"),
        ("evaluate", "Missing argument 'RUN'"),
        ("evaluate-model", "Missing argument 'MODEL'"),
        ("evaluate nowhere", "there is no folder nowhere"),
        (
            "report a b c --ranks --leaderboard",
            "give one of --leaderboard, --map, --ranks at a time",
        ),
        ("train --method mine.py", "to use a class of your own file, write mine.py:CLASS"),
        ("evaluate nowhere --limit 9", "--limit is for another test set: add --dataset"),
        ("evaluate net.ts", "a network of your own by evaluate-model"),
        ("evaluate nowhere --out x", "No such option: --out"),
        ("run quick --set seeds=[0] --set seeds=[1]", "seeds is given twice"),
        ("run ~no-such-user/x.yaml", "there is no such home folder"),
        ("evaluate-model a:b --step 1/255 --metric clean", "--step 1/255 applies to none"),
        ("evaluate-model a:b --dataset digits --n 5000", "has 449 images"),
        ("evaluate-model a:b --set train.epochs=1", "--set train has no place here"),
        ("evaluate-model . --dataset digits", "use evaluate for a trained run"),
        ("evaluate-model a:b --eps 8", "did you mean 8/255?"),
        ("evaluate-model a:b --eps-l2 128", "--eps-l2 128: eps = 128 is too large for l2"),
        ("evaluate-model a:b --eps eight", "is not a number"),
        ("evaluate-model a:b --metric cleen", "did you mean 'clean'"),
        ("evaluate-model a:b --dataset digitz", "did you mean 'digits'"),
        ("evaluate-model no_such_module:net --dataset digits", "cannot import"),
        ("evaluate-model benchmark.models.zoo:nett --dataset digits", "no callable 'nett'"),
        ("evaluate-model resnet19 --checkpoint x.pt --dataset digits", "write module:factory"),
        ("evaluate-model resnet18 --dataset digits", "without weights"),
        ("report nowhere", "nowhere"),
        ("list method", "'methods'"),
    ],
)
def test_wrong_words(arguments: str, said: str, tmp_path: Path) -> None:
    """Protects: a typing error costs seconds, not a training run."""
    assert said in message(cli(*arguments.split()))
    assert contents(tmp_path) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_cuda() -> None:
    assert "0 CUDA devices; use --device cpu" in message(cli("run", "quick", "--device", "cuda"))


def test_yaml_that_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("train: {epochs: 3\nmethods: [")
    assert "not valid YAML" in message(cli("run", "x.yaml"))


def _npz(path: Path, fault: str) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = draw.random((40, 16, 16), dtype=np.float32)
        arrays[f"{split}_labels"] = np.arange(40).reshape(-1, 1) % 4
    if fault == "label":
        arrays["test_labels"][3] = 11
    elif fault == "negative":
        arrays["train_labels"][3] = -7
    elif fault == "nan":
        arrays["train_images"][2, 5, 5] = np.nan
    np.savez(path, **arrays)  # type: ignore[arg-type]
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("fault", "said"),
    [("label", "label"), ("negative", "label"), ("nan", "NaN"), ("truncated", "cannot be read")],
)
def test_wrong_data(fault: str, said: str, tmp_path: Path) -> None:
    _npz(tmp_path / "set.npz", fault)
    before = contents(tmp_path)
    settings = ("--set", "dataset.path=set.npz", "--set", "train.batch_size=16")
    assert said in message(cli("train", "--dataset", "npz", *settings))
    assert contents(tmp_path) == before


def test_damaged_parquet(tmp_path: Path) -> None:
    for name in ("train", "test"):
        path = tmp_path / "data" / "cifar10" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1 this is no parquet file PAR1")
    before = contents(tmp_path / "data")
    assert "parquet" in message(cli("run", "cifar10-cpu"))
    assert contents(tmp_path / "data") == before
    assert not (tmp_path / "runs").exists()


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _edit(path: Path) -> None:
    record = json.loads(path.read_text())
    record["config"]["seed"] = 1
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("config.json", _edit, "does not have the hash"),
        ("config.json", _cut, "config.json is damaged"),
        ("evaluation.json", _cut, "evaluation.json is damaged"),
        ("outcomes.parquet", _cut, "outcomes.parquet is damaged"),
    ],
)
@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_damaged_records(command: str, name: str, damage: Any, said: str, folder: Path) -> None:
    """Protects: damage is named, in one line, by whoever meets it first."""
    out = folder / "out"
    damage(the_cell(folder) / name)
    before = contents(out / "cells")
    arguments = [folder / "tiny.yaml", "--out", out] if command == "run" else [out]
    assert said in message(cli(command, *arguments))
    assert contents(out / "cells") == before


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink])
@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_damaged_deployed_weights(command: str, damage: Any, folder: Path) -> None:
    """Protects: those of the last step are still in the training checkpoint, which once was not
    looked at: the advice was to train again. With both damaged, that is the advice."""
    out = folder / "out"
    arguments = [folder / "tiny.yaml", "--out", out] if command == "run" else [out]
    cell = the_cell(folder)
    damage(cell / "deployed.pt")
    before = contents(out / "cells")
    with pytest.warns(UserWarning, match="deployed.pt is .*; the same weights are taken from"):
        called = cli(command, *arguments)
    assert called.status == 0
    # the evaluation on record is of these weights, bit by bit, and stands
    assert "measuring all again" not in called.err
    assert contents(out / "cells") == before
    _flip(cell / "checkpoint.pt")
    before = contents(out / "cells")
    said = message(cli(command, *arguments))
    assert "deployed.pt is " in said
    assert "restore it from a copy, or delete the run's folder" in said
    assert contents(out / "cells") == before


@pytest.mark.parametrize("damage", [_flip, Path.unlink])
def test_a_damaged_training_checkpoint(damage: Any, tmp_path: Path) -> None:
    """The one before it is used, and training ends as if nothing had been; without one, or with
    both damaged, nothing is touched."""
    suite = write_suite(
        tmp_path, train={"epochs": 1, "validations": 2}, evaluation=[{"kind": "clean"}]
    )
    arguments = ["run", suite, "--out", tmp_path / "out"]
    assert cli(*arguments).status == 0
    cell = the_cell(tmp_path)
    weights = torch.load(cell / "deployed.pt", weights_only=True)
    (cell / "training.json").unlink()
    damage(cell / "checkpoint.pt")
    called = cli(*arguments)
    assert called.status == 0
    assert "checkpoint.pt is " in called.err
    assert "Resuming from the checkpoint before it" in called.err
    again = torch.load(cell / "deployed.pt", weights_only=True)
    assert all(torch.equal(weights[name], again[name]) for name in weights)

    (cell / "training.json").unlink()
    _flip(cell / "checkpoint.pt")
    _cut(cell / "checkpoint-previous.pt")
    before = contents(cell)
    del before["environment.json"]  # of the process that now tries
    said = message(cli(*arguments))
    assert "checkpoint.pt is damaged" in said
    assert "checkpoint-previous.pt is damaged" in said
    after = contents(cell)
    assert {name: after[name] for name in before} == before
    # the advice of the message helps
    shutil.rmtree(cell)
    assert cli(*arguments).status == 0


def test_a_checkpoint_of_another_configuration(folder: Path) -> None:
    cell = the_cell(folder)
    other = cli("run", folder / "tiny.yaml", "--set", "optimizer.lr=0.01", "--out", folder / "b")
    assert other.status == 0
    (theirs,) = (folder / "b" / "cells").iterdir()
    (cell / "training.json").unlink()
    for name in ("checkpoint.pt", "checkpoint.pt.sha256"):
        shutil.copy(theirs / name, cell / name)
    called = cli("run", folder / "tiny.yaml", "--out", folder / "out")
    assert "belongs to another configuration" in message(called)


def test_two_processes_on_one_run(folder: Path) -> None:
    """A second process that really holds the directory."""
    cell = the_cell(folder)
    code = (
        "import sys; from filelock import FileLock\n"
        f"with FileLock({str(cell / '.lock')!r}): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        before = contents(folder)
        for arguments in (["run", folder / "tiny.yaml", "--out", folder / "out"],
                          ["evaluate", folder / "out"], ["evaluate", cell]):  # fmt: skip
            assert "another process is writing" in message(cli(*arguments))
        assert contents(folder) == before
        assert cli("report", folder / "out").status == 0  # reading is free
    finally:
        holder.communicate()
    assert cli("evaluate", folder / "out").status == 0


def test_an_out_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments in (["run", write_suite(tmp_path), "--out", "file/out"],
                      ["train", "--limit", 50, "--out", "file"]):  # fmt: skip
        assert "cannot write" in message(cli(*arguments))
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("where", ["checkpoint", "log"])
def test_a_full_disk(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_suite(tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*arguments: Any, **options: Any) -> Any:
        raise full

    with monkeypatch.context() as patch:
        if where == "checkpoint":
            patch.setattr(torch, "save", fails)
        else:
            patch.setattr("benchmark.training.log.open", fails, raising=False)
        said = message(cli("run", path, "--out", "out"))
    assert "No space left on device; free some space" in said
    assert not list(tmp_path.rglob("training.json"))
    assert cli("run", path, "--out", "out").status == 0


def test_a_diverged_loss(tmp_path: Path) -> None:
    path = write_suite(tmp_path, methods=["natural"], optimizer={"lr": 1e30})
    said = message(cli("run", path, "--out", "out"))
    for part in ("natural", "at step 3 of 10", "checkpoint", "Lower the learning rate"):
        assert part in said


def _network(num_classes: int = 10, width: int = 8) -> torch.nn.Module:
    return build_model(
        ModelConfig(name="small-resnet", width=width), num_classes=num_classes, image_size=16,
        mean=(0.5,) * 3, std=(0.2,) * 3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pickle", "could run code"),
        ("text", "damaged or not a PyTorch file"),
        ("truncated", "damaged or not a PyTorch file"),
        ("empty", "damaged or not a PyTorch file"),
        ("classes", "another architecture"),
        ("numbers", "no state dict"),
        ("nan", "not finite"),
    ],
)
def test_external_checkpoints(kind: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    state = _network(7 if kind == "classes" else 10).state_dict()
    if kind == "nan":
        state["linear.bias"][0] = torch.nan
    torch.save({"epoch": 3} if kind == "numbers" else state, path)
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"net": Path("x")}, protocol=2))
    elif kind == "text":
        path.write_text("<html>Google Drive - Virus scan warning</html>")
    elif kind in ("truncated", "empty"):
        path.write_bytes(path.read_bytes()[: 5000 if kind == "truncated" else 0])
    model = ("small-resnet", "--set", "model.stem_stride=1")
    called = cli("evaluate-model", *model, "--checkpoint", path, "--dataset", "digits")
    assert said in message(called)
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt"]


def test_settings_of_a_suite_file_are_checked_like_options(tmp_path: Path) -> None:
    """Duplicate labels, a method's unknown key, a data set's unknown name."""
    for changes, said in (
        ({"methods": ["natural", {"name": "pgd-at", "label": "natural"}]}, "given twice"),
        ({"methods": [{"name": "trades", "betta": 6}]}, "did you mean 'beta'"),
        ({"seeds": [-3]}, "seeds.0"),
        ({"evaluation": [{"kind": "pgd", "threat": {"eps": 8}}]}, "did you mean"),
    ):
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(tiny(**changes)))
        assert said in message(cli("run", "x.yaml", "--dry-run"))


def test_evaluate_replaces_no_foreign_record(folder: Path, tmp_path: Path) -> None:
    """Protects: --out on a trained cell once replaced its result by another network's."""
    torch.save(_network().state_dict(), tmp_path / "net.pt")
    command = ["evaluate-model", "small-resnet", "--set", "model.stem_stride=1", "--checkpoint",
               tmp_path / "net.pt", "--dataset", "digits", "--limit", 20, "--metric", "clean"]  # fmt: skip
    before = contents(folder)
    said = message(cli(*command, "--out", the_cell(folder)))
    assert "holds a trained run" in said
    assert contents(folder) == before
    assert cli(*command, "--out", "mine").status == 0
    torch.save(_network(width=9).state_dict(), tmp_path / "net.pt")
    assert "other weights or images" in message(cli(*command, "--out", "mine"))
    called = cli(*command, "--out", "second")
    assert "limit=20" in called.out
