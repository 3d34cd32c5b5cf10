"""Equal tuning: every method of a suite gets the same number of trials, or of gradient passes.

A trial is a training on one seed with other hyper-parameters: learning rate and weight decay of the
optimiser, and the method's own knobs (``search`` of its class). It is scored on the validation
split alone, by the mean of clean and PGD accuracy at the end of training; the test set is never
looked at. The first trial has the suite's own settings. The next ones are Optuna's (1907.10902,
TPE) and depend on the seed and on the trials before alone, so a search that was stopped resumes
exactly. What was found is trained on fresh seeds by ``generalist-bench run OUT/tuned.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmark.commands.run import run_suite
from benchmark.config.suite import MethodEntry, SuiteConfig
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.files import write_text
from benchmark.core.objective import METHODS
from benchmark.core.progress import Progress
from benchmark.core.search import Knob
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import read_training, read_tuning, write_tuning
from benchmark.training.build import build_method, training_length

# Of the optimiser of every learner that does not state its own.
OPTIMIZER = (
    Knob("lr", 0.01, 0.4, log=True),
    Knob("weight_decay", 1e-5, 5e-3, log=True),
)
# Trials that Optuna draws at random before it learns from those that there are.
_RANDOM = 4


def knobs(entry: MethodEntry) -> tuple[Knob, ...]:
    """Everything that is searched for a method, the optimiser's first."""
    own = METHODS.get(entry.recipe.name)
    return (*OPTIMIZER, *own.search)


