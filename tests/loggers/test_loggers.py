"""Loggers: what the real libraries keep of a run that was interrupted is what the record says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_suites import Stopped, cli, stop_after, tiny, tiny_cell

from benchmark.commands.run import run_suite
from benchmark.config.suite import build_suite
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.progress import Progress
from benchmark.loggers.logger import LOGGERS, End, LoggedRun, Logger
from benchmark.training.loop import Trainer

CURVES = ("loss/pgd-at", "val_clean", "val_pgd")


def run(out: Path, *log: str, quiet: bool = True) -> None:
    suite = build_suite(tiny())
    run_suite(
        suite, suite, out, data_root=out, device="cpu", progress=Progress(quiet), log=log
    )  # fmt: skip


def interrupted(out: Path, *log: str) -> None:
    """The same, stopped after 7 of 10 steps; the checkpoint is of an earlier one."""
    original = Trainer.run

    def stopped(self: Trainer) -> None:
        stop_after(self, 7)
        original(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Trainer, "run", stopped)
        run(out, *log)


def cell(out: Path) -> Path:
    return out / "cells" / tiny_cell().slug


def curves(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (cell(out) / "metrics.jsonl").read_text().splitlines()]


def points(out: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of one of the curves on record."""
    return [(int(line["step"]), line[name]) for line in curves(out) if name in line]


def means(out: Path) -> dict[str, float]:
    metrics = json.loads((cell(out) / "evaluation.json").read_text())["metrics"]
    return {name: entry["mean"] for name, entry in metrics.items()}


