"""Studies stand apart from the package, and the commands that the documentation shows are theirs."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]
STUDIES = sorted({path.stem for path in (ROOT / "studies").glob("*.py")} - {"__init__", "command"})
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / name / "README.md" for name in ("results", "studies")),
    *(ROOT / "studies" / f"{name}.py" for name in STUDIES),
]
# a small letter, since NAME stands for any of them
CALL = re.compile(r"python -m studies\.([a-z][^`\n]*)")


def commands() -> list[tuple[str, str]]:
    """The page and the text of every call of a study, from its name on."""
    return [
        (str(page.relative_to(ROOT)), re.split(r" > |#", text)[0].strip())
        for page in PAGES
        for text in CALL.findall(page.read_text(encoding="utf-8"))
    ]


def parse(name: str, arguments: list[str]) -> None:
    """Raises what a user would see."""
    command = typer.main.get_command(importlib.import_module(f"studies.{name}").app)
    subcommands = getattr(command, "commands", None)
    if subcommands:
        command, arguments = subcommands[arguments[0]], arguments[1:]
    command.make_context(name, arguments)


@pytest.mark.parametrize(("page", "call"), [pytest.param(*c, id=": ".join(c)) for c in commands()])
def test_documented_commands_are_theirs(page: str, call: str) -> None:
    """Protects: a renamed study or option, so that a recorded figure cannot be made again."""
    name, *arguments = shlex.split(call)
    if page == "CHANGELOG.md":  # names studies without their arguments
        assert name in STUDIES
    else:
        parse(name, arguments)


def test_every_study_states_its_command_and_its_record() -> None:
    """Protects: a study that nobody can find, and a record that nobody can make again."""
    table = (ROOT / "studies" / "README.md").read_text(encoding="utf-8")
    recorded = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    for name in STUDIES:
        text = (ROOT / "studies" / f"{name}.py").read_text(encoding="utf-8")
        for place in (table, recorded, ast.get_docstring(ast.parse(text)) or ""):
            assert f"python -m studies.{name}" in place, name
    records = re.findall(r"`((?:speed|gate|faults|aa-budget)/[\w-]+\.json)`", table)
    assert len(records) >= len(STUDIES)
    for record in records:
        assert (ROOT / "results" / record).is_file(), record
        assert f"`{record}`" in recorded, record


def test_the_package_imports_no_study() -> None:
    """Protects: an installed package that fails because studies are only in a clone."""
    wanted = re.compile(r"^\s*(?:from|import) studies\b", re.MULTILINE)
    paths = [
        p for name in ("benchmark", "baselines", "generalist") for p in (ROOT / name).rglob("*.py")
    ]
    assert len(paths) > 100
    assert not [path for path in paths if wanted.search(path.read_text(encoding="utf-8"))]
