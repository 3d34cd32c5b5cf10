"""``--method my_file.py:MyMethod``: a method of one's own without a package around it."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
from tiny_suites import cli, write_suite

PLUGIN = Path(__file__).parents[1] / "plugin" / "smooth_at.py"
SHORT = ["--limit", 64, "--set", "train.epochs=1", "--set", "train.validations=1",
         "--set", "model.width=8", "-q"]  # fmt: skip


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the method in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    file = tmp_path / "smooth.py"
    file.write_text(PLUGIN.read_text())
    return file


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:10]


def test_the_record_says_which_code_it_was(method: Path) -> None:
    """Protects: figures of code that was changed in the meantime, under the old name."""
    train = ["train", "--method", "smooth.py:SmoothAT", "--out", "out", *SHORT]
    assert cli(*train).status == 0
    (run,) = Path("out/cells").glob("SmoothAT-s0-*")
    record = json.loads((run / "config.json").read_text())
    own = record["config"]["method"]
    assert (own["label"], own["name"]) == ("SmoothAT", f"smooth.py:SmoothAT#{hash_of(method)}")
    assert record["family"] == "adversarial training"
    measured = cli("evaluate", run, "--metric", "clean", "-q")
    assert "clean" in measured.out

    before = hash_of(method)
    changed = method.read_text().replace("default=0.1", "default=0.2")
    method.write_text(changed + "\nopen('run', 'w').close()\n")
    refused = cli("evaluate", run, "--metric", "clean", "-q")
    assert refused.status == 2
    assert not Path("run").exists()  # the changed file was not even run
    assert f"is {hash_of(method)}, not {before}; restore the file, or train again" in refused.err
    assert cli(*train).status == 0
    assert len(list(Path("out/cells").glob("SmoothAT-s0-*"))) == 2


def test_in_a_suite_file_and_inside_a_learner(method: Path, tmp_path: Path) -> None:
    learners = [{"name": "natural", "objective": "natural"},
                {"name": "linf", "objective": "smooth.py:SmoothAT"}]  # fmt: skip
    suite = write_suite(
        tmp_path,
        methods=[
            {"name": "smooth:SmoothAT", "label": "own", "smoothing": 0.3},
            {"name": "generalist-d", "learners": learners},
        ],
        train={"epochs": 1, "validations": 1},
    )
    done = cli("run", suite, "--out", "out", "-q")
    assert done.status == 0, done.err
    assert "\nown" in done.out
    (run,) = Path("out/cells").glob("own-*")
    recipe = json.loads((run / "config.json").read_text())["config"]["method"]["recipe"]
    assert recipe["name"] == f"smooth:SmoothAT#{hash_of(method)}"
    assert recipe["learner"]["objective"]["smoothing"] == 0.3
    (run,) = Path("out/cells").glob("generalist-d-*")
    recipe = json.loads((run / "config.json").read_text())["config"]["method"]["recipe"]
    names = [learner["objective"]["name"] for learner in recipe["learners"]]
    assert names == ["natural", f"smooth.py:SmoothAT#{hash_of(method)}"]
    del sys.modules["smooth"]


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoth.py:SmoothAT", "there is no file smoth.py; a path is relative to the working"),
        ("smooth.py:Smooth", "smooth.py has no 'Smooth'"),
        ("smooth.py:Field", "is neither an Objective nor a Recipe"),
        ("smoth:SmoothAT", "cannot import 'smoth' of 'smoth:SmoothAT'"),
        ("lacking.py:Own", "the class lacks crafting_passes and perturb; define them"),
        ("broken.py:Own", "broken.py cannot be run: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(name: str, message: str) -> None:
    Path("broken.py").write_text("1 / 0\n")
    Path("lacking.py").write_text(
        "from benchmark.core.objective import Objective\n\n\n"
        "class Own(Objective):\n"
        "    def loss(self, model, x, x_adv, y, step):\n"
        "        return model(x_adv).sum()\n"
    )
    done = cli("train", "--method", name, "--out", "out", *SHORT)
    assert done.status == 2
    assert message in done.err
    assert not Path("out").exists()