def logged(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cell(out) / "logged.json").read_text())["loggers"][name]
    return found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose only training was interrupted and went on, with every logger that is
    installed."""
    out = tmp_path_factory.mktemp("logged")
    names = [name for name, logger in LOGGERS.items() if find_spec(logger.package)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        for variable in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
            patch.delenv(variable, raising=False)
        interrupted(out, *names)
        run(out, *names)
    return out


@pytest.mark.slow
def test_tensorboard_shows_one_run(out: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is an optional extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(cell(out) / "tensorboard")).Reload()
    for name in CURVES:
        found = [(event.step, event.value) for event in seen.Scalars(name)]
        assert found == [(step, pytest.approx(value)) for step, value in points(out, name)]
    assert seen.Scalars("test/clean")[0].value == pytest.approx(means(out)["clean"])
    (text,) = seen.Tensors("config/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    config = json.loads((cell(out) / "config.json").read_text())["config"]
    assert yaml.safe_load(shown.removeprefix("```yaml\n").removesuffix("```")) == config


def messages(file: Path) -> Iterator[bytes]:
    """The messages in a .wandb file: blocks of 32 KiB of records in LevelDB's log format, behind a
    head of 7 bytes."""
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # all of a message, or its last part
            yield whole
            whole = b""


def offline_runs(out: Path) -> Iterator[dict[str, Any]]:
    """What each folder of an offline run holds: identity, settings, history and summary."""
    from wandb.proto.wandb_internal_pb2 import Record

    def values(items: Any) -> dict[str, Any]:
        return {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}

    for file in sorted(cell(out).glob("wandb/offline-run-*/*.wandb")):
        run: dict[str, Any] = {"history": [], "summary": {}}
        for record in map(Record.FromString, messages(file)):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {"id": record.run.run_id, "project": record.run.project}
                run["config"] = values(record.run.config.update)
            elif kind == "history":
                run["history"].append(values(record.history.item))
            elif kind == "summary":
                run["summary"] |= values(record.summary.update)
        yield run


@pytest.mark.slow
def test_wandb_offline_keeps_one_identity(out: Path) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is an optional extra")
    first, second = offline_runs(out)
    assert first["id"] == second["id"] == logged(out, "wandb")["id"]
    assert (first["project"], second["config"]["seed"]) == ("tiny", 0)
    assert second["config"]["method"]["name"] == "pgd-at"
    history = first["history"] + second["history"]
    for name in CURVES:
        found = [(line["step"], line[name]) for line in history if name in line]
        assert found == points(out, name)
    assert second["summary"]["test/clean"] == means(out)["clean"]
    assert second["summary"]["test-n/pgd2_linf"] == 20


@pytest.mark.slow
def test_mlflow_goes_on_in_the_same_run(out: Path) -> None:
    """In the SQLite file of the study, since no server is named."""
    mlflow = pytest.importorskip("mlflow", reason="MLflow is an optional extra")
    client = mlflow.MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    number = logged(out, "mlflow")["id"]
    (found,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert (found.info.run_id, found.info.status) == (number, "FINISHED")
    assert found.info.run_name == tiny_cell().slug
    assert found.data.params["dataset.name"] == "digits"
    assert float(found.data.params["method.recipe.learner.optimizer.lr"]) == 0.05
    for name in CURVES:
        history = client.get_metric_history(number, name)
        assert [(m.step, m.value) for m in history] == points(out, name)
    assert found.data.metrics["test/clean"] == means(out)["clean"]
    assert found.data.metrics["test-n/pgd2_linf"] == 20


class Fake(Logger):
    """Keeps what it is told in ``told``, and fails when ``fails`` says so."""

    package, install = "json", "nothing"
    told: list[tuple[Any, ...]]
    fails: str = ""

    def __init__(self, run: LoggedRun) -> None:
        self._do("open", run.id)
        self.id, self.place = "fake-1", "nowhere"

    def line(self, step: int, values: Mapping[str, float]) -> None:
        self._do("line", step)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._do("figures", values["test/clean"])

    def close(self, end: End) -> None:
        self._do("close", end)

    def _do(self, *told: Any) -> None:
        if told[0] == self.fails:
            raise ConnectionError("the server is gone")
        self.told.append(told)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    Fake.told, Fake.fails = [], ""
    with LOGGERS.lent("fake", Fake):
        yield Fake


def test_a_logger_that_fails_costs_no_work(tmp_path: Path, fake: type[Fake]) -> None:
    """It is said aloud, and the same command sends the rest later, once."""
    fake.fails = "open"
    with pytest.raises(BenchmarkError, match="--log fake cannot begin: ConnectionError"):
        run(tmp_path, "fake")
    assert not (cell(tmp_path) / "metrics.jsonl").exists()  # before any work

    fake.fails = "line"
    with pytest.warns(UserWarning, match=r"server is gone.*run the same command again"):
        run(tmp_path, "fake")
    assert means(tmp_path).keys() == {"clean", "pgd2_linf"}
    assert fake.told == [("open", None), ("close", "failed")]

    fake.fails, fake.told[:] = "", []
    run(tmp_path, "fake")
    steps = [("line", line["step"]) for line in curves(tmp_path)]
    assert fake.told == [
        ("open", "fake-1"), *steps, ("figures", means(tmp_path)["clean"]), ("close", "finished")
    ]  # fmt: skip

    fake.told[:] = []
    run(tmp_path, "fake")
    assert fake.told == []  # nothing is new


def test_a_run_made_without_loggers_is_logged_from_its_record(
    tmp_path: Path, fake: type[Fake]
) -> None:
    interrupted(tmp_path)
    run(tmp_path, "fake")
    steps = [line["step"] for line in curves(tmp_path)]
    assert [step for what, step in fake.told if what == "line"] == steps


def test_what_cannot_be_logged_to_is_said_before_any_work(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fake, "package", "no_such_package")
    monkeypatch.setattr(fake, "install", "generalist-bench[fake]")
    said = cli("train", "--log", "fake").err
    assert said == (
        "error: --log fake needs the no_such_package package: pip install "
        "'generalist-bench[fake]'\n"
    )  # fmt: skip
    assert "did you mean 'wandb'?" in cli("run", "quick", "--log", "wandbd").err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError, match="unknown logger"):
        run(tmp_path, "nothing")


def test_the_logger_on_the_page(tmp_path: Path) -> None:
    """The example of docs/loggers.md does what its page says."""
    page = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text()
    (code,) = re.findall(r'```python title="line_logger.py"\n(.*?)```', page, re.DOTALL)
    module: dict[str, Any] = {"__name__": "line_logger"}
    exec(compile(code, "line_logger.py", "exec"), module)
    run = LoggedRun(
        name="pgd-at-s0-1", method="pgd-at", suite="quick", folder=tmp_path / "cells" / "x",
        study=tmp_path, config={}, id=None, quiet=True,
    )  # fmt: skip
    logger = module["LineLogger"](run)
    logger.line(3, {"loss/pgd-at": 2.5})
    logger.figures(9, {"test/clean": 0.5})
    logger.close("finished")
    assert Path(logger.place).read_text().splitlines() == [
        "pgd-at-s0-1 step 3: loss 2.5", "pgd-at-s0-1 clean 0.5", "pgd-at-s0-1 finished"
    ]  # fmt: skip
