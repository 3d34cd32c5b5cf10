"""Evaluate a deployed model: every metric of a panel, with its per-image outcomes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.config.recorded import read_cell_config
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError, ConfigError, DeviceMemoryError
from benchmark.core.files import read_json, write_json
from benchmark.core.running import Running, last_words, running
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation import gallery, identity, reliability
from benchmark.evaluation.figures import Figures, measured_of, move
from benchmark.metrics.metric import Context, Metric, Setup
from benchmark.metrics.outcomes import sample
from benchmark.models.formats import is_model_file
from benchmark.models.loading import load_external
from benchmark.records import earlier
from benchmark.records.files import RunFiles
from benchmark.records.keys import metric_key
from benchmark.records.schema import write_evaluation
from benchmark.records.study import runs_beside
from benchmark.training.selection import load_deployed


@dataclass
class Evaluator(Setup):
    """Evaluates models on the test split of one data set and keeps their records."""

    def evaluate(
        self,
        model: nn.Module,
        metrics: Sequence[Metric],
        directory: Path,
    ) -> None:
        """Add the missing ``metrics`` of ``model`` to ``directory``, one by one.

        It writes ``evaluation.json`` and ``outcomes.parquet`` after each metric; AutoAttack resumes
        after its last finished batch. The first metric with examples (PGD) also writes a few images
        to look at, ``gallery.npz``. A figure that is recorded under the same key (settings,
        weights, function, images) is kept. Otherwise the metric is measured, and the figure that it
        replaces is moved to ``earlier/``, from which it is restored if its key is asked for again.
        ``model`` stays unchanged.

        With several ranks, all call this with the same arguments; only the first measures metrics
        that cannot be shared, and only the first writes.

        Raises:
            BenchmarkError: the model's output does not fit the data set or is not finite; a damaged
                record; a folder that cannot be written.
            DataError: a shifted test set that is not there or damaged.
            DeviceMemoryError: a batch does not fit into the device's memory.
        """
        self.check(metrics, directory)  # before any long work
        metrics = self._ready(metrics, directory)
        died = last_words(directory) if self.ranks.first else None
        if died:
            self.progress.say(died)
        with running(directory, "evaluation", mark=self.ranks.first) as mark:
            try:
                self._evaluate(model, metrics, directory, mark)
            except torch.OutOfMemoryError as error:
                half = max(1, self.batch_size // 2)
                raise DeviceMemoryError(
                    f"the memory of {self.device} is too small for {self.batch_size} images at "
                    f"once; use `evaluate --batch-size {half}` or less: nothing is trained again"
                ) from error

    def check(self, metrics: Sequence[Metric], directory: Path) -> None:
        """Refuse what cannot be measured for the record in ``directory``.

        Raises:
            BenchmarkError: see ``Metric.check``.
        """
        self.runs = runs_beside(directory)
        for metric in metrics:
            metric.check(self)

    def network(self, place: Path, model: str | None) -> nn.Module:
        """See ``Setup.network``.

        Raises:
            ConfigError, CheckpointError: see ``load_external`` and ``load_deployed``.
        """
        if place.is_dir():
            _, config = read_cell_config(place)
            return load_deployed(config, self.data, place, self.device)
        if model is None and place.is_file() and not is_model_file(str(place)):
            raise ConfigError(f"{place} holds weights without an architecture; add model: NAME")
        if model is not None or place.is_file():
            return load_external(
                model or str(place),
                place if model else None,
                self.data.num_classes,
                image_size=self.data.image_size,
                channels=self.data.channels,
                device=self.device,
                batch=self.batch_size,
            )
        raise ConfigError(
            f"{place} is neither the folder of a trained run nor a file; check the path, which is "
            "relative to the working directory"
        )

    def _ready(self, metrics: Sequence[Metric], directory: Path) -> list[Metric]:
        """The metrics but those that need a network which is not trained yet, and what is computed
        from them."""
        ready: list[Metric] = []
        waiting: set[str] = set()
        for metric in metrics:
            late = [x for x in metric.needs if not RunFiles(self.runs[x]).training.exists()]
            if late:
                self.progress.say(
                    f"{directory.name}: {metric.name} waits until {late[0]} is trained"
                )
            if late or waiting & set(metric.parts):
                waiting.add(metric.name)
            else:
                ready.append(metric)
        return ready

    def _evaluate(
        self, model: nn.Module, metrics: Sequence[Metric], directory: Path, mark: Running
    ) -> None:
        figures = Figures(directory, self.data, self._images, self.limit)
        self._check(model)
        of = self._fingerprint(model, figures.record)
        self.ranks.gather(None)  # all have read what the first will replace
        if self.ranks.first:
            self._prepare(model, figures, of)
            self._gallery(model, metrics, directory, of)
        for metric in metrics:
            if self.ranks.first or metric.shared:
                mark.at(f"the evaluation of {metric.name}")
                self._bring(model, metric, figures, of)

    def _prepare(self, model: nn.Module, figures: Figures, of: Mapping[str, str]) -> None:
        """Set aside what is of another network or other images, and look at this network."""
        if said := figures.set_aside(of):
            self.progress.say(said)
        record, name = figures.record, figures.directory.name
        known = record["reliability"]
        record["reliability"] = self._with_checks(model, of["function"], known, name)
        self._say_all(figures.compare())
        if record["metrics"] and record["reliability"] != known:  # of figures set aside
            write_evaluation(figures.directory, record)

    def _say_all(self, sentences: Sequence[str]) -> None:
        for sentence in sentences:
            self.progress.say(sentence)

    def _bring(
        self, model: nn.Module, metric: Metric, figures: Figures, of: Mapping[str, str]
    ) -> None:
        """Make sure that ``metric`` is on record: keep it, restore it, or measure it."""
        directory, settings = figures.directory, metric.settings()
        on = {**of, "data": metric.images_of(self, figures.record["metrics"], of["data"])}
        key = metric_key(settings, on["model"], on["data"], on["function"])
        known = figures.record["metrics"].get(metric.name)
        # The adversarial examples, if they were asked for too.
        wanted = metric.kept_examples(directory, self)
        if known and known["key"] == key and (wanted is None or wanted.exists()):
            return
        kept = None
        if self.ranks.first:
            kept = figures.earlier(key, with_examples=wanted is not None)
        if metric.shared:  # where all ranks are
            kept = self.ranks.gather(kept)[0]
        examples = RunFiles(directory).adversarial(metric.name)
        if self.ranks.first and known:
            move(examples, earlier.examples(directory, known["key"]))
        if kept is not None:
            if self.ranks.first:
                move(earlier.examples(directory, key), examples)
                measured = measured_of(kept, metric.name)
                self._say_all(figures.put(metric, measured, dict(kept.entry)))
            return
        started = time.monotonic()
        same = known and all(known[name] == value for name, value in on.items())
        self._guard_unfinished(directory, metric, of)
        measured = metric.measure(
            Context(
                setup=self,
                model=model,
                model_hash=of["model"],
                directory=directory,
                outcomes=figures.outcomes,
                known=known if same else None,
            )
        )
        if not self.ranks.first:
            return
        entry = {
            "key": key,
            **on,
            **metric.about(
                {
                    "seed": metric.seed,
                    "bn_mode": "eval",
                    "device": str(self.device),
                    "batch_size": self.batch_size,
                    **measured.detail,
                }
            ),
            "outcomes": measured.where,
            "n": len(measured.indices),
            "correct": measured.correct,
            "mean": measured.value,
            "seconds": round(time.monotonic() - started, 3),
        }
        self._say_all(figures.put(metric, measured, entry))

    def _gallery(
        self,
        model: nn.Module,
        metrics: Sequence[Metric],
        directory: Path,
        fingerprint: Mapping[str, str],
    ) -> None:
        """Written once for this network and these images, by the first metric that has any."""
        attack = next((metric for metric in metrics if metric.has_examples), None)
        path = RunFiles(directory).gallery
        if attack is not None and not gallery.is_current(path, fingerprint):
            gallery.write_gallery(model, self.data, attack, path, fingerprint, self.device)

    def _guard_unfinished(self, directory: Path, metric: Metric, of: Mapping[str, str]) -> None:
        """Refuse to continue unfinished work that belongs to another function of the weights.

        Raises:
            BenchmarkError: there is such work.
        """
        folder = metric.journal(directory)
        path = folder / "function.json"
        if path.exists() and read_json(path) != of["function"]:
            raise BenchmarkError(
                f"{folder} holds an unfinished attack on a network with other weights or code; "
                "continue with those it was started with, or delete that folder to start over"
            )
        if self.ranks.first and metric.shared:
            write_json(path, of["function"])

    def _fingerprint(self, model: nn.Module, record: dict[str, Any]) -> dict[str, str]:
        """Hashes of the weights ("model"), their function and the test images ("data").

        The probe of a function that the record does not have is added to it.
        """
        size, channels = self.data.test.image_size, self.data.channels
        found = identity.probe(model, size, self.device, channels)
        name = identity.function_id(found, record["functions"])
        name, found = self.ranks.gather((name, found))[0]  # another rank may round differently
        record["functions"].setdefault(name, found)
        return {"model": found["weights"], "function": name, "data": self._images}

    @cached_property
    def _images(self) -> str:
        return identity.images_hash(self.data)

    def _check(self, model: nn.Module) -> None:
        """One small batch through the model before any long work."""
        indices = torch.arange(min(4, len(self.data.test)))
        _, x, _ = next(
            iter(evaluation_batches(self.data.test, 4, indices=indices, device=self.device))
        )
        with crafting(model), torch.no_grad():
            logits = model(x)
        wanted = (len(x), self.data.num_classes)
        if tuple(logits.shape) != wanted:
            raise BenchmarkError(
                f"the model gives an output of shape {tuple(logits.shape)} for {len(x)} images of "
                f"{self.data.name}; {wanted} was expected"
            )
        if not torch.isfinite(logits).all():
            raise BenchmarkError("the model's output is not finite on clean test images")

    def _with_checks(
        self, model: nn.Module, function: str, known: Mapping[str, Any], name: str
    ) -> dict[str, Any]:
        """What makes attacks on ``model`` doubtful, for the record and the marks in tables, beside
        what is ``known`` of other networks of the same record."""
        if function in known["checked"]:
            return dict(known)
        indices = sample(len(self.data.test), reliability.IMAGES, seed=0)
        _, x, y = next(
            iter(
                evaluation_batches(
                    self.data.test, reliability.IMAGES, indices=indices, device=self.device
                )
            )
        )
        findings = reliability.check(model, x, y)
        for finding in findings:
            self.progress.say(f"{name}: warning, {finding.name}: {finding.text}")
        return {
            "images": len(indices),
            "checked": [*known["checked"], function],
            "findings": [
                *known["findings"],
                *(finding.of(function) for finding in findings),
            ],
        }
