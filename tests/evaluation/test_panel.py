"""The record of an evaluation: what is kept, what is measured again, what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from short_attacks import shorten
from tiny_suites import TINY, contents, tiny, tiny_data
from torch import nn

from benchmark.attacks.journal import Journal
from benchmark.config.suite import build_suite
from benchmark.core.errors import BenchmarkError
from benchmark.data import corruptions
from benchmark.data.dataset import Dataset, Split
from benchmark.evaluation import reliability
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import METRICS, Context, Measured, Metric
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model
from benchmark.records.outcomes import read_outcomes
from benchmark.records.schema import read_evaluation

CPU = torch.device("cpu")
CLEAN, PGD = TINY["evaluation"]
CORRUPTED = {"kind": "corruptions", "n": 6, "severities": [1, 3]}


def panel(*metrics: dict[str, Any]) -> tuple[Metric, ...]:
    return build_suite(tiny(evaluation=list(metrics))).evaluation


def network(seed: int = 0, size: int = 16) -> nn.Module:
    torch.manual_seed(seed)
    config = ModelConfig(name="small-resnet", width=8)
    return build_model(config, num_classes=10, image_size=size, mean=(0.5,) * 3, std=(0.2,) * 3)


@pytest.fixture
def evaluator() -> Evaluator:
    return Evaluator(tiny_data(), CPU, batch_size=25)


@pytest.fixture
def measured(evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the metrics that were measured, in order."""
    names: list[str] = []

    def noted(cls: type[Metric]) -> Any:
        real = cls.measure

        def measure(self: Metric, context: Context) -> Measured:
            names.append(self.name)
            return real(self, context)

        return measure

    for kind in METRICS.names():
        cls = METRICS.get(kind)
        monkeypatch.setattr(cls, "measure", noted(cls))
    return names


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_outcomes_agree_with_the_record(evaluator: Evaluator, tmp_path: Path) -> None:
    model = network().train()
    model.get_submodule("bn1").eval()
    flags = [module.training for module in model.modules()]
    evaluator.evaluate(model, panel(CLEAN, PGD, CORRUPTED), tmp_path)
    assert flags == [module.training for module in model.modules()]

    table, metrics = pd.read_parquet(tmp_path / "outcomes.parquet"), record(tmp_path)["metrics"]
    assert list(metrics) == ["clean", "pgd2_linf", "corruptions"]
    wanted = [f"corruptions/{name}/{level}" for name in corruptions.CORRUPTIONS for level in (1, 3)]
    assert list(table) == ["index", "label", "clean", "pgd2_linf", *wanted]
    assert table["index"].tolist() == list(range(64))
    assert table["label"].tolist() == evaluator.data.test.labels.tolist()
    assert {str(table[name].dtype) for name in table.columns[2:]} == {"boolean"}
    for name, n in (("clean", 64), ("pgd2_linf", 20)):
        entry = metrics[name]
        assert (entry["n"], int(table[name].notna().sum())) == (n, n)
        assert entry["correct"] == int(table[name].sum())
        assert entry["mean"] == pytest.approx(entry["correct"] / n)
    assert metrics["corruptions"]["correct"] is None
    assert metrics["corruptions"]["detail"]["source"] == "generated"
    assert metrics["corruptions"]["mean"] == pytest.approx(table[wanted].mean().mean())
    assert (table[wanted].notna().sum() == 6).all()
    assert metrics["pgd2_linf"]["detail"]["batch_size"] == 25


def test_finished_metrics_are_kept(
    evaluator: Evaluator, measured: list[str], tmp_path: Path
) -> None:
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    before = contents(tmp_path)
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    assert contents(tmp_path) == before
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    assert measured == ["clean", "pgd2_linf"]
    assert record(tmp_path)["metrics"]["clean"] == json.loads(before["evaluation.json"])[
        "metrics"]["clean"]  # fmt: skip


