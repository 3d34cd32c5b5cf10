"""Metrics: what an evaluation can measure, each with its settings; a suite lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from benchmark.core.config import Config
from benchmark.core.threat import NormName, Pixels, ThreatModel, check_eps


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.@+-]*", name):
        raise ValueError(f"{name!r} names files: use letters, digits and . _ - @ + only")
    return name


# A name that folders and columns of files are called by.
Name = Annotated[str, AfterValidator(_check_name)]


class _Metric(Config):
    """A column of the tables. ``n``: test images, a sample drawn by ``seed``; None for all."""

    name: Name
    n: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)


class CleanMetric(_Metric):
    """Accuracy on clean test images."""

    kind: Literal["clean"] = "clean"
    name: Name = "clean"


class PGDMetric(_Metric):
    """PGD: an image is robust if right when clean and at the last iterate of every restart."""

    kind: Literal["pgd"] = "pgd"
    threat: ThreatModel
    loss: Literal["ce", "cw"] = "ce"
    momentum: float = Field(default=0.0, ge=0)
    restarts: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_words(self) -> PGDMetric:
        """A column called pgd20_linf must be that (the released Generalist code's ran 10 steps)."""
        if found := re.match(r"pgd(\d+)_(linf|l2|l1)\b", self.name):
            said = int(found[1]), found[2]
            if said != (self.threat.steps, self.threat.norm):
                raise ValueError(
                    f"metric {self.name!r} has {self.threat.steps} steps under {self.threat.norm}; "
                    f"call it pgd{self.threat.steps}_{self.threat.norm}"
                )
        return self


class AutoAttackMetric(_Metric):
    """Standard AutoAttack (Croce & Hein, 2003.01690) through pyautoattack."""

    kind: Literal["autoattack"] = "autoattack"
    norm: NormName = "linf"
    eps: Pixels = Pixels("8/255")
    version: Literal["standard"] = "standard"

    @model_validator(mode="after")
    def _check_units(self) -> AutoAttackMetric:
        check_eps(self.eps, self.norm)
        if re.match(r"aa_(linf|l2|l1)\b", self.name) and not self.name.startswith(
            f"aa_{self.norm}"
        ):
            raise ValueError(f"metric {self.name!r} is under {self.norm}; call it aa_{self.norm}")
        return self


class AutoAttackEstimate(Config):
    """AutoAttack on a sample of the images that survive a cheap attack on all of them.

    An estimate with an interval, not a verdict on every image (see ``evaluation.budget``).

    Attributes:
        name: ends in ``_estimate``, so that no table shows it as the real thing.
        budget: survivors to attack; or
        halfwidth: of the 95 % interval, in percentage points.
    """

    kind: Literal["autoattack-estimate"] = "autoattack-estimate"
    name: Name
    norm: NormName = "linf"
    eps: Pixels = Pixels("8/255")
    version: Literal["standard"] = "standard"
    budget: int | None = Field(default=None, ge=1)
    halfwidth: float | None = Field(default=None, gt=0, lt=50)
    n: None = None
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> AutoAttackEstimate:
        check_eps(self.eps, self.norm)
        if not self.name.endswith("_estimate"):
            raise ValueError(f"metric {self.name!r} is an estimate: call it {self.name}_estimate")
        if (self.budget is None) == (self.halfwidth is None):
            raise ValueError("give an estimate either a budget or a halfwidth")
        return self


class CorruptionsMetric(_Metric):
    """Mean accuracy over 15 common corruptions x severities (Hendrycks, Dietterich, 1903.12261)."""

    kind: Literal["corruptions"] = "corruptions"
    name: Name = "corruptions"
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)


class UnionMetric(Config):
    """Robust under every one of several metrics, image by image; nothing is attacked again.

    Attributes:
        of: names of metrics of the same panel; images that one of them left out are left out.
    """

    kind: Literal["union"] = "union"
    name: Name = "union"
    of: tuple[Name, ...] = Field(min_length=2)
    n: None = None
    seed: Literal[0] = 0


Metric = Annotated[
    CleanMetric
    | PGDMetric
    | AutoAttackMetric
    | AutoAttackEstimate
    | CorruptionsMetric
    | UnionMetric,
    Field(discriminator="kind"),
]


class Panel(Config):
    """An evaluation on its own."""

    metrics: tuple[Metric, ...]


def check_union(union: UnionMetric, before: Sequence[Any]) -> None:
    names = [metric.name for metric in before if metric.kind in ("clean", "pgd", "autoattack")]
    for name in union.of:
        if name not in names:
            raise ValueError(f"{union.name} is of {name!r}, which must be a metric before it")
