"""Trained weights that learners begin with and methods learn from: found, checked and recorded before
anything is trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_suites import (
    Called,
    Stopped,
    assert_same_result,
    cli,
    stop_after,
    tiny,
    tiny_data,
    write_suite,
)

from benchmark.commands.run import cell_record, read_cell_config, run_suite
from benchmark.config.suite import SuiteConfig, build_suite
from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.progress import Progress
from benchmark.records.schema import write_configuration
from benchmark.training.loop import Trainer

CPU = torch.device("cpu")
TEACHERS = ["natural", "pgd-at"]
STUDENTS = ["kd-swa", "mtard", "mixednuts"]
SHORT = {"epochs": 1, "validations": 1}


def suite(*methods: Any, **changes: Any) -> SuiteConfig:
    return build_suite(tiny(methods=list(methods), train=SHORT, **changes))


def run(chosen: SuiteConfig, out: Path) -> Path:
    """Train the cells of ``chosen``; the folder of its last run."""
    quiet = Progress(quiet=True)
    run_suite(
        chosen, chosen, out, data_root=out, device=CPU, progress=quiet, evaluate=False
    )  # fmt: skip
    return out / "cells" / chosen.cells()[-1].slug


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return run(suite("natural"), tmp_path_factory.mktemp("trained"))


def trainer(chosen: SuiteConfig, out: Path) -> Trainer:
    directory = out / "cells" / chosen.cells()[-1].slug
    directory.mkdir(parents=True, exist_ok=True)
    return Trainer(chosen.cells()[-1].config, tiny_data(), directory, device=CPU)


@pytest.mark.parametrize(
    "method",
    ["pgd-at", "e-at", "generalist-d", {"name": "ema", "objective": "trades"}, "rebat", "ramp"],
)
@pytest.mark.parametrize("form", ["run", "file", "wrapped"])
def test_every_learner_begins_there(method: Any, form: str, trained: Path, tmp_path: Path) -> None:
    """From a run's folder, its file, or one of another program; averages and global learner too."""
    state = torch.load(trained / "deployed.pt", weights_only=True)
    given: Any = {"run": str(trained), "file": str(trained / "deployed.pt")}.get(form)
    if form == "wrapped":
        wrapped = {f"module.{name}": value for name, value in state.items()}
        torch.save({"net": wrapped, "other": {"epoch": torch.ones(1)}}, tmp_path / "w.pt")
        given = {"path": str(tmp_path / "w.pt"), "key": "net"}
    entry = {"name": method} if isinstance(method, str) else method
    built = trainer(suite({**entry, "init_from": given}), tmp_path).method
    networks = [learner.model for learner in built.learners.values()]
    networks += [getattr(built, n) for n in ("average", "global_learner") if hasattr(built, n)]
    for network in networks:
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_a_learner_may_begin_elsewhere(trained: Path, tmp_path: Path) -> None:
    """Of two learners one from trained weights, one from its seed; the same by --set."""
    learners = [
        {"name": "natural", "objective": "natural", "init_from": str(trained)},
        {"name": "linf", "objective": "pgd-at"},
    ]
    one = suite({"name": "output-ensemble", "learners": learners})
    natural, linf = trainer(one, tmp_path).method.learners.values()
    fresh = next(iter(trainer(suite("pgd-at"), tmp_path).method.learners.values()))
    for name, value in torch.load(trained / "deployed.pt", weights_only=True).items():
        assert torch.equal(natural.model.state_dict()[name], value)
        assert torch.equal(linf.model.state_dict()[name], fresh.model.state_dict()[name])
    option = f"methods=[{{name: output-ensemble, learners: {json.dumps(learners)}}}]"
    assert build_suite(tiny(train=SHORT), [option]).cells()[0].slug == one.cells()[0].slug