OTHER_STEP = {"norm": "linf", "eps": 0.1, "step": 0.03, "steps": 2}


@pytest.mark.parametrize(
    "change", [{"n": 10}, {"seed": 1}, {"restarts": 2}, {"threat": OTHER_STEP}]
)
def test_a_changed_metric_is_measured_again(
    change: dict[str, Any], evaluator: Evaluator, measured: list[str], tmp_path: Path
) -> None:
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    evaluator.evaluate(network(), panel(CLEAN, {**PGD, **change}), tmp_path)
    assert measured == ["clean", "pgd2_linf", "pgd2_linf"]
    table = pd.read_parquet(tmp_path / "outcomes.parquet")
    assert table["pgd2_linf"].notna().sum() == change.get("n", 20)


def test_other_weights_or_images_are_measured_again(
    evaluator: Evaluator, measured: list[str], tmp_path: Path
) -> None:
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    evaluator.evaluate(network(seed=1), panel(CLEAN), tmp_path)
    assert measured == ["clean", "pgd2_linf", "clean"]
    # nothing of the other weights is left beside the new numbers
    assert list(record(tmp_path)["metrics"]) == ["clean"]
    assert "pgd2_linf" not in pd.read_parquet(tmp_path / "outcomes.parquet")
    Evaluator(tiny_data(50), CPU).evaluate(network(seed=1), panel(CLEAN), tmp_path)
    assert record(tmp_path)["metrics"]["clean"]["n"] == 50


def test_an_interrupted_evaluation_keeps_what_is_finished(
    evaluator: Evaluator, measured: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(METRICS.get("pgd"), "measure", interrupted)
        evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    assert list(record(tmp_path)["metrics"]) == ["clean"]
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    assert measured == ["clean", "pgd2_linf"], "clean is not measured again"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("evaluation.json", b'{"metrics": {"clean"'),
        ("evaluation.json", b"[]"),
        ("evaluation.json", b'{"schema_version": 1, "metrics": {"clean": {"n": 64}}}'),
        ("outcomes.parquet", b"PAR1 nothing"),
        ("outcomes.parquet", b""),
    ],
)
def test_a_damaged_record_is_named_and_left_alone(
    name: str, damage: bytes, evaluator: Evaluator, tmp_path: Path
) -> None:
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    (tmp_path / name).write_bytes(damage)
    before = contents(tmp_path)
    with pytest.raises(BenchmarkError, match=rf"{name} is damaged") as caught:
        evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    assert "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    # the advice of the message helps
    (tmp_path / name).unlink()
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    assert record(tmp_path)["metrics"]["clean"]["n"] == 64


def test_outcomes_that_lack_a_metric_of_the_record_are_damaged(
    evaluator: Evaluator, tmp_path: Path
) -> None:
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    path = tmp_path / "outcomes.parquet"
    pd.read_parquet(path).drop(columns="clean").to_parquet(path)
    with pytest.raises(BenchmarkError, match="no column 'clean'"):
        evaluator.evaluate(network(), panel(CLEAN), tmp_path)


def test_a_network_of_another_form_is_refused(evaluator: Evaluator, tmp_path: Path) -> None:
    wrong = build_model(
        ModelConfig(name="small-resnet", width=8), num_classes=7, image_size=16,
        mean=(0.5,) * 3, std=(0.2,) * 3,
    )  # fmt: skip
    with pytest.raises(BenchmarkError, match=r"\(4, 10\) was expected"):
        evaluator.evaluate(wrong, panel(CLEAN), tmp_path)
    broken = network()
    nn.init.constant_(broken.get_parameter("linear.bias"), torch.nan)
    with pytest.raises(BenchmarkError, match="not finite"):
        evaluator.evaluate(broken, panel(CLEAN), tmp_path)
    assert contents(tmp_path) == {}


def _cifar_like(count: int = 12) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % 10)
    classes = tuple(map(str, range(10)))
    return Dataset("cifar10", split, split, split, classes, "fingerprint", "synthetic")


