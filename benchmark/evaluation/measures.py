"""Measuring a model by one metric: a method for each kind, and what they share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmark.attacks.autoattack import Attack, AutoAttackResult, Precision, run_autoattack
from benchmark.attacks.spatial import spatial_robust
from benchmark.core.crafting import crafting
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import atomic_path, save_tensors
from benchmark.core.hashing import tensors_hash
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.data import corruptions
from benchmark.data.dataset import Dataset, Split
from benchmark.data.loader import IndexedBatch, evaluation_batches
from benchmark.data.shifted import Shifted, load_shifted
from benchmark.evaluation import budget
from benchmark.evaluation.keys import metric_key
from benchmark.evaluation.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.evaluation.record import broken_only_by, union_images
from benchmark.suites.metrics import (
    AutoAttackEstimate,
    AutoAttackMetric,
    AutoAttackPart,
    AutoAttackScreening,
    CleanMetric,
    CorruptionsMetric,
    Metric,
    PGDMetric,
    PGDScreening,
    ShiftMetric,
    SpatialMetric,
    UnionMetric,
)

# Corrupted test images kept in memory, at most: 4,660 CIFAR-10 images at all severities.
_CORRUPTED_BYTES = 1 << 30
# What AutoAttack's code runs, in whole or in part.
AttackMetric = AutoAttackMetric | AutoAttackPart | AutoAttackScreening


@dataclass
class Measured:
    """One metric.

    Attributes:
        indices: of the images it was measured on.
        columns: outcomes by column name.
        detail: what goes into the record.
        frame: instead of columns, the table of outcomes on images other than the test split's.
    """

    indices: Tensor
    columns: dict[str, Any]
    detail: dict[str, Any]
    correct: int | None
    mean: float
    frame: pd.DataFrame | None = None


@dataclass
class Measures:
    """What models are measured with: the test split of one data set, and how.

    Corrupted copies of the test images are kept for the next model, as far as memory allows: making
    them costs as much as several evaluations of a small network.

    Attributes:
        data_root: folder that holds published CIFAR-10-C files and shifted test sets, if the user
            has them.
        limit: the cap that the data was loaded under, for the record.
        ranks: the processes that share AutoAttack's batches.
        keep_adversarial: also write AutoAttack's examples, ``adversarial-METRIC.pt``.
    """

    data: Dataset
    device: torch.device
    batch_size: int = 256
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    data_root: Path | None = None
    limit: int | None = None
    ranks: Ranks = ALONE
    keep_adversarial: bool = False
    _corrupted: dict[tuple[Any, ...], Split] = field(default_factory=dict, repr=False)
    _shifted: dict[str, Shifted] = field(default_factory=dict, repr=False)
    _hashes: dict[tuple[Any, ...], str] = field(default_factory=dict, repr=False)

    def measure(
        self,
        model: nn.Module,
        metric: Metric,
        directory: Path,
        known: Mapping[str, Any] | None,
        outcomes: pd.DataFrame,
    ) -> Measured:
        """``metric`` of ``model``.

        Args:
            directory: of the record; unfinished work is kept there.
            known: the metric's entry on record, under whatever settings.
            outcomes: of the metrics measured before.
        """
        if isinstance(metric, UnionMetric):
            return _union(metric, outcomes)
        if isinstance(metric, AutoAttackEstimate):
            return self._estimate(model, metric, directory, known, outcomes)
        name = f"{directory.name}: {metric.name}"
        if isinstance(metric, ShiftMetric):
            return self._shift(model, metric, name)
        indices = sample(len(self.data.test), metric.n, metric.seed)
        if isinstance(metric, CleanMetric):
            return self._clean(model, metric, indices, name)
        if isinstance(metric, PGDMetric | PGDScreening):
            return self._pgd(model, metric, indices, name)
        if isinstance(metric, SpatialMetric):
            return self._spatial(model, metric, indices, name)
        if isinstance(metric, CorruptionsMetric):
            return self._corruptions(model, metric, indices, name)
        return self._autoattack(model, metric, indices, name, directory)

    def _clean(self, model: nn.Module, metric: CleanMetric, indices: Tensor, name: str) -> Measured:
        with self.progress.task(name, len(indices)) as task:
            right = clean_outcomes(
                model, self.data.test, indices, advance=task.advance, **self._how()
            )
        return _whole(metric, indices, right, {})

    def _pgd(
        self, model: nn.Module, metric: PGDMetric | PGDScreening, indices: Tensor, name: str
    ) -> Measured:
        precision: Precision = "bf16" if isinstance(metric, PGDScreening) else "fp32"
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
                precision=precision,
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
        if precision != "fp32":
            detail["precision"] = precision
        return _whole(metric, indices, robust, detail)

    def _spatial(
        self, model: nn.Module, metric: SpatialMetric, indices: Tensor, name: str
    ) -> Measured:
        robust = torch.zeros(len(indices), dtype=torch.bool)
        done = 0
        with crafting(model), self.progress.task(name, len(indices) * len(metric.grid)) as task:
            for _, x, y in self._batches(indices):
                advance = partial(task.advance, len(y))
                found = spatial_robust(model, x, y, metric.grid, advance)
                robust[done : done + len(y)] = found.cpu()
                done += len(y)
        detail = {"grid": metric.grid.model_dump(mode="json"), "points": len(metric.grid)}
        return _whole(metric, indices, robust, detail)

    def _shift(self, model: nn.Module, metric: ShiftMetric, name: str) -> Measured:
        shifted = self.shifted(metric.name)
        caps = [cap for cap in (metric.n, self.limit) if cap]
        indices = sample(len(shifted.split), min(caps, default=None), metric.seed)
        judge = model if shifted.kept is None else _Restricted(model, shifted.kept)
        with self.progress.task(name, len(indices)) as task:
            right = clean_outcomes(
                judge, shifted.split, indices, advance=task.advance, **self._how()
            )
        detail = {
            "source": shifted.source,
            "images": len(shifted.split),
            "fingerprint": shifted.fingerprint,
            "notes": list(shifted.notes),
        }
        measured = _whole(metric, indices, right, detail)
        labels = shifted.split.labels[indices].numpy()
        measured.frame = pd.DataFrame(
            {"index": indices.numpy(), "label": labels, metric.name: right.numpy()}
        )
        return measured

    def shifted(self, name: str) -> Shifted:
        """A test set of the same classes from elsewhere.

        Raises:
            DataError: the user has no such files, or they are damaged.
            ConfigError: the set belongs to another data set than the model.
        """
        if name not in self._shifted:
            self._shifted[name] = load_shifted(
                name, self.data_root or Path(), self.data.classes, self.data.image_size
            )
        return self._shifted[name]

    def _autoattack(
        self, model: nn.Module, metric: AttackMetric, indices: Tensor, name: str, directory: Path
    ) -> Measured:
        part = isinstance(metric, AutoAttackPart)
        if self.ranks.first:  # of another measurement
            adversarial(directory, metric.name).unlink(missing_ok=True)
        result = self._run_autoattack(
            model,
            metric,
            indices,
            name,
            journal(directory, metric),
            attacks=[metric.attack] if isinstance(metric, AutoAttackPart) else None,
            precision="bf16" if isinstance(metric, AutoAttackScreening) else "fp32",
        )
        if self.keep_adversarial and self.ranks.first and not part:
            self._keep(result, indices, adversarial(directory, metric.name))
        detail = {
            "norm": metric.norm,
            "eps": str(metric.eps),
            "version": "standard",
            "attacks": result.attacks,
            "targets": result.targets,
            "after": result.after,
            "disputed": int(result.disputed.sum()),
            "folded": result.folded,
            "precision": result.precision,
            "warnings": result.warnings,
            "versions": result.versions,
        }
        return _whole(metric, indices, result.robust.cpu(), detail)

    def _run_autoattack(
        self,
        model: nn.Module,
        metric: AttackMetric | AutoAttackEstimate,
        indices: Tensor,
        name: str,
        journal: Path,
        attacks: list[Attack] | None = None,
        precision: Precision = "fp32",
    ) -> AutoAttackResult:
        batches = list(self._batches(indices))
        x, y = torch.cat([b[1] for b in batches]), torch.cat([b[2] for b in batches])
        with self.progress.task(name, 1) as task:

            def report(done: int, total: int, attack: str | None = None) -> None:
                task.resize(total)
                task.advance(done - task.done, attack or "")

            return run_autoattack(
                model,
                x,
                y,
                norm=metric.norm,
                eps=float(metric.eps),
                seed=metric.seed,
                attacks=attacks,
                batch_size=self.batch_size,
                precision=precision,
                progress=report,
                journal=journal,
                ranks=self.ranks,
            )

    def _keep(self, result: AutoAttackResult, indices: Tensor, path: Path) -> None:
        """The adversarial examples as float tensors: x_adv [n, c, h, w] in [0, 1], the image itself
        where none was found."""
        content = {
            "index": indices,
            "x_adv": result.x_adv.cpu(),
            "fooled": (result.clean & ~result.robust).cpu(),
        }
        with atomic_path(path) as temporary:
            save_tensors(content, temporary, path)
        self.progress.say(
            f"{path.name}: float32 examples; image files of 8 bits would round part of them away"
        )

    def _estimate(
        self,
        model: nn.Module,
        metric: AutoAttackEstimate,
        directory: Path,
        known: Mapping[str, Any] | None,
        outcomes: pd.DataFrame,
    ) -> Measured:
        """AutoAttack on survivors of a cheap attack; an earlier sample of the same is extended."""
        name = f"{directory.name}: {metric.name}"
        settings = metric.model_dump(mode="json", exclude={"budget", "halfwidth"})
        base = metric_key(settings, tensors_hash(model.state_dict()), self.data.fingerprint)
        earlier = known["detail"] if known and known["detail"].get("base") == base else {}
        kept = {key: earlier[key] for key in ("attacks", "targets", "versions") if key in earlier}
        if earlier:
            draw = budget.Draw.recorded(earlier, outcomes[metric.name])
        else:
            with self.progress.task(f"{name}, cheap attack", len(self.data.test)) as task:
                alive = budget.survivors_of(
                    model,
                    self._batches(torch.arange(len(self.data.test))),
                    metric.norm,
                    float(metric.eps),
                    metric.seed,
                    task.advance,
                )
            draw = budget.Draw.fresh(self.ranks.gather(alive)[0], metric.seed)

        def judge(indices: Tensor) -> Tensor:
            ordered = indices.sort().values
            part = journal(directory, metric) / f"{len(ordered)}-from-{int(ordered[0])}"
            found = self._run_autoattack(model, metric, ordered, name, part)
            kept.update(attacks=found.attacks, targets=found.targets, versions=found.versions)
            return found.robust.cpu()[torch.searchsorted(ordered, indices)]

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
        everyone = torch.arange(len(self.data.test))
        columns = {metric.name: draw.column(len(everyone))}
        return Measured(everyone, columns, detail, None, interval.value)

    def _corruptions(
        self, model: nn.Module, metric: CorruptionsMetric, indices: Tensor, name: str
    ) -> Measured:
        root = self.published()
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
        return Measured(indices, columns, detail, None, mean)

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

    def corrupted_hash(self, metric: CorruptionsMetric) -> str:
        """Of what a figure on corrupted images depends on beside the test images: whose files, or
        the code that makes them. Looks at one image of each corruption and severity."""
        root = self.published()
        key = (root, metric.severities, metric.seed)
        if key in self._hashes:
            return self._hashes[key]
        digest = hashlib.sha256(b"published" if root else b"generated")
        first = torch.arange(1)
        for corruption in corruptions.CORRUPTIONS:
            for severity in metric.severities:
                if root:
                    images, _ = corruptions.load_published(
                        root, corruption, severity, 1, self.data.name
                    )
                else:
                    assert isinstance(self.data.test, Split)
                    image = self.data.test.take(first).images
                    images = corruptions.corrupt(image, corruption, severity, metric.seed)
                digest.update(images.contiguous().numpy().data)
        self._hashes[key] = digest.hexdigest()[:16]
        return self._hashes[key]

    def published(self) -> Path | None:
        """The folder of the user's published corrupted images, if there are any."""
        root = self.data_root
        return root if root and corruptions.find_published(root, self.data.name) else None

    def _how(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "device": self.device}

    def _batches(self, indices: Tensor) -> Iterator[IndexedBatch]:
        """(indices, x, y) of test images."""
        return evaluation_batches(
            self.data.test, self.batch_size, indices=indices, device=self.device
        )


