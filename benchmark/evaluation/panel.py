"""Evaluate a deployed model: every metric of a panel, with its per-image outcomes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
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
from benchmark.core.running import Running, last_words, running
from benchmark.data.dataset import Split
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation import gallery, reliability
from benchmark.evaluation.keys import metric_key
from benchmark.evaluation.measures import AttackMetric, Measured, Measures, adversarial, journal
from benchmark.evaluation.outcomes import sample
from benchmark.evaluation.record import (
    drop_unions_of,
    read_evaluation,
    read_outcomes,
    set_columns,
)
from benchmark.suites.metrics import (
    AutoAttackEstimate,
    AutoAttackPart,
    CorruptionsMetric,
    Metric,
    PGDMetric,
    ShiftMetric,
    UnionMetric,
)


@dataclass
class Evaluator(Measures):
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
        died = last_words(directory) if self.ranks.first else None
        if died:
            self.progress.say(died)
        with running(directory, "evaluation", mark=self.ranks.first) as mark:
            self._evaluate(model, metrics, directory, mark)

    def _evaluate(
        self, model: nn.Module, metrics: Sequence[Metric], directory: Path, mark: Running
    ) -> None:
        fingerprint = {
            "model": tensors_hash(model.state_dict()),
            "data": self.data.fingerprint,
        }
        if any(isinstance(metric, CorruptionsMetric) for metric in metrics) and not isinstance(
            self.data.test, Split
        ):
            raise BenchmarkError(
                f"common corruptions are generated in memory; {self.data.name} is streamed, so "
                "leave that metric out (--metric) or set a smaller image size"
            )
        for metric in metrics:
            if isinstance(metric, ShiftMetric):  # before any long work
                self.shifted(metric.name)
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
            if not (self.ranks.first or isinstance(metric, AttackMetric | AutoAttackEstimate)):
                continue
            key = metric_key(
                metric.model_dump(mode="json"), fingerprint["model"], fingerprint["data"]
            )
            known = record["metrics"].get(metric.name)
            if known and known["key"] == key and self._stands(metric, known, directory):
                continue
            started = time.monotonic()
            mark.at(f"the evaluation of {metric.name}")
            measured = self.measure(model, metric, directory, known, outcomes)
            if not self.ranks.first:
                continue
            if record["metrics"].pop(metric.name, None):
                drop_unions_of(metric.name, record, outcomes)
                # killed before the new table is there, the record lists nothing that it lacks
                write_json(directory / "evaluation.json", record)
            record["metrics"][metric.name] = {
                "key": key,
                "settings": config_hash(metric),
                "kind": metric.kind,
                "n": len(measured.indices),
                "correct": measured.correct,
                "mean": measured.mean,
                "seconds": round(time.monotonic() - started, 3),
                "detail": {
                    "seed": metric.seed,
                    "bn_mode": "eval",
                    "device": str(self.device),
                    "batch_size": self.batch_size,
                    **measured.detail,
                },
            }
            self._write(directory, metric, measured, record, outcomes)

    def _gallery(
        self,
        model: nn.Module,
        metrics: Sequence[Metric],
        directory: Path,
        fingerprint: dict[str, str],
    ) -> None:
        """Written once for these weights and images, by the first PGD metric asked for."""
        attack = next((metric for metric in metrics if isinstance(metric, PGDMetric)), None)
        path = directory / gallery.NAME
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
            set_columns(outcomes, metric.name, measured.indices, measured.columns)
            self._compare(record, outcomes, directory.name)
        else:  # on other images than the test split's
            write_frame(directory / f"outcomes-{metric.name}.parquet", frame)
        write_frame(table, outcomes.reset_index())
        write_json(directory / "evaluation.json", record)
        shutil.rmtree(journal(directory, metric), ignore_errors=True)

    def _compare(self, record: dict[str, Any], outcomes: pd.DataFrame, name: str) -> None:
        """Renew the findings that come from comparing metrics."""
        known = record["reliability"]["findings"]
        across = [asdict(f) for f in reliability.across(record["metrics"], outcomes)]
        for finding in across:
            if finding not in known:
                self.progress.say(f"{name}: warning, {finding['name']}: {finding['text']}")
        own = [finding for finding in known if finding["name"] not in reliability.ACROSS]
        record["reliability"]["findings"] = own + across

    def _stands(self, metric: Metric, known: Mapping[str, Any], directory: Path) -> bool:
        """Whether what is on record under the same settings need not be measured again."""
        # A union costs nothing, and its parts may have been measured anew.
        if isinstance(metric, UnionMetric):
            return False
        if isinstance(metric, ShiftMetric):
            return bool(known["detail"]["fingerprint"] == self.shifted(metric.name).fingerprint)
        if isinstance(metric, CorruptionsMetric):
            source = "published" if self.published() else "generated"
            return bool(known["detail"].get("source") == source)
        if isinstance(metric, AttackMetric) and not isinstance(metric, AutoAttackPart):
            return not self.keep_adversarial or adversarial(directory, metric).exists()
        return True

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
