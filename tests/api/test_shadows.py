"""A folder of the user's that is called like one of our packages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import write_suite

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with packages of the user's that must not be run."""
    for name in ("benchmark", "baselines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('of the user')\n")
    return tmp_path


def started(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


TRAIN = ["train", "--method", "natural", "--limit", 64, "--set", "train.epochs=1",
         "--set", "model.width=8", "--out", "out", "-q"]  # fmt: skip


@pytest.mark.slow
def test_commands_work_beside_it(folder: Path) -> None:
    """By oneself, and in processes of torchrun as the documentation starts them."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = ["--nproc-per-node", 1, "--no-python", "generalist-bench"]
    done = started(folder, *torchrun, *command, *TRAIN)
    assert done.returncode == 0, done.stderr
    done = started(folder, "generalist-bench", "evaluate", "out", "--metric", "clean", "-q")
    assert done.returncode == 0, done.stderr
    assert "clean" in done.stdout


def test_the_documentation_starts_no_module_that_can_be_hidden() -> None:
    """Protects: ``python -m`` and ``torchrun -m``, which look into the working directory first."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text() for page in pages)
    assert not re.findall(r"-m benchmark .*", text)
    assert len(re.findall(r"torchrun .*--no-python generalist-bench", text)) >= 5


def test_the_library_says_which_folder_hides_it(folder: Path) -> None:
    done = started(folder, sys.executable, "-c", "import generalist_bench")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"ImportError: Python finds {folder.resolve() / 'benchmark'} instead of "
        "Generalist-Bench's package 'benchmark': rename it, or start Python in another folder"
    )
    other = folder / "elsewhere"
    other.mkdir()
    assert started(other, sys.executable, "-c", "import generalist_bench").returncode == 0


@pytest.mark.slow
def test_cells_on_ray_work_beside_it(folder: Path) -> None:
    """Protects: workers, to whose path Ray adds the working directory in front."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'generalist-bench[ray]'")
    suite = write_suite(folder, methods=["natural"], train={"epochs": 1, "validations": 1})
    done = started(folder, "generalist-bench", "run", suite.name, "--engine", "ray", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "\nnatural" in done.stdout
