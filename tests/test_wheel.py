"""The wheel built from the tree works without the tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("hatchling", reason="wheels are built by hatchling")

SHORT = ["--set", "train.epochs=1", "--limit", "64", "--set", "evaluation=[{kind: clean}]"]


def done(command: list[object], **options: object) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    environment |= {"OMP_NUM_THREADS": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    called = subprocess.run(
        [str(part) for part in command],
        env=environment, capture_output=True, text=True, check=False, **options,
    )  # type: ignore[call-overload]  # fmt: skip
    assert called.returncode == 0, called.stderr + called.stdout
    text: str = called.stdout
    return text


def wheel(tree: Path, folder: Path) -> Path:
    """The wheel of ``tree``, from a copy, so that nothing is left in the tree."""
    ignored = shutil.ignore_patterns(".*", "runs", "site", "*.egg-info")
    shutil.copytree(tree, folder / "tree", ignore=ignored)
    if (tree / ".gitignore").exists():  # which tells hatchling what to leave out
        shutil.copy(tree / ".gitignore", folder / "tree")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done([*pip, "--no-index", "-w", folder, folder / "tree"])
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds the wheel and a plugin, and sees the
    dependencies (a copy of torch would be gigabytes) but not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [wheel(ROOT, folder / "ours"), wheel(ROOT / "tests" / "plugin", folder / "plugin")]
    done([sys.executable, "-m", "venv", "--without-pip", folder / "venv"])
    interpreter = folder / "venv" / "bin" / "python"
    done([sys.executable, "-m", "pip", "--python", interpreter, "install", "-q", "--no-deps",
          "--no-index", *built])  # fmt: skip
    # .pth files of a folder that is named in one are not read, so an editable install stays hidden.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = done([interpreter, "-c", "import benchmark; print(benchmark.__file__)"], cwd=folder)
    assert Path(where.strip()).is_relative_to(site)
    return interpreter


@pytest.mark.slow
def test_the_wheel_alone(python: Path, tmp_path: Path) -> None:
    """Protects: package data left out of the wheel, imports of the checkout, a plugin not found."""
    ours = python.parent / "generalist-bench"
    names = [m["name"] for m in json.loads(done([ours, "list", "methods", "--json"], cwd=tmp_path))]
    assert {"smooth-at", "generalist-t"} <= set(names)

    methods = ["--method", "smooth-at", "--method", "generalist-d"]
    table = done([ours, "run", "quick", *methods, *SHORT], cwd=tmp_path)
    assert "\nsmooth-at" in table
    done([ours, "report", "runs/quick", "--html"], cwd=tmp_path)
    page = (tmp_path / "runs" / "quick" / "report" / "report.html").read_text()
    assert "smooth-at" in page
    assert "<script" in page

    done([ours, "run", "cifar10-cpu", "--dry-run", "--tflops", 1], cwd=tmp_path)
    assert "--draft" in done([ours, "submit", "--help"], cwd=tmp_path)
    found = "import importlib.util as i; print(i.find_spec('studies'))"
    assert done([python, "-c", found], cwd=tmp_path).strip() == "None"  # they need a clone
    done(
        [python, "-c", "import generalist_bench as gb; gb.load('runs/quick').table()"], cwd=tmp_path
    )


@pytest.mark.slow
def test_the_gate_of_the_wheel(python: Path, tmp_path: Path) -> None:
    """A baseline recorded and held against by the installed package."""
    ours = python.parent / "generalist-bench"
    record = ["--suite", "quick", "--method", "smooth-at", "--metric", "clean",
              "--seed", 0, "--seed", 1, "--seed", 2, "--reason", "first", *SHORT[:4]]  # fmt: skip
    done([ours, "record-baseline", "gate.json", *record, "-q"], cwd=tmp_path)
    text = done([ours, "check", "--baseline", "gate.json", "-q"], cwd=tmp_path)
    assert "nothing moved" in text
