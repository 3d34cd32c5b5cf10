"""Where the files of a study are, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SuiteFiles:
    """The files of a suite's folder ``directory``."""

    directory: Path

    @property
    def plan(self) -> Path:
        """The suite and the cells that were asked for."""
        return self.directory / "suite.json"

    @property
    def tuning(self) -> Path:
        """The trials of a search for hyper-parameters, and what they were chosen from."""
        return self.directory / "tuning.json"

    @property
    def tuned(self) -> Path:
        """The suite with the settings that a search found."""
        return self.directory / "tuned.yaml"

    @property
    def cells(self) -> Path:
        """The folder of the runs."""
        return self.directory / "cells"

    def cell(self, slug: str) -> Path:
        """The folder of one run."""
        return self.cells / slug


@dataclass(frozen=True)
class RunFiles:
    """The files of a run's folder ``directory``, or of an evaluation outside a suite."""

    directory: Path

    @property
    def configuration(self) -> Path:
        """The resolved configuration of a run."""
        return self.directory / "config.json"

    @property
    def model(self) -> Path:
        """The description of the network in an evaluation outside of a suite, which has no
        configuration."""
        return self.directory / "model.json"

    @property
    def environment(self) -> Path:
        """Versions, device, threads, commit."""
        return self.directory / "environment.json"

    @property
    def curves(self) -> Path:
        """One line per epoch and per validation."""
        return self.directory / "metrics.jsonl"

    @property
    def logged(self) -> Path:
        """How far loggers have followed the record."""
        return self.directory / "logged.json"

    @property
    def checkpoint(self) -> Path:
        """The state of a training."""
        return self.directory / "checkpoint.pt"

    @property
    def snapshots(self) -> Path:
        """The folder of networks that were kept while training."""
        return self.directory / "snapshots"

    def snapshot(self, step: int) -> Path:
        """The networks after a step."""
        return self.snapshots / f"step-{step}.pt"

    @property
    def training(self) -> Path:
        """Cost of the training and the chosen checkpoint. It is written at the end: its existence
        means that training is over."""
        return self.directory / "training.json"

    @property
    def deployed(self) -> Path:
        """The weights that the first rule of selection chose."""
        return self.directory / "deployed.pt"

    def deployed_by(self, rule: str) -> Path:
        """The weights that a further rule of selection chose."""
        return self.directory / f"deployed-{rule}.pt"

    def chosen_by(self, rule: str) -> Path:
        """The folder for the evaluation of the weights that a further rule chose."""
        return self.directory / f"deployed-{rule}"

    @property
    def diagnosis(self) -> Path:
        """What was measured with the checkpoint's networks to diagnose the run."""
        return self.directory / "diagnosis.json"

    @property
    def evaluation(self) -> Path:
        """Every metric's figure."""
        return self.directory / "evaluation.json"

    @property
    def outcomes(self) -> Path:
        """Right or wrong for each test image, a column or several per metric."""
        return self.directory / "outcomes.parquet"

    def own_outcomes(self, metric: str) -> Path:
        """The same of a metric that was measured on other images than the test split's."""
        return self.directory / f"outcomes-{_flat(metric)}.parquet"

    def adversarial(self, metric: str) -> Path:
        """A metric's adversarial examples, kept on request."""
        return self.directory / f"adversarial-{_flat(metric)}.pt"

    def unfinished(self, metric: str) -> Path:
        """The folder of a measurement that is not over."""
        return self.directory / f"{_flat(metric)}.unfinished"

    @property
    def gallery(self) -> Path:
        """A few test images, the same attacked, and predictions."""
        return self.directory / "gallery.npz"

    @property
    def earlier(self) -> Path:
        """The folder of figures that were replaced by others."""
        return self.directory / "earlier"

    @property
    def theory(self) -> Path:
        """What was measured of the theorems along a trajectory."""
        return self.directory / "theory.json"

    @property
    def path(self) -> Path:
        """The runs at both ends of an interpolation's path."""
        return self.directory / "path.json"

    def elsewhere(self, images: str) -> Path:
        """The folder for the evaluation on other test images, which ``images`` names."""
        return self.directory / "evaluations" / images


def _flat(metric: str) -> str:
    """A metric's name as part of a file's name."""
    return metric.replace("/", "_")
