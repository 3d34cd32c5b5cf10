"""Sphinx: `sphinx-build -W docs site` makes the site; pages are Markdown (MyST)."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

project = "Generalist-Bench"
html_title = project
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# attributes are in the docstrings' sections
napoleon_use_ivar = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "model_config, model_post_init",
}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True


_ENTRY = re.compile(r"    (\w+(?:, \w+)*): (.*)")


def _split_entries(_: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """Entries of a docstring that share a line (``a, b: text``) apart, and settings with their
    defaults; napoleon does neither."""
    found: list[str] = []
    entry: list[str] = []
    names: list[str] = []

    def close() -> None:
        for attribute in names:
            first, *more = entry
            found.extend([f"    {attribute}: {first}", *more])
            found[-1] += _default(item, attribute)
        names.clear()

    inside = False
    for line in lines:
        begins = _ENTRY.fullmatch(line) if inside else None
        if begins or not line.startswith("        "):
            close()
        if not line.startswith(" ") and line:
            inside = line in ("Attributes:", "Args:")
        if begins:
            names[:], entry[:] = begins[1].split(", "), [begins[2]]
        elif names:
            entry.append(line)
        else:
            found.append(line)
    close()
    lines[:] = found


def _default(item: Any, name: str) -> str:
    field = getattr(item, "model_fields", {}).get(name)
    plain = (
        field is not None and isinstance(field.default, (str, int, float)) and field.default != ""
    )
    return f" [``{field.default!r}``]" if plain else ""


def _describe_commands(app: Any) -> None:
    """The command line's page, from the commands themselves."""
    page = Path(app.srcdir) / "reference" / "commands.md"
    command = [sys.executable, "-m", "typer", "benchmark.cli", "utils", "docs"]
    command += ["--name", "generalist-bench", "--title", "Commands", "--output", str(page)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def setup(app: Any) -> None:
    app.connect("builder-inited", _describe_commands)
    app.connect("autodoc-process-docstring", _split_entries, priority=400)  # before napoleon
