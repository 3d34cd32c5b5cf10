"""Warnings in training: provoked, silent on healthy runs, said once and recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import tiny, tiny_cell, tiny_data
from torch import Tensor, nn

from baselines.fast_at import FGSMRS
from benchmark.attacks import pgd
from benchmark.config.suite import build_suite
from benchmark.core.objective import METHODS, Step
from benchmark.core.progress import Progress
from benchmark.data import sources
from benchmark.diagnosis.diagnose import diagnose
from benchmark.diagnosis.live import CatastrophicOverfitting, NeverPart, RobustOverfitting
from benchmark.diagnosis.signature import RunHistory, Unjudged
from benchmark.records.schema import read_training
from benchmark.records.study import read_suite
from benchmark.training import loop
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")
RESULTS = Path(__file__).parents[2] / "results"
HEALTHY = ("quick", "cifar10-cpu", "cifar10-cpu-norms")


def history(*scores: tuple[float, ...], epochs: int = 8, **more: Sequence[float]) -> RunHistory:
    """A run of ten classes with 500 validation images: PGD accuracy, and FGSM accuracy if given,
    every so many epochs."""
    lines = []
    for number, values in enumerate(scores):
        line = {"epoch": float(epochs * (number + 1)), "val_clean": 0.5}
        line |= dict(zip(("val_pgd", "val_fgsm"), values, strict=False))
        lines.append(line | {name: values[number] for name, values in more.items()})
    return RunHistory(lines, images=500, classes=10)


@pytest.mark.parametrize(
    ("scores", "found"),
    [
        ([(0.30, 0.40), (0.02, 0.55)], True),
        ([(0.30, 0.40), (0.02, 0.30)], False),  # both fell: the training diverged
        ([(0.30, 0.40), (0.25, 0.55)], False),
        ([(0.08, 0.10), (0.01, 0.15)], False),  # never robust: natural training
        ([(0.02, 0.55), (0.30, 0.40)], False),  # recovered
    ],
)
def test_catastrophic_overfitting(scores: list[tuple[float, ...]], found: bool) -> None:
    evidence = CatastrophicOverfitting().judge(history(*scores))
    assert bool(evidence) == found
    if evidence:
        assert "fell from 30.0 % at epoch 8 to 2.0 % at epoch 16" in evidence
        assert "40.0 % to 55.0 %" in evidence
    if found:  # one failure, one cause
        assert RobustOverfitting().judge(history(*scores)) is None


@pytest.mark.parametrize(
    ("scores", "epochs", "found"),
    [
        ([0.20, 0.24, 0.22, 0.15], 8, True),
        ([0.20, 0.24, 0.22, 0.20], 8, False),  # within noise
        ([0.15, 0.20, 0.22, 0.24], 8, False),
        ([0.12, 0.09, 0.05, 0.02], 8, False),  # never above chance
        ([0.20, 0.24, 0.22, 0.15], 1, False),  # too short to overfit
    ],
)
def test_robust_overfitting(scores: list[float], epochs: int, found: bool) -> None:
    """Without single-step accuracies too, as in early records."""
    evidence = RobustOverfitting().judge(history(*((s,) for s in scores), epochs=epochs))
    assert bool(evidence) == found
    if evidence:
        assert "was 24.0 % at epoch 16 and is 15.0 % at epoch 32, 3.6 standard errors" in evidence


def test_a_training_that_broke_has_not_overfitted() -> None:
    lines = [{"epoch": 8.0 * n, "val_clean": c, "val_pgd": p}
             for n, c, p in ((1, 0.5, 0.3), (2, 0.1, 0.1))]  # fmt: skip
    assert RobustOverfitting().judge(RunHistory(lines, 500, 10)) is None


def test_a_moving_mixture_is_named_as_a_cause() -> None:
    moved = {"mix/natural": [0.0, 0.6], "mix/linf": [1.0, 0.4]}
    evidence = RobustOverfitting().judge(history((0.3,), (0.1,), **moved))
    assert evidence
    assert "natural 0 to 0.6, linf 1 to 0.4" in evidence


@pytest.mark.parametrize(
    ("apart", "found"), [([0.004, 0.002], True), ([0.02, 0.002], False), ([0.0, 0.0], True)]
)
def test_learners_that_never_part(apart: list[float], found: bool) -> None:
    assert bool(NeverPart().judge(history((0.3,), (0.3,), apart=apart))) == found


def test_what_was_not_recorded_is_not_judged() -> None:
    for signature in (CatastrophicOverfitting(), NeverPart()):
        with pytest.raises(Unjudged):
            signature.judge(history((0.3,), (0.1,)))
    with pytest.raises(Unjudged, match="no validation"):
        RobustOverfitting().judge(RunHistory([{"epoch": 1.0}], 500, 10))
    with pytest.raises(Unjudged, match="number of classes"):
        RobustOverfitting().judge(RunHistory(history((0.3,), (0.1,)).lines, 500, 0))


def test_healthy_recorded_runs_raise_no_warning() -> None:
    """53 runs. Single-step accuracies and distances came after these records."""
    cells = [cell for suite in HEALTHY for cell in read_suite(RESULTS / suite).cells]
    assert len(cells) >= 50
    for cell in cells:
        said = diagnose(cell)
        assert not said.found, (cell.path, said.found)
        assert RobustOverfitting.name in said.absent


def test_recorded_robust_overfitting_is_found() -> None:
    """All runs of PGD-AT and Generalist, but neither TRADES nor natural training."""
    found: dict[str, list[bool]] = {}
    for cell in read_suite(RESULTS / "cifar10-cpu-overfit").cells:
        found.setdefault(cell.label, []).append(RobustOverfitting.name in diagnose(cell).found)
    for method in ("pgd-at", "generalist-d", "generalist-d-drift"):
        assert all(found[method])
    assert not any(found["trades"] + found["natural"])


def train(run: Path, cell: Any, data: Any) -> None:
    run.mkdir(exist_ok=True)
    Trainer(cell.config, data, run, device=CPU, progress=Progress(quiet=False)).run()


def warnings_of(run: Path) -> dict[str, Mapping[str, Any]]:
    """As recorded, by name."""
    return {warning["name"]: warning for warning in read_training(run).get("warnings", ())}


def test_a_warning_is_said_once_recorded_and_not_repeated_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PGD accuracy 0.9, then 0.2 three times, and a stop in between."""
    given = iter([0.9, 0.2, 0.2, 0.2])

    def scores(*_: object) -> dict[str, float]:
        robust = next(given)
        return {"val_clean": 0.95, "val_pgd": robust, "val_fgsm": robust}

    monkeypatch.setattr(loop, "validation_scores", scores)
    cell = tiny_cell(train={"epochs": 24, "validations": 4})
    run = tmp_path / "run"
    run.mkdir()
    trainer = Trainer(cell.config, tiny_data(), run, device=CPU, progress=Progress(quiet=False))
    update, calls = trainer.method.update, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise RuntimeError("killed")
        return update(*arguments)

    trainer.method.update = interrupted  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="killed"):
        trainer.run()
    assert capsys.readouterr().err.count("robust overfitting: validation PGD") == 1
    train(run, cell, tiny_data())
    assert "robust overfitting" not in capsys.readouterr().err
    warning = warnings_of(run)["robust overfitting"]
    assert warning["epoch"] == 12
    assert warning["text"].startswith("validation PGD accuracy was 90.0 % at epoch 6")


