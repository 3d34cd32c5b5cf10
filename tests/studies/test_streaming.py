"""Memory of the streaming loader: what is listed and what is counted, never how much it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studies.streaming import repeated


def write_images(root: Path) -> None:
    """Two classes with three training images each."""
    for i, name in enumerate("ab"):
        (root / "train" / name).mkdir(parents=True)
        for k in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * (3 * i + k), dtype=np.uint8)).save(
                root / "train" / name / f"{k}.png"
            )


def test_files_are_listed_again_and_again(tmp_path: Path) -> None:
    """Protects: as many entries as asked for, in turn, with the labels of their files."""
    write_images(tmp_path)
    split = repeated(tmp_path, 10)
    assert len(split) == 10
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_of_all_processes_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path)
    command = ["-m", "studies.streaming", "compare", str(tmp_path), "--entries", "10"]
    command += ["--entries", "20", "--batches", "2", "--batch-size", "2", "--workers", "1"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout)["rows"]
    assert (few["entries"], many["entries"]) == (10, 20)
    for row in (few, many):
        (worker,) = row["worker_peak_rss_mib"]
        assert row["peak_rss_mib"] == pytest.approx(row["main_peak_rss_mib"] + worker, abs=0.1)
        assert 0 < row["pss_mib"] < row["peak_rss_mib"]
