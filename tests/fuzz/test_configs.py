"""Whatever a suite's file, an override or a recipe says: a configuration, or one ConfigError."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import SCALARS, VALUES, attempt, examples, with_faults
from tiny_suites import cli, contents, tiny

from benchmark.commands.run import cell_record, read_cell_config
from benchmark.config.suite import build_suite, load_suite
from benchmark.core.errors import ConfigError
from benchmark.core.objective import METHODS
from benchmark.records.schema import write_configuration

DOCUMENT: dict[str, Any] = tiny(
    methods=[
        "natural",
        {"name": "trades", "beta": 6.0, "label": "t"},
        {"name": "generalist-d", "warmup": "20%", "every": "20%"},
        {"name": "ema", "objective": "mart", "decay": 0.9},
        {
            "name": "generalist",
            "learners": [
                {"name": "a", "objective": "natural", "optimizer": {"name": "adam", "lr": 0.001}},
                {"name": "b", "objective": {"name": "pgd-at", "threat": "l2"}, "grad_clip": 1.0},
            ],
        },
    ],
    schedule=[[0, 1], ["1/3", 1], [1, 0.01]],
    seeds=[0, 1],
    evaluation=[
        {"kind": "clean"},
        {"kind": "pgd", "n": 20, "threat": {"eps": 0.1, "step": "2/255", "steps": 2}},
        {"kind": "autoattack", "name": "aa_linf", "norm": "linf", "eps": "8/255", "n": 5},
        {"kind": "autoattack-part", "name": "square_linf", "attack": "square"},
        {"kind": "autoattack", "budget": 3},
        {"kind": "corruptions", "severities": [1, 5]},
        {"kind": "spatial", "grid": {"rotations": 3, "translations": 1, "translation": 0}},
        {"kind": "union", "of": ["clean", "pgd2_linf"]},
        {"panel": "standard", "linf": "8/255", "without": ["clean", "aa_linf", "corruptions"]},
    ],
    title="t",
    description="d",
)


@functools.cache
def recipes() -> dict[str, Any]:
    """The complete configuration of every method that has a preset, as recorded."""
    names = [name for name in METHODS.names() if name != "generalist"]  # it asks for learners
    entries = build_suite(tiny(methods=names)).methods
    return {entry.label: entry.recipe.model_dump(mode="json") for entry in entries}


def test_what_is_changed_is_sound() -> None:
    """Protects: faults in a document that is refused as it stands would show nothing."""
    assert len(build_suite(DOCUMENT).cells()) == 10


def usable(build: Any, folder: Path) -> None:
    """A ConfigError in words, or cells that are recorded and read back as they were."""
    suite = attempt(build, ConfigError)
    for cell in [] if isinstance(suite, str) else suite.cells():
        write_configuration(folder, cell_record(cell, suite.name))
        assert read_cell_config(folder) == (cell.label, cell.config)


@given(with_faults(DOCUMENT))
@examples(80)
def test_suites(tmp_path: Path, document: Any) -> None:
    if isinstance(document, dict):
        usable(lambda: build_suite(document), tmp_path)


@given(st.data())
@examples(80)
def test_recipes(tmp_path: Path, data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(recipes())))
    recipe = data.draw(with_faults(recipes()[name]))
    usable(lambda: build_suite(tiny(methods=[recipe])), tmp_path)


KEYS = ("train.epochs", "train.batch_size", "threats.linf.eps", "threats", "optimizer.lr", "methods",
        "dataset.limit", "dataset.name", "model.width", "schedule", "seeds", "evaluation", "name",
        "methods.0", "train.validation_threat.eps", "model.normalization", "base", "title")  # fmt: skip


@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda key, value: f"{key}={value}",
                st.one_of(st.sampled_from(KEYS), st.text(max_size=12)),
                st.one_of(VALUES.map(lambda v: yaml.safe_dump(v).strip()), st.text(max_size=12)),
            ),
            st.text(max_size=20),
        ),
        max_size=3,
    )
)
@examples(80)
def test_overrides(tmp_path: Path, overrides: list[str]) -> None:
    usable(lambda: build_suite(tiny(), overrides), tmp_path)


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode),
                 SCALARS.map(lambda v: yaml.safe_dump({"name": "x", "methods": v}).encode())))  # fmt: skip
@example(b"methods: &a [*a]")
@example(b"train: &a {epochs: *a}\nmethods: [natural]")
@example((BOMB + "methods: *k").encode())
@example((BOMB + "methods: [natural]\ntrain: *k").encode())
@example((BOMB + "methods: [natural]\ntrain: {epochs: *k}").encode())
@example(b"methods: " + b"[" * 3000)
@example(b"!!python/object/apply:os.system ['touch executed']")
@example(b"base: x.yaml")
@examples(60)
def test_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    usable(lambda: load_suite(str(tmp_path / "x.yaml")), tmp_path)
    assert not Path("executed").exists()


@given(with_faults(tiny(train={"validation_threat": {"eps": 0.1, "steps": 1}}), most=1))
@examples(8)
def test_the_command_line(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    """--dry-run reads the data, builds what it counts, and writes nothing."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "x.yaml").write_text(yaml.safe_dump(document))
    before = contents(folder)
    called = cli(
        "run", folder / "x.yaml", "--dry-run", "--out", folder / "out", "--data-root", folder
    )
    assert called.status in (0, 2)
    if called.status == 2:
        # one error in one line, several in a list below the first
        assert re.search(r"^error: .*(\n  - .*)*\n\Z", called.err, re.MULTILINE)
    assert contents(folder) == before
