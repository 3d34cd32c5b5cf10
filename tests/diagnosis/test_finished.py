"""``diagnose``: each signature provoked in a run and found, from its records and its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_suites import cli, contents, write_suite

from benchmark.diagnosis.finished import FINISHED, LossBarrier, NoBetterThanLearner, StaleBatchNorm
from benchmark.diagnosis.live import LIVE
from benchmark.diagnosis.signature import RunHistory, Unjudged
from benchmark.records.schema import (
    Barrier,
    NetworkMeasurements,
    PairedAccuracies,
    read_training,
    write_training,
)
from benchmark.records.study import read_suite
from benchmark.report.failures import failure_lines
from benchmark.training import checkpoint

RESULTS = Path(__file__).parents[2] / "results"
HEALTHY = ("quick", "cifar10-cpu", "cifar10-cpu-norms")
NAMES = {signature.name for signature in (*LIVE, *FINISHED)}
NATURAL = {"name": "natural", "objective": "natural"}
LINF = {"name": "linf", "objective": {"name": "pgd-at", "threat": "linf"}}
L1 = {"name": "l1", "objective": {"name": "pgd-at", "threat": "l1"}}
LINF_PGD = {"norm": "linf", "eps": 0.1, "step": 0.05, "steps": 3}
L1_PGD = {"norm": "l1", "eps": 30, "step": 6, "steps": 10}
HANDED_BACK = {"name": "generalist-d", "warmup": 0, "every": "25%"}  # after step 48 of 48

# By the signature that it has: a method that was made to have it.
PROVOKED: dict[str, dict[str, Any]] = {
    # never handed back, from different weights
    "loss barrier between learners": {
        "name": "generalist", "every": 0, "warmup": 0,
        "learners": [NATURAL, {**LINF, "init": 1}], "mixing": {"linf": 0.5},
    },
    # the mixture is the robust learner all along
    "no better than its own robust learner": {
        "name": "generalist", "every": 0, "warmup": 0, "average": {"decay": 0},
        "learners": [NATURAL, LINF], "mixing": {"linf": 1.0},
    },
    # the natural learner takes over
    "collapse to one task": {
        "name": "generalist", "every": 0, "warmup": 0, "average": {"decay": 0.5},
        "learners": [NATURAL, LINF], "mixing": {"linf": [[0, 1], [0.3, 0], [1, 0]]},
    },
    "no transfer between norms": {
        "name": "generalist", "every": 0, "warmup": 0,
        "learners": [LINF, L1], "mixing": {"linf": 1.0},
    },
    # the learning rate jumps up after two fifths
    "instability": {
        "name": "pgd-at", "optimizer": {"lr": 10.0},
        "schedule": [[0, 0.005], [0.4, 0.005], [0.5, 1], [1, 1]],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def provoked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of them, trained and evaluated."""
    folder = tmp_path_factory.mktemp("provoked")
    suite = write_suite(
        folder,
        dataset={"name": "digits", "limit": 400},
        model={"name": "small-resnet", "width": 8, "stem_stride": 2},
        threats={"linf": LINF_PGD, "l1": {"norm": "l1", "eps": 30, "step": 15, "steps": 2}},
        optimizer={"lr": 0.1},
        train={"epochs": 10, "batch_size": 32, "validations": 5, "validation_images": 200},
        methods=[{**method, "label": name.replace(" ", "-")} for name, method in PROVOKED.items()],
        evaluation=[
            {"kind": "clean"},
            {"kind": "pgd", "threat": LINF_PGD},
            {"kind": "pgd", "threat": L1_PGD},
        ],
    )
    called = cli("run", suite, "--out", folder / "out", "-q")
    assert called.status == 0, called.err
    return folder / "out"


@pytest.fixture(scope="module")
def diagnosed(provoked: Path) -> dict[str, dict[str, Any]]:
    """What ``diagnose`` says, by the label of the run."""
    labels = {cell.path.name: cell.label for cell in read_suite(provoked).cells}
    said = cli("diagnose", provoked, "--json", "-q").json()
    return {labels[Path(run["run"]).name]: run for run in said}


