"""The runner: finished work is never repeated, and the plan says what belongs together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import cli, contents, tiny, tiny_data, write_suite
from torch import nn

from benchmark.commands.plan import count_flop, plan
from benchmark.commands.run import locked, pick_device, read_cell_config, run_suite
from benchmark.config.suite import SuiteConfig, build_suite
from benchmark.core.errors import BenchmarkError, CheckpointError, ConfigError, RunLockedError
from benchmark.core.progress import Progress
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model
from benchmark.records.study import read_suite
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")
SHORT = {"epochs": 1, "validations": 1}


def suite(**changes: Any) -> SuiteConfig:
    return build_suite(tiny(train=SHORT, **changes))


def run(chosen: SuiteConfig, out: Path, full: SuiteConfig | None = None, **more: Any) -> None:
    run_suite(
        chosen,
        full or chosen,
        out,
        data_root=out,
        device=CPU,
        progress=Progress(quiet=True),
        **more,
    )


def planned(out: Path) -> list[str]:
    return [item["slug"] for item in json.loads((out / "suite.json").read_text())["plan"]]


def slugs(chosen: SuiteConfig) -> list[str]:
    return [cell.slug for cell in chosen.cells()]


def test_a_finished_cell_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(suite(), tmp_path)
    (cell,) = (tmp_path / "cells").iterdir()
    before = {
        path: (os.stat(path).st_ino, os.stat(path).st_mtime_ns)
        for path in cell.iterdir()
        if path.name != ".lock"
    }

    def never(self: Trainer) -> None:
        raise AssertionError("a finished cell is trained again")

    monkeypatch.setattr(Trainer, "run", never)
    run(suite(), tmp_path)
    assert before == {path: (os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in before}


def test_a_changed_configuration_is_another_directory(tmp_path: Path) -> None:
    run(suite(), tmp_path, evaluate=False)
    first = contents(tmp_path / "cells")
    changed = suite(optimizer={"lr": 0.02})
    run(changed, tmp_path, evaluate=False)
    after = contents(tmp_path / "cells")
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert {name: after[name] for name in first} == first
    # one table never mixes two recipes; the older record stays on disk
    assert planned(tmp_path) == slugs(changed)


def test_later_calls_add_to_the_plan(tmp_path: Path) -> None:
    """Protects: seeds and methods beyond those of the file, which the plan once forgot."""
    full = suite(methods=["natural", "pgd-at"])
    for methods, seeds in ((["pgd-at"], [0]), (["natural"], [5]), (["joint"], [7]), ([], [0])):
        run(full.only(methods, seeds), tmp_path, full, evaluate=False)
    written = json.loads((tmp_path / "suite.json").read_text())
    assert [(item["label"], item["seed"]) for item in written["plan"]] == [
        ("natural", 0), ("pgd-at", 0), ("natural", 5), ("joint", 7)
    ]  # fmt: skip
    assert written["methods"] == ["natural", "pgd-at", "joint"]
    assert written["seeds"] == [0, 5, 7]


def test_a_missing_cell_is_shown_as_missing(tmp_path: Path) -> None:
    full = suite(methods=["natural", "pgd-at"])
    run(full.only(["natural"], []), tmp_path, full)
    with pytest.MonkeyPatch.context() as patch:

        def diverged(self: Trainer) -> None:
            raise BenchmarkError("diverged")

        patch.setattr(Trainer, "run", diverged)
        with pytest.raises(BenchmarkError, match="diverged"):
            run(full, tmp_path)
    record = read_suite(tmp_path)
    assert [(cell.label, cell.status) for cell in record.cells] == [
        ("natural", "evaluated"), ("pgd-at", "training")
    ]  # fmt: skip
    assert cli("report", tmp_path).status == 0
    table = (tmp_path / "report" / "table.md").read_text()
    assert "pgd-at" in table
    assert "missing" in table.lower()


def test_dry_run_agrees_with_what_training_records(tmp_path: Path) -> None:
    methods = ["natural", "trades", "weight-interpolation", "generalist-t"]
    chosen = suite(methods=methods)
    data = tiny_data()
    rows = plan(chosen, data, tmp_path / "out", CPU, chosen.evaluation)
    assert not (tmp_path / "out").exists()
    assert {row["state"] for row in rows} == {"new"}
    run(chosen, tmp_path / "out", evaluate=False)
    for row in rows:
        done = json.loads((tmp_path / "out" / "cells" / row["cell"] / "training.json").read_text())
        for key in ("steps", "gradient_passes", "passes_per_image"):
            assert row[key] == done[key], (row["cell"], key)
        assert row["train_seconds"] > 0
    again = plan(chosen, data, tmp_path / "out", CPU, chosen.evaluation)
    assert {(row["state"], row["train_seconds"]) for row in again} == {("trained", 0.0)}
    assert all(row["evaluation_seconds_at_most"] > 0 for row in again)
    run(chosen.only(["natural"], []), tmp_path / "out", chosen)
    natural = plan(chosen, data, tmp_path / "out", CPU, chosen.evaluation)[0]
    assert (natural["state"], natural["evaluation_seconds_at_most"]) == ("evaluated", 0)


def test_an_edited_configuration_is_refused(tmp_path: Path) -> None:
    run(suite(), tmp_path)
    (cell,) = (tmp_path / "cells").iterdir()
    path = cell / "config.json"
    original = path.read_text()
    edited = json.loads(original)
    edited["config"]["train"]["batch_size"] = 21
    for text, reason in (
        (json.dumps(edited), "does not have the hash"),
        (original[:50], "damaged"),
        ('{"schema_version": 1, "hash": "x", "config": 3}', "damaged"),
        ("[]", "damaged"),
    ):
        path.write_text(text)
        for call in (lambda: read_cell_config(cell), lambda: run(suite(), tmp_path)):
            with pytest.raises(BenchmarkError, match=reason):
                call()
    path.write_text(original)
    run(suite(), tmp_path)


def test_a_folder_of_another_suite_is_refused(tmp_path: Path) -> None:
    run(suite(), tmp_path, evaluate=False)
    before = contents(tmp_path)
    with pytest.raises(BenchmarkError, match="holds the suite 'tiny', not 'other'"):
        run(suite(name="other", seeds=[9]), tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1, "plan": []}'])
def test_a_damaged_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"suite\.json is damaged"):
        run(suite(), tmp_path)
    assert not list(tmp_path.rglob("config.json"))


def test_impossible_trainings_write_nothing(tmp_path: Path) -> None:
    for train in ({"epochs": 0.01}, {"batch_size": 500}):
        dataset = {"name": "digits", "train_limit": 64}
        chosen = build_suite(tiny(train=train, dataset=dataset))
        with pytest.raises(ConfigError, match=r"train\."):
            run(chosen, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    with (
        locked([tmp_path / "a", tmp_path / "b"]),
        pytest.raises(RunLockedError, match="another process"),
        locked([tmp_path / "c", tmp_path / "b"]),
    ):
        pass
    with locked([tmp_path / "a", tmp_path / "b", tmp_path / "c"]):
        pass


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    for name in ("gpu", "mps", "meta", ""):
        with pytest.raises(ConfigError, match="unknown device"):
            pick_device(name)
    with pytest.raises(ConfigError, match="CUDA devices"):
        pick_device(f"cuda:{torch.cuda.device_count()}")


def test_limits_are_printed_in_the_tables(tmp_path: Path) -> None:
    path = write_suite(tmp_path, train=SHORT, dataset={"name": "digits"})
    called = cli("run", path, "--limit", 50, "--out", tmp_path / "out")
    assert called.status == 0, called.err
    assert "50 train, 50 validation, 50 test images" in called.err
    assert "limit = 50" in called.out
    for name in ("table.md", "table.tex", "report.md"):
        assert "50" in (tmp_path / "out" / "report" / name).read_text()
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    assert json.loads((cell / "evaluation.json").read_text())["metrics"]["clean"]["n"] == 50


def test_a_table_never_mixes_two_attacks(tmp_path: Path) -> None:
    """Protects: one method measured at eps 0.1 and another at 0.02 once shared a column."""
    methods = ["natural", "pgd-at"]
    run(suite(methods=methods), tmp_path)
    panel = tiny()["evaluation"]
    panel[1]["threat"] = {"norm": "linf", "eps": 0.02, "step": 0.01, "steps": 2}
    weaker = suite(methods=methods, evaluation=panel)
    states = [row["state"] for row in plan(weaker, tiny_data(), tmp_path, CPU, weaker.evaluation)]
    assert states == ["trained", "trained"]
    run(weaker.only(["pgd-at"], []), tmp_path, weaker)
    record = read_suite(tmp_path)
    assert record.stale == ("pgd2_linf of natural seed 0",)
    assert [c.accuracy("pgd2_linf") is None for c in record.cells] == [True, False]
    assert cli("report", tmp_path).status == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "under other settings" in text
    run(weaker, tmp_path)
    assert read_suite(tmp_path).stale == ()


def test_other_images_under_the_same_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a replaced data file was once trained on from the middle, without a word."""
    run(suite(), tmp_path, evaluate=False)
    other = tiny_data(64)
    object.__setattr__(other, "fingerprint", "another")
    monkeypatch.setattr("benchmark.commands.run.sources.load", lambda *_: other)
    with pytest.raises(CheckpointError, match="made with other images"):
        run(suite(), tmp_path)
    (cell,) = (tmp_path / "cells").iterdir()
    (cell / "training.json").unlink()
    with pytest.raises(CheckpointError, match="made with other images"):
        run(suite(), tmp_path)


