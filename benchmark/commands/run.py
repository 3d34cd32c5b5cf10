"""Run a suite: train every cell that is not trained, evaluate what is not evaluated, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from filelock import FileLock, Timeout

from benchmark.commands.figures import read_figures
from benchmark.commands.time_left import EVALUATION, TRAINING, stage, time_left
from benchmark.config.panels import standard_panel
from benchmark.config.recorded import read_cell_config
from benchmark.config.suite import Cell, CellConfig, SuiteConfig
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError, ConfigError, DivergenceError, RunLockedError
from benchmark.core.files import remove_temporaries
from benchmark.core.memory import keep_freed_memory
from benchmark.core.method import family_of
from benchmark.core.progress import Progress, duration
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.running import last_words, running
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.evaluation.evaluator import Evaluator
from benchmark.loggers.following import Following, following
from benchmark.loggers.logger import check_loggers
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import (
    read_environment,
    read_evaluation,
    read_plan,
    read_training,
    write_configuration,
    write_environment,
    write_plan,
)
from benchmark.training.build import check_trained, training_length
from benchmark.training.loop import Trainer
from benchmark.training.selection import load_deployed, record_directories
from benchmark.training.state import check_same_data


def pick_device(name: str) -> torch.device:
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda`` (torchrun: the rank's own) or ``cuda:1``.

    Raises:
        ConfigError: another name, or CUDA where there is none.
    """
    # Otherwise convolutions of fp32 networks, and so the gradients of attacks, are rounded to TF32.
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # torchrun's
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(
            f"--device {name}, but torch finds {count} CUDA devices; use --device cpu"
        )
    return device


def cell_directory(out: Path, cell: Cell) -> Path:
    """Where the record of ``cell`` lives."""
    return SuiteFiles(out).cell(cell.slug)


@contextmanager
def locked(directories: Sequence[Path], patience: float = 0) -> Iterator[None]:
    """Hold the run directories; the system frees them if the process dies.

    What a killed process left half written in them is deleted.

    Args:
        patience: seconds to wait for a holder that may be dying.

    Raises:
        RunLockedError: another process holds one of them.
    """
    with ExitStack() as stack:
        for directory in directories:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                lock = FileLock(directory / ".lock", timeout=patience)
                stack.enter_context(lock)
                snapshots = RunFiles(directory).snapshots
                for folder in (directory, snapshots, *directory.glob("deployed-*/")):
                    remove_temporaries(folder)
            except Timeout as error:
                raise RunLockedError(
                    f"another process is writing {directory}; wait for it, stop it, or choose "
                    "another --out"
                ) from error
            except OSError as error:
                raise BenchmarkError(f"cannot write to {directory}: {error.strerror}") from error
        yield


@dataclass(frozen=True)
class Job:
    """What the cells of one call share; it travels to the processes that run them.

    Attributes:
        suite: the cells, and how they are measured.
        device: as for ``pick_device``, picked where a cell runs.
        evaluate: measure the trained models too.
        log: names of loggers.
        ranks, learner_groups: see ``run_suite``.
        only: folders of the cells to run; None for all.
    """

    suite: SuiteConfig
    out: Path
    data_root: Path
    device: str
    evaluate: bool = True
    log: tuple[str, ...] = ()
    ranks: Ranks = ALONE
    learner_groups: int | None = None
    only: frozenset[str] | None = None

    def heads(self) -> list[tuple[Cell, str]]:
        """Each cell, and how lines about it begin."""
        cells = self.suite.cells()
        return [
            (cell, f"[{number}/{len(cells)}] {cell.label} seed {cell.config.seed}")
            for number, cell in enumerate(cells, 1)
            if self.only is None or cell.slug in self.only
        ]

    def evaluator(self, data: Dataset, device: torch.device, progress: Progress) -> Evaluator:
        """What measures the cells that share ``data``."""
        return Evaluator(
            data,
            device,
            progress=progress,
            data_root=self.data_root,
            limit=self.suite.dataset.limit,
            ranks=self.ranks,
        )