class PlainFGSM(FGSMRS):
    """One step of eps from the image itself."""

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, step: Step) -> Tensor:
        threat = self.threat.model_copy(update={"step": self.threat.eps, "steps": 1})
        return pgd(model, x, y, threat, start="none")


def test_fgsm_without_random_start_collapses_and_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one of three trainings at least: about four of five collapse, which ones depends on the
    processor's rounding."""
    METHODS.names()
    monkeypatch.setitem(METHODS._items, "plain-fgsm", PlainFGSM)
    suite = tiny(
        dataset={"name": "digits", "limit": 1500},
        model={"name": "small-resnet", "width": 8, "stem_stride": 2},
        threats={"linf": {"norm": "linf", "eps": 0.18, "steps": 5}},
        methods=[{"name": "plain-fgsm", "batchnorm": "eval"}],
        seeds=[0, 1, 2],
        optimizer={"lr": 0.07, "weight_decay": 0},
        schedule=[[0, 0], [0.1, 1], [1, 1]],
        train={"epochs": 40, "batch_size": 64, "validations": 40, "validation_images": 200},
    )
    for cell in build_suite(suite).cells():
        run = tmp_path / cell.slug
        train(run, cell, sources.load(cell.config.dataset, Path("data")))
        if "catastrophic overfitting" in warnings_of(run):
            break
    else:
        pytest.fail("none collapsed")
    assert capsys.readouterr().err.count("catastrophic overfitting: validation PGD") == 1


@pytest.mark.parametrize(
    "changes",
    [
        # redistribution after every step, at the papers' point of training
        {"methods": [{"name": "generalist-d", "every": "0.5%"}],
         "schedule": [[0, 1], [0.33, 1], [1, 0.01]]},
        {"methods": [{"name": "generalist-d", "warmup": 0, "every": "20%"}],
         "optimizer": {"lr": 1e-9}},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:1 steps from one redistribution")
def test_learners_that_never_part_are_warned_of(changes: dict[str, Any], tmp_path: Path) -> None:
    cell = tiny_cell(train={"epochs": 15, "validations": 6}, **changes)
    train(tmp_path / "run", cell, tiny_data())
    warning = warnings_of(tmp_path / "run")["learners that never part"]
    assert "% of the norm of the weights apart" in warning["text"]


def test_learners_that_part_are_not(tmp_path: Path) -> None:
    methods = [{"name": "generalist-d", "warmup": "10%", "every": "20%"}]
    cell = tiny_cell(train={"epochs": 15, "validations": 6}, methods=methods)
    train(tmp_path / "run", cell, tiny_data())
    assert "learners that never part" not in warnings_of(tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert max(line.get("apart", 0.0) for line in lines) > 0.01
