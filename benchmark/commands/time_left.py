"""The time that a suite still takes, from the work of its cells and the pace so far."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from benchmark.commands.left import is_trained, left_to_measure
from benchmark.config.suite import Cell
from benchmark.core.errors import BenchmarkError
from benchmark.core.progress import Task, duration
from benchmark.data.dataset import Dataset
from benchmark.metrics.metric import Metric
from benchmark.records.files import SuiteFiles
from benchmark.training.build import build_method, cell_length

TRAINING, EVALUATION = "training", "evaluation"


def stage(slug: str, kind: str) -> str:
    """The name of a stage: a cell's training, or its evaluation."""
    return f"{kind} {slug}"


class TimeLeft:
    """What all stages that are not done yet will take.

    Work is counted in gradient passes per image. Those of an evaluation are an upper bound, as
    attacks stop at images that fall; its pace is that of the evaluations that this process has
    finished, which fell short of their bounds alike. Before the first one, the pace of training
    stands in, and the time is one "at most".

    Args:
        work: passes of each stage that is not done.
    """

    def __init__(self, work: dict[str, float]) -> None:
        self._ahead = dict(work)
        self._done = dict.fromkeys((TRAINING, EVALUATION), 0.0)
        self._seconds = dict(self._done)
        self._running, self._begun, self._share = "", 0.0, 1.0

    def begin(self, name: str) -> None:
        self._running, self._begun, self._share = name, time.monotonic(), 1.0

    def end(self, name: str, finished: bool) -> None:
        kind, _, slug = name.partition(" ")
        if finished:
            self._done[kind] += self._ahead.pop(name, 0.0) * self._share
            self._seconds[kind] += time.monotonic() - self._begun
        else:  # nothing of this cell follows
            for dropped in (TRAINING, EVALUATION):
                self._ahead.pop(stage(slug, dropped), None)
        self._running = ""

    def left(self, task: Task) -> str:
        """See ``Whole``: the running stage's rest and all others, at the pace of their kind."""
        own, elapsed = task.eta(), time.monotonic() - self._begun
        kind = self._running.partition(" ")[0]
        paces = {key: self._seconds[key] / done for key, done in self._done.items() if done}
        if kind == TRAINING:  # a part of it may have been done in an earlier call
            self._share = 1 - task.first / max(1, task.total)
        running = self._ahead.get(self._running, 0.0) * self._share
        if kind == TRAINING and TRAINING not in paces and own is not None and running:
            paces[TRAINING] = (elapsed + own) / running
        bound = EVALUATION not in paces and any(
            work for name, work in self._ahead.items() if name.startswith(EVALUATION)
        )
        if bound and TRAINING in paces:
            paces[EVALUATION] = paces[TRAINING]
        needed = {name.partition(" ")[0] for name, work in self._ahead.items() if work}
        if own is None or not needed <= paces.keys():
            return ""
        total = own
        for name, work in self._ahead.items():
            expected = work * paces.get(name.partition(" ")[0], 0.0)
            if name != self._running:
                total += expected
            elif kind == EVALUATION:  # whose further tasks are not begun
                total += max(0.0, expected - elapsed - own)
        return f"suite: {'at most ' if bound else ''}{duration(total)}"


def time_left(
    cells: Sequence[Cell], out: Path, data: Dataset, metrics: Sequence[Metric]
) -> TimeLeft | None:
    """For the cells in ``out`` and the ``metrics`` that follow their training.

    Returns:
        None if a method cannot be built without computing, so that its work is unknown.
    """
    work: dict[str, float] = {}
    known: dict[str, tuple[float, int]] = {}
    if len(data.train):  # of the images, which are no "meta" tensors; then kept
        _ = data.mean
    for cell in cells:
        length = cell_length(cell.config, len(data.train))
        if cell.label not in known:
            passes = None
            # Networks without values; a method of one's own may need values.
            with (
                warnings.catch_warnings(),
                suppress(RuntimeError, NotImplementedError, BenchmarkError),
                torch.random.fork_rng(devices=[]),
                torch.device("meta"),
            ):
                warnings.simplefilter("ignore")  # the training says it in its place
                method = build_method(cell.config, data, torch.device("meta"), length=length)
                passes = method.passes, method.inference_passes
            if passes is None:
                return None
            known[cell.label] = passes
        training, inference = known[cell.label]
        directory = SuiteFiles(out).cell(cell.slug)
        if not is_trained(directory):
            work[stage(cell.slug, TRAINING)] = length.images * training
        evaluation = sum(
            metric.passes(len(data.test)) * inference
            for metric in left_to_measure(cell.config, directory, metrics)
        )
        work[stage(cell.slug, EVALUATION)] = evaluation
    return TimeLeft(work)
