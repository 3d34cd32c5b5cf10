"""The lists of methods and metrics: docstrings, defaults and cost, for ``list`` and
docs/methods.md."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from benchmark.core.method import Method, authors_recipe, make_recipe
from benchmark.core.objective import METHODS, is_objective
from benchmark.core.setting import Setting
from benchmark.metrics.metric import METRICS
from benchmark.training.trained import left_fresh

# Fields that every method has, or that are settings of the suite rather than of the method.
_SHARED = {"name", "batchnorm"}
# The first line of an entry in a docstring: of its attributes, and of a list.
_ATTRIBUTE, _ITEM = re.compile(r"    (\w+(?:, \w+)*): (.*)"), re.compile(r"\* (.*)")
# A method that has no default of its own, with what it needs.
_NEEDED = {"generalist": {"learners": [{"name": "natural", "objective": "natural"},
                                       {"name": "linf", "objective": "pgd-at"}]}}  # fmt: skip


@dataclass(frozen=True)
class ListedMethod:
    """One registered method.

    Attributes:
        doc: its docstring: equation, source, departures, hyper-parameters.
        module: where it is defined.
        passes: gradient passes per image and step with the default threat models (10 steps); None
            if it cannot be built with defaults alone.
        forward_passes: forward passes of frozen teachers, per image and step.
        inference_passes: forward passes of the deployed model per image.
        defaults: hyper-parameters and their defaults as JSON.
        authors: the authors' recipe; empty if there is none.
    """

    name: str
    doc: str
    module: str
    objective: bool
    passes: float | None
    forward_passes: float
    inference_passes: int
    defaults: dict[str, str]
    authors: str

    def cost(self) -> str:
        """The cost in words."""
        if self.passes is None:
            return "depends on its settings"
        text = f"{self.passes:g} gradient passes"
        if self.forward_passes:
            text += f" and {self.forward_passes:g} forward passes of teachers"
        text += " per image and step with 10-step attacks"
        if self.inference_passes > 1:
            text += f"; {self.inference_passes} forward passes per image when deployed"
        return text

    def text(self) -> str:
        """Everything, as plain text."""
        defaults = ", ".join(f"{key}={value}" for key, value in self.defaults.items()) or "none"
        kind = "objective: usable in any learner" if self.objective else "method of its own"
        return (
            f"{self.doc}\n\nDefaults: {defaults}\nCost: {self.cost()}\n"
            f"Authors' recipe: {self.authors or 'none here'}\nKind: {kind}\n"
            f"Code: {self.module}"
        )


def methods() -> list[ListedMethod]:
    """All registered methods, in order of name."""
    return [_entry(name, cls) for name, cls in METHODS.items()]


def _entry(name: str, cls: Any) -> ListedMethod:
    method = _build(name)
    return ListedMethod(
        name=name,
        doc=inspect.getdoc(cls) or "",
        module=cls.__module__,
        objective=is_objective(cls),
        passes=method.passes if method else None,
        forward_passes=method.forward_passes if method else 0,
        inference_passes=method.inference_passes if method else 1,
        defaults=_defaults(name),
        authors=str(authors_recipe(cls) or ""),
    )


def metrics() -> list[tuple[str, str]]:
    """(kind, docstring) of all registered metrics; the first paragraph names the settings."""
    found = []
    for kind, cls in METRICS.items():
        first, _, rest = (inspect.getdoc(cls) or "").partition("\n\n")
        settings = ", ".join(name for name in cls.model_fields if name != "kind")
        found.append((kind, f"{first} [{settings}]\n\n{rest}"))
    return found


def _build(name: str) -> Method | None:
    """The method with its defaults around a network of no size; None if it has no defaults."""

    def new_model(init: int = 0, model: object = None) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))

    try:
        recipe = make_recipe({"name": name, **_NEEDED.get(name, {})})
    except ValueError:
        return None
    return recipe.build(Setting(new_model, total_steps=1, steps_per_epoch=1, load=left_fresh))


def _defaults(name: str) -> dict[str, str]:
    cls = METHODS.get(name)
    try:
        data = {"name": name, **_NEEDED.get(name, {})}
        values = cls.model_validate(data).model_dump(mode="json")
    except ValueError:
        return {}
    return {
        key: _short(value)
        for key, value in values.items()
        if key not in _SHARED and key not in ("learner", "learners", "student")
    }


def _short(value: Any) -> str:
    if isinstance(value, dict) and {"norm", "eps", "steps"} <= value.keys():
        return str(value["norm"])
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value) + "]"
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
        if set(value) == {"name", "batchnorm", "threat"}:
            return str(value["name"])
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None else str(value)


_HEAD = """# Methods

Generated from the docstrings: `generalist-bench list methods --markdown > docs/methods.md`.

x: images in [0, 1]; x': adversarial images; f(x): logits; p(x): probabilities; CE: cross-entropy;
KL(a : b) = sum a log(a / b). Attacks are crafted in eval mode unless an entry says otherwise. Cost
is counted in gradient passes (forward and backward) per image and optimiser step, with attacks of
10 steps.

"""


def methods_page() -> str:
    """docs/methods.md."""
    entries = methods()
    lines = [_HEAD, "| method | cost | inference | kind |\n|---|---:|---:|---|\n"]
    for entry in entries:
        cost = "-" if entry.passes is None else f"{entry.passes:g}"
        kind = "objective" if entry.objective else "recipe"
        lines.append(
            f"| [{entry.name}](#{entry.name}) | {cost} | {entry.inference_passes} | {kind} |\n"
        )
    for entry in entries:
        lines.append(f"\n## {entry.name}\n\n{_as_markdown(entry.doc)}\n\n")
        if entry.defaults:
            shown = ", ".join(f"`{key}` {value}" for key, value in entry.defaults.items())
            lines.append(f"Defaults: {shown}.\n\n")
        if entry.authors:
            lines.append(f"Authors' recipe (`recipe: authors`): {entry.authors}.\n\n")
        lines.append(f"Cost: {entry.cost()}. Code: `{entry.module}`.\n")
    return "".join(lines)


def _as_markdown(doc: str) -> str:
    """A docstring as Markdown: title and equation, paragraphs, lists, attributes as a list."""
    title, *blocks = doc.replace("``", "`").split("\n\n")
    name, _, rest = " ".join(title.split()).partition(": ")
    if any(sign in rest for sign in ("E[", "<-", " = ", "log[", "min_", "sum_")):
        rest = f"`{rest}`"
    parts = [f"**{name}**: {rest}" if rest else f"**{name}**"]
    for block in blocks:
        lines = block.splitlines()
        if lines[0] == "Attributes:":
            parts.append(_listed(lines[1:], _ATTRIBUTE, "- `{}`: {}"))
        elif lines[0].startswith("* "):
            parts.append(_listed(lines, _ITEM, "- {}"))
        elif lines[0].startswith("    "):  # an equation
            shown = [re.sub(r" {4,}", "    ", line.strip()) for line in lines]
            parts.append("\n".join(["```text", *shown, "```"]))
        else:
            parts.append(" ".join(lines))
    return "\n\n".join(parts)


def _listed(lines: list[str], first: re.Pattern[str], form: str) -> str:
    """The entries of a list, one per line. ``first`` matches the first line of an entry."""
    entries: list[str] = []
    for line in lines:
        if found := first.fullmatch(line):
            entries.append(form.format(*found.groups()))
        else:
            entries[-1] += f" {line.strip()}"
    return "\n".join(entries)
