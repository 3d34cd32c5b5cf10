"""Numbers of the command line (images, seed, PGD's steps) laid over the metrics of a panel.

Each is honoured or refused in a sentence, metric by metric: an error if no metric takes it, a
warning if some do not.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from benchmark.core.config import explain
from benchmark.core.errors import ConfigError
from benchmark.core.threat import ThreatModel
from benchmark.suites.metrics import (
    AutoAttackEstimate,
    AutoAttackMetric,
    AutoAttackPart,
    AutoAttackScreening,
    Metric,
    PGDMetric,
    PGDScreening,
    SpatialMetric,
    UnionMetric,
)

_PGD = (PGDMetric, PGDScreening)
# What --n-aa counts the images of: hundreds of passes per image.
_COSTLY = (AutoAttackMetric, AutoAttackPart, AutoAttackScreening, SpatialMetric)


@dataclass(frozen=True)
class Options:
    """What was given; None where nothing was.

    Attributes:
        n: test images; n_aa, n_pgd: of AutoAttack (and rotations) and of PGD, in its place.
        seed: of samples and attacks.
        steps, step, restarts: of PGD. A metric that they change gets a name that says so, since a
            column's name promises its attack.
    """

    n: int | None = None
    n_aa: int | None = None
    n_pgd: int | None = None
    seed: int | None = None
    steps: int | None = None
    step: str | None = None
    restarts: int | None = None

    def over(self, metrics: Sequence[Metric], columns: Collection[str] = ()) -> list[Metric]:
        """The ``metrics`` with these numbers.

        Args:
            columns: names of metrics whose images and seed are those of their suite, so that its
                table has one measurement per column.

        Raises:
            ConfigError: a number that no metric takes, or an attack that cannot be.
        """
        notes = _Notes([metric.name for metric in metrics], columns)
        changed = [self._counted(metric, metric.name in columns, notes) for metric in metrics]
        names: dict[str, str] = {}
        result: list[Metric] = []
        for metric in changed:
            attacked = self._attacked(metric, notes)
            names[metric.name] = attacked.name
            if isinstance(metric, UnionMetric) and any(names[part] != part for part in metric.of):
                of = tuple(names[part] for part in metric.of)
                name = f"{metric.name}_of_{'_'.join(part for part in of if part not in metric.of)}"
                attacked = metric.model_copy(update={"of": of, "name": name})
            result.append(attacked)
        given = {
            "--n": self.n,
            "--n-aa": self.n_aa,
            "--n-pgd": self.n_pgd,
            "--seed": self.seed,
            "--steps": self.steps,
            "--step": self.step,
            "--restarts": self.restarts,
        }
        for option, value in given.items():
            if value is not None:
                notes.settle(option, value)
        return result

    def check_size(self, images: int, dataset: str) -> None:
        """Raise ConfigError if more images are asked for than the test split has."""
        for option, n in (("--n", self.n), ("--n-aa", self.n_aa), ("--n-pgd", self.n_pgd)):
            if n is not None and n > images:
                raise ConfigError(
                    f"{option} {n}: the test split of {dataset} has {images} images; give at most "
                    f"{images}, or leave {option} out for all of them"
                )

    def _counted(self, metric: Metric, fixed: bool, notes: _Notes) -> Metric:
        """With its number of images, and its seed."""
        if isinstance(metric, UnionMetric):  # has those of its parts
            return metric
        option, n = "--n", self.n
        if isinstance(metric, _COSTLY) and self.n_aa is not None:
            option, n = "--n-aa", self.n_aa
        elif isinstance(metric, _PGD) and self.n_pgd is not None:
            option, n = "--n-pgd", self.n_pgd
        estimate = isinstance(metric, AutoAttackEstimate)
        if estimate:
            if self.n is not None:
                notes.refuse("--n", metric, "an estimate is of all test images; see --limit")
            if self.n_aa is not None:
                why = "the size of its sample is that of --aa-budget or --aa-halfwidth"
                notes.refuse("--n-aa", metric, why)
        elif n is not None and fixed:
            notes.refuse(option, metric, _OWN)
        elif n is not None:
            notes.take(option)
        if self.seed is not None:
            if fixed:
                notes.refuse("--seed", metric, _OWN)
            else:
                notes.take("--seed")
        if fixed:
            return metric
        update: dict[str, Any] = {} if self.seed is None else {"seed": self.seed}
        if n is not None and not estimate:
            update["n"] = n
        return metric.model_copy(update=update)

    def _attacked(self, metric: Metric, notes: _Notes) -> Metric:
        """With PGD's steps, step and restarts, under a name of its own."""
        if not isinstance(metric, _PGD):
            return metric
        name, words = metric.name, []
        settings = metric.threat.model_dump(mode="json")
        update: dict[str, Any] = {}
        if self.steps is not None:
            notes.take("--steps")
            if self.steps != metric.threat.steps:
                settings["steps"] = self.steps
                if re.match(r"(pgd|mim|cw)\d+_", name):
                    name = re.sub(r"\d+", str(self.steps), name, count=1)
                else:
                    words.append(f"steps{self.steps}")
        if self.step is not None:
            notes.take("--step")
            if settings["step"] != self.step:
                settings["step"] = self.step
                words.append(f"step{self.step.replace(' ', '')}")
        if self.restarts is not None:
            notes.take("--restarts")
            if self.restarts != metric.restarts:
                update["restarts"] = self.restarts
                words.append(f"r{self.restarts}")
        try:
            update["threat"] = ThreatModel.model_validate(settings)
        except ValidationError as error:
            raise ConfigError(f"--steps, --step: {explain(error, ThreatModel)}") from error
        screening = "_screening" if name.endswith("_screening") else ""
        name = "_".join([name.removesuffix(screening), *words]) + screening
        return metric.model_copy(update={**update, "name": name})


_OWN = "it is a column of the run's suite, which sets its images and seed"


class _Notes:
    """Which option was taken by some metric, and refused by which."""

    def __init__(self, names: Sequence[str], columns: Collection[str]) -> None:
        self._names = names
        self._only_columns = set(names) <= set(columns)
        self._taken: set[str] = set()
        self._refused: dict[str, dict[str, list[str]]] = {}

    def take(self, option: str) -> None:
        self._taken.add(option)

    def refuse(self, option: str, metric: Metric, why: str) -> None:
        self._refused.setdefault(option, {}).setdefault(why, []).append(metric.name)

    def settle(self, option: str, value: object) -> None:
        """Warn of what refused the option; raise ConfigError if nothing took it, unless the suite's
        columns alone could have and there are other metrics to measure."""
        reasons = "; ".join(
            f"{', '.join(names)}: {why}" for why, names in self._refused.get(option, {}).items()
        )
        refused = set(self._refused.get(option, ()))
        if option not in self._taken and (refused != {_OWN} or self._only_columns):
            reasons = reasons or f"it is for {_FOR.get(option, 'metrics on test images')}"
            raise ConfigError(
                f"{option} {value} applies to none of the metrics {', '.join(self._names)} "
                f"({reasons}); leave it out, or choose others by --panel and --metric"
            )
        if reasons:
            warnings.warn(f"{option} {value} is not applied to {reasons}", stacklevel=2)


_FOR = {
    "--n-aa": "AutoAttack, its parts and rotations",
    "--n-pgd": "PGD",
    "--steps": "PGD",
    "--step": "PGD",
    "--restarts": "PGD",
}
