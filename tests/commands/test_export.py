"""``export --hub``: a repository that comes back as the same network with the same figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import cli, tiny_data, write_suite

from benchmark.commands.hub import load_hub_model
from benchmark.commands.run import read_cell_config
from benchmark.core.errors import BenchmarkError, CheckpointError, ConfigError
from benchmark.core.files import write_json
from benchmark.records.study import read_cell
from benchmark.training.selection import load_deployed

hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is an optional extra")
pytest.importorskip("safetensors", reason="safetensors is an optional extra")

METHODS = ("pgd-at", "output-ensemble")  # one network, and one that is made of several


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    short = {"epochs": 1, "validations": 1}
    suite = write_suite(folder, methods=list(METHODS), train={"batch_size": 20, **short})
    assert cli("run", suite, "--out", folder / "out", "-q").status == 0
    for method in METHODS:
        done = cli("export", run_of(folder, method), "--hub", "--license", "mit",
                   "--out", folder / method)  # fmt: skip
        assert done.status == 0, done.err
        assert f"hf upload OWNER/NAME {folder / method}" in done.out
    return folder


def run_of(study: Path, method: str) -> Path:
    (run,) = (study / "out" / "cells").glob(f"{method}-s0-*")
    return run


@pytest.fixture
def exported(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository of one network."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study / "pgd-at", tmp_path / "repository")
    return tmp_path / "repository"


@pytest.mark.parametrize("method", METHODS)
def test_the_network_comes_back(study: Path, method: str, tmp_path: Path) -> None:
    """Logits bit by bit; and its evaluation has the figures and outcomes of the run."""
    run, data = run_of(study, method), tiny_data()
    _, config = read_cell_config(run)
    own = load_deployed(config, data, run, torch.device("cpu"))
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        again = load_hub_model(f"hf:{study / method}").network
        assert torch.equal(again(images), own(images))

    pgd = json.loads((run / "evaluation.json").read_text())["metrics"]["pgd2_linf"]["settings"]
    metrics = ["--metric", "clean", "--metric", json.dumps({"kind": "pgd", **pgd})]
    called = cli("evaluate-model", f"hf:{study / method}", *metrics, "--limit", 64,
                 "--out", tmp_path / "measured", "-q")  # fmt: skip
    assert called.status == 0, called.err
    measured, recorded = read_cell(tmp_path / "measured"), read_cell(run)
    for name in ("clean", "pgd2_linf"):
        for key in ("key", "mean", "model", "function"):
            assert measured.metrics[name][key] == recorded.metrics[name][key]
    assert measured.outcomes is not None
    assert measured.outcomes.equals(recorded.outcomes[measured.outcomes.columns])  # type: ignore[index]


def test_the_card_says_what_the_record_says(study: Path) -> None:
    """As the Hub reads it: every figure with its interval and n, findings, the licence."""
    card = hub.ModelCard.load(study / "pgd-at" / "README.md")
    cell = read_cell(run_of(study, "pgd-at"))
    assert (card.data.license, card.data.library_name) == ("mit", "generalist-bench")
    assert card.data.model_name == "pgd-at-digits-small-resnet-s0"
    found = {result.metric_name: result for result in card.data.eval_results}
    for entry in cell.metrics.values():
        result = found[f"{entry['title']} (%)"]
        assert result.metric_value == round(100 * entry["mean"], 2)
        low, high = result.metric_args["interval_95"]
        assert low <= result.metric_value <= high
        assert result.metric_args["n"] == entry["n"]
        assert (result.task_type, result.dataset_type) == ("image-classification", "digits")
        assert f"| {entry['title']} | {100 * entry['mean']:.2f} |" in card.text
    assert "- limit = 64 was used" in card.text  # the report's warnings
    for _, text in cell.findings:
        assert text in card.text
    # and no file name of this machine
    assert str(study) not in (study / "pgd-at" / "config.json").read_text() + card.content


def test_a_repository_by_its_name(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By huggingface_hub's own cache, without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "cache" / "models--someone--robust-net"
    shutil.copytree(exported, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert load_hub_model("hf:someone/robust-net").config == load_hub_model(f"hf:{exported}").config
    assert load_hub_model(f"hf:someone/robust-net@{commit}").config.method == "pgd-at"
    with pytest.raises(BenchmarkError, match="is no folder here and cannot be had from the Hub"):
        load_hub_model("hf:someone/another")
    with pytest.raises(ConfigError, match="a repository is written OWNER/NAME"):
        load_hub_model("hf:no/such/folder")


def changed(repository: Path, **values: Any) -> None:
    path = repository / "config.json"
    write_json(path, {**json.loads(path.read_text()), **values})


def test_what_is_not_ours_is_not_loaded(exported: Path, study: Path) -> None:
    spec = f"hf:{exported}"
    own = json.loads((exported / "config.json").read_text())

    weights = exported / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not what config.json states"):
        load_hub_model(spec)
    weights.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_hub_model(spec)

    # code that the configuration names is not run
    Path("evil.py").write_text("raise SystemExit('run')")
    recipe = {"name": "evil.py:Method"}
    changed(exported, model=None, run={**own["run"], "recipe": recipe})
    with pytest.raises(ConfigError, match="evil.py:Method, which is code of the run's author"):
        load_hub_model(spec)
    changed(exported, library_name="timm")
    with pytest.raises(ConfigError, match="is not of generalist-bench"):
        load_hub_model(spec)
    weights.unlink()
    assert "has no model.safetensors" in cli("evaluate-model", spec).err
    assert "measure it by evaluate-model" in cli("evaluate", spec).err


def test_what_cannot_be_exported(study: Path, tmp_path: Path) -> None:
    run = run_of(study, "pgd-at")
    assert "say what to export for: --hub" in cli("export", run).err
    assert "is no run's folder, and holds no run" in cli("export", tmp_path, "--hub").err
    (tmp_path / "notes.txt").write_text("mine")
    said = cli("export", run, "--hub", "--out", tmp_path).err
    assert "holds other files; choose another --out" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
