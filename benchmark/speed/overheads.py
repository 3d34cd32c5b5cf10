"""The time of training that is not spent on passes, measured part by part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmark.core.method import Batch, Method
from benchmark.speed.clock import Clock, Stopwatch
from benchmark.speed.setting import Bench
from benchmark.training.loop import Trainer

_PROGRESS = 0.9


@dataclass(frozen=True)
class Overhead:
    """``seconds`` of a step of ``method`` that go into ``part``, and its ``share`` of the step."""

    model: str
    method: str
    part: str
    seconds: float
    share: float


def in_steps(bench: Bench, method: str, own: str, steps: int, clock: Clock) -> list[Overhead]:
    """Overheads in updates: updating the crafting views, the optimisers, and what the method does
    in addition to its learners' steps, called ``own`` ("mixing").

    Each part is timed in a separate run, because on an accelerator every reading of the clock waits
    for the device.
    """
    found = []
    for part in ("refresh", "optimizer", own):
        built = bench.method(method)
        built.update(bench.batch, _PROGRESS)
        watch = Stopwatch(clock)
        _watch(built, part, watch)
        with watch.part("step"):
            for _ in range(steps):
                built.update(bench.batch, _PROGRESS)
        whole = watch.seconds["step"]
        taken = watch.seconds.get(part, 0.0)
        if part == own:
            taken = whole - watch.seconds["learners"]
        found.append(Overhead(bench.model, method, part, taken / steps, taken / whole))
    return found


def _watch(method: Method, part: str, watch: Stopwatch) -> None:
    for learner in method.learners.values():
        if part == "refresh":
            learner.view = _Entered(learner.view, watch, part)
        elif part == "optimizer":
            watch.watch(learner.optimizer, "step", part)
        else:
            watch.watch(learner, "step", "learners")


class _Entered:
    """A context whose entering is timed."""

    def __init__(self, context: Any, watch: Stopwatch, part: str) -> None:
        self._context, self._watch, self._part = context, watch, part

    def __enter__(self) -> Any:
        with self._watch.part(self._part):
            return self._context.__enter__()

    def __exit__(self, *details: object) -> None:
        self._context.__exit__(*details)


def in_training(bench: Bench, method: str, steps: int, clock: Clock) -> list[Overhead]:
    """Overheads in a complete training: loading and augmenting; and the rest of the loop (losses,
    lines of the log, progress) without updates, validation and checkpoints.

    The images are repeated to make an epoch of ``steps`` batches, since the digits are too few.
    """
    config = bench.config(method)
    train = config.train.model_copy(update={"epochs": 1, "validations": 1, "validation_images": 2})
    images = bench.split("train")
    repeated = images.take(torch.arange(steps * bench.batch_size) % len(images))
    watch = Stopwatch(clock)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            config.model_copy(update={"train": train}),
            replace(bench.data, train=repeated),
            Path(folder),
            device=bench.device,
        )
        trainer.method.update(bench.batch, _PROGRESS)  # a warm-up
        watch.watch(trainer.method, "update", "update")
        for aside in ("_validate", "_save", "_finish"):
            watch.watch(trainer, aside, "aside")
        trainer._loader = _Loaded(trainer._loader, watch)
        with watch.part("all"):
            trainer.run()
        done = trainer.state.step
    seconds = watch.seconds
    whole = seconds["all"] - seconds["aside"]
    parts = {
        "loading": seconds["loading"],
        "logging": whole - seconds["loading"] - seconds["update"],
    }
    return [
        Overhead(bench.model, method, part, taken / done, taken / whole)
        for part, taken in parts.items()
    ]


class _Loaded:
    """A loader whose batches are timed."""

    def __init__(self, loader: Any, watch: Stopwatch) -> None:
        self._loader, self._watch = loader, watch
        self.steps_per_epoch: int = loader.steps_per_epoch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        batches = iter(self._loader.epoch(epoch, start=start))
        while True:
            with self._watch.part("loading"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
