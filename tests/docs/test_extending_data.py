"""A package outside the repository adds a data set and an architecture: one file and one line each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fenced_blocks import blocks
from tiny_suites import cli, tiny

from benchmark.data.source import DATASETS
from benchmark.models.architecture import MODELS

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "plugin"
MODEL = {"name": "tiny-mlp", "depth": 2, "normalization": "dataset"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the plugin's files and all its entry points."""
    site = tmp_path_factory.mktemp("site")
    info = site / "smooth_at-0.1.0.dist-info"
    info.mkdir()
    for path in PLUGIN.glob("*.py"):
        shutil.copy(path, site)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: smooth-at\nVersion: 0.1.0\n")
    groups = re.findall(
        r'^\[project\.entry-points\."(.+)"\]\n((?:.+\n)+)',
        (PLUGIN / "pyproject.toml").read_text(),
        re.MULTILINE,
    )
    points = [f"[{group}]\n{lines}".replace('"', "") for group, lines in groups]
    (info / "entry_points.txt").write_text("\n".join(points))
    return site


@pytest.fixture(scope="module")
def suite(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite on the plugin's data set with the plugin's network, run by a process
    that finds the plugin as installed."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny(dataset={"name": "stripes", "limit": 90}, model=MODEL, train={"epochs": 1})
    (folder / "suite.yaml").write_text(yaml.safe_dump(config))
    paths = os.pathsep.join(map(str, (site, ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "run", folder / "suite.yaml", "--out", folder / "out"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\npgd-at" in done.stdout
    return folder / "out"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds the plugin too: starting one for every call takes seconds."""
    monkeypatch.syspath_prepend(str(site))
    for registry in (DATASETS, MODELS):
        monkeypatch.setattr(registry, "_items", dict(registry._items))
        monkeypatch.setattr(registry, "_scanned", False)


@pytest.mark.parametrize("file", ["stripes.py", "tiny_mlp.py"])
def test_the_page_shows_the_files_that_are_tested(file: str) -> None:
    """What a reader copies from docs/extending.md is what runs here, and it is as short as told."""
    text = (PLUGIN / file).read_text()
    shown = [block.text for block in blocks(ROOT / "docs" / "extending.md")]
    assert text in shown
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize(
    ("kind", "name", "description"),
    [("datasets", "stripes", "three directions"), ("models", "tiny-mlp", "perceptron")],
)
@pytest.mark.usefixtures("installed")
def test_both_are_listed(kind: str, name: str, description: str) -> None:
    """There is no list of names beside the entry points."""
    (entry,) = (item for item in cli("list", kind, "--json").json() if item["name"] == name)
    assert description in entry["description"]


def test_a_suite_records_the_options_of_a_plugin(suite: Path) -> None:
    """The options are checked by the architecture and recorded flat, beside its name; the data
    set's own defaults hold."""
    (cell,) = (suite / "cells").iterdir()
    config = json.loads((cell / "config.json").read_text())["config"]
    assert {key: config["model"][key] for key in MODEL} == MODEL
    dataset = config["dataset"]
    assert (dataset["size"], dataset["crop"], dataset["flip"]) == (8, 1, False)
    assert "stripes" in (suite / "report" / "report.md").read_text()


@pytest.mark.usefixtures("installed")
def test_a_run_and_its_checkpoint_are_evaluated(suite: Path, tmp_path: Path) -> None:
    """The weights alone tell the options, also one that was not left at its default, so the network
    from the file is the run's network."""
    (cell,) = (suite / "cells").iterdir()
    again = cli("evaluate", cell, "--metric", "clean", "--json").json()
    alone = ("evaluate-model", "tiny-mlp", "--checkpoint", cell / "deployed.pt", "--dataset",
             "stripes", "--limit", 90, "--metric", "clean", "--json")  # fmt: skip
    found = cli(*alone, "--out", tmp_path / "alone").json()
    (of_run,), (of_file,) = again.values(), found.values()
    assert of_file["clean"]["mean"] == of_run["clean"]["mean"]
    other = cli(*alone, "--out", tmp_path / "other", "--set", "model.depth=3")
    assert (other.status, "for another architecture" in other.err) == (2, True), other.err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({**MODEL, "dept": 2}, "unknown key 'dept'; did you mean 'depth'?"),
        ({**MODEL, "depth": 10}, "depth: 10 must be at most 9"),
        ({**MODEL, "width": 8}, "width is fixed in tiny-mlp; only ['small-resnet'] take it"),
        ({"name": "tiny-mpl"}, "unknown model 'tiny-mpl'; did you mean 'tiny-mlp'?"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_wrong_option_of_a_plugin_is_explained(
    tmp_path: Path, model: dict[str, Any], message: str
) -> None:
    """Before anything is read or trained."""
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(tiny(dataset={"name": "stripes"}, model=model)))
    called = cli("run", path, "--out", tmp_path / "out")
    assert called.status == 2
    assert not (tmp_path / "out").exists()
    assert message in called.err
