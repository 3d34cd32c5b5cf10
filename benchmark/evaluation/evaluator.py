"""Evaluate a deployed model: every metric of a panel, with its per-image outcomes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_json, write_frame, write_json
from benchmark.core.running import Running, last_words, running
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation import gallery, identity, reliability
from benchmark.metrics.metric import Context, Measured, Metric, Setup
from benchmark.metrics.outcomes import sample
from benchmark.records import earlier
from benchmark.records.files import RunFiles
from benchmark.records.keys import images_of, metric_key
from benchmark.records.outcomes import columns_of, read_outcomes, set_columns, unions_of
from benchmark.records.schema import read_evaluation, write_evaluation


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

        Writes ``evaluation.json`` and ``outcomes.parquet`` after each metric; AutoAttack goes on
        behind its last finished batch. The first metric with examples (PGD) also leaves a few
        images to look at, ``gallery.npz``. A metric already there under the same key (settings,
        weights, function, images) is kept; any other is measured, and the figure whose place it
        takes goes to ``earlier/``, from where it comes back when it is asked for again. ``model``
        is left as it was.

        With several ranks, all call this with the same arguments; the first alone measures what
        cannot be shared, and writes.

        Raises:
            BenchmarkError: the model's output does not fit the data set or is not finite; a damaged
                record; a folder that cannot be written.
            DataError: a shifted test set that is not there or damaged.
        """
        for metric in metrics:  # before any long work
            metric.check(self)
        died = last_words(directory) if self.ranks.first else None
        if died:
            self.progress.say(died)
        with running(directory, "evaluation", mark=self.ranks.first) as mark:
            self._evaluate(model, metrics, directory, mark)

    def _evaluate(
        self, model: nn.Module, metrics: Sequence[Metric], directory: Path, mark: Running
    ) -> None:
        record, outcomes, old = self._read(directory)
        self._check(model)
        of = self._fingerprint(model, record)
        self.ranks.gather(None)  # all have read what the first will replace
        if self.ranks.first:
            self._set_aside(directory, old, record, outcomes, of)
            known = record["reliability"]
            record["reliability"] = self._with_checks(model, of["function"], known, directory.name)
            self._compare(record, outcomes, directory.name)
            if record["metrics"] and record["reliability"] != known:  # of figures set aside
                write_evaluation(directory, record)
            self._gallery(model, metrics, directory, of)
        for metric in metrics:
            if self.ranks.first or metric.shared:
                mark.at(f"the evaluation of {metric.name}")
                self._bring(model, metric, directory, record, outcomes, of)

    def _bring(
        self,
        model: nn.Module,
        metric: Metric,
        directory: Path,
        record: dict[str, Any],
        outcomes: pd.DataFrame,
        of: Mapping[str, str],
    ) -> None:
        """Have ``metric`` on record: it is there already, was there earlier, or is measured."""
        settings = metric.settings()
        on = {**of, "data": metric.images_of(self, record["metrics"], of["data"])}
        key = metric_key(settings, on["model"], on["data"], on["function"])
        known = record["metrics"].get(metric.name)
        if known and known["key"] == key and self._is_complete(metric, directory):
            return
        kept = self._earlier(metric, directory, key, outcomes)
        examples = RunFiles(directory).adversarial(metric.name)
        if self.ranks.first and known:
            _move(examples, earlier.examples(directory, known["key"]))
        if kept is not None:
            if self.ranks.first:
                _move(earlier.examples(directory, key), examples)
                measured = _measured(kept, metric.name)
                self._write(directory, metric, measured, dict(kept.entry), record, outcomes)
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
                outcomes=outcomes,
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
        self._write(directory, metric, measured, entry, record, outcomes)

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

    def _write(
        self,
        directory: Path,
        metric: Metric,
        measured: Measured,
        entry: dict[str, Any],
        record: dict[str, Any],
        outcomes: pd.DataFrame,
    ) -> None:
        """The record with ``entry`` for a metric; then its unfinished work can go."""
        replaced = record["metrics"].get(metric.name)
        if replaced:
            gone = [metric.name, *unions_of(metric.name, record["metrics"])]
            self._take_out(directory, gone, record, outcomes)
            # killed before the new table is there, the record lists nothing that it lacks
            write_evaluation(directory, record)
        record["metrics"][metric.name] = entry
        files, frame = RunFiles(directory), measured.frame
        if frame is None:
            set_columns(outcomes, metric.name, measured.indices, measured.outcomes)
            self._compare(record, outcomes, directory.name)
        else:  # on other images than the test split's
            write_frame(files.own_outcomes(metric.name), frame)
        write_frame(files.outcomes, outcomes.reset_index())
        write_evaluation(directory, record)
        shutil.rmtree(metric.journal(directory), ignore_errors=True)

    def _take_out(
        self, directory: Path, names: Sequence[str], record: dict[str, Any], outcomes: pd.DataFrame
    ) -> None:
        """Move figures from the record to ``earlier/``; the caller writes the record."""
        for name in names:
            entry = record["metrics"][name]
            columns = columns_of(outcomes, name)
            if entry["outcomes"] == "own":
                path = RunFiles(directory).own_outcomes(name)
                frame = read_outcomes(path, {name: entry}).reset_index()
            else:
                frame = outcomes[["label", *columns]].reset_index()
            functions = {k: v for k, v in record["functions"].items() if k == entry["function"]}
            earlier.keep(directory, earlier.Kept(name, entry, record["dataset"], functions, frame))
            del record["metrics"][name]
            for column in columns:
                del outcomes[column]

    def _set_aside(
        self,
        directory: Path,
        old: tuple[dict[str, Any], pd.DataFrame] | None,
        record: dict[str, Any],
        outcomes: pd.DataFrame,
        of: Mapping[str, str],
    ) -> None:
        """Move what was measured on other images, weights or code out of the record."""
        if old is not None:
            names = list(old[0]["metrics"])
            _move_examples(directory, names, old[0])
            self._take_out(directory, names, *old)
            self._say_set_aside(directory, len(names), "other test images")
            return
        stale = [
            name
            for name, entry in record["metrics"].items()
            if (entry["model"], entry["function"]) != (of["model"], of["function"])
        ]
        if not stale:
            return
        others = {record["metrics"][name]["model"] for name in stale} != {of["model"]}
        _move_examples(directory, stale, record)
        self._take_out(directory, stale, record, outcomes)
        write_evaluation(directory, record)
        self._say_set_aside(
            directory,
            len(stale),
            "other weights" if others else "another function of the same weights",
        )

    def _say_set_aside(self, directory: Path, count: int, what: str) -> None:
        figures = "1 figure is" if count == 1 else f"{count} figures are"
        self.progress.say(
            f"{directory.name}: {figures} of {what}, kept in "
            f"{directory.name}/{RunFiles(directory).earlier.name}; measuring again"
        )

    def _earlier(
        self, metric: Metric, directory: Path, key: str, outcomes: pd.DataFrame
    ) -> earlier.Kept | None:
        """The figure under ``key`` that another took the place of, if it is of these images."""
        kept = earlier.find(directory, key) if self.ranks.first else None
        wanted = metric.kept_examples(directory, self) is not None
        if wanted and not earlier.examples(directory, key).exists():
            kept = None
        if kept is not None and kept.entry["outcomes"] != "own":
            same = np.array_equal(kept.frame["index"], outcomes.index)
            if not (same and np.array_equal(kept.frame["label"], outcomes["label"])):
                kept = None
        if metric.shared:  # where all ranks are
            kept = self.ranks.gather(kept)[0]
        return kept

    def _compare(self, record: dict[str, Any], outcomes: pd.DataFrame, name: str) -> None:
        """Renew the findings that come from comparing metrics, each network's with one another."""
        reliability_record = record["reliability"]
        known = reliability_record["findings"]
        found = []
        for function in reliability_record["checked"]:
            own = {k: e for k, e in record["metrics"].items() if e["function"] == function}
            for finding in reliability.across(own, outcomes):
                found.append(_finding(finding, function))
                if found[-1] not in known:
                    self.progress.say(f"{name}: warning, {finding.name}: {finding.text}")
        kept = [finding for finding in known if finding["name"] not in reliability.ACROSS]
        reliability_record["findings"] = kept + found

    def _is_complete(self, metric: Metric, directory: Path) -> bool:
        """Whether everything that was asked for beside the figure itself is there."""
        examples = metric.kept_examples(directory, self)
        return examples is None or examples.exists()

    def _guard_unfinished(self, directory: Path, metric: Metric, of: Mapping[str, str]) -> None:
        """Unfinished work of another function of the same weights is never gone on with.

        Raises:
            BenchmarkError: there is such work.
        """
        folder = metric.journal(directory)
        path = folder / "function.json"
        if path.exists() and read_json(path) != of["function"]:
            raise BenchmarkError(
                f"{folder} holds an unfinished attack with another weights or code of the network; "
                "go on with those it was started with, or delete that folder to start over"
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

    def _read(
        self, directory: Path
    ) -> tuple[dict[str, Any], pd.DataFrame, tuple[dict[str, Any], pd.DataFrame] | None]:
        """What is measured on the same images, and the record and table of other images, if the
        directory holds such."""
        test = self.data.test
        outcomes = pd.DataFrame(
            {"index": np.arange(len(test)), "label": test.labels.numpy()}
        ).set_index("index")
        record: dict[str, Any] = {
            "metrics": {},
            "dataset": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "images_hash": self._images,
                "source": self.data.source,
                "split": "test",
                "images": len(test),
                "size": test.image_size,
                "classes": list(self.data.classes),
                "notes": list(self.data.notes),
                "limit": self.limit,
            },
            "functions": {},
            "reliability": {"images": 0, "checked": [], "findings": []},
        }
        files = RunFiles(directory)
        # The probes of earlier functions: asked for again, they must be known again.
        for kept in earlier.listed(directory):
            record["functions"] |= kept["functions"]
        if not (files.evaluation.exists() and files.outcomes.exists()):
            return record, outcomes, None
        known = read_evaluation(directory)
        found = read_outcomes(files.outcomes, known["metrics"])
        record["functions"] |= known["functions"]
        if images_of(known) != self._images:
            return record, outcomes, (known, found)
        same = np.array_equal(found.index, outcomes.index)
        if not (same and np.array_equal(found["label"], outcomes["label"])):
            raise BenchmarkError(
                f"{files.outcomes} is damaged (it lists other images); delete it to evaluate again"
            )
        record |= {"metrics": known["metrics"], "reliability": known["reliability"]}
        return record, found, None

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
                *(_finding(finding, function) for finding in findings),
            ],
        }


def _move(source: Path, target: Path) -> None:
    """``source`` becomes ``target``, if it is there."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def _move_examples(directory: Path, names: Sequence[str], record: Mapping[str, Any]) -> None:
    """Adversarial examples go to ``earlier/`` with the figures that they belong to."""
    for name in names:
        target = earlier.examples(directory, record["metrics"][name]["key"])
        _move(RunFiles(directory).adversarial(name), target)


def _finding(finding: reliability.Finding, function: str) -> dict[str, str]:
    return {"name": finding.name, "text": finding.text, "function": function}


def _measured(kept: earlier.Kept, name: str) -> Measured:
    """A figure of before, in the form of one that was just measured."""
    entry, frame = kept.entry, kept.frame
    own = entry["outcomes"] == "own"
    return Measured(
        indices=torch.arange(len(frame)),
        value=entry["mean"],
        outcomes={column: frame[column].array for column in columns_of(frame, name)},
        correct=entry["correct"],
        frame=frame if own else None,
    )