def test_a_diverged_cell_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = {"name": "natural", "label": "hot", "optimizer": {"lr": 1e30}}
    path = write_suite(tmp_path, train={"epochs": 2}, methods=[bad, "natural"])
    called = cli("run", path, "--out", tmp_path / "out")
    assert called.status == 2
    assert "1 of 2 cells diverged" in called.err.splitlines()[-1]
    table = (tmp_path / "out" / "report" / "table.md").read_text()
    assert "Missing 1 of 2 cells: hot seed 0" in table


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """In training, between training and evaluation, and beside the plan."""
    chosen = suite()
    cell = tmp_path / "cells" / chosen.cells()[0].slug
    left = [cell / ".checkpoint.part-x1.pt", cell / ".outcomes.part-x2.parquet"]
    left.append(tmp_path / ".suite.part-x3.json")
    cell.mkdir(parents=True)
    for evaluate in (False, True, True):
        for path in left:
            path.write_bytes(b"half")
        run(chosen, tmp_path, evaluate=evaluate)
        assert [path for path in left if path.exists()] == []


def test_where_the_data_came_from_does_not_change_the_cell() -> None:
    """Protects: --set dataset.download=true, once, must not train everything again."""
    dataset = {"name": "cifar10"}
    slugs_of = [
        build_suite(tiny(dataset={**dataset, **extra})).cells()[0].slug
        for extra in ({}, {"download": True}, {"test_limit": 50})
    ]
    assert len(set(slugs_of)) == 1


