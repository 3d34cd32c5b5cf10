"""``generalist-bench speed``: its data, its arithmetic and its refusals, never its times."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from tiny_suites import cli

from benchmark.core.registry import did_you_mean
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model
from benchmark.speed import measure, tasks
from benchmark.speed.passes import Key, PassForm, count_gflop, limits
from benchmark.speed.setting import QUICK, Bench

KEYS = ["task", "model", "ours_s", "reference", "reference_s", "ratio", "limit_s"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    called = cli("speed", "--quick", "--device", "cpu", "--json", "-q")
    assert called.err == ""
    found: dict[str, Any] = called.json()
    return found


def test_rows_have_the_schema_that_is_tracked(document: dict[str, Any]) -> None:
    assert [list(row) for row in document["rows"]] == [KEYS] * len(document["rows"])
    assert {row["task"] for row in document["rows"]} == set(tasks.TASKS)
    for row, detail in zip(document["rows"], document["details"], strict=True):
        assert [row[key] for key in ("task", "model", "reference")] == [
            detail[key] for key in ("task", "model", "reference")
        ]
        assert len(detail["seconds"]) == len(detail["reference_seconds"]) == document["repeats"]
        assert min(row["ours_s"], row["reference_s"], row["limit_s"]) > 0
    assert document["environment"]["device"] == "cpu"


def test_libraries_that_are_not_installed_are_named(document: dict[str, Any]) -> None:
    """Protects: a missing row is a choice that the output states, not an oversight."""
    references = {row["reference"] for row in document["rows"]}
    for name in ("foolbox", "torchattacks"):
        left_out = any(line.startswith(name) for line in document["left_out"])
        assert left_out == (name not in references) == (find_spec(name) is None)


def test_flags_of_pgd_are_those_of_the_plain_loop(document: dict[str, Any]) -> None:
    """fp32 with the same draws, some images robust and some not."""
    (detail,) = [
        d for d in document["details"] if (d["task"], d["reference"]) == ("pgd-20", "plain")
    ]
    assert (detail["flags_equal"], detail["disagree"], detail["n"]) == (True, 0, QUICK.evaluated)


def test_passes_are_counted_as_the_methods_count_them(document: dict[str, Any]) -> None:
    """Protects: the limit. An independent count: what each method says it does per image."""
    bench = Bench("small-resnet", 8, "fp32", QUICK, CPU)
    for task in tasks.TRAINING:
        counted = tasks.training_passes(bench, task)
        passes = sum(n for (kind, _), n in counted.items() if kind != "forward")
        assert passes == 8 * bench.method(task).passes
    (square,) = [
        d for d in document["details"] if (d["task"], d["reference"]) == ("square", "pyautoattack")
    ]
    # of each image: the start and every query at least, beside the library's checks
    assert square["passes"]["forward fp32"] >= QUICK.attacked * QUICK.part_queries


def test_overheads_are_shares(document: dict[str, Any]) -> None:
    parts = {(entry["method"], entry["part"]): entry for entry in document["overheads"]}
    assert {
        ("generalist-d", "mixing"),
        ("ema", "averaging"),
        ("natural", "loading"),
        ("natural", "logging"),
    } <= parts.keys()
    assert all(0 < entry["share"] < 1 for entry in parts.values())
    axes = {entry["axis"] for entry in document["growth"]}
    assert axes == {"batch", "images", "learners", "steps"}


def test_the_limit_takes_the_best_form_of_each_pass() -> None:
    """bf16 may fall back on fp32; fp32 may not take bf16."""

    def form(precision: Any, size: int) -> PassForm:
        return PassForm("forward", precision, size, True, True)

    seconds = {
        PassForm(kind, "fp32", 8, True, False): [0.8] for kind in ("gradient", "training")
    } | {
        form("fp32", 8): [0.4, 9.0, 0.5],
        form("fp32", 4): [0.1],
        form("bf16", 8): [0.08],
    }
    gflop: Any = {"forward": 1.0, "gradient": 2.0, "training": 3.0}
    found = limits(seconds, gflop, {"fp32": 100.0, "bf16": 400.0})
    assert (found["forward", "fp32"].form, found["forward", "fp32"].seconds) == (
        form("fp32", 4),
        0.025,
    )
    assert found["forward", "bf16"].seconds == pytest.approx(0.01)
    assert found["gradient", "bf16"].seconds == pytest.approx(0.1)
    assert found["training", "bf16"].arithmetic == pytest.approx(3 / 400)


def test_ratios_are_of_single_repeats() -> None:
    """Protects: the median of ratios, and references that are sums of ways."""
    document: dict[str, Any] = {"rows": [], "details": []}
    bench = Bench("small-resnet", 8, "fp32", QUICK, CPU)
    passes: Counter[Key] = Counter()
    comparison = tasks.TimedTask("t", "ours", {"both": ("a", "b")}, 8, passes)
    seconds = {"ours": [1.0, 2.0, 4.0], "a": [1.0, 6.0, 1.0], "b": [1.0, 2.0, 3.0]}
    measure._add_rows(document, comparison, bench, seconds, {})
    (row,) = document["rows"]
    assert (row["ours_s"], row["reference_s"], row["ratio"]) == (2.0, 4.0, 2.0)


def test_arithmetic_of_resnet18() -> None:
    """The published 0.56 billion multiplications and additions of the forward pass."""
    model = build_model(ModelConfig(name="resnet18"), num_classes=10, image_size=32)
    gflop = count_gflop(model, torch.rand(2, 3, 32, 32), torch.zeros(2, dtype=torch.long))
    assert gflop["forward"] == pytest.approx(1.11, abs=0.01)
    assert gflop["gradient"] == pytest.approx(2 * gflop["forward"], rel=0.01)
    assert gflop["training"] == pytest.approx(3 * gflop["forward"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "pgd-2"], "unknown task 'pgd-2'; " + did_you_mean("pgd-2", tasks.TASKS)),
        (["--model", "resnet81"], "unknown model 'resnet81'"),
        (["--batch-size", "100000"], "choose --batch-size"),
        (["--device", "tpu"], "unknown device"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], message: str) -> None:
    called = cli("speed", "--quick", *arguments)
    assert called.status == 2
    assert message in called.err


def test_a_table_for_people() -> None:
    called = cli("speed", "--quick", "--task", "natural", "--device", "cpu", "-q")
    assert called.status == 0, called.err
    first = called.out.splitlines()
    assert first[0].startswith("task\tmodel\tours ms")
    assert first[1].startswith("natural\tsmall-resnet\t")