def test_identity_follows_the_content_and_not_the_place(trained: Path, tmp_path: Path) -> None:
    """Recorded by hash, read back as it was, and found again when the file is gone."""
    copied = tmp_path / "copy.pt"
    copied.write_bytes((trained / "deployed.pt").read_bytes())
    first, second, plain = (
        suite({"name": "pgd-at", **start}).cells()[0]
        for start in ({"init_from": str(trained)}, {"init_from": str(copied)}, {})
    )
    assert first.slug == second.slug != plain.slug
    begun = run(suite({"name": "pgd-at", "init_from": str(copied)}), tmp_path)
    digest = sha256(copied)
    record = json.loads((begun / "config.json").read_text())["config"]["method"]["recipe"]
    assert record["learner"]["init_from"] == {"sha256": digest}
    assert json.loads((begun / "training.json").read_text())["trained"] == {str(copied): digest}
    torch.save({"weight": torch.ones(2)}, copied)
    assert suite({"name": "pgd-at", "init_from": str(copied)}).cells()[0].slug != first.slug
    copied.unlink()
    assert read_cell_config(begun)[1].hash == second.config.hash
    assert cli("evaluate", begun, "--metric", "clean").status == 0


def broken(what: str, trained: Path, folder: Path) -> tuple[Any, dict[str, Any]]:
    """What a user may have got wrong: the weights named, and changes of the suite."""
    run_copy, changes = folder / "run", {}
    run_copy.mkdir()
    for name in ("config.json", "training.json", "deployed.pt", "deployed.pt.sha256"):
        (run_copy / name).write_bytes((trained / name).read_bytes())
    state = torch.load(trained / "deployed.pt", weights_only=True)
    given: Any = str(run_copy)
    if what == "missing":
        given = str(folder / "nowhere.pt")
    elif what == "no run":
        given = str(folder)
    elif what == "unfinished":
        (run_copy / "training.json").unlink()
    elif what == "damaged run":
        content = bytearray((run_copy / "deployed.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (run_copy / "deployed.pt").write_bytes(content)
    elif what == "damaged file":
        given = str(folder / "w.pt")
        Path(given).write_bytes((trained / "deployed.pt").read_bytes()[:1000])
    elif what == "other classes":
        state["linear.weight"], state["linear.bias"] = torch.zeros(7, 64), torch.zeros(7)
        given = str(folder / "w.pt")
        torch.save(state, given)
    elif what == "other architecture":
        changes = {"model": {"name": "small-resnet", "width": 16}}
    elif what == "other normalisation":
        changes = {"model": {"name": "small-resnet", "width": 8, "normalization": "dataset"}}
    elif what == "other file":
        given = {"path": given, "sha256": "0" * 64}
    elif what == "two places":
        given = {"path": given, "method": "natural"}
    elif what == "no such row":
        given = {"method": "naturl"}
    elif what == "itself":
        given = {"method": "kd-swa"}
    return given, changes


FAULTS = {
    "missing": "does not exist; name the folder of a trained run or a checkpoint file",
    "no run": "is no run's folder",
    "unfinished": "is not trained to the end; finish that run first",
    "damaged run": "is damaged: the SHA-256 of deployed.pt is not the one in",
    "damaged file": "w.pt is damaged or not a PyTorch file",
    "other classes": "[7, 64] in the file",
    "other architecture": "is for another architecture",
    "other normalisation": "were trained without a normalisation, but this network has one",
    "other file": "is another file than the one asked for",
    "two places": "remove one of them",
    "no such row": "needs the run of a row 'naturl', which the suite does not have",
    "itself": "kd-swa needs kd-swa",
}


@pytest.mark.parametrize("role", ["init_from", "natural"])
@pytest.mark.parametrize("what", FAULTS)
def test_faults_are_found_before_anything_is_trained(
    what: str, role: str, trained: Path, tmp_path: Path
) -> None:
    """One sentence each, of a starting point and of a teacher; the row above is not begun."""
    given, changes = broken(what, trained, tmp_path)
    if what in ("other architecture", "other normalisation") and role == "natural":
        given = str(tmp_path / "run" / "deployed.pt")  # a run's folder would tell its architecture
    entry = {"name": "kd-swa", "robust": {"method": "pgd-at"}, "natural": {"method": "pgd-at"}}
    rows = write_suite(tmp_path, methods=["pgd-at", {**entry, role: given}], **changes)
    called = cli("run", rows, "--out", tmp_path / "out")
    assert called.status == 2
    (line,) = [line for line in called.err.splitlines() if line.startswith("error: ")]
    assert FAULTS[what] in line
    assert not (tmp_path / "out" / "cells").exists()


def test_a_teacher_of_another_architecture(trained: Path, tmp_path: Path) -> None:
    """A run's folder tells it; for a checkpoint it is stated."""
    model = {"name": "small-resnet", "width": 8}
    stated = {"path": str(trained / "deployed.pt"), "model": model}
    for given in (str(trained), stated):
        entry = {"name": "mixednuts", "natural": given, "robust": {**stated}}
        wide = suite(entry, model={"name": "small-resnet", "width": 16})
        record = json.loads((run(wide, tmp_path) / "training.json").read_text())
        assert record["trained"].popitem()[1] == sha256(trained / "deployed.pt")
    folder = tmp_path / "cells" / wide.cells()[-1].slug
    assert cli("evaluate", folder, "--metric", "clean").status == 0
    networks = trainer(wide, tmp_path).method.deployed()
    for name, value in torch.load(trained / "deployed.pt", weights_only=True).items():
        assert torch.equal(networks.state_dict()[f"natural.{name}"], value)


def test_a_suite_trains_its_teachers_first(tmp_path: Path) -> None:
    """One command: the rows in any order, each student after its teachers; nothing is trained twice;
    MixedNUTS takes one step and no gradient."""
    rows = write_suite(tmp_path, methods=[*STUDENTS, *TEACHERS], train=SHORT)
    out = tmp_path / "out"
    called = cli("run", rows, "--out", out)
    assert called.status == 0, called.err
    report = (out / "report" / "report.md").read_text()
    assert "| mixednuts |" in report
    assert "kd-swa, mtard, mixednuts: started from, or learned from, trained networks" in report
    order = [line.split(": trained")[0] for line in called.err.splitlines() if ": trained" in line]
    labels = [line.split("] ")[1].split(" seed")[0] for line in order]
    assert labels == [*TEACHERS, *STUDENTS]
    plan = json.loads((out / "suite.json").read_text())
    assert plan["methods"] == [*STUDENTS, *TEACHERS]
    runs = {label: next(out.glob(f"cells/{label}-s0-*")) for label in (*STUDENTS, *TEACHERS)}
    teachers = {name: sha256(runs[name] / "deployed.pt") for name in TEACHERS}
    for name in STUDENTS:
        training = json.loads((runs[name] / "training.json").read_text())
        assert training["trained"] == teachers
        config = json.loads((runs[name] / "config.json").read_text())["config"]
        assert config["needs"] == {label: runs[label].name for label in TEACHERS}
    assert (training["steps"], training["gradient_passes"]) == (1, 0)
    assert training["inference_passes"] == 2
    assert "mixture/alpha" in (runs["mixednuts"] / "metrics.jsonl").read_text()
    again = cli("run", rows, "--out", out)
    assert again.status == 0
    assert ": trained" not in again.err
    dry = cli("run", rows, "--out", out, "--dry-run", "--json").json()["cells"]
    (mixed,) = [row for row in dry if row["cell"].startswith("mixednuts")]
    assert (mixed["steps"], mixed["gradient_passes"]) == (1, 0)


def test_a_chosen_method_brings_its_teachers() -> None:
    """Those of the suite, or else the registered methods; an edit of a teacher changes its
    students."""
    few = suite("pgd-at", "trades", {"name": "pgd-at", "label": "strong", "optimizer": {"lr": 0.1}})
    chosen = few.only(["mtard"], [3])
    assert [cell.label for cell in chosen.cells()] == ["natural", "pgd-at", "mtard"]
    assert [cell.config.seed for cell in chosen.cells()] == [3, 3, 3]
    mixed = {"name": "mixednuts", "natural": {"method": "trades"}, "robust": {"method": "strong"}}
    one, other = (
        suite("trades", {"name": "pgd-at", "label": "strong", "optimizer": {"lr": lr}}, mixed)
        for lr in (0.1, 0.2)
    )
    assert [cell.label for cell in one.only(["mixednuts"], ()).cells()] == [
        "trades",
        "strong",
        "mixednuts",
    ]
    assert one.cells()[-1].slug != other.cells()[-1].slug
    with pytest.raises(ConfigError, match="mixednuts needs trades needs mixednuts"):
        suite(mixed | {"robust": {"method": "trades"}},
              {"name": "trades", "init_from": {"method": "mixednuts"}})  # fmt: skip


@pytest.mark.parametrize("method", ["kd-swa", "mtard"])
def test_an_interrupted_student_goes_on_exactly(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.training.loop._CHECKPOINT_SECONDS", -1)
    folders = [tmp_path / name for name in ("whole", "killed")]
    chosen = suite(*TEACHERS, {"name": method})
    for folder in folders:
        run(chosen.only(TEACHERS, ()), folder)
    whole = run(chosen, folders[0])
    stopped = trainer(chosen, folders[1])
    stop_after(stopped, 2)
    with pytest.raises(Stopped):
        stopped.run()
    trainer(chosen, folders[1]).run()
    assert_same_result(whole, folders[1] / "cells" / whole.name)


def test_other_weights_are_refused_on_resume(tmp_path: Path) -> None:
    """Of a teacher in the suite, whose run was trained anew meanwhile."""
    chosen = suite(*TEACHERS, "mtard")
    run(chosen, tmp_path)
    cells = {cell.label: tmp_path / "cells" / cell.slug for cell in chosen.cells()}
    (cells["mtard"] / "training.json").unlink()
    trainer(chosen, tmp_path).run()  # the same weights
    (cells["mtard"] / "training.json").unlink()
    for name in ("deployed.pt", "deployed.pt.sha256"):
        (cells["natural"] / name).write_bytes((cells["pgd-at"] / name).read_bytes())
    with pytest.raises(CheckpointError, match="was made with other weights of natural") as caught:
        trainer(chosen, tmp_path).run()
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_since_the_plan_is_refused(trained: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.pt"
    copied.write_bytes((trained / "deployed.pt").read_bytes())
    chosen = suite({"name": "pgd-at", "init_from": str(copied)})
    trainer(chosen, tmp_path)
    state = torch.load(copied, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, copied)
    with pytest.raises(ConfigError, match="has changed since the run was planned"):
        trainer(chosen, tmp_path)
    # a record alone does not say where the file is
    write_configuration(tmp_path, cell_record(chosen.cells()[0], "tiny"))
    config = read_cell_config(tmp_path)[1]
    assert config.hash == chosen.cells()[0].config.hash
    with pytest.raises(ConfigError, match="does not contain the path of the weights"):
        Trainer(config, tiny_data(), tmp_path, device=CPU)


def test_a_teacher_that_diverged_fails_its_students_alone(tmp_path: Path) -> None:
    hot = {"name": "natural", "label": "hot", "optimizer": {"lr": 1e30}}
    student = {"name": "mixednuts", "natural": {"method": "hot"}}
    rows = write_suite(tmp_path, methods=[student, hot, "pgd-at"], train=SHORT)
    called: Called = cli("run", rows, "--out", tmp_path / "out")
    assert called.status == 2
    assert "1 of 3 cells failed; the first: mixednuts-s0-" in called.err.splitlines()[-1]
    assert "there are no trained weights of hot" in called.err
    assert next((tmp_path / "out/cells").glob("pgd-at-*/evaluation.json")).exists()