def _publish(root: Path, labels: np.ndarray) -> None:
    """Sparse CIFAR-10-C files; only the first images of each severity are written."""
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    rows = np.zeros(50_000, dtype=np.uint8)
    for level in range(5):
        rows[level * 10_000 : level * 10_000 + len(labels)] = labels
    np.save(folder / "labels.npy", rows)
    for number, name in enumerate(corruptions.CORRUPTIONS):
        file = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=(50_000, 32, 32, 3)
        )
        file[: len(labels)] = 10 * number


def test_published_corruptions_are_used_if_there(tmp_path: Path) -> None:
    data = _cifar_like()
    _publish(tmp_path, data.test.labels.numpy())
    evaluator = Evaluator(data, CPU, data_root=tmp_path)
    metrics = panel({"kind": "corruptions", "n": 5, "severities": [1]})
    model = network(size=32)
    evaluator.evaluate(model, metrics, tmp_path / "run")
    entry = record(tmp_path / "run")["metrics"]["corruptions"]
    assert entry["detail"]["source"] == "published"
    table = pd.read_parquet(tmp_path / "run" / "outcomes.parquet")
    with torch.no_grad():
        grey = torch.full((1, 3, 32, 32), 30 / 255)  # the fourth corruption is 30 everywhere
        said = int(model.eval()(grey).argmax())
    column = table[f"corruptions/{corruptions.CORRUPTIONS[3]}/1"]
    attacked = column.notna()
    assert attacked.sum() == 5
    assert (column[attacked] == (table["label"][attacked] == said)).all()


def test_published_corruptions_of_another_order_are_refused(tmp_path: Path) -> None:
    data = _cifar_like()
    _publish(tmp_path, data.test.labels.flip(0).numpy())
    evaluator = Evaluator(data, CPU, data_root=tmp_path)
    metrics = panel({"kind": "corruptions", "severities": [1]})
    with pytest.raises(BenchmarkError, match="other labels"):
        evaluator.evaluate(network(size=32), metrics, tmp_path / "run")


