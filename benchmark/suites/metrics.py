"""Metrics: what an evaluation can measure, each with its settings; a suite lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from benchmark.attacks.autoattack import Attack
from benchmark.attacks.spatial import SpatialGrid
from benchmark.core.config import Config
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, ThreatModel, check_eps
from benchmark.data.shifted import SHIFTED

# Bytes of a name; a folder's adds seed and hash, a file's kind and ending, and the strictest of
# common file systems (encrypted home folders) take 143 in all.
_LONGEST_NAME = 100


def _check_name(name: str) -> str:
    size = len(name.encode(errors="replace"))
    if size > _LONGEST_NAME:
        raise ValueError(
            f"{name[:20] + '...'!r} names files and has {size} bytes; use at most {_LONGEST_NAME}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.@+-]*", name):
        raise ValueError(f"{name!r} names files: use letters, digits and . _ - @ + only")
    return name


# A name that folders and columns of files are called by.
Name = Annotated[str, AfterValidator(_check_name)]


_NORM = "(linf|l2|l1)"
# Beginnings of names, and the kind that each is kept for: no table may call one attack by the name
# of another.
_KEPT = {
    "clean": "clean",
    "corruptions": "corruptions",
    "spatial": "spatial",
    "union": "union",
    rf"aa_{_NORM}": "autoattack",
    rf"(pgd|mim|cw)\d+_{_NORM}": "pgd",
    rf"({'|'.join(get_args(Attack))})_{_NORM}": "autoattack-part",
}
# Kinds that stand for another, whose names say so at the end: that word, and the other kind.
_STAND_INS = {
    "autoattack-screening": ("screening", "autoattack"),
    "autoattack-estimate": ("estimate", "autoattack"),
    "pgd-screening": ("screening", "pgd"),
}
_TITLES = {"autoattack": "AutoAttack", "pgd": "PGD"}


class _Named(Config):
    """A column of the tables."""

    name: Name

    @model_validator(mode="after")
    def _check_owner(self) -> Self:
        kind = str(self.kind)  # type: ignore[attr-defined]  # every metric states its own
        word, kind = _STAND_INS.get(kind, ("", kind))
        if word and not self.name.endswith(f"_{word}"):
            raise ValueError(
                f"metric {self.name!r} stands for {_TITLES[kind]}: call it {self.name}_{word}"
            )
        for other in {kept for kept, _ in _STAND_INS.values()} - {word}:
            if self.name.endswith(f"_{other}"):
                raise ValueError(f"metric {self.name!r} is no {other}; give it another name")
        for beginning, owner in _KEPT.items():
            if re.match(f"{beginning}(?![A-Za-z0-9])", self.name) and kind != owner:
                raise ValueError(
                    f"metric {self.name!r} is of kind {kind}, and its name is kept for {owner}; "
                    "give it another"
                )
        return self


class _Metric(_Named):
    """A metric on test images. ``n``: how many, a sample drawn by ``seed``; None for all."""

    n: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)


class CleanMetric(_Metric):
    """Accuracy on clean test images."""

    kind: Literal["clean"] = "clean"
    name: Name = "clean"


class _PGD(_Metric):
    threat: ThreatModel
    loss: Literal["ce", "cw"] = "ce"
    momentum: float = Field(default=0.0, ge=0)
    restarts: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        """A column called pgd20_linf must be that (the released Generalist code's ran 10 steps)."""
        found = re.match(rf"(pgd|mim|cw)(\d+)_{_NORM}(?![A-Za-z0-9])", self.name)
        if not found:
            return self
        word = "cw" if self.loss == "cw" else "mim" if self.momentum else "pgd"
        said = found[1], int(found[2]), found[3]
        if said != (word, self.threat.steps, self.threat.norm):
            raise ValueError(
                f"metric {self.name!r} has {self.threat.steps} steps under {self.threat.norm} "
                f"(loss {self.loss}, momentum {self.momentum:g}); "
                f"call it {word}{self.threat.steps}_{self.threat.norm}"
            )
        return self


class PGDMetric(_PGD):
    """PGD: an image is robust if right when clean and at the last iterate of every restart."""

    kind: Literal["pgd"] = "pgd"


class PGDScreening(_PGD):
    """PGD crafted in bf16; the last iterate is judged by the fp32 model.

    Faster where the processor has bf16 units. Its steps are not those of PGD in fp32.

    Attributes:
        name: ends in ``_screening``, so that no table shows it as the real thing.
    """

    kind: Literal["pgd-screening"] = "pgd-screening"
    precision: Literal["bf16"] = "bf16"


class _InBall(_Metric):
    """Attacks of AutoAttack's family, in one ball. ``name`` says the norm."""

    norm: NormName = "linf"
    eps: Pixels = Pixels("8/255")

    @model_validator(mode="after")
    def _check_units(self) -> Self:
        check_eps(self.eps, self.norm)
        said = re.search(r"_(linf|l2|l1)(?![a-z0-9])", self.name)
        if said and said[1] != self.norm:
            right = self.name.replace(f"_{said[1]}", f"_{self.norm}", 1)
            raise ValueError(f"metric {self.name!r} is under {self.norm}; call it {right}")
        return self


class AutoAttackMetric(_InBall):
    """Standard AutoAttack (Croce & Hein, 2003.01690) through pyautoattack."""

    kind: Literal["autoattack"] = "autoattack"
    version: Literal["standard"] = "standard"


class AutoAttackPart(_InBall):
    """One attack of AutoAttack's on its own, with the standard version's parameters."""

    kind: Literal["autoattack-part"] = "autoattack-part"
    attack: Attack

    @model_validator(mode="after")
    def _check_attack(self) -> AutoAttackPart:
        named = next((a for a in get_args(Attack) if self.name.startswith(f"{a}_")), self.attack)
        if named != self.attack:
            right = self.name.replace(named, self.attack, 1)
            raise ValueError(f"metric {self.name!r} is {self.attack}; call it {right}")
        return self


class AutoAttackScreening(_InBall):
    """AutoAttack's attacks crafted in bf16; every success is judged by the fp32 model, twice.

    Faster where the processor has bf16 units, and no verdict of AutoAttack's.

    Attributes:
        name: ends in ``_screening``, so that no table shows it as the real thing.
    """

    kind: Literal["autoattack-screening"] = "autoattack-screening"
    version: Literal["standard"] = "standard"
    precision: Literal["bf16"] = "bf16"


class AutoAttackEstimate(_InBall):
    """AutoAttack on a sample of the images that survive a cheap attack on all of them.

    An estimate with an interval, not a verdict on every image (see ``evaluation.budget``).

    Attributes:
        name: ends in ``_estimate``, so that no table shows it as the real thing.
        budget: survivors to attack; or
        halfwidth: of the 95 % interval, in percentage points.
    """

    kind: Literal["autoattack-estimate"] = "autoattack-estimate"
    version: Literal["standard"] = "standard"
    budget: int | None = Field(default=None, ge=1)
    halfwidth: float | None = Field(default=None, gt=0, lt=50)
    n: None = None

    @model_validator(mode="after")
    def _check(self) -> AutoAttackEstimate:
        if (self.budget is None) == (self.halfwidth is None):
            raise ValueError("give an estimate either a budget or a halfwidth")
        return self


class CorruptionsMetric(_Metric):
    """Mean accuracy over 15 common corruptions x severities (Hendrycks, Dietterich, 1903.12261)."""

    kind: Literal["corruptions"] = "corruptions"
    name: Name = "corruptions"
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)


