"""A process that dies without a word is reported by the next one in its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import cli, write_suite

from benchmark.core.running import NAME, last_words, running

DIES = """
import os, sys
from pathlib import Path
from benchmark.core.running import running
with running(Path(sys.argv[1]), "training") as mark:
    mark.at("the evaluation of aa_linf")
    os.kill(os.getpid(), 11)
"""


def test_a_segmentation_fault_is_reported_once(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False)
    assert died.returncode == -11
    said = last_words(tmp_path)
    assert said is not None
    assert f"{tmp_path.name}: process " in said
    assert "during the evaluation of aa_linf" in said
    assert "--threads 1" in said
    assert last_words(tmp_path) is None


def test_an_error_or_an_interruption_leaves_no_mark(tmp_path: Path) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), running(tmp_path, "training"):
            assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
            raise error
        assert last_words(tmp_path) is None
    with running(tmp_path, "training", mark=False):
        assert not (tmp_path / NAME).exists()


def test_a_torn_mark_is_reported_too(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    assert "a process ended" in (last_words(tmp_path) or "")


def test_the_next_start_says_which_cell_died(tmp_path: Path) -> None:
    """Protects: training killed by a fault of torch's ended without a word, and so did nothing
    afterwards tell why."""
    suite, out = write_suite(tmp_path), tmp_path / "out"
    first = cli("run", suite, "--out", out)
    assert first.status == 0, first.err
    (cell,) = (out / "cells").iterdir()
    assert not (cell / NAME).exists()
    (cell / NAME).write_text(json.dumps({"pid": 123, "stage": "training"}))
    again = cli("run", suite, "--out", out)
    assert again.status == 0
    assert f"{cell.name}: process 123 ended without an error message during training" in again.err
    assert "died" not in cli("run", suite, "--out", out).err
