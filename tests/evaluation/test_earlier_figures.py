"""What a figure was measured on, and what becomes of figures that others take the place of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_suites import TINY, tiny, tiny_data
from torch import Tensor, nn

from benchmark.config.suite import build_suite
from benchmark.core.errors import BenchmarkError
from benchmark.data.dataset import Dataset, FileNames, Split, StreamedSplit
from benchmark.evaluation import identity
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import METRICS, Context, Measured, Metric
from benchmark.records import earlier
from benchmark.records.files import RunFiles

CPU = torch.device("cpu")
CLEAN, PGD = TINY["evaluation"]
UNION = {"kind": "union", "of": ["clean", "pgd2_linf"]}


class Net(nn.Module):
    """Linear; ``scale`` is code, not weights."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(768, 10)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((x * self.scale).flatten(1))


def panel(*metrics: dict[str, Any]) -> tuple[Metric, ...]:
    return build_suite(tiny(evaluation=list(metrics))).evaluation


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def figures(run: Path) -> dict[str, Any]:
    return {name: (e["n"], e["correct"]) for name, e in record(run)["metrics"].items()}


def kept(run: Path) -> dict[str, Any]:
    return {k["name"]: (k["entry"]["n"], k["entry"]["correct"]) for k in earlier.listed(run)}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
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


def evaluate(
    run: Path, model: nn.Module, *metrics: dict[str, Any], limit: int = 64, **more: Any
) -> None:
    Evaluator(tiny_data(limit), CPU).evaluate(model, panel(*metrics), run, **more)


def test_changed_images_erase_nothing(tmp_path: Path, measured: list[str]) -> None:
    """Protects: one evaluation on other images once deleted every earlier figure of a run."""
    evaluate(tmp_path, Net(), CLEAN, PGD)
    before, table = figures(tmp_path), pd.read_parquet(tmp_path / "outcomes.parquet")
    evaluate(tmp_path, Net(), CLEAN, limit=50)
    assert figures(tmp_path).keys() == {"clean"}
    assert figures(tmp_path)["clean"][0] == 50
    assert kept(tmp_path) == before
    (old,) = {k["dataset"]["images_hash"] for k in earlier.listed(tmp_path)}
    assert old != record(tmp_path)["dataset"]["images_hash"]
    # The old images again: nothing is measured, and every outcome is back.
    del measured[:]
    evaluate(tmp_path, Net(), CLEAN, PGD)
    assert measured == []
    assert figures(tmp_path) == before
    assert pd.read_parquet(tmp_path / "outcomes.parquet").equals(table)
    assert kept(tmp_path)["clean"][0] in (50, 64)


def test_changed_settings_erase_nothing(tmp_path: Path, measured: list[str]) -> None:
    """Protects: days of AutoAttack on all images, replaced by a look at ten."""
    evaluate(tmp_path, Net(), CLEAN, PGD, UNION)
    before = figures(tmp_path)
    evaluate(tmp_path, Net(), CLEAN, {**PGD, "n": 10}, UNION)
    assert figures(tmp_path)["pgd2_linf"][0] == figures(tmp_path)["union"][0] == 10
    assert kept(tmp_path) == {name: before[name] for name in ("pgd2_linf", "union")}
    del measured[:]
    evaluate(tmp_path, Net(), CLEAN, PGD, UNION)
    assert measured == []
    assert figures(tmp_path) == before


def test_another_function_of_the_same_weights_is_measured(
    tmp_path: Path, measured: list[str]
) -> None:
    """Protects: a corrected normalisation in the code, answered by the figures of the wrong one."""
    evaluate(tmp_path, Net(), CLEAN)
    evaluate(tmp_path, Net(scale=1.01), CLEAN)
    entry = record(tmp_path)["metrics"]["clean"]
    (old,) = earlier.listed(tmp_path)
    assert measured == ["clean", "clean"]
    assert old["entry"]["model"] == entry["model"]
    assert old["entry"]["function"] != entry["function"]
    # Undone, the first figure is back; and rounding is no other function.
    evaluate(tmp_path, Net(), CLEAN)
    evaluate(tmp_path, Net(scale=1 + 1e-7), CLEAN)
    assert measured == ["clean", "clean"]
    assert record(tmp_path)["metrics"]["clean"] == old["entry"]


