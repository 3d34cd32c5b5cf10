"""Evaluate a deployed model: every metric of a suite, with its per-image outcomes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmark.attacks.autoattack import run_autoattack
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import atomic_path, write_json
from benchmark.core.hashing import tensors_hash
from benchmark.core.progress import Progress
from benchmark.data import corruptions
from benchmark.data.dataset import Dataset, Split
from benchmark.data.loader import evaluation_batches
from benchmark.evaluation import budget, reliability
from benchmark.evaluation.keys import metric_key
from benchmark.evaluation.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.evaluation.record import (
    broken_only_by,
    drop_unions_of,
    read_evaluation,
    read_outcomes,
    set_columns,
    union_images,
)
from benchmark.suites.metrics import (
    AutoAttackEstimate,
    AutoAttackMetric,
    CleanMetric,
    CorruptionsMetric,
    Metric,
    PGDMetric,
    UnionMetric,
)

# Corrupted test images kept in memory, at most: 4,660 CIFAR-10 images at all severities.
_CORRUPTED_BYTES = 1 << 30


@dataclass
class Measured:
    """One metric: outcomes by column name, and what goes into the record."""

    columns: dict[str, Any]
    detail: dict[str, Any]
    correct: int | None
    mean: float


@dataclass
class Evaluator:
    """Evaluates models on the test split of one data set.

    Corrupted copies of the test images are kept for the next model, as far as memory allows: making
    them costs as much as several evaluations of a small network.

    Attributes:
        data_root: folder that holds published CIFAR-10-C files, if the user has them.
        limit: the cap that the data was loaded under, for the record.
    """

    data: Dataset
    device: torch.device
    batch_size: int = 256
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    data_root: Path | None = None
    limit: int | None = None
    _corrupted: dict[tuple[Any, ...], Split] = field(default_factory=dict, repr=False)

    def evaluate(self, model: nn.Module, metrics: Sequence[Metric], directory: Path) -> None:
        """Add the missing ``metrics`` of ``model`` to ``directory``, one by one.

        Writes ``evaluation.json`` and ``outcomes.parquet`` after each metric; AutoAttack goes on
        behind its last finished batch. A metric already
        there with the same settings, weights and data is kept; one with other settings is measured
        anew. ``model`` is left as it was.

        Raises:
            BenchmarkError: the model's output does not fit the data set or is not finite; a damaged
                record; a folder that cannot be written.
        """
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
        record, outcomes = self._read(directory, fingerprint)
        self._check(model)
        if "reliability" not in record:
            record["reliability"] = self._reliability(model, directory.name)
            if record["metrics"]:  # measured before there were such checks
                write_json(directory / "evaluation.json", record)
        for metric in metrics:
            key = metric_key(
                metric.model_dump(mode="json"), fingerprint["model"], fingerprint["data"]
            )
            known = record["metrics"].get(metric.name)
            # A union costs nothing, and its parts may have been measured anew.
            if (
                known
                and known["key"] == key
                and not isinstance(metric, UnionMetric)
                and self._same_source(metric, known)
            ):
                continue
            indices = (
                union_images(metric, outcomes)
                if isinstance(metric, UnionMetric)
                else sample(len(self.data.test), metric.n, metric.seed)
            )
            started = time.monotonic()
            if isinstance(metric, UnionMetric):
                measured = _union(metric, outcomes, indices)
            elif isinstance(metric, AutoAttackEstimate):
                measured = self._estimate(model, metric, directory, known, outcomes, fingerprint)
            else:
                name = f"{directory.name}: {metric.name}"
                measured = self._measure(model, metric, indices, name, directory)
            drop_unions_of(metric.name, record, outcomes)
            record["metrics"][metric.name] = {
                "key": key,
                "kind": metric.kind,
                "n": len(indices),
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
            set_columns(outcomes, metric.name, indices, measured.columns)
            with atomic_path(directory / "outcomes.parquet") as temporary:
                outcomes.reset_index().to_parquet(temporary, index=False)
            write_json(directory / "evaluation.json", record)
            shutil.rmtree(_journal(directory, metric), ignore_errors=True)

    def _same_source(self, metric: Metric, known: Mapping[str, Any]) -> bool:
        """Whether corrupted images would come from where those on record came from."""
        if not isinstance(metric, CorruptionsMetric):
            return True
        source = "published" if self._published() else "generated"
        return bool(known["detail"].get("source") == source)

    def _published(self) -> Path | None:
        """The folder of the user's published corrupted images, if there are any."""
        root = self.data_root
        return root if root and corruptions.find_published(root, self.data.name) else None

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

    def _measure(
        self, model: nn.Module, metric: Metric, indices: Tensor, name: str, directory: Path
    ) -> Measured:
        if isinstance(metric, CleanMetric):
            return self._clean(model, metric, indices, name)
        if isinstance(metric, PGDMetric):
            return self._pgd(model, metric, indices, name)
        if isinstance(metric, AutoAttackMetric):
            return self._autoattack(model, metric, indices, name, _journal(directory, metric))
        assert isinstance(metric, CorruptionsMetric)
        return self._corruptions(model, metric, indices, name)

    def _clean(self, model: nn.Module, metric: CleanMetric, indices: Tensor, name: str) -> Measured:
        with self.progress.task(name, len(indices)) as task:
            right = clean_outcomes(
                model, self.data.test, indices, advance=task.advance, **self._how()
            )
        return _whole(metric, right, {})

    def _pgd(self, model: nn.Module, metric: PGDMetric, indices: Tensor, name: str) -> Measured:
        with self.progress.task(name, len(indices)) as task:
            robust = pgd_outcomes(
                model,
                self.data.test,
                indices,
                metric.threat,
                seed=metric.seed,
                loss=metric.loss,
                momentum=metric.momentum,
                restarts=metric.restarts,
                advance=task.advance,
                **self._how(),
            )
        detail = {
            "threat": metric.threat.model_dump(mode="json"),
            "loss": metric.loss,
            "start": "uniform",
            "momentum": metric.momentum,
            "restarts": metric.restarts,
            "counts": "last iterate",
        }
        return _whole(metric, robust, detail)

    def _autoattack(
        self,
        model: nn.Module,
        metric: AutoAttackMetric,
        indices: Tensor,
        name: str,
        journal: Path,
    ) -> Measured:
        batches = list(
            evaluation_batches(self.data.test, self.batch_size, indices=indices, device=self.device)
        )
        x, y = torch.cat([b[1] for b in batches]), torch.cat([b[2] for b in batches])
        with self.progress.task(name, 1) as task:

            def report(done: int, total: int, attack: str | None = None) -> None:
                task.resize(total)
                task.advance(done - task.done, attack or "")

            result = run_autoattack(
                model,
                x,
                y,
                norm=metric.norm,
                eps=float(metric.eps),
                seed=metric.seed,
                version=metric.version,
                batch_size=self.batch_size,
                progress=report,
                journal=journal,
            )
        detail = {
            "norm": metric.norm,
            "eps": str(metric.eps),
            "version": metric.version,
            "attacks": result.attacks,
            "targets": result.targets,
            "after": result.after,
            "disputed": int(result.disputed.sum()),
            "folded": result.folded,
            "warnings": result.warnings,
            "versions": result.versions,
        }
        return _whole(metric, result.robust.cpu(), detail)

    def _estimate(
        self,
        model: nn.Module,
        metric: AutoAttackEstimate,
        directory: Path,
        known: Mapping[str, Any] | None,
        outcomes: pd.DataFrame,
        fingerprint: Mapping[str, str],
    ) -> Measured:
        """AutoAttack on survivors of a cheap attack; an earlier sample of the same is extended."""
        name = f"{directory.name}: {metric.name}"
        settings = metric.model_dump(mode="json", exclude={"budget", "halfwidth"})
        base = metric_key(settings, fingerprint["model"], fingerprint["data"])
        real = AutoAttackMetric(
            name=metric.name.removesuffix("_estimate"),
            norm=metric.norm,
            eps=metric.eps,
            version=metric.version,
            seed=metric.seed,
        )
        earlier = known["detail"] if known and known["detail"].get("base") == base else {}
        kept = {key: earlier[key] for key in ("attacks", "targets", "versions") if key in earlier}
        if earlier:
            draw = budget.Draw.recorded(earlier, outcomes[metric.name])
        else:
            with self.progress.task(f"{name}, cheap attack", len(self.data.test)) as task:
                alive = budget.survivors_of(
                    model,
                    evaluation_batches(self.data.test, self.batch_size, device=self.device),
                    metric.norm,
                    float(metric.eps),
                    metric.seed,
                    task.advance,
                )
            draw = budget.Draw.fresh(alive, metric.seed)

        def judge(indices: Tensor) -> Tensor:
            ordered = indices.sort().values
            journal = _journal(directory, metric) / f"{len(ordered)}-from-{int(ordered[0])}"
            found = self._autoattack(model, real, ordered, name, journal)
            kept.update({key: found.detail[key] for key in ("attacks", "targets", "versions")})
            return torch.as_tensor(found.columns[real.name])[torch.searchsorted(ordered, indices)]

        draw, interval, kind = budget.estimate(
            len(self.data.test),
            draw,
            judge,
            budget=metric.budget,
            halfwidth=None if metric.halfwidth is None else metric.halfwidth / 100,
        )
        detail = {
            "norm": metric.norm,
            "eps": str(metric.eps),
            "version": metric.version,
            "interval": kind,
            "low": interval.low,
            "high": interval.high,
            "cheap": f"PGD-{budget.CHEAP_STEPS} on the margin, step eps/4, any iterate",
            "base": base,
            **kept,
            **draw.detail(),
        }
        columns = {metric.name: draw.column(len(self.data.test))}
        return Measured(columns, detail, None, interval.value)

    def _corruptions(
        self, model: nn.Module, metric: CorruptionsMetric, indices: Tensor, name: str
    ) -> Measured:
        root = self._published()
        columns: dict[str, Tensor] = {}
        accuracies: dict[str, list[float]] = {}
        with self.progress.task(
            name, len(corruptions.CORRUPTIONS) * len(metric.severities)
        ) as task:
            for corruption in corruptions.CORRUPTIONS:
                for severity in metric.severities:
                    split = self._corrupt(metric, indices, corruption, severity, root)
                    right = clean_outcomes(model, split, torch.arange(len(split)), **self._how())
                    columns[f"{metric.name}/{corruption}/{severity}"] = right
                    accuracies.setdefault(corruption, []).append(float(right.double().mean()))
                    task.advance(1, corruption)
        mean = float(np.mean([value for row in accuracies.values() for value in row]))
        detail = {
            "source": "published" if root else "generated",
            "severities": list(metric.severities),
            "per_corruption": accuracies,
            "departures": {} if root else corruptions.DEPARTURES,
        }
        return Measured(columns, detail, None, mean)

    def _corrupt(
        self,
        metric: CorruptionsMetric,
        indices: Tensor,
        corruption: str,
        severity: int,
        root: Path | None,
    ) -> Split:
        """Corrupted test images, from the user's published files or generated."""
        key = (tuple(indices.tolist()), metric.seed, corruption, severity, root)
        if key not in self._corrupted:
            assert isinstance(self.data.test, Split)
            chosen = self.data.test.take(indices)
            if root:
                images, labels = corruptions.load_published(
                    root, corruption, severity, int(indices.max()) + 1, self.data.name
                )
                if not torch.equal(labels[indices], chosen.labels):
                    raise BenchmarkError(
                        f"the published corrupted images of {self.data.name} have other labels "
                        f"than the test images ({self.data.source}), so their order differs; move "
                        "them away to generate corruptions, or use the original test files"
                    )
                chosen = Split(images, labels).take(indices)
            else:
                images = corruptions.corrupt(chosen.images, corruption, severity, metric.seed)
                chosen = Split(images, chosen.labels)
            held = sum(split.images.numel() for split in self._corrupted.values())
            if held + chosen.images.numel() > _CORRUPTED_BYTES:
                return chosen
            self._corrupted[key] = chosen
        return self._corrupted[key]

    def _how(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "device": self.device}


def _journal(directory: Path, metric: Metric) -> Path:
    """Where an attack keeps its finished batches until it is over."""
    # a radius in the name (aa_linf@1/255) is no folder
    return directory / f"{metric.name.replace('/', '_')}.unfinished"


def _whole(metric: Metric, outcome: Tensor, detail: dict[str, Any]) -> Measured:
    """A metric with one outcome per image."""
    return Measured(
        {metric.name: outcome}, detail, int(outcome.sum()), float(outcome.double().mean())
    )


def _union(metric: UnionMetric, outcomes: pd.DataFrame, indices: Tensor) -> Measured:
    robust, alone = broken_only_by(metric, outcomes, indices)
    return _whole(metric, robust, {"of": list(metric.of), "broken_only_by": alone})
