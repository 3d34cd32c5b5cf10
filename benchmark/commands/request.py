"""What ``evaluate`` and ``evaluate-model`` are asked for, whichever network it is asked of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmark.commands.options import Options
from benchmark.commands.run import locked
from benchmark.config.panels import Radii
from benchmark.config.suite import apply_overrides
from benchmark.core.config import explain, parse
from benchmark.core.environment import environment
from benchmark.core.errors import ConfigError
from benchmark.core.precision import Precision
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.data.dataset import Dataset
from benchmark.data.source import DatasetConfig
from benchmark.evaluation.evaluator import Evaluator
from benchmark.metrics.metric import Metric
from benchmark.records.schema import write_environment, write_model


@dataclass(frozen=True)
class CheaperAttack:
    """What to measure in the place of AutoAttack: an estimate from a sample of the images that
    survive a cheap attack, or a screening in low precision. Nothing is replaced by default.

    Attributes:
        budget: survivors to attack, for an estimate; or
        halfwidth: of the estimate's 95 % interval, in percentage points.
        precision: bf16 for a screening, which also takes the place of PGD.
    """

    budget: int | None = None
    halfwidth: float | None = None
    precision: Precision = "fp32"

    def __bool__(self) -> bool:
        return bool(self.budget or self.halfwidth or self.precision != "fp32")

    def replace(self, metrics: Sequence[Metric]) -> list[Metric]:
        """The ``metrics``, with every AutoAttack replaced; by a screening every PGD too.

        Raises:
            ConfigError: both replacements are asked for, or there is nothing to replace.
        """
        if not self:
            return list(metrics)
        estimate = self.budget or self.halfwidth
        if estimate and self.precision != "fp32":
            raise ConfigError(
                "--precision bf16 screens, --aa-budget and --aa-halfwidth estimate: "
                "choose one of them"
            )
        try:
            replaced = [
                metric.estimated(self.budget, self.halfwidth) if estimate else metric.screened()
                for metric in metrics
            ]
        except ValidationError as error:
            raise ConfigError(f"--aa-budget, --aa-halfwidth: {explain(error, Metric)}") from error
        if not any(replaced):
            raise ConfigError(
                "--aa-budget and --aa-halfwidth need an AutoAttack among the metrics, --precision "
                "an AutoAttack or a PGD"
            )
        # A union needs a verdict on every image, which an estimate or a screening does not give.
        return [
            other or metric
            for metric, other in zip(metrics, replaced, strict=True)
            if other or not metric.parts
        ]


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure and how, whichever the network.

    Attributes:
        data_root: folder of the data sets.
        only: names of metrics to measure; all if empty.
        given: of these, the metrics that were given by their settings.
        metrics: to measure instead of those of a panel or a suite.
        panel: a name of ``PANELS``; None for the suite's own metrics, or ``standard``.
        eps_linf, eps_l2, eps_l1: radii as text, in [0, 1] pixel units; () and None where none was
            given. With several under l_inf, metrics carry theirs in the name (``aa_linf@1/255``).
        options: numbers of images, seed and PGD's steps, over those of the panel.
        cheaper: what to measure in AutoAttack's place.
        keep_adversarial: also write AutoAttack's examples.
        batch_size: images per forward pass; AutoAttack's random starts depend on it.
        ranks: processes that measure together; the first one writes.
    """

    data_root: Path
    device: torch.device
    progress: Progress
    only: Sequence[str] = ()
    given: Sequence[Metric] = ()
    metrics: Sequence[Metric] = ()
    panel: str | None = None
    eps_linf: Sequence[str] = ()
    eps_l2: str | None = None
    eps_l1: str | None = None
    options: Options = field(default_factory=Options)
    cheaper: CheaperAttack = CheaperAttack()
    keep_adversarial: bool = False
    batch_size: int = 256
    ranks: Ranks = ALONE

    @property
    def named(self) -> list[str]:
        """Names of metrics that a panel must have: without those given, but with their parts."""
        own = {metric.name for metric in self.given}
        wanted = [*self.only, *(part for metric in self.given for part in metric.parts)]
        return [name for name in dict.fromkeys(wanted) if name not in own]

    def asked(self, metrics: Sequence[Metric]) -> list[str]:
        """Names of those of the measured ``metrics`` that were asked for: where metrics were named,
        not what they are computed from."""
        names = [metric.name for metric in metrics]
        return [name for name in names if name in self.only] or names

    @property
    def gives_radii(self) -> bool:
        """Whether a radius was given."""
        return bool(self.eps_linf or self.eps_l2 or self.eps_l1)

    def radii(self, usual: Radii) -> list[Radii]:
        """The radii that were given, one for each under l_inf; ``usual`` ones for the rest.

        Raises:
            ConfigError: a radius in the wrong unit.
        """
        l2, l1 = self.eps_l2 or usual.l2, self.eps_l1 or usual.l1
        return [
            Radii(
                _radius("--eps", eps, "linf"),
                _radius("--eps-l2", l2, "l2"),
                _radius("--eps-l1", l1, "l1"),
            )
            for eps in self.eps_linf or [usual.linf]
        ]

    def evaluator(self, data: Dataset, limit: int | None) -> Evaluator:
        """For ``data``, which was read under the cap ``limit``."""
        return Evaluator(
            data,
            self.device,
            batch_size=self.batch_size,
            progress=self.progress,
            data_root=self.data_root,
            limit=limit,
            ranks=self.ranks,
            keep_adversarial=self.keep_adversarial,
        )

    def possible(self, metrics: Sequence[Metric], data: Dataset) -> list[Metric]:
        """Without the metrics of a panel that cannot be measured on ``data``: streamed images, for
        one, are not corrupted. Metrics that were asked for by name stay, and fail with a reason."""
        if self.only:
            return list(metrics)
        setup = self.evaluator(data, None)
        return [metric for metric in metrics if metric.possible(setup)]

    def lock(self, folders: Sequence[Path]) -> AbstractContextManager[None]:
        """Hold the folders against other processes; the first rank does so for all."""
        return locked(folders if self.ranks.first else [])

    def describe_network(
        self,
        folder: Path,
        label: str,
        checkpoint: str | None,
        dataset: DatasetConfig,
        notes: Sequence[str] = (),
    ) -> None:
        """Write into ``folder`` which network is measured there, on which data and by what machine.
        An evaluation outside a suite has no other record of it.

        Args:
            label: of the network, in tables.
            checkpoint: name of the file of its weights.
            notes: what was done to the network so that it could be measured.
        """
        machine = environment(str(self.device), torch.get_num_threads())
        write_environment(folder, machine)
        content = {
            "model": label,
            "checkpoint": checkpoint,
            "dataset": dataset.model_dump(mode="json"),
            "notes": list(notes),
        }
        write_model(folder, content)


def _radius(option: str, text: str, norm: NormName) -> str:
    """``text``, if it is a radius under ``norm``."""
    try:
        check_eps(Pixels(text), norm)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}") from error
    return text


def split_settings(
    dataset: Mapping[str, Any], limit: int | None, settings: Sequence[str], groups: Sequence[str]
) -> tuple[DatasetConfig, dict[str, Any]]:
    """The data set that the command line describes, and the settings of the model.

    Args:
        dataset: its name, and settings that ``settings`` may change.
        limit: cap on the images of each split.
        settings: ``GROUP.KEY=VALUE``, as ``--set`` takes them.
        groups: which groups there may be: ``dataset``, ``model``.

    Raises:
        ConfigError: an unknown key of the data set, or a setting of another group.
    """
    found = apply_overrides({"dataset": {**dataset, "limit": limit}}, settings)
    foreign = sorted(
        name for name, value in found.items() if name not in groups or not isinstance(value, dict)
    )
    if foreign:
        forms = " or ".join(f"{group}.KEY=VALUE" for group in groups)
        raise ConfigError(f"--set {foreign[0]} has no place here; write {forms}")
    return parse(DatasetConfig, found["dataset"], where="--dataset"), found.get("model", {})
