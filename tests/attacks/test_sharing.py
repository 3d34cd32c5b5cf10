"""Processes that share AutoAttack's batches end with the outcomes of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from tiny_suites import children, cli, torchrun, write_suite

from benchmark.core.ranks import ALONE

SMALL = [
    {"kind": "clean"},
    {"kind": "autoattack-part", "name": "apgd-ce_linf", "attack": "apgd-ce", "eps": 0.05},
    {"kind": "autoattack-part", "name": "apgd-dlr_linf", "attack": "apgd-dlr", "eps": 0.05},
    {"kind": "union", "of": ["apgd-ce_linf", "apgd-dlr_linf"]},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite whose runs are trained and evaluated, by one process."""
    folder = tmp_path_factory.mktemp("shared")
    suite = write_suite(folder, dataset={"name": "digits"}, evaluation=SMALL,
                        train={"epochs": 2, "batch_size": 32})  # fmt: skip
    called = cli("run", suite, "--out", folder / "out", "-q")
    assert called.status == 0, called.err
    return folder / "out"


def unevaluated(trained: Path, target: Path) -> Path:
    """A copy of the suite's folder without its evaluation; the path of its only run."""
    shutil.copytree(trained, target)
    (run,) = (target / "cells").iterdir()
    (run / "evaluation.json").unlink()
    (run / "outcomes.parquet").unlink()
    return run


def assert_same_evaluation(run: Path, trained: Path) -> None:
    (original,) = (trained / "cells").iterdir()
    one, other = (pd.read_parquet(path / "outcomes.parquet") for path in (run, original))
    pd.testing.assert_frame_equal(one, other)
    records = [json.loads((path / "evaluation.json").read_text()) for path in (run, original)]
    for record in records:
        for entry in record["metrics"].values():
            del entry["seconds"]
    assert records[0] == records[1]
    assert not list(run.glob("*.unfinished"))


def test_two_processes_give_the_outcomes_of_one(trained: Path, tmp_path: Path) -> None:
    """449 images are two batches: each process makes one of every attack."""
    run = unevaluated(trained, tmp_path / "copy")
    out, err = torchrun(2, "evaluate", run, "--json", "-q").communicate(timeout=700)
    assert json.loads(out)[run.name]["union"]["n"] == 449, err
    assert_same_evaluation(run, trained)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="lists processes by /proc")
def test_killed_processes_go_on_alone_or_together(trained: Path, tmp_path: Path) -> None:
    """Protects: work of either process is on file, whoever goes on with it."""
    run = unevaluated(trained, tmp_path / "copy")
    process = torchrun(2, "evaluate", run, "-q")
    deadline = time.monotonic() + 200
    journal = run / "apgd-dlr_linf.unfinished"
    while not list(journal.glob("apgd-dlr-*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    for pid in [*children(process.pid), process.pid]:  # the workers have sessions of their own
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert list(journal.glob("apgd-dlr-*.pt"))
    called = cli("evaluate", run, "-q")
    assert called.status == 0, called.err
    assert_same_evaluation(run, trained)


def test_one_process_gathers_from_itself() -> None:
    assert ALONE.gather(3) == [3]
    assert ALONE.first


def test_torchrun_without_peers_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: a half-set environment must not hang or end in a traceback."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    called = cli("evaluate", "nowhere")
    assert called.status == 2
    assert called.err.splitlines()[-1].startswith("error: WORLD_SIZE = 2")