@pytest.mark.parametrize("name", PROVOKED)
def test_each_signature_is_found_where_it_was_provoked(
    name: str, diagnosed: dict[str, dict[str, Any]]
) -> None:
    run = diagnosed[name.replace(" ", "-")]
    assert name in run["found"], run
    assert any(letter.isdigit() for letter in run["found"][name]["evidence"])
    assert run["found"][name]["remedy"]
    assert {*run["found"], *run["not_found"], *run["not_judged"]} == NAMES


def test_the_report_shows_the_same(provoked: Path, diagnosed: dict[str, dict[str, Any]]) -> None:
    """Protects: two opinions of one run. What took the weights is in ``diagnosis.json``."""
    lines = failure_lines(read_suite(provoked))
    for label, run in diagnosed.items():
        for name, case in run["found"].items():
            (line,) = (text for text in lines if text.startswith(f"{label}: {name}"))
            assert case["evidence"] in line
            assert case["remedy"] in line


def test_a_run_is_measured_once_and_from_records_when_the_weights_are_gone(
    provoked: Path, tmp_path: Path
) -> None:
    (cell,) = (c for c in read_suite(provoked).cells if c.label == "loss-barrier-between-learners")
    run = tmp_path / "run"
    shutil.copytree(cell.path, run)
    (run / "diagnosis.json").unlink()
    first = cli("diagnose", run, "-q")
    assert first.status == 0, first.err
    assert "loss barrier between learners: between natural and linf" in first.out
    before = contents(run)
    for path in run.glob("checkpoint*"):
        path.unlink()
    assert cli("diagnose", run, "-q").out == first.out
    assert contents(run) == {k: v for k, v in before.items() if not k.startswith("checkpoint")}
    (run / "diagnosis.json").unlink()
    assert "(it needs the weights, but there is no checkpoint)" in cli("diagnose", run, "-q").out


def test_stale_statistics_are_found(provoked: Path, tmp_path: Path) -> None:
    """Statistics of images four times as bright."""
    (cell,) = (c for c in read_suite(provoked).cells if c.label == "collapse-to-one-task")
    run = tmp_path / "run"
    shutil.copytree(cell.path, run)
    (run / "diagnosis.json").unlink()
    state = checkpoint.load(run / "checkpoint.pt")
    for name, value in state["method"]["global"].items():
        if name.endswith("running_var"):
            value.mul_(16)
        if name.endswith("running_mean"):
            value.mul_(4)
    checkpoint.save(run / "checkpoint.pt", state)
    (said,) = cli("diagnose", run, "--json", "-q").json()
    assert "clean accuracy rises from" in said["found"]["stale BatchNorm statistics"]["evidence"]
    (healthy,) = cli("diagnose", cell.path, "--json", "-q").json()
    assert "stale BatchNorm statistics" in healthy["not_found"]


def test_learners_handed_back_at_the_last_step_are_measured_before_it(tmp_path: Path) -> None:
    """Protects: the papers' fractions hand the mixture back at the very end, and then every learner
    is no worse than it."""
    suite = write_suite(tmp_path, methods=[HANDED_BACK], train={"epochs": 12})
    assert cli("run", suite, "--out", tmp_path / "out", "-q").status == 0
    assert cli("diagnose", tmp_path / "out", "-q").status == 0
    (cell,) = read_suite(tmp_path / "out").cells
    assert cell.measured is not None
    assert cell.measured.step == 48
    assert cell.measured.learners_step == 32


def test_a_distilled_student_is_held_against_the_learners(tmp_path: Path) -> None:
    """Protects: a student has no line to its teachers that any mixture would lie on."""
    suite = write_suite(tmp_path, methods=["generalist-distill"], train={"epochs": 4})
    assert cli("run", suite, "--out", tmp_path / "out", "-q").status == 0
    said = cli("diagnose", tmp_path / "out", "-q").out
    assert "loss barrier between learners (no weights of base learners are averaged)" in said
    (cell,) = read_suite(tmp_path / "out").cells
    assert cell.measured is not None
    assert cell.measured.robust in {"natural", "linf"}


