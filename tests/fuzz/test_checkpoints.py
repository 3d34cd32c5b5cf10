"""Whatever is in a checkpoint: it is what was saved, or one error in words; no code in it is run."""

from __future__ import annotations

import copy
import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import JSON_VALUES, attempt, damaged, examples
from tiny_suites import tiny_cell, tiny_data

from benchmark.attacks.journal import AttackedBatch, Journal
from benchmark.core.errors import CheckpointError
from benchmark.core.hashing import file_digest
from benchmark.models.loading import load_external, read_state_dict
from benchmark.training import checkpoint
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")
STATE = {"w": torch.arange(40.0), "step": 3, "name": "x", "inner": [1, {"b": torch.ones(2, 3)}]}


class Bomb:
    """Leaves a folder behind where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rebuilt(content: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """A torch file whose pickle is changed, with right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item, change(data) if item.filename.endswith("data.pkl") else data)
    return buffer.getvalue()


BOMBS = [
    saved({"w": Bomb()}),
    pickle.dumps(Bomb()),
    pickle.dumps({"w": Bomb()}, protocol=0),
    rebuilt(saved(STATE), lambda _: pickle.dumps(Bomb(), protocol=2)),
    rebuilt(saved(STATE), lambda _: b"cos\nmkdir\n(S'executed'\ntR."),
    rebuilt(saved(STATE), lambda _: b"c__builtin__\neval\n(S'__import__(\"os\").mkdir(\"executed\")'\ntR."),
]  # fmt: skip


@st.composite
def files(draw: Any, value: Any) -> bytes:
    """A file of tensors, damaged anywhere or in its pickle, or another file."""
    whole = saved(value)
    kind = draw(st.sampled_from(["file", "pickle", "bomb", "other"]))
    if kind == "file":
        return bytes(draw(damaged(whole)))
    if kind == "bomb":
        return draw(st.sampled_from(BOMBS))
    if kind == "other":
        return saved(draw(JSON_VALUES))
    return rebuilt(whole, lambda data: draw(damaged(data)))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@given(files(STATE), st.booleans())
@examples(120)
@pytest.mark.filterwarnings("ignore")  # torch's, of odd pickles
def test_our_own(tmp_path: Path, content: bytes, with_digest: bool) -> None:
    """With its digest right, an odd file is read as weights only; with another, not at all."""
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, STATE)
    path.write_bytes(content)
    if with_digest:
        path.with_name("checkpoint.pt.sha256").write_text(file_digest(path))
    found = attempt(lambda: checkpoint.load(path), CheckpointError)
    if isinstance(found, str):
        assert str(path) in found
    else:
        assert isinstance(found, dict)
        assert with_digest or content == saved(STATE)
    assert not Path("executed").exists()


@given(
    st.one_of(files({"conv1.weight": torch.ones(3)}), files({"state_dict": {"w": torch.ones(3)}}))
)
@examples(120)
@pytest.mark.filterwarnings("ignore")
def test_a_user_s_own(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    found = attempt(lambda: read_state_dict(path), CheckpointError)
    if isinstance(found, str):
        assert str(path) in found
    else:
        assert all(isinstance(value, torch.Tensor) for value in found.values())
    assert not Path("executed").exists()


class Affine(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :10]


def script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Affine()), buffer)
    return buffer.getvalue()


@given(st.sampled_from([".ts", ".pt2", ".onnx"]), st.one_of(files(STATE), damaged(script())))
@examples(30)
@pytest.mark.filterwarnings("ignore")
def test_model_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    attempt(lambda: load_external(str(path), None, num_classes=10, image_size=16))
    assert not Path("executed").exists()


@given(files({"labels": torch.tensor([0, 1]), "predictions": torch.tensor([0, 2]),
              "examples": torch.ones(1, 3, 4, 4), "warnings": ["w"]}))  # fmt: skip
@examples(60)
@pytest.mark.filterwarnings("ignore")
def test_finished_batches_of_an_attack(tmp_path: Path, content: bytes) -> None:
    """A batch that is not what it should be is attacked anew."""
    journal = Journal(tmp_path / "aa.unfinished", {"model": "x"})
    (journal.folder / "apgd-ce-00000.pt").write_bytes(content)
    y = torch.tensor([0, 1])
    found = journal.read("apgd-ce", 0, y)
    assert not Path("executed").exists()
    if found is not None:
        assert isinstance(found, AttackedBatch)
        assert found.predictions.shape == y.shape
        assert len(found.examples) == int((found.predictions != y).sum())


@pytest.fixture(scope="module")
def half_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoint is of step 7 of 10."""
    run = tmp_path_factory.mktemp("half")
    cell = tiny_cell(methods=[{"name": "ema", "decay": 0.9}])
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU)
    save, calls = trainer._save, []

    def counted() -> None:
        save()
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    trainer._save = counted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    return run


@st.composite
def other_state(draw: Any, state: Any) -> Any:
    """``state`` with a key lost at any depth, a value above the tensors of another kind, or a tensor
    of another shape."""
    changed = here = copy.deepcopy(state)
    while True:
        key = draw(st.sampled_from(list(here)))
        if isinstance(here[key], dict) and here[key] and draw(st.integers(0, 5)):
            here = here[key]
        elif isinstance(here[key], torch.Tensor):
            shape = draw(st.lists(st.integers(0, 3), max_size=4))
            here[key] = here[key].new_zeros(shape)
            return changed
        elif draw(st.booleans()):
            del here[key]
            return changed
        else:
            here[key] = draw(JSON_VALUES)
            return changed


@given(st.data())
@examples(12, shrink=False)
@pytest.mark.filterwarnings("ignore")
def test_training_goes_on_or_says_why_not(half_trained: Path, data: Any) -> None:
    run = half_trained.parent / "changed"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(half_trained, run)
    good = checkpoint.load(run / "checkpoint.pt")
    checkpoint.save(run / "checkpoint.pt", data.draw(other_state(good)))
    cell = tiny_cell(methods=[{"name": "ema", "decay": 0.9}])
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU)
    said = attempt(trainer.run)
    assert (run / "training.json").exists() == (said is None)