# A cell that came to its end, and the error that ended it, if any.
Ended: TypeAlias = tuple[Cell, BenchmarkError | None]
# Where cells run: brings all of a job's to their end; ``data`` is what this process read.
Engine: TypeAlias = Callable[[Job, Dataset, Progress], Iterator[Ended]]


def local_engine(job: Job, data: Dataset, progress: Progress) -> Iterator[Ended]:
    """The cells one after another, in this process."""
    device = pick_device(job.device)
    evaluator = job.evaluator(data, device, progress)
    heads = job.heads()
    if not progress.quiet:
        metrics = job.suite.evaluation if job.evaluate else ()
        progress.whole = time_left([cell for cell, _ in heads], job.out, data, metrics)
    with locked([cell_directory(job.out, cell) for cell, _ in heads] if job.ranks.first else []):
        for cell, head in heads:
            yield cell, run_cell(job, cell, head, evaluator)
    progress.whole = None


def run_suite(
    suite: SuiteConfig,
    full: SuiteConfig,
    out: Path,
    *,
    data_root: Path,
    device: torch.device | str,
    progress: Progress,
    evaluate: bool = True,
    log: Sequence[str] = (),
    engine: Engine = local_engine,
    ranks: Ranks = ALONE,
    learner_groups: int | None = None,
) -> list[str]:
    """Bring every cell of ``suite`` to the end. Finished work is never repeated.

    A cell that diverges or fails does not keep the others from being run.

    Args:
        suite: the cells to run now.
        full: the suite they belong to, for ``suite.json``.
        log: names of loggers that follow the cells; see ``loggers.following``.
        engine: where they run.
        ranks: processes that train and evaluate every cell together; all call this with the same
            arguments, and the first alone writes.
        learner_groups: see ``Trainer``.

    Returns:
        The messages of diverged cells.

    Raises:
        ConfigError: a training that cannot be (see ``training_length`` and ``check_trained``); a
            logger that is not installed.
        BenchmarkError: bad data or a locked run, before any work; a failed cell, after all others.
    """
    check_loggers(log)
    cells = suite.cells()
    progress.say(f"{suite.name}: {len(cells)} cells -> {out}")
    progress.say(f"  reading {suite.dataset.name}")
    data = sources.load(suite.dataset, data_root)
    counts = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test images"
    progress.say(f"  {counts}; {data.source}")
    for note in data.notes:
        progress.say(f"  {note}")
    training_length(suite.train, suite.dataset, len(data.train))
    for cell in suite.model_copy(update={"seeds": suite.seeds[:1]}).cells():
        check_trained(cell.config, data)
    if ranks.first:
        with locked([cell_directory(out, cell) for cell in cells]):
            stated = evaluate or suite.evaluation != standard_panel()
            _write_plan(suite, full, out, progress, stated)
    ranks.gather(None)  # the folders are there
    job = Job(suite, out, data_root, str(device), evaluate, tuple(log), ranks, learner_groups)
    late: frozenset[str] = frozenset()
    if evaluate:
        # On the CPU: cells may run on other machines than this one.
        setup = job.evaluator(data, torch.device("cpu"), progress)
        setup.check(suite.evaluation, cell_directory(out, cells[0]))
        late = _needed(suite, out)
    ended = list(engine(job, data, progress))
    whole = frozenset(cell.slug for cell, error in ended if not error)
    if late and whole:  # now that the rows they need are trained
        ended = [(cell, error) for cell, error in ended if error]
        ended += engine(replace(job, only=whole), data, progress)
    errors = [error for _, error in ended if error]
    failed = [error for error in errors if not isinstance(error, DivergenceError)]
    if failed:
        count = f"{len(failed)} of {len(cells)} cells failed; the first: " if cells[1:] else ""
        raise type(failed[0])(f"{count}{failed[0]}")
    return [str(error) for error in errors]


