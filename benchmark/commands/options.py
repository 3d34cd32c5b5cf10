"""Applies numbers of the command line (images, seed, PGD's steps) to the metrics of a panel.

If no metric can use a number, that is an error; if some metrics cannot, there is a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.core.errors import ConfigError
from benchmark.metrics.metric import Metric, Numbers


@dataclass(frozen=True)
class Options:
    """The given numbers; None for those that were not given.

    Attributes:
        n: number of test images; n_aa, n_pgd: the same for AutoAttack (and rotations) and for PGD,
            used instead of ``n``.
        seed: seed of samples and attacks.
        steps, step, restarts: those of PGD. They change the name of a metric too, since the name of
            a column states its attack.
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
            columns: names of metrics that keep the images and seed of their suite, so that its
                table has one measurement per column.

        Raises:
            ConfigError: a number that no metric can use, or an impossible attack.
        """
        notes = _Notes([metric.name for metric in metrics], columns)
        changed = [self._counted(metric, metric.name in columns, notes) for metric in metrics]
        names: dict[str, str] = {}
        result: list[Metric] = []
        numbers = Numbers(self.steps, self.step, self.restarts)
        for metric in changed:
            attacked = metric.with_numbers(numbers).with_parts(names)
            other = [part for part in attacked.parts if part not in metric.parts]
            if other:
                words = [metric.tag, "of", *(part.replace("@", "-") for part in other)]
                tag = "-".join(filter(None, words))
                attacked = attacked.model_copy(update={"tag": tag})
            names[metric.name] = attacked.name
            result.append(attacked)
        for option in numbers.taken:
            notes.take(option)
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
        if metric.parts:  # it has the images and seeds of its parts
            return metric
        option, n = "--n", self.n
        own = {"--n-aa": self.n_aa, "--n-pgd": self.n_pgd}.get(metric.count_option)
        if own is not None:
            option, n = metric.count_option, own
        estimate = metric.form == "estimate"
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


_OWN = "it is a column of the run's suite, which sets its images and seed"


class _Notes:
    """For each option, whether a metric used it, and which metrics refused it."""

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
        """Warn of metrics that refused the option. Raise ConfigError if none used it, unless only
        columns of the suite refused it and there are other metrics to measure."""
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
