"""Keys that are given twice, paths with ``~``, names that name files, terminals of any encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_suites import cli, tiny

from benchmark.config.suite import build_suite, load_suite
from benchmark.core.config import parse_yaml
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.files import at_home, read_json, write_text
from benchmark.data.arrays import locate


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "lines 1 and 3"),
        ("x:\n  - a: 1\n    a: 2\n", "lines 2 and 3"),
        ("{a: 1, a: 1}", "line 1"),
        ("on: 1\n\ntrue: 2\n", "lines 1 and 3"),
    ],
)
def test_a_key_given_twice(text: str, lines: str) -> None:
    """Protects: of two groups of settings the first was lost in silence."""
    with pytest.raises(ConfigError, match=f"given twice, in {lines}; keep one of them"):
        parse_yaml(text, "file")


def test_merging_is_no_repetition() -> None:
    text = "w: &w {a: 1, b: 1}\ng:\n  x: &x\n    <<: *w\n    a: 2\ny:\n  <<: *w\n  b: 3\n"
    assert parse_yaml(text, "file")["y"] == {"a": 1, "b": 3}


@pytest.mark.parametrize("command", ["run x.yaml --dry-run", "submit nowhere --info x.yaml"])
def test_in_every_file_of_the_users(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("training", "evaluation"):
        path = tmp_path / "nowhere" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    Path("x.yaml").write_text("name: a\nid: b\nname: c\n")
    called = cli(*command.split())
    assert called.status == 2
    assert "'name' is given twice, in lines 1 and 3" in called.err


def test_a_record_with_a_key_twice_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"n": 1, "m": {"k": 1, "k": 2}}')
    with pytest.raises(BenchmarkError, match=r"x.json is damaged \(the key 'k' is given twice\)"):
        read_json(tmp_path / "x.json")


def test_a_setting_given_twice() -> None:
    with pytest.raises(ConfigError, match="train.epochs is given twice"):
        build_suite(tiny(), ["train.epochs=1", "train.epochs=2"])


def test_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: a folder called ~ in the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert at_home(Path("~/x")) == tmp_path / "x"
    assert at_home(Path("x~")) == Path("x~")
    assert locate("~/mine", Path("data")) == tmp_path / "mine"
    (tmp_path / "s.yaml").write_text("base: ~/base.yaml\nmethods: [natural]\n")
    (tmp_path / "base.yaml").write_text("dataset: {name: digits}\n")
    assert load_suite("~/s.yaml").dataset.name == "digits"
    with pytest.raises(ConfigError, match="there is no such home folder"):
        at_home(Path("~no-such-user/x"))


def test_every_path_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects: ``--out=~/x``, which no shell expands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for command in (
        "evaluate ~/x",
        "evaluate-model ~/x.ts --dataset digits",
        "evaluate-model resnet18 --checkpoint=~/x --dataset digits",
        "report --out=y ~/x",
        "compare ~/x ~/x",
        "interpolate ~/x ~/x",
        "submit ~/x",
        "check --baseline=~/x",
        "run cifar10-cpu --data-root=~/x --method natural",
    ):
        called = cli(*command.split())
        assert called.status == 2
        assert "~" not in called.err, command
    # Libraries put their own caches into a home folder.
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == []


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["m" * 101], "has 101 bytes; use at most 100"),
        (["é" * 60], "has 120 bytes; use at most 100"),
        (["Mine", "mine"], "differ in capitals"),
        (["STRASSE", "stra\u00dfe"], "differ in capitals"),
        (["a/b"], "use letters, digits"),
        (["a", "a"], "given twice"),
    ],
)
def test_labels(labels: list[str], said: str) -> None:
    """Protects: a label that passes the dry run and then is a file name that cannot be."""
    methods = [{"name": "natural", "label": label} for label in labels]
    with pytest.raises(ConfigError, match=said):
        build_suite(tiny(methods=methods))


def test_the_longest_label_can_be_a_folder(tmp_path: Path) -> None:
    longest = [{"name": "natural", "label": "m" * 100}]
    (cell,) = build_suite(tiny(methods=longest, seeds=[2**32 - 1])).cells()
    assert len(cell.slug) <= 143
    (tmp_path / cell.slug).mkdir()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_terminal(encoding: str) -> None:
    """Protects: a traceback where a character is not in the terminal's encoding, or without a home."""
    environment = {"PATH": os.environ["PATH"], "LANG": "C", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-X", "utf8", "-m", "benchmark", "n\u00e4r\u4e00"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=root, check=False)
    shown = "n\u00e4r\u4e00" if encoding == "utf-8" else "n?r?"
    assert done.stderr.startswith(f"error: unknown command '{shown}'".encode())


def test_texts_with_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "x.md", "class caf\udce9")
    assert (tmp_path / "x.md").read_bytes() == b"class caf?"
