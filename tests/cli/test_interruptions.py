"""Signals and full disks meet a real process: it says how to go on, and what it left can be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_suites import assert_same_result, cli, write_suite

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# The command line, with a stop before the n-th file of tensors is complete.
SLOW_WRITE = """
import sys, time, torch
save, left = torch.save, int(sys.argv.pop(1))
def slow(content, file):
    global left
    left -= 1
    if left == 0:
        file.write(b"half a checkpoint")
        print("writing", flush=True)
        time.sleep(120)
    save(content, file)
torch.save = slow
from benchmark.cli import main
main()
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and ``whole``, the suite run undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert cli("run", write_suite(folder), "--out", folder / "whole").status == 0
    return folder


def cell(out: Path) -> Path:
    (found,) = (out / "cells").iterdir()
    return found


def start_slow(write: int, suite: Path, out: Path) -> subprocess.Popen[str]:
    """A run that is now in the middle of that write, counted from 1."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITE, str(write), "run", str(suite), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
@pytest.mark.parametrize("write", [3, 4], ids=["deployed", "checkpoint"])
def test_a_second_signal_stops_hard_and_nothing_is_corrupt(
    number: signal.Signals, status: int, write: int, whole: Path, tmp_path: Path
) -> None:
    """Protects: both signals fall into one write, which is given up; the command said on standard
    error goes on from the checkpoint before, to the result of an undisturbed run."""
    suite, out = whole / "tiny.yaml", tmp_path / "out"
    process = start_slow(write, suite, out)
    assert process.stderr
    process.send_signal(number)
    for line in process.stderr:
        if "again to stop at once" in line:
            break
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == status
    assert "Traceback" not in said
    command = f"generalist-bench run {suite} --out {out}"
    assert said.splitlines()[-1].strip() == command
    assert list(out.rglob("*.part-*")) == []
    done = cli(*command.split()[1:])
    assert done.status == 0
    assert "resuming at step 3 of 10" in done.err
    assert_same_result(cell(whole / "whole"), cell(out))


@pytest.mark.slow
def test_a_scheduler_s_sigterm_costs_no_step(tmp_path: Path) -> None:
    """One signal: the step is finished and kept, and the process leaves with 128 + 15."""
    suite, out = write_suite(tmp_path, train={"epochs": 200}), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", "run", str(suite), "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if "test images;" in line:  # the next thing is the first step
            break
    while not list(out.rglob("metrics.jsonl")) and process.poll() is None:
        pass
    process.terminate()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 143
    assert f"generalist-bench run {suite} --out {out}" in said
    assert (cell(out) / "checkpoint.pt").exists()
    assert not (cell(out) / "training.json").exists()


# Runs in a mount name space of its own; sizes in KiB. A disk that is a little larger each time.
SMALL_DISK = """
import subprocess, sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
from tiny_suites import cli
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", {disk!r}], check=True)
messages = []
for size in range(8, 4000, 40):
    subprocess.run(["mount", "-o", f"remount,size={{size}}k", {disk!r}], check=True)
    called = cli("run", {suite!r}, "--out", {disk!r} + "/out")
    messages.append(called.err.splitlines()[-1])
    if list(Path({disk!r}).rglob("*.part-*")):
        sys.exit("a file was left half written")
    if called.status == 0:
        break
    if called.status != 2:
        sys.exit(f"status {{called.status}}: {{called.err}}")
else:
    sys.exit("never done")
subprocess.run(["cp", "-r", {disk!r} + "/out", {kept!r}], check=True)
print("\\n".join(messages[:-1]))
"""


def _own_mounts() -> list[str]:
    """The command in front that gives a process mounts of its own; skips where it may not have."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount name spaces here")
    return command


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again(whole: Path, tmp_path: Path) -> None:
    """Protects: wherever the disk ends (weights, checkpoint, digest, plot), one clear line, no rest of
    a file, and the same command with more room ends as if nothing had been."""
    disk = tmp_path / "disk"
    disk.mkdir()
    names: dict[str, Any] = {
        "tests": str(Path(__file__).parent.parent),
        "disk": str(disk),
        "suite": str(whole / "tiny.yaml"),
        "kept": str(tmp_path / "kept"),
    }
    code = SMALL_DISK.format(**names)
    done = subprocess.run(
        [*_own_mounts(), sys.executable, "-c", code],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=700,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    messages = done.stdout.splitlines()
    for message in messages:
        assert message.startswith("error: cannot write"), message
        assert "No space left on device; free some space" in message, message
    stopped = {message.split(": ")[1].rpartition("/")[2] for message in messages}
    assert {"checkpoint.pt", "deployed.pt"} < stopped
    assert_same_result(cell(whole / "whole"), cell(tmp_path / "kept"))