def test_a_warning_that_is_over_is_named_as_such(provoked: Path, tmp_path: Path) -> None:
    (cell,) = (c for c in read_suite(provoked).cells if c.label == "instability")
    run = tmp_path / "run"
    shutil.copytree(cell.path, run)
    warning = {"name": "robust overfitting", "epoch": 4.0, "text": "validation PGD accuracy was x"}
    record = read_training(run)
    write_training(run, {**record, "warnings": [warning]})
    said = cli("diagnose", run, "-q").out
    assert "robust overfitting: at epoch 4, no longer at the end: validation PGD accuracy" in said


def test_healthy_recorded_runs_have_no_signature() -> None:
    """53 runs, by the command; from their records, since the weights are gone."""
    said = cli("diagnose", *(RESULTS / suite for suite in HEALTHY), "--json", "-q").json()
    assert len(said) >= 50
    for run in said:
        assert not run["found"], run
        assert {"instability", "robust overfitting"} <= {*run["not_found"]}


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    called = cli("diagnose", tmp_path)
    assert called.status == 2
    assert "holds neither a suite" in called.err


def measured(**changes: Any) -> RunHistory:
    """A run of ten classes, of whose checkpoint these were measured."""
    same = PairedAccuracies(first=0.5, second=0.5, error=0.0)
    values: dict[str, Any] = {
        "step": 10, "images": 500, "classes": 10, "reestimated": {"clean": same, "pgd": same},
        "learners_step": 9, "robust": "linf", "over_robust": {"clean": same, "pgd": same},
        "barriers": [],
    }  # fmt: skip
    return RunHistory(
        [{"mix/a": 0.5}], 500, 10, measured=NetworkMeasurements(**{**values, **changes})
    )


@pytest.mark.parametrize(
    ("gain", "error", "found"), [(0.0, 0.0, True), (0.05, 0.01, False), (0.01, 0.01, True)]
)
def test_a_mixture_must_be_above_its_learner(gain: float, error: float, found: bool) -> None:
    pairs = {
        "clean": PairedAccuracies(first=0.5, second=0.5 + gain, error=error),
        "pgd": PairedAccuracies(first=0.3, second=0.2, error=0.01),
    }
    assert bool(NoBetterThanLearner().judge(measured(over_robust=pairs))) == found


def test_too_few_images_tell_nothing() -> None:
    wide = PairedAccuracies(first=0.5, second=0.51, error=0.02)
    with pytest.raises(Unjudged, match="500 validation images are too few"):
        NoBetterThanLearner().judge(measured(over_robust={"clean": wide, "pgd": wide}))


@pytest.mark.parametrize(
    ("excess", "error", "found"), [(0.3, 0.01, True), (0.1, 0.01, False), (0.3, 0.2, False)]
)
def test_a_barrier_is_high_and_sure(excess: float, error: float, found: bool) -> None:
    """5 % of ln(10) are 0.115 nats."""
    barrier = Barrier(
        first="a", second="b", share=0.5, excess=excess, error=error, accuracy=0.4, ends=[0.5, 0.6]
    )
    assert bool(LossBarrier().judge(measured(barriers=[barrier]))) == found


def test_statistics_are_stale_if_new_ones_help() -> None:
    for second, found in ((0.6, True), (0.52, False), (0.4, False)):
        pair = PairedAccuracies(first=0.5, second=second, error=0.01)
        assert bool(StaleBatchNorm().judge(measured(reestimated={"clean": pair}))) == found


def test_what_the_checkpoint_does_not_show_is_not_judged() -> None:
    with pytest.raises(Unjudged, match="has no BatchNorm"):
        StaleBatchNorm().judge(measured(reestimated={}))
    for signature in (NoBetterThanLearner(), LossBarrier()):
        with pytest.raises(Unjudged, match="all base learners are the same network"):
            signature.judge(measured(learners_step=None))
    with pytest.raises(Unjudged, match="no weights of base learners are averaged"):
        LossBarrier().judge(measured())
