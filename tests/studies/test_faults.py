"""Kill, resume and compare: what ``python -m studies.faults`` does, with three kills."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import tiny

from benchmark.core.files import read_frame, write_frame
from benchmark.core.progress import Progress
from benchmark.training import checkpoint
from studies.faults import differing, kill_and_compare

SUITE = tiny(
    methods=["generalist-t", {"name": "ema", "decay": 0.9}],
    train={"epochs": 5, "validations": 5, "selection": "best"},
    evaluation=[
        {"kind": "clean"},
        {"kind": "autoattack", "name": "aa_linf", "eps": 0.2, "n": 2},
        {"kind": "union", "of": ["clean", "aa_linf"]},
    ],
)


@pytest.mark.slow
def test_three_kills_change_nothing_and_any_change_is_seen(tmp_path: Path) -> None:
    """Protects: SIGKILLs at moments nobody chose, in training and evaluation, leave weights,
    curves, outcomes and records as they would have been; and the comparison is not blind."""
    outcome = kill_and_compare(SUITE, tmp_path, kills=3, seed=0, progress=Progress(quiet=True))
    assert outcome.differences == []
    assert len(outcome.kills) == 3

    alone, other = tmp_path / "alone", tmp_path / "other"
    (slug,) = {path.name for path in (alone / "cells").glob("ema-*")}

    def weights(path: Path) -> None:
        state = checkpoint.load(path)
        state["linear.bias"][0] = torch.nextafter(state["linear.bias"][0], torch.tensor(9.0))
        checkpoint.save(path, state)

    def curves(path: Path) -> None:
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:-1]) + "\n")

    def outcomes(path: Path) -> None:
        frame = read_frame(path)
        frame.loc[3, "clean"] = not frame.loc[3, "clean"]
        write_frame(path, frame)

    def record(path: Path) -> None:
        content: Any = json.loads(path.read_text())
        content["metrics"]["aa_linf"]["seconds"] = 0
        path.write_text(json.dumps(content))
        assert differing(alone, other) == []  # seconds may differ
        content["metrics"]["aa_linf"]["n"] += 1
        path.write_text(json.dumps(content))

    for name, change in (
        ("deployed.pt", weights),
        ("metrics.jsonl", curves),
        ("outcomes.parquet", outcomes),
        ("evaluation.json", record),
    ):
        shutil.copytree(alone, other)
        change(other / "cells" / slug / name)
        assert differing(alone, other) == [f"cells/{slug}/{name} differs"]
        shutil.rmtree(other)