def test_curves_have_a_line_for_every_epoch(tmp_path: Path) -> None:
    chosen = build_suite(tiny(train={"epochs": 5, "validations": 2}))
    run(chosen, tmp_path, evaluate=False)
    (cell,) = (tmp_path / "cells").iterdir()
    lines = [json.loads(line) for line in (cell / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 2.5, 3, 4, 5]
    assert [line["epoch"] for line in lines if "val_clean" in line] == [2.5, 5]
    assert all(line["loss/pgd-at"] > 0 for line in lines)


def test_operations_of_a_pass_are_those_of_its_convolutions() -> None:
    """Counted here from shapes: one forward pass, as much for the gradient with respect to the
    input, and as much again for that of the weights; training needs no gradient of the images."""
    model = build_model(ModelConfig(name="resnet18"), num_classes=10, image_size=32)
    forward: list[int] = []

    def hook(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        forward.append(2 * output[0].numel() * module.weight[0].numel())  # type: ignore[index]

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(hook)
    model(torch.zeros(1, 3, 32, 32))
    once = sum(forward)
    assert 1.11e9 < once < 1.12e9  # 0.56 G multiplications and additions, as commonly quoted
    for module in model.modules():
        module._forward_hooks.clear()
    assert count_flop(model.to("meta"), 32) == (2 * once, 3 * once - forward[0])


def test_an_assumed_throughput_needs_no_data(tmp_path: Path) -> None:
    options = ("--dry-run", "--json", "--data-root", tmp_path, "--out", tmp_path / "out")
    command = ("run", "cifar10-resnet18", "--method", "pgd-at", "--seed", 0, *options)
    slow, fast = (cli(*command, "--tflops", tflops).json() for tflops in (10, 20))
    for key in ("train_seconds", "evaluation_seconds_at_most"):
        assert slow[key] == pytest.approx(2 * fast[key])
    (cell,) = slow["cells"]
    assert cell["gradient_passes"] == 49_000 * 120 * 11  # 1,000 are held out; PGD-10 and a step
    assert not (tmp_path / "out").exists()
    refused = cli(*(word for word in command if word != "--dry-run"), "--tflops", 10)
    assert refused.status == 2
    assert "add --dry-run" in refused.err


def test_a_card_by_its_name(tmp_path: Path) -> None:
    """Training in the suite's precision, evaluation in fp32; a card without bf16 takes it as fp32."""
    options = ("--dry-run", "--json", "--data-root", tmp_path, "--out", tmp_path / "out")
    command = ("run", "cifar10-resnet18-hour", "--method", "pgd-at", *options)
    known = cli(*command, "--tflops", 10).json()
    for name, training, evaluation in (("a100", 62.4, 9.75), ("T4", 4.05, 4.05)):
        plan = cli(*command, "--device-name", name).json()
        assert plan["train_seconds"] * training == pytest.approx(known["train_seconds"] * 10)
        wanted = known["evaluation_seconds_at_most"] * 10
        assert plan["evaluation_seconds_at_most"] * evaluation == pytest.approx(wanted)
        assert plan["assumed"]["name"] == name.lower()
    assert "did you mean 'a100'" in cli(*command, "--device-name", "a1000").err
    assert "remove one" in cli(*command, "--device-name", "a100", "--tflops", 1).err
    assert "add --dry-run" in cli("run", "quick", "--device-name", "a100").err