def tune(
    suite: SuiteConfig,
    out: Path,
    *,
    trials: int | None = None,
    passes: float | None = None,
    seed: int,
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> Path:
    """Search the settings of every method of ``suite``; finished trials are never repeated.

    Args:
        out: where ``tuning.json``, ``tuned.yaml`` and the trials go.
        trials: of each method.
        passes: instead, gradient passes that each method may spend; at least one trial.
        seed: of the trainings and of the search; the suite's seeds are left for what is chosen.

    Returns:
        The suite with the chosen settings.

    Raises:
        ConfigError: a seed that the suite has, a method that cannot be trained alone, or Optuna is
            missing.
        BenchmarkError: ``out`` holds another search; see ``run_suite``.
    """
    if seed in suite.seeds:
        raise ConfigError(
            f"--tuning-seed {seed} is one of the suite's seeds, which are for the chosen settings; "
            "give another"
        )
    for entry in suite.methods:
        if entry.needs or entry.recipe.training_free:
            reason = (
                f"needs the runs of {', '.join(entry.needs)}" if entry.needs else "is not trained"
            )
            raise ConfigError(
                f"tune trains each method alone, and {entry.label} {reason}; leave it out by "
                "naming others (--method), or name the folders of trained runs in its settings"
            )
    _optuna()
    data = sources.load(suite.dataset, data_root)
    counts = {
        entry.label: trials or _affordable(suite, entry, data, device, passes or 0.0)
        for entry in suite.methods
    }
    record = _begin(suite, out, seed, counts)
    for number in range(max(counts.values())):
        for entry in suite.methods:
            if number < counts[entry.label]:
                _trial(
                    suite, entry, record, number, out,
                    seed=seed, data_root=data_root, device=device, progress=progress,
                )  # fmt: skip
    return _write_chosen(suite, record, out)


def _optuna() -> Any:
    try:
        import optuna  # noqa: PLC0415 - an optional package
    except ImportError as error:
        raise ConfigError(
            "tune needs the optuna package: pip install 'generalist-bench[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _affordable(
    suite: SuiteConfig, entry: MethodEntry, data: Dataset, device: torch.device, passes: float
) -> int:
    """How many trainings of a method cost at most ``passes`` gradient passes."""
    (cell,) = suite.model_copy(update={"methods": (entry,), "seeds": suite.seeds[:1]}).cells()
    length = training_length(suite.train, suite.dataset, len(data.train))
    method = build_method(cell.config, data, device, length=length)
    return max(1, int(passes // (length.images * method.passes)))


def _begin(suite: SuiteConfig, out: Path, seed: int, counts: Mapping[str, int]) -> dict[str, Any]:
    """The record of the search in ``out``, begun or gone on with; more trials may be asked for.

    Raises:
        BenchmarkError: the record is of another search.
    """
    space = {
        entry.label: [
            {"name": knob.name, "low": knob.low, "high": knob.high, "log": knob.log}
            for knob in knobs(entry)
        ]
        for entry in suite.methods
    }
    record: dict[str, Any] = {
        "suite": suite.name,
        "seed": seed,
        "score": "mean of clean and PGD accuracy on the validation split, end of training",
        "space": space,
        "trials": {label: [] for label in space},
    }
    if SuiteFiles(out).tuning.exists():
        known = read_tuning(out)
        for key in ("suite", "seed"):
            if known[key] != record[key]:
                raise BenchmarkError(
                    f"{out} holds a search with {key} {known[key]!r}, not {record[key]!r}; choose "
                    "another --out"
                )
        for label, own in space.items():
            if known["space"].get(label, own) != own:
                raise BenchmarkError(
                    f"{out} holds a search of {label} over another space; choose another --out"
                )
        record["space"] |= known["space"]
        record["trials"] |= known["trials"]
    write_tuning(out, record)
    return record


def _trial(
    suite: SuiteConfig,
    entry: MethodEntry,
    record: dict[str, Any],
    number: int,
    out: Path,
    *,
    seed: int,
    data_root: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    """Trial ``number`` of a method, unless it is on record."""
    known = record["trials"][entry.label]
    if number < len(known):
        return
    values = {} if number == 0 else _suggest(knobs(entry), known, seed, number)
    varied = _varied(suite, entry, values)
    varied = varied.model_copy(update={"label": f"{entry.label}-trial-{number}"})
    one = suite.model_copy(update={"methods": (varied,), "seeds": (seed,), "fronts": {}})
    (cell,) = one.cells()
    folder = out / "trials" / varied.label
    diverged = run_suite(
        one, one, folder, data_root=data_root, device=device, progress=progress, evaluate=False
    )
    trial: dict[str, Any] = {"values": values, "slug": cell.slug, "score": None}
    if not diverged:
        training = read_training(SuiteFiles(folder).cell(cell.slug))
        trial |= {
            "clean": training["val_clean"],
            "pgd": training["val_pgd"],
            "score": (training["val_clean"] + training["val_pgd"]) / 2,
            "gradient_passes": training["gradient_passes"],
        }
    known.append(trial)
    write_tuning(out, record)
    RunFiles(SuiteFiles(folder).cell(cell.slug)).checkpoint.unlink(missing_ok=True)


def _suggest(
    space: Sequence[Knob], known: Sequence[Mapping[str, Any]], seed: int, number: int
) -> dict[str, float]:
    """The next values. They follow from the arguments alone: no state is kept elsewhere."""
    optuna = _optuna()
    distributions = {
        knob.name: optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)
        for knob in space
    }
    sampler = optuna.samplers.TPESampler(seed=seed + 1_000_003 * number, n_startup_trials=_RANDOM)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in known:
        if trial["values"] and trial["score"] is not None:
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial["values"], distributions=distributions, value=trial["score"]
                )
            )
    asked = study.ask(distributions)
    return {knob.name: float(asked.params[knob.name]) for knob in space}


def _varied(suite: SuiteConfig, entry: MethodEntry, values: Mapping[str, float]) -> MethodEntry:
    """A method with other hyper-parameters; without values it is the suite's own."""
    optimizer = {knob.name: values[knob.name] for knob in OPTIMIZER if knob.name in values}
    settings: dict[str, Any] = {}
    for knob in knobs(entry)[len(OPTIMIZER) :]:
        if knob.name in values:
            settings |= knob.settings(values[knob.name])
    return suite.varied(entry, settings, optimizer)


def _write_chosen(suite: SuiteConfig, record: Mapping[str, Any], out: Path) -> Path:
    """``tuned.yaml``: the suite with the best settings of each method, for its own seeds."""
    methods = []
    for entry in suite.methods:
        scored = [t for t in record["trials"][entry.label] if t["score"] is not None]
        if not scored:
            continue
        best = max(scored, key=lambda trial: trial["score"])
        methods.append(_varied(suite, entry, best["values"]))
    if not methods:
        raise BenchmarkError(f"every trial diverged; see {SuiteFiles(out).tuning}")
    names = {"name": f"{suite.name}-tuned", "title": f"{suite.title}, tuned"}
    tuned = suite.model_copy(update={**names, "methods": tuple(methods), "fronts": {}})
    path = SuiteFiles(out).tuned
    write_text(path, yaml.safe_dump(tuned.resolved(), sort_keys=False, allow_unicode=True))
    return path