def _needed(suite: SuiteConfig, out: Path) -> frozenset[str]:
    """Labels of the rows that a metric needs and that have a run which is not trained yet."""
    labels = {label for metric in suite.evaluation for label in metric.needs}
    return frozenset(
        cell.label
        for cell in suite.cells()
        if cell.label in labels and not RunFiles(cell_directory(out, cell)).training.exists()
    )


def run_cell(job: Job, cell: Cell, head: str, evaluator: Evaluator) -> BenchmarkError | None:
    """Train and evaluate a cell whose directory is held; the error that stopped it, if any."""
    data, device, progress = evaluator.data, evaluator.device, evaluator.progress
    directory = cell_directory(job.out, cell)
    if job.ranks.first:
        died = last_words(directory)
        if died:
            progress.say(f"{head}: {died}")
    try:
        with following(job.log if job.ranks.first else (), directory, progress) as loggers:
            with progress.stage(stage(cell.slug, TRAINING)):
                _train_cell(job, cell, data, directory, device, progress, head, loggers)
            if job.evaluate:
                with progress.stage(stage(cell.slug, EVALUATION)):
                    _evaluate_cell(job, cell, directory, head, evaluator)
            if job.log and job.ranks.first:
                figures = _logged_figures(cell.config, directory)
                loggers.catch_up(read_training(directory)["steps"], figures)
    except BenchmarkError as error:
        # Divergence is found by all processes together; anything else, by one of them perhaps.
        if job.ranks.world > 1 and not isinstance(error, DivergenceError):
            raise
        progress.say(f"{head}: {error}")
        if cell.slug in str(error):
            return error
        return type(error)(f"{cell.slug}: {error}")
    return None


def _evaluate_cell(job: Job, cell: Cell, directory: Path, head: str, evaluator: Evaluator) -> None:
    data, device = evaluator.data, evaluator.device
    for rule, record in record_directories(cell.config, directory).items():
        model = load_deployed(cell.config, data, directory, device, rule)
        evaluator.evaluate(model, job.suite.evaluation, record)
        if job.ranks.first:
            chosen = "" if record == directory else f" ({rule} checkpoint)"
            evaluator.progress.say(f"{head}{chosen}: {_scores(record)}")


def _train_cell(
    job: Job,
    cell: Cell,
    data: Dataset,
    directory: Path,
    device: torch.device,
    progress: Progress,
    head: str,
    loggers: Following,
) -> None:
    done = RunFiles(directory).training
    if done.exists():
        read_cell_config(directory)  # an edited one would be reported under a wrong name
        check_same_data(read_training(directory)["data"], data, done)
        return
    if job.ranks.first:
        write_configuration(directory, cell_record(cell, job.suite.name))
        here = environment(str(device), torch.get_num_threads())
        _say_other_threads(directory, here["threads"], progress)
        write_environment(directory, here)
        loggers.begin()
    with running(directory, "training", mark=job.ranks.first):
        Trainer(
            cell.config,
            data,
            directory,
            device=device,
            progress=progress,
            follow=loggers.line,
            ranks=job.ranks,
            learner_groups=job.learner_groups,
        ).run()
    summary = read_training(directory)
    progress.say(
        f"{head}: trained {summary['steps']} steps in {duration(summary['seconds'])}, validation "
        f"clean {100 * summary['val_clean']:.1f} %, pgd {100 * summary['val_pgd']:.1f} %"
    )


def _say_other_threads(directory: Path, threads: int, progress: Progress) -> None:
    """A run that goes on with another number of threads is not bit for bit what it would be."""
    files = RunFiles(directory)
    if not (files.environment.exists() and files.checkpoint.exists()):
        return
    before = read_environment(directory)["threads"]
    if before != threads:
        progress.say(
            f"  {directory.name} was begun with {before} threads and goes on with {threads}: sums "
            f"are rounded otherwise from here on (--threads {before} keeps the number)"
        )


def _scores(directory: Path) -> str:
    metrics = read_evaluation(directory)["metrics"]
    return ", ".join(f"{name} {100 * entry['mean']:.1f} %" for name, entry in metrics.items())