class Hidden(Net):
    """The same logits, and a gradient of a tenth."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(0.1 * x + 0.9 * x.detach())


class Branch(Net):
    """The same on any batch of a probe's size."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if len(x) < 20 else -1)


@pytest.mark.parametrize("other", [Hidden, Branch])
def test_what_logits_do_not_tell(other: type[Net]) -> None:
    """Protects: a gradient that changed, and code that no probe reaches."""
    one, two = (identity.probe(net, 16, CPU) for net in (Net(), other()))
    assert one["weights"] == two["weights"]
    assert one["logits"] == pytest.approx(two["logits"], rel=1e-5)
    assert not identity.same_function(one, two)
    assert identity.same_function(one, identity.probe(Net(), 16, CPU))


def test_a_probe_leaves_everything_as_it_was() -> None:
    """Protects: statistics, modes and the global generator, whatever the network does."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(768), nn.Dropout(), nn.Linear(768, 10))
    net.register_forward_hook(lambda module, x, out: out + torch.randn_like(out))
    net.get_submodule("1").eval = lambda: net  # type: ignore[method-assign]  # stays in train mode
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, two = (identity.probe(net, 16, CPU) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert identity.same_function(one, two), "noise of torch's generators is seeded"


def test_unfinished_work_of_another_function_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": 0.1, "n": 3}

    def interrupted(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("benchmark.metrics.in_ball.run_autoattack", interrupted)
        evaluate(tmp_path, Net(), attack)
    with pytest.raises(BenchmarkError, match="network with other weights or code"):
        evaluate(tmp_path, Net(scale=2), attack)


def test_a_damaged_earlier_figure_is_measured(tmp_path: Path, measured: list[str]) -> None:
    evaluate(tmp_path, Net(), CLEAN, PGD)
    evaluate(tmp_path, Net(), CLEAN, {**PGD, "n": 10})
    (path,) = RunFiles(tmp_path).earlier.glob("*.json")
    content = json.loads(path.read_text())
    content["entry"]["correct"] += 1
    path.write_text(json.dumps(content))
    del measured[:]
    evaluate(tmp_path, Net(), CLEAN, PGD)
    assert measured == ["pgd2_linf"]


def data_of(test: Any, fingerprint: str = "f") -> Dataset:
    return Dataset("folder", test, test, test, ("a", "b"), fingerprint, "made up")


def test_images_are_told_by_their_pixels() -> None:
    images = torch.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8).to(torch.uint8)
    labels = torch.tensor([0, 1])
    base = identity.images_hash(data_of(Split(images, labels)))
    changed = images.clone()
    changed[1, 2, 7, 7] += 1
    assert base == identity.images_hash(data_of(Split(images.clone(), labels), "other training"))
    assert base != identity.images_hash(data_of(Split(changed, labels)))
    assert base != identity.images_hash(data_of(Split(images, labels.flip(0))))
    assert base != identity.images_hash(data_of(Split(images[..., :4, :4], labels)))


def test_streamed_images_are_told_by_size_and_pixels(tmp_path: Path) -> None:
    """Protects: another size, or bytes of equal length under the same name."""

    def hashed(size: int, grey: int) -> str:
        array = np.full((40, 40, 3), grey, dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "a.bmp")
        split = StreamedSplit(tmp_path, FileNames(["a.bmp"]), torch.tensor([0]), size)
        return identity.images_hash(data_of(split))

    assert hashed(32, 9) == hashed(32, 9)
    assert len({hashed(32, 9), hashed(24, 9), hashed(32, 10)}) == 3


def test_corrupted_images_are_told_by_their_pixels(
    tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protects: a corruption whose code was corrected, answered by the old figure."""
    metric = {"kind": "corruptions", "n": 4, "severities": [1]}
    monkeypatch.setattr(
        "benchmark.data.corruptions.corrupt",
        lambda images, *how: images,  # the code before
    )
    evaluate(tmp_path, Net(), metric)
    evaluate(tmp_path, Net(), metric)
    monkeypatch.setattr("benchmark.data.corruptions.corrupt", lambda images, *how: 255 - images)
    evaluate(tmp_path, Net(), metric)
    assert measured == ["corruptions", "corruptions"]
