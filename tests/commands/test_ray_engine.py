"""The Ray engine: the records of the local one, whatever becomes of workers and cells."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny_suites import Called, assert_same_result, cli, tiny, write_suite

from benchmark.config.suite import build_suite
from benchmark.training import checkpoint

TAUGHT = {"name": "mixednuts", "robust": {"method": "natural"}}
HOT = {"name": "natural", "label": "hot", "optimizer": {"lr": 1e30}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray of two machines, each with room for one cell, on this one."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'generalist-bench[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # no workers before there is work: each imports for seconds
        patch.setenv("RAY_enable_worker_prestart", "0")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=node)
        made.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield made.address
        made.shutdown()


def slugs(changes: dict[str, Any]) -> list[str]:
    return [cell.slug for cell in build_suite(tiny(**changes)).cells()]


def during(call: Callable[[], Called], run: Path, act: Callable[[], None]) -> Called:
    """``call``, and ``act`` as soon as ``run`` has one more line of its curves."""

    def lines() -> int:
        path = run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    over, seen = threading.Event(), lines()

    def watch() -> None:
        while lines() <= seen and not over.is_set():
            time.sleep(0.01)
        if not over.is_set():
            act()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return call()
    finally:
        over.set()
        watcher.join()


def kill_holder(run: Path) -> None:
    """SIGKILL for the process that has the lock of ``run`` open."""
    lock = str((run / ".lock").resolve())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = any(os.readlink(link) == lock for link in (process / "fd").iterdir())
        except OSError:  # ended meanwhile, or another user's
            continue
        if held:
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError(f"nobody holds {lock}")


def measured(run: Path) -> dict[str, Any]:
    """The record of an evaluation, times left out."""
    record = json.loads((run / "evaluation.json").read_text())
    for entry in record["metrics"].values():
        del entry["seconds"]
    return record


@pytest.mark.slow
def test_a_killed_worker_and_ctrl_c_leave_no_trace(cluster: str, tmp_path: Path) -> None:
    """Weights, curves and outcomes are those of the local engine, bit for bit."""
    changes: dict[str, Any] = {
        "methods": ["trades", "pgd-at", "natural"],
        "train": {"epochs": 20, "validations": 20},
    }
    suite = write_suite(tmp_path, **changes)
    assert cli("run", suite, "--out", tmp_path / "local").status == 0
    out = tmp_path / "ray"
    _, pgd_at, natural = names = slugs(changes)
    run = out / "cells" / pgd_at
    command = ("run", suite, "--out", out, "--engine", "ray", "--address", cluster)

    stopped = during(lambda: cli(*command), run, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert stopped.status == 130
    assert f"generalist-bench run {suite} --out {out} --engine ray" in stopped.err
    assert checkpoint.load(run / "checkpoint.pt")["step"] > 0
    assert not (run / "training.json").exists()
    # there was no room for a third, and there is none for it now
    assert not (out / "cells" / natural / "environment.json").exists()

    killed = during(lambda: cli(*command), run, lambda: kill_holder(run))
    assert killed.status == 0, killed.err
    assert "pgd-at seed 0: its worker was lost" in killed.err
    assert killed.err.count("pgd-at seed 0: resuming at step") == 2
    for name in names:
        one, other = (folder / "cells" / name for folder in (tmp_path / "local", out))
        assert_same_result(one, other)
        assert measured(one) == measured(other)
        tables = [pd.read_parquet(run / "outcomes.parquet") for run in (one, other)]
        assert tables[0].equals(tables[1])
    assert (out / "suite.json").read_text() == (tmp_path / "local" / "suite.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_cell_that_fails_or_diverges_takes_no_other_down(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Both engines go on, end with the same message, and leave the same records; a run that another
    learns from comes first, whatever their order."""
    address = ("--address", request.getfixturevalue("cluster")) if engine == "ray" else ()
    changes: dict[str, Any] = {
        "methods": [TAUGHT, HOT, "pgd-at", "natural"],
        "train": {"epochs": 2, "validations": 1},
    }
    suite, out = write_suite(tmp_path, **changes), tmp_path / "out"
    natural, taught, hot, pgd_at = (out / "cells" / name for name in slugs(changes))
    pgd_at.mkdir(parents=True)
    (pgd_at / "training.json").write_text("{}")
    (pgd_at / "config.json").write_text("{")
    called = cli("run", suite, "--out", out, "--engine", engine, *address)
    assert called.status == 2
    last = called.err.splitlines()[-1]
    assert last.startswith("error: 1 of 4 cells failed; the first: ")
    assert f"{pgd_at.name}/config.json is damaged" in last
    assert "hot seed 0: hot-s0" in called.err  # diverged, and said so
    assert not (hot / "training.json").exists()
    assert (natural / "evaluation.json").exists()
    assert (taught / "evaluation.json").exists()
    assert not (pgd_at / "evaluation.json").exists()


@pytest.mark.slow
def test_too_large_a_cell_is_refused_before_any_work(cluster: str, tmp_path: Path) -> None:
    command = ("run", write_suite(tmp_path), "--out", tmp_path, "--engine", "ray")
    called = cli(*command, "--address", cluster, "--cpus-per-cell", 2)
    assert called.status == 2
    assert "needs 2 CPUs and 0 GPUs" in called.err
    assert "1 CPUs and 0 GPUs; 1 CPUs and 0 GPUs" in called.err


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.commands.ray_engine.find_spec", lambda name: None)
    called = cli("run", write_suite(tmp_path), "--out", tmp_path / "out", "--engine", "ray")
    assert called.status == 2
    assert "pip install 'generalist-bench[ray]'" in called.err
    assert not (tmp_path / "out").exists()


def test_options_of_ray_are_refused_without_it(tmp_path: Path) -> None:
    called = cli("run", write_suite(tmp_path), "--out", tmp_path / "out", "--cpus-per-cell", 2)
    assert called.status == 2
    assert "--cpus-per-cell is for --engine ray" in called.err
