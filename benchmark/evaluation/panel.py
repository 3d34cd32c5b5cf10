"""Evaluate a deployed model: every metric of a panel, with its per-image outcomes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmark.core.config import config_hash
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_frame, write_json
from benchmark.core.hashing import tensors_hash
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation import gallery, reliability
from benchmark.evaluation.keys import metric_key
from benchmark.evaluation.record import (
    drop_unions_of,
    read_evaluation,
    read_outcomes,
    set_columns,
)
from benchmark.metrics.metric import Context, Measured, Metric, Setup
from benchmark.metrics.outcomes import sample


@dataclass
class Evaluator(Setup):
    """Evaluates models on the test split of one data set and keeps their records."""

    def evaluate(self, model: nn.Module, metrics: Sequence[Metric], directory: Path) -> None:
        """Add the missing ``metrics`` of ``model`` to ``directory``, one by one.

        Writes ``evaluation.json`` and ``outcomes.parquet`` after each metric; AutoAttack goes on
        behind its last finished batch. The first PGD metric also leaves a few images to look at,
        ``gallery.npz``. A metric already there with the same settings, weights and
        data is kept; one with other settings is measured anew. ``model`` is left as it was.

        With several ranks, all call this with the same arguments; the first alone measures what is
        not AutoAttack, and writes.

        Raises:
            BenchmarkError: the model's output does not fit the data set or is not finite; a damaged
                record; a folder that cannot be written.
            DataError: a shifted test set that is not there or damaged.
        """
        fingerprint = {
            "model": tensors_hash(model.state_dict()),
            "data": self.data.fingerprint,
        }
        for metric in metrics:
            metric.check(self)
        record, outcomes = self._read(directory, fingerprint)
        self._check(model)
        self.ranks.gather(None)  # all have read what the first will replace
        if self.ranks.first:
            known = record.get("reliability")
            record["reliability"] = dict(known or self._reliability(model, directory.name))
            self._compare(record, outcomes, directory.name)
            if record["metrics"] and record["reliability"] != known:  # older than the checks
                write_json(directory / "evaluation.json", record)
            self._gallery(model, metrics, directory, fingerprint)
        for metric in metrics:
            if not (self.ranks.first or metric.shared):
                continue
            key = metric_key(metric.settings(), fingerprint["model"], fingerprint["data"])
            known = record["metrics"].get(metric.name)
            context = Context(self, model, fingerprint["model"], directory, outcomes, known)
            if known and known["key"] == key and metric.stands(context):
                continue
            started = time.monotonic()
            measured = metric.measure(context)
            if not self.ranks.first:
                continue
            if record["metrics"].pop(metric.name, None):
                drop_unions_of(metric.name, record, outcomes)
                # killed before the new table is there, the record lists nothing that it lacks
                write_json(directory / "evaluation.json", record)
            detail = {
                "seed": metric.seed,
                "bn_mode": "eval",
                "device": str(self.device),
                "batch_size": self.batch_size,
                **measured.detail,
            }
            record["metrics"][metric.name] = {
                "key": key,
                "settings": config_hash(metric.settings()),
                "kind": metric.kind,
                "role": metric.role,
                "higher_is_better": metric.higher_is_better,
                "title": metric.title,
                "description": metric.describe(detail),
                "n": len(measured.indices),
                "correct": measured.correct,
                "mean": measured.value,
                "seconds": round(time.monotonic() - started, 3),
                "detail": detail,
            }
            self._write(directory, metric, measured, record, outcomes)

    def _gallery(
        self,
        model: nn.Module,
        metrics: Sequence[Metric],
        directory: Path,
        fingerprint: dict[str, str],
    ) -> None:
        """Written once for these weights and images, by the first metric that has examples."""
        path = directory / gallery.NAME
        attack = next((metric for metric in metrics if metric.has_examples), None)
        if attack is not None and not gallery.is_current(path, fingerprint):
            gallery.write_gallery(model, self.data, attack, path, fingerprint, self.device)

    def _write(
        self,
        directory: Path,
        metric: Metric,
        measured: Measured,
        record: dict[str, Any],
        outcomes: pd.DataFrame,
    ) -> None:
        """The record with the metric just measured; then its unfinished work can go."""
        table, frame = directory / "outcomes.parquet", measured.frame
        if frame is None:
            set_columns(outcomes, metric.name, measured.indices, measured.outcomes)
            self._compare(record, outcomes, directory.name)
        else:  # on other images than the test split's
            write_frame(directory / f"outcomes-{metric.name}.parquet", frame)
        write_frame(table, outcomes.reset_index())
        write_json(directory / "evaluation.json", record)
        shutil.rmtree(metric.journal(directory), ignore_errors=True)

    def _compare(self, record: dict[str, Any], outcomes: pd.DataFrame, name: str) -> None:
        """Renew the findings that come from comparing metrics."""
        known = record["reliability"]["findings"]
        across = [asdict(f) for f in reliability.across(record["metrics"], outcomes)]
        for finding in across:
            if finding not in known:
                self.progress.say(f"{name}: warning, {finding['name']}: {finding['text']}")
        own = [finding for finding in known if finding["name"] not in reliability.ACROSS]
        record["reliability"]["findings"] = own + across

    def _read(
        self, directory: Path, fingerprint: dict[str, str]
    ) -> tuple[dict[str, Any], pd.DataFrame]:
        """What is already measured on the same weights and images."""
        test = self.data.test
        outcomes = pd.DataFrame(
            {"index": np.arange(len(test)), "label": test.labels.numpy()}
        ).set_index("index")
        record: dict[str, Any] = {
            "metrics": {},
            "dataset": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "source": self.data.source,
                "split": "test",
                "images": len(test),
                "classes": list(self.data.classes),
                "notes": list(self.data.notes),
                "limit": self.limit,
            },
            "model_hash": fingerprint["model"],
        }
        path, table = directory / "evaluation.json", directory / "outcomes.parquet"
        if not (path.exists() and table.exists()):
            return record, outcomes
        known = read_evaluation(path)
        if {
            "model": known["model_hash"],
            "data": known["dataset"]["fingerprint"],
        } != fingerprint:
            self.progress.say(f"{directory.name}: other weights or images; measuring all again")
            return record, outcomes
        record["metrics"] = known["metrics"]
        record |= {key: known[key] for key in ("reliability",) if key in known}
        return record, read_outcomes(table, outcomes, known["metrics"])

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

    def _reliability(self, model: nn.Module, name: str) -> dict[str, Any]:
        """What makes attacks on ``model`` doubtful, for the record and the marks in tables."""
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
            "findings": [{"name": f.name, "text": f.text} for f in findings],
        }
