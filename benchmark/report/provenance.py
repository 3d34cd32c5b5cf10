"""Where the figures of a report come from: versions, hardware, runs, commands, configurations."""

from __future__ import annotations

import glob
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles
from benchmark.records.keys import weights
from benchmark.records.schema import read_configuration, read_environment, read_evaluation
from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report.study_model import Provenance
from benchmark.report.training_data import training_data

RUNS_HEAD = ("Method", "Seed", "State", "Trained on", "Config hash", "Model hash", "Record")


def provenance_of(suite: SuiteRecord) -> Provenance:
    """Versions, data, and one line per run with its state and hashes."""
    return Provenance(
        facts=_facts(suite),
        runs_head=RUNS_HEAD,
        runs=_runs(suite),
        render_command=_render_command(suite),
        commands=_commands(suite),
        configurations=_configurations(suite),
    )


def _facts(suite: SuiteRecord) -> dict[str, str]:
    """Versions, hardware and data of the runs, by name; different ones are all given."""
    found = {
        name: list(
            dict.fromkeys(t for c in suite.cells if (t := _environment(c.environment, name)))
        )
        for name in ("versions", "device", "processor", "threads", "git")
    }
    found["data"] = list(
        dict.fromkeys(
            ", ".join(
                f"{k} {'; '.join(map(str, v)) if isinstance(v, list) else v}"
                for k, v in d.items()
                if v is not None and k != "classes"
            )
            for c in suite.cells
            if isinstance(d := c.evaluation.get("dataset"), Mapping)
        )
    )
    found["same configuration, other weights"] = same_configuration_elsewhere(suite)
    return {name: " | ".join(values) for name, values in found.items() if values}


def _runs(suite: SuiteRecord) -> tuple[tuple[str, ...], ...]:
    """One row per cell, in the order of ``RUNS_HEAD``."""
    return tuple(
        (c.label, str(c.seed), c.status, trained_on(c), c.config_hash or "-",
         ", ".join(weights(c.evaluation)) or "-", f"cells/{c.slug}")
        for c in suite.cells
    )  # fmt: skip


def _render_command(suite: SuiteRecord) -> str:
    """What renders this report again."""
    folders = (suite.path, *suite.beside)
    return " ".join(["generalist-bench report", *(shlex.quote(portable(p)) for p in folders)])


def portable(path: Path) -> str:
    """``path`` as it was given, or its name alone: a report is no place for a machine's folders."""
    return path.name if path.is_absolute() else str(path)


# Shown on lines of their own, or different in every run and so of no use in a summary.
_NOT_VERSIONS = {"device", "processor", "threads", "git", "date"}


def _environment(environment: Mapping[str, Any], name: str) -> str:
    """One entry of environment.json as text; ``versions`` are those of all packages."""
    if name == "versions":
        return ", ".join(f"{k} {v}" for k, v in environment.items() if k not in _NOT_VERSIONS)
    value = environment.get(name)
    return "" if value is None else str(value)


def _commands(suite: SuiteRecord) -> tuple[tuple[str, str], ...]:
    """(what, command) of what leads to these figures and beyond."""
    found = [("Render this page again", f"{_render_command(suite)} --html")]
    config: Mapping[str, Any] = next((c.config for c in suite.cells if c.config), {})
    run = f"generalist-bench run {shlex.quote(suite.name)}"
    if suite.dataset != "digits":
        run += " --data-root DIR"
    precision = nested(config, "train", "precision")
    if precision not in (None, "fp32"):
        run += f" --precision {shlex.quote(str(precision))}"
    if suite.limit is not None:
        run += f" --limit {suite.limit}"
    found.append(("Run the suite", run))
    done = [c for c in suite.cells if c.status == "evaluated"]
    if len(done) > 1:
        folders = [f"{portable(suite.path)}/cells/{c.slug}" for c in done[:2]]
        pair = " ".join(map(shlex.quote, folders))
        found.append(("Compare two runs on the same images", f"generalist-bench compare {pair}"))
    return tuple(found)


def _configurations(suite: SuiteRecord) -> tuple[tuple[str, str, str], ...]:
    """(method, hash, JSON) of each method's first run on record."""
    found = []
    for method in suite.methods:
        cell = next((c for c in suite.of(method) if c.config), None)
        if cell is not None:
            found.append((method, cell.config_hash, json.dumps(cell.config, indent=1)))
    return tuple(found)


# --- on what a run was trained --------------------------------------------------------------------

# What changes the weights that a configuration trains to, beside the configuration.
CIRCUMSTANCES = ("device", "processor", "threads", "precision", "torch", "git")


def circumstances(cell: CellRecord) -> dict[str, str]:
    """On what a run was trained, as far as it is on record."""
    known = dict(cell.environment)
    known["precision"] = nested(cell.config, "train", "precision")
    return {k: str(known[k]) for k in CIRCUMSTANCES if known.get(k) not in (None, "")}


def trained_on(cell: CellRecord) -> str:
    """ "cpu, 1 thread, fp32, 0123abc", and data that are not the data set's own; "-" if nothing is
    on record."""
    found = circumstances(cell)
    if "threads" in found:
        found["threads"] += " thread" if found["threads"] == "1" else " threads"
    if "git" in found:
        found["git"] = found["git"][:7]
    shown = ("device", "processor", "threads", "precision", "git")
    where = ", ".join(found[k] for k in shown if k in found)
    return "; ".join(part for part in (where, training_data(cell)) if part) or "-"


def same_configuration_elsewhere(suite: SuiteRecord) -> list[str]:
    """Runs of other studies beside this one that have the configuration of one of its runs and
    other weights, with what may explain it.

    Looked for by folder name (which holds the configuration's hash) in the folders beside
    ``suite.path``; what cannot be read there is left out, since it is no part of this report.
    """
    lines = []
    here = suite.path.resolve()
    for cell in suite.cells:
        own = weights(cell.evaluation)
        if not own or not cell.config_hash:
            continue
        for folder in sorted(here.parent.glob(f"*/cells/{glob.escape(cell.slug)}")):
            study = folder.parent.parent
            if study.resolve() == here or not RunFiles(folder).evaluation.exists():
                continue
            other = _read_elsewhere(folder)
            if other is None or set(other[0]) & set(own) or other[2] != cell.config_hash:
                continue
            lines.append(
                f"{cell.label} seed {cell.seed}: {study.name} has other weights ({other[0][0]}) of "
                f"the same configuration ({cell.config_hash}): {_differs(cell, other[1])}."
            )
    return lines


def _read_elsewhere(folder: Path) -> tuple[list[str], Mapping[str, Any], str] | None:
    """Hashes of its weights, environment and configuration hash of a run elsewhere."""
    try:
        models = weights(read_evaluation(folder))
        head, environment = read_configuration(folder), read_environment(folder)
    except BenchmarkError:
        return None
    if not models:
        return None
    precision = head["config"]["train"].get("precision")
    return models, {**environment, "precision": precision}, head["hash"]


def _differs(cell: CellRecord, other: Mapping[str, Any]) -> str:
    """What is on record of the circumstances of both and differs."""
    own = circumstances(cell)
    parts = []
    for key in CIRCUMSTANCES:
        value = other.get(key)
        theirs, ours = str(value) if value not in (None, "") else "", own.get(key, "")
        if theirs != ours:
            parts.append(f"{key} here {ours[:10] or 'unknown'}, there {theirs[:10] or 'unknown'}")
    if not parts:
        return "nothing on record tells the two trainings apart"
    return f"another machine, version or precision ({'; '.join(parts)})"
