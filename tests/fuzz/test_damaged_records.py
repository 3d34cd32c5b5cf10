"""Whatever is in a record: report, compare, evaluate and run work, or say in one line what is wrong;
records are not touched by readers, and no half of a report is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import JSON_VALUES, SCALARS, attempt, damaged, examples, with_faults
from tiny_suites import Called, cli, contents, write_suite

from benchmark.records.study import read_suite
from benchmark.report.compare import compare
from benchmark.report.summarise import summarise
from benchmark.report.tables import tidy

NAMES = ("config.json", "training.json", "evaluation.json", "environment.json", "metrics.jsonl",
         "outcomes.parquet", "suite.json")  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml and ``out``: two methods, trained and evaluated."""
    folder = tmp_path_factory.mktemp("records")
    path = write_suite(
        folder,
        methods=["natural", "pgd-at"],
        train={"epochs": 1, "validations": 2},
        evaluation=[
            {"kind": "clean"},
            {"kind": "pgd", "name": "pgd2_linf", "n": 20, "threat": {"eps": 0.1, "steps": 2}},
            {"kind": "union", "of": ["clean", "pgd2_linf"]},
            {
                "kind": "spatial",
                "n": 4,
                "grid": {"rotations": 3, "translation": 0, "translations": 1},
            },
        ],
    )
    assert cli("run", path, "--out", folder / "out").status == 0
    return folder


@st.composite
def changes(draw: Any, out: Path) -> tuple[str, bytes]:
    """A file of the suite's folder, and what it now holds."""
    name = draw(st.sampled_from(NAMES))
    cell = sorted((out / "cells").iterdir())[0]
    path = out / name if name == "suite.json" else cell / name
    content = path.read_bytes()
    kind = draw(st.sampled_from(["bytes", "values", "values", "values"]))
    if kind == "bytes":
        content = draw(damaged(content))
    elif name.endswith(".json"):
        content = json.dumps(draw(with_faults(json.loads(content), JSON_VALUES))).encode()
    elif name.endswith(".jsonl"):
        lines = [json.loads(line) for line in content.splitlines()]
        lines = draw(with_faults(lines, JSON_VALUES))
        content = "\n".join(map(json.dumps, lines if isinstance(lines, list) else [lines])).encode()
    else:
        content = draw(frames(pd.read_parquet(path)))
    return str(path.relative_to(out)), content


@st.composite
def frames(draw: Any, frame: pd.DataFrame) -> bytes:
    """Outcomes with other names, types or values, in a whole file."""
    name = draw(st.sampled_from(list(frame)))
    kind = draw(st.sampled_from(["rename", "drop", "values", "rows"]))
    if kind == "rename":
        frame = frame.rename(columns={name: draw(st.text(max_size=5))})
    elif kind == "drop":
        frame = frame.drop(columns=name)
    elif kind == "rows":
        frame = frame.iloc[draw(st.lists(st.integers(0, len(frame) - 1), max_size=70))]
    else:
        frame[name] = [draw(SCALARS)] * len(frame)
    try:
        return bytes(frame.to_parquet(None, index=False))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        assume(False)
        raise


def changed(finished: Path, draw: Any) -> Path:
    """A copy of the suite's folder with one file changed."""
    out = finished.parent / "changed" / "out"
    shutil.rmtree(out.parent, ignore_errors=True)
    shutil.copytree(finished / "out", out, ignore=shutil.ignore_patterns("report", ".lock"))
    name, content = draw(changes(finished / "out"))
    (out / name).write_bytes(content)
    return out


def in_words(called: Called) -> None:
    assert called.status in (0, 2), called
    if called.status == 2:
        assert called.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in called.err


@given(st.data())
@examples(40)
def test_reading(finished: Path, data: Any) -> None:
    """What report and compare read, without the drawing."""
    out = changed(finished, data.draw)
    before = contents(out)
    one, two = sorted((out / "cells").iterdir())
    for read in (lambda: tidy(summarise(read_suite(out))), lambda: compare(one, two)):
        said = attempt(read)
        if isinstance(said, str):
            assert str(out) in said or "metric" in said
    assert contents(out) == before


@given(st.data(), st.sampled_from(["report", "report", "evaluate", "run"]))
@examples(6, shrink=False)
@pytest.mark.filterwarnings("ignore")
def test_the_command_line(finished: Path, data: Any, command: str) -> None:
    out = changed(finished, data.draw)
    before = contents(out)
    if command == "run":
        called = cli("run", finished / "tiny.yaml", "--out", out)
    elif command == "evaluate":
        called = cli("evaluate", out, "--metric", "clean")
    else:
        called = cli("report", out)
    in_words(called)
    after = contents(out)
    # A run may have measured something before it met the damage.
    if called.status == 2 and command != "run":
        assert {name: after.get(name) for name in before} == before
    if command == "report":
        assert {name: after[name] for name in before} == before
        assert called.status == 0 or before == after
    assert not any(".part-" in name for name in after)
