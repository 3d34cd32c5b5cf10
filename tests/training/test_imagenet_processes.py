"""Two processes on streamed images, killed at random moments: imagenet-resnet50, made small."""

from __future__ import annotations

import os
import random
import signal
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from tiny_suites import assert_same_result, children, cli, torchrun

from benchmark.core.files import read_frame
from benchmark.records.files import RunFiles

# Above 64 pixels images are decoded, cropped and resized as ImageNet's are.
SMALL = {
    "base": "imagenet-resnet50",
    "dataset": {"name": "imagenet", "val_size": 30, "size": 72, "limit": 40, "test_list": None},
    "model": {"name": "small-resnet", "width": 8, "normalization": "dataset"},
    "threats": {"linf": {"norm": "linf", "eps": "4/255", "step": "2/255", "steps": 2}},
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "precision": "bf16",
        "accumulate": 2,
        "validations": 4,
        "validation_images": 20,
    },
    "methods": ["pgd-at"],
    "seeds": [0],
    "evaluation": [
        {"kind": "clean"},
        {"kind": "pgd", "threat": {"norm": "linf", "eps": "4/255", "step": "2/255", "steps": 3}},
    ],
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A data root with ten classes of Tiny-ImageNet in ImageNet's place."""
    folder = os.environ.get("GENERALIST_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("GENERALIST_BENCH_TEST_DATA is not set: no real data")
    with tarfile.open(Path(folder) / "tiny-imagenet-10.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "tiny-imagenet-10").rename(tmp_path / "imagenet")
    return tmp_path


def _curve(out: Path) -> int:
    """How many lines of its curve the run in ``out`` has written."""
    found = list(out.glob("cells/*/metrics.jsonl"))
    return len(found[0].read_text().splitlines()) if found else 0


@pytest.mark.slow
def test_killed_at_random_they_end_in_the_same_weights(images: Path) -> None:
    """Streaming, batches cut by two processes, two turns per batch and bf16: after SIGKILL of either
    process or of both, the same command ends in the weights, curves and outcomes of a run that was
    left alone. The processes share the evaluation, which gives the outcomes of one process."""
    suite = images / "small.yaml"
    suite.write_text(yaml.safe_dump(SMALL))
    arguments = ("run", suite, "--data-root", images, "--device", "cpu", "-q", "--out")
    whole = torchrun(2, *arguments, images / "whole")
    assert whole.wait(timeout=600) == 0, whole.communicate()[1][-3000:]

    draw, kills = random.Random(), 0
    for victims, lines in ((slice(0, 1), 1), (slice(0, 2), 3)):
        started = torchrun(2, *arguments, images / "killed")
        # as soon as so much is on record, and a little later: at any point of a step
        while started.poll() is None and _curve(images / "killed") < lines:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.3))
        if started.poll() is None:
            for process in children(started.pid)[victims]:
                os.kill(process, signal.SIGKILL)
                kills += 1
        started.communicate(timeout=300)
    assert kills, "both runs came to their end before they were killed"
    last = torchrun(2, *arguments, images / "killed")
    assert last.wait(timeout=600) == 0, last.communicate()[1][-3000:]

    one, other = (next((images / name / "cells").iterdir()) for name in ("whole", "killed"))
    assert_same_result(one, other)
    outcomes = read_frame(RunFiles(one).outcomes)
    assert outcomes.equals(read_frame(RunFiles(other).outcomes))
    (one / "evaluation.json").unlink()
    called = cli("evaluate", images / "whole", "--data-root", images, "--device", "cpu", "-q")
    assert called.status == 0, called.err
    assert read_frame(RunFiles(one).outcomes).equals(outcomes)