class _Restricted(nn.Module):
    """A model whose logits outside ``kept`` do not count."""

    def __init__(self, model: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.model, self._kept = model, kept

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes], -inf outside ``kept``."""
        logits = self.model(x)
        kept = self._kept.to(logits.device)
        return torch.full_like(logits, -torch.inf).index_copy(1, kept, logits[:, kept])


def journal(directory: Path, metric: Metric) -> Path:
    """Where an attack keeps its finished batches until it is over."""
    # a radius in the name (aa_linf@1/255) is no folder
    return directory / f"{metric.name.replace('/', '_')}.unfinished"


def adversarial(directory: Path, metric: str) -> Path:
    """Where the examples of an attack are kept on request."""
    return directory / f"adversarial-{metric.replace('/', '_')}.pt"


def _whole(metric: Metric, indices: Tensor, outcome: Tensor, detail: dict[str, Any]) -> Measured:
    """A metric with one outcome per image."""
    return Measured(
        indices,
        {metric.name: outcome},
        detail,
        int(outcome.sum()),
        float(outcome.double().mean()),
    )


def _union(metric: UnionMetric, outcomes: pd.DataFrame) -> Measured:
    indices = union_images(metric, outcomes)
    robust, alone = broken_only_by(metric, outcomes, indices)
    return _whole(metric, indices, robust, {"of": list(metric.of), "broken_only_by": alone})
