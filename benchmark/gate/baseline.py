"""The content of a baseline: outcomes per image of several seeds, and of a reference network.

It is a JSON file. Next to it are the weights of the reference network (``NAME.pt``), whose hash the
file contains.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from benchmark.core.config import Config, config_hash, explain
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_json, write_json
from benchmark.records.study import CellRecord, nested

FORMAT = 1
Outcomes = NDArray[np.bool_]


class Scope(Config):
    """The runs that a gate makes.

    Attributes:
        suite: a suite's name or YAML file; ``set`` changes settings of it.
        methods, metrics: labels and names of the suite; empty means all.
        seeds: of the baseline.
        limit: cap on images per split.
    """

    suite: str
    set: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    limit: int | None = None


class BaselineFigure(Config):
    """One metric: its settings' hash, and right or wrong for each image.

    Attributes:
        n: images.
        bits: packed, in hexadecimal.
    """

    settings: str
    n: int = Field(gt=0)
    bits: str

    @classmethod
    def of(cls, settings: str, outcomes: Outcomes) -> BaselineFigure:
        """From booleans [n]."""
        return cls(settings=settings, n=len(outcomes), bits=np.packbits(outcomes).tobytes().hex())

    @property
    def outcomes(self) -> Outcomes:
        """Booleans [n]."""
        packed = np.frombuffer(bytes.fromhex(self.bits), dtype=np.uint8)
        return np.unpackbits(packed, count=self.n).astype(bool)


class GateRun(Config):
    """One run: its outcomes, and what its training log says of how it was trained.

    Attributes:
        ratios: mixing ratios by learner, at every line of the log.
        losses: training loss by learner, over the last line of the log.
        passes: gradient passes per image and step.
    """

    label: str
    seed: int
    hash: str
    data: str
    metrics: dict[str, BaselineFigure]
    ratios: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    losses: dict[str, float] = Field(default_factory=dict)
    passes: float = 0.0


class ReferenceNetwork(Config):
    """The reference network: outcomes, and margins under attack.

    Attributes:
        of: label and seed of the run whose network it is.
        weights: SHA-256 of the state dict's file.
        margins: by metric, for each image the largest wrong logit minus the right one at the last
            iterate of its attack; above 0 where it succeeds.
        neighbours: the largest change of a logit if the same images are in other batches.
    """

    of: str
    weights: str
    metrics: dict[str, BaselineFigure]
    margins: dict[str, tuple[float, ...]]
    neighbours: float


class Baseline(Config):
    """A recorded baseline.

    Attributes:
        reason: why it was recorded, in words.
    """

    format: int = FORMAT
    reason: str
    scope: Scope
    environment: dict[str, Any]
    runs: tuple[GateRun, ...]
    probe: ReferenceNetwork


def read_baseline(path: Path) -> Baseline:
    """The baseline in ``path``.

    Raises:
        BenchmarkError: missing, damaged, or of another version's form.
    """
    if not path.is_file():
        raise BenchmarkError(
            f"baseline {path} is missing; record one: "
            f"generalist-bench record-baseline {path} --suite SUITE --reason WHY"
        )
    data = read_json(path)
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise BenchmarkError(
            f"{path} is no baseline of this version (format {FORMAT}); record it anew by "
            "record-baseline"
        )
    try:
        return Baseline.model_validate(data)
    except ValidationError as error:
        problem = explain(error, Baseline)
        raise BenchmarkError(f"baseline {path} is damaged: {problem}; restore it") from error


def read_scope(path: Path) -> Scope:
    """The runs that the baseline in ``path`` makes, even if the rest of it has an older form.

    Raises:
        BenchmarkError: damaged.
    """
    data = read_json(path)
    try:
        return Scope.model_validate(data["scope"])
    except (KeyError, TypeError, ValidationError) as error:
        raise BenchmarkError(f"baseline {path} is damaged; delete it and give --suite") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write ``baseline`` atomically."""
    write_json(path, baseline.model_dump(mode="json"))


def weights_path(path: Path) -> Path:
    """The file with the reference network's weights."""
    return path.with_suffix(".pt")


def run_of(cell: CellRecord, metrics: tuple[str, ...]) -> GateRun:
    """The part of a run that a baseline keeps.

    Raises:
        BenchmarkError: the run is not evaluated by one of ``metrics``.
    """
    missing = [name for name in metrics if name not in cell.metrics]
    if cell.status != "evaluated" or cell.outcomes is None or missing:
        raise BenchmarkError(
            f"{cell.path} is not evaluated by {', '.join(missing) or 'anything'}; run the suite to "
            "its end"
        )

    def logged(kind: str) -> dict[str, tuple[float, ...]]:
        names = [str(name) for name in cell.curves.columns]
        return {
            name.removeprefix(kind): tuple(float(value) for value in cell.curves[name])
            for name in names
            if name.startswith(kind)
        }

    return GateRun(
        label=cell.label,
        seed=cell.seed,
        hash=cell.config_hash,
        data=str(nested(cell.evaluation, "dataset", "fingerprint")),
        metrics=measured(cell.metrics, cell.outcomes, metrics),
        ratios=logged("mix/"),
        losses={name: values[-1] for name, values in logged("loss/").items()},
        passes=float(cell.training.get("passes_per_image", 0)),
    )


def measured(
    entries: Mapping[str, Any], outcomes: pd.DataFrame, names: tuple[str, ...]
) -> dict[str, BaselineFigure]:
    """Metrics with one outcome per image."""
    found = {}
    for name in names:
        if name in outcomes:
            right = outcomes[name].dropna().to_numpy(dtype=bool)
            found[name] = BaselineFigure.of(config_hash(entries[name]["settings"]), right)
    return found