class SpatialMetric(_Metric):
    """Right at every rotation and translation of a grid (Engstrom et al., 1712.02779)."""

    kind: Literal["spatial"] = "spatial"
    name: Name = "spatial"
    grid: SpatialGrid = SpatialGrid()


class ShiftMetric(_Named):
    """Accuracy on a test set of the same classes from elsewhere, read from the user's files.

    Attributes:
        name: that of the set, see ``benchmark.data.shifted``.
    """

    kind: Literal["shift"] = "shift"
    n: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> ShiftMetric:
        if self.name not in SHIFTED:
            raise ValueError(
                f"unknown test set {self.name!r}; {did_you_mean(self.name, SHIFTED.names())}"
            )
        return self


class UnionMetric(_Named):
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
    | PGDScreening
    | AutoAttackMetric
    | AutoAttackPart
    | AutoAttackScreening
    | AutoAttackEstimate
    | CorruptionsMetric
    | SpatialMetric
    | ShiftMetric
    | UnionMetric,
    Field(discriminator="kind"),
]


# Kinds with one outcome for each attacked test image, which unions are made of.
_PER_IMAGE = ("clean", "pgd", "autoattack", "autoattack-part", "spatial")


class Panel(Config):
    """An evaluation on its own."""

    metrics: tuple[Metric, ...]


def check_union(union: UnionMetric, before: Sequence[Any]) -> None:
    names = [metric.name for metric in before if metric.kind in _PER_IMAGE]
    for name in union.of:
        if name not in names:
            raise ValueError(f"{union.name} is of {name!r}, which must be a metric before it")