def _logged_figures(config: CellConfig, directory: Path) -> dict[str, float]:
    """What loggers get of the evaluations on record: by metric its figure, the ends of its 95 %
    interval for new images, and the number of images."""
    logged = {}
    for rule, record in record_directories(config, directory).items():
        if not RunFiles(record).evaluation.exists():
            continue
        suffix = "" if record == directory else f"@{rule}"
        for name, figure in read_figures(record).items():
            logged[f"test/{name}{suffix}"] = figure["mean"]
            logged[f"test-n/{name}{suffix}"] = figure["n"]
            for end in ("low", "high"):
                if end in figure:
                    value = figure.get(f"population_{end}", figure[end])
                    logged[f"test-{end}/{name}{suffix}"] = value
    return logged


def cell_record(cell: Cell, suite: str) -> dict[str, Any]:
    """The content of a run's ``config.json``."""
    config = cell.config.model_dump(mode="json")
    recipe = config.pop("recipe")
    method = {"name": recipe["name"], "label": cell.label, "recipe": recipe}
    return {
        "hash": cell.config.hash,
        "family": family_of(recipe["name"]),
        "config": {"suite": suite, "method": method, **config},
    }


def _write_plan(
    suite: SuiteConfig, full: SuiteConfig, out: Path, progress: Progress, stated: bool = True
) -> None:
    """``suite.json``: the suite and the cells asked for so far, in this call or before.

    An earlier cell stays in the plan while the settings of ``full`` still lead to it, so that one
    table never mixes two recipes.

    Args:
        stated: whether the suite says what is measured; else that is left to ``evaluate``.

    Raises:
        BenchmarkError: ``out`` belongs to another suite, or its suite.json is damaged.
    """
    # Calls for different methods may run side by side.
    with FileLock(out / ".lock"):
        remove_temporaries(out)
        asked = suite.cells()
        slugs = {cell.slug for cell in asked}
        planned = []
        if SuiteFiles(out).plan.exists():
            before = read_plan(out)
            planned, name = before["plan"], before["name"]
            if name != suite.name:
                raise BenchmarkError(
                    f"{out} holds the suite {name!r}, not {suite.name!r}; choose another --out"
                )
        earlier = [item for item in planned if item["slug"] not in slugs]
        kept = [cell for item in earlier if (cell := _cell_again(full, **item))]
        if len(kept) < len(earlier):
            progress.say(
                f"  {len(earlier) - len(kept)} earlier cells were made under other settings: their "
                "records stay, but they leave the plan and the tables"
            )
        order = list(dict.fromkeys(entry.label for entry in (*full.methods, *suite.methods)))
        order += [cell.label for cell in kept if cell.label not in order]
        plan = sorted(kept + asked, key=lambda cell: (cell.config.seed, order.index(cell.label)))
        labels = {cell.label for cell in plan}
        write_plan(
            out,
            {
                "name": suite.name,
                "title": suite.title,
                "description": suite.description.strip(),
                "hardware": suite.hardware,
                "methods": [label for label in dict.fromkeys(order) if label in labels],
                "seeds": sorted({cell.config.seed for cell in plan}),
                "dataset": suite.dataset.model_dump(mode="json"),
                "model": suite.model.model_dump(mode="json"),
                "train": suite.train.model_dump(mode="json"),
                "evaluation": [
                    {"name": metric.name, **metric.settings()}
                    for metric in suite.evaluation
                    if stated
                ],
                "fronts": {name: list(front) for name, front in suite.fronts.items()},
                "plan": [
                    {"slug": cell.slug, "label": cell.label, "seed": cell.config.seed}
                    for cell in plan
                ],
            },
        )


def _cell_again(full: SuiteConfig, label: str, seed: int, slug: str) -> Cell | None:
    """The cell of that slug, if the present settings still lead to it."""
    try:
        cells = full.only([label], [seed]).cells()
    except ConfigError:  # a label that the suite no longer has
        return None
    return next((cell for cell in cells if cell.slug == slug), None)