def test_kept_corrupted_images_are_bounded(
    evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_copy = 6 * 3 * 16 * 16
    monkeypatch.setattr("benchmark.metrics.corruptions._KEPT_BYTES", 4 * per_copy)
    evaluator.evaluate(network(), panel(CORRUPTED), tmp_path / "a")
    assert sum(key[0] == "corruptions" for key in evaluator.cache) == 4
    evaluator.evaluate(network(), panel(CORRUPTED), tmp_path / "b")
    one, other = (pd.read_parquet(tmp_path / name / "outcomes.parquet") for name in "ab")
    assert one.equals(other)


def test_autoattack_record(evaluator: Evaluator, tmp_path: Path) -> None:
    metric = {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": 0.1, "n": 3}
    evaluator.evaluate(network(), panel(metric), tmp_path)
    entry = record(tmp_path)["metrics"]["aa_linf"]
    column = pd.read_parquet(tmp_path / "outcomes.parquet")["aa_linf"]
    assert (entry["n"], entry["detail"]["eps"], entry["detail"]["version"]) == (
        3, "0.1", "standard"
    )  # fmt: skip
    assert entry["correct"] == int(column.sum())
    assert column.notna().sum() == 3


def test_corruptions_of_streamed_images_are_refused_before_any_work(
    measured: list[str], tmp_path: Path
) -> None:
    data = tiny_data()
    object.__setattr__(data, "test", list(range(4)))  # anything but images in memory
    with pytest.raises(BenchmarkError, match="is streamed"):
        Evaluator(data, CPU).evaluate(network(), panel(CLEAN, CORRUPTED), tmp_path)
    assert measured == []


def test_published_corruptions_found_later_are_measured_anew(
    measured: list[str], tmp_path: Path
) -> None:
    """Protects: one method on generated images and another on published ones, in one mean."""
    data, run = _cifar_like(), tmp_path / "run"
    metrics = panel({"kind": "corruptions", "n": 5, "severities": [1]})
    model = network(size=32)
    Evaluator(data, CPU, data_root=tmp_path).evaluate(model, metrics, run)
    _publish(tmp_path, data.test.labels.numpy())
    Evaluator(data, CPU, data_root=tmp_path).evaluate(model, metrics, run)
    assert measured == ["corruptions", "corruptions"]
    assert record(run)["metrics"]["corruptions"]["detail"]["source"] == "published"


def test_an_interrupted_autoattack_goes_on_and_tidies_up(
    evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": 0.01, "n": 40}
    shorten(monkeypatch, "apgd-ce", "apgd-t")
    named = panel(metric)[0].model_copy(update={"name": "aa_linf@1/255"})  # as evaluate --eps does
    evaluator.evaluate(network(), [named], tmp_path / "named")
    assert not [p for p in (tmp_path / "named").iterdir() if p.is_dir()]
    evaluator.evaluate(network(), panel(metric), tmp_path / "whole")
    number = 0
    write = Journal.write

    def interrupted(self: Journal, *arguments: Any) -> None:
        nonlocal number
        write(self, *arguments)
        number += 1
        if number == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(network(), panel(metric), tmp_path / "cut")
    assert (tmp_path / "cut" / "aa_linf.unfinished").is_dir()
    with pytest.raises(BenchmarkError, match="with other weights"):
        evaluator.evaluate(network(seed=1), panel(metric), tmp_path / "cut")
    evaluator.evaluate(network(), panel(metric), tmp_path / "cut")
    assert [p.name for p in (tmp_path / "cut").iterdir() if p.is_dir()] == []
    one, other = (pd.read_parquet(tmp_path / n / "outcomes.parquet") for n in ("whole", "cut"))
    assert one.equals(other)


def test_reliability_is_checked_once_and_kept(
    evaluator: Evaluator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    real = reliability.check

    def counting(*arguments: Any) -> Any:
        checked.append(1)
        return real(*arguments)

    monkeypatch.setattr(reliability, "check", counting)
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    assert len(checked) == 1
    assert record(tmp_path)["reliability"]["images"] == 64
    noisy = network()
    noisy.register_forward_hook(lambda module, x, out: out + torch.randn_like(out))
    evaluator.evaluate(noisy, panel(CLEAN), tmp_path / "noisy")
    found = record(tmp_path / "noisy")["reliability"]["findings"]
    assert found[0]["name"] == "random"


def test_no_flipped_bit_passes_as_an_outcome(tmp_path: Path, evaluator: Evaluator) -> None:
    """Protects: one flip in seven once gave other outcomes, silently; now each is damage or does not
    touch them."""
    evaluator.evaluate(network(), panel(CLEAN, PGD), tmp_path)
    table = tmp_path / "outcomes.parquet"
    content, record = table.read_bytes(), read_evaluation(tmp_path)["metrics"]
    whole = read_outcomes(table, record)
    refused = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        table.write_bytes(changed)
        try:
            assert read_outcomes(table, record).equals(whole)
        except BenchmarkError:
            refused += 1
    assert refused > len(content) / 7 / 2


def test_a_count_that_is_not_that_of_the_images_is_damage(
    tmp_path: Path, evaluator: Evaluator
) -> None:
    evaluator.evaluate(network(), panel(CLEAN), tmp_path)
    path = tmp_path / "evaluation.json"
    record = json.loads(path.read_text())
    record["metrics"]["clean"]["correct"] += 1
    path.write_text(json.dumps(record))
    with pytest.raises(
        BenchmarkError, match=r"is damaged \(clean is \d+ of 64 by image, \d+ of 64"
    ):
        evaluator.evaluate(network(), panel(CLEAN), tmp_path)
