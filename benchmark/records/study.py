"""Reading what runs left behind. Nothing here writes, trains or attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel

from benchmark.core.config import canonical_json
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_frame
from benchmark.records.keys import contradiction, images_of, is_current
from benchmark.records.schema import (
    Configuration,
    Environment,
    Evaluation,
    Figures,
    OwnModel,
    Plan,
    Training,
    read_shaped,
)

Status = Literal["missing", "training", "trained", "evaluated"]


@dataclass(frozen=True)
class CellRecord:
    """All that one run (method x dataset x model x seed) left.

    Attributes:
        family: of the method, as the method states it.
        status: missing (no configuration), training (not finished), trained, evaluated.
        curves: one row per validation point, ascending in step; empty if none was written.
        outcomes: one row per test image, one nullable boolean column per metric; None if absent.
    """

    path: Path
    label: str
    seed: int
    status: Status
    config_hash: str = ""
    family: str = "other"
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    training: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    outcomes: pd.DataFrame | None = None

    @property
    def slug(self) -> str:
        return self.path.name

    @property
    def method(self) -> str:
        """Registered name of the method; several labels may share it."""
        return str(nested(self.config, "method", "name") or self.label)

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metric name to its entry in evaluation.json; empty before evaluation."""
        metrics: Mapping[str, Any] = self.evaluation.get("metrics", {})
        return metrics

    @property
    def findings(self) -> list[tuple[str, str]]:
        """(name, text) of what the reliability checks found."""
        found = nested(self.evaluation, "reliability", "findings") or []
        return [(str(f.get("name")), str(f.get("text"))) for f in found if isinstance(f, Mapping)]

    def accuracy(self, metric: str) -> float | None:
        """Accuracy in [0, 1], or None if the metric was not evaluated."""
        entry = self.metrics.get(metric)
        if entry is None:
            return None
        if entry.get("correct") is not None:
            return float(entry["correct"]) / int(entry["n"])
        return None if entry.get("mean") is None else float(entry["mean"])


@dataclass(frozen=True)
class SuiteRecord:
    """A suite and its cells, in order of presentation; planned cells without record included.

    Attributes:
        beside: folders of further runs and of models of one's own, whose rows come last.
        extra: folders under cells/ that are not in the plan (they are named, never shown).
        evaluation: names of the suite's metrics, in order.
        stale: "metric of method seed s" measured under other settings than the suite's, or than
            other runs; not shown.
    """

    path: Path
    name: str
    title: str
    description: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    dataset: str
    model: str
    limit: int | None
    cells: tuple[CellRecord, ...]
    beside: tuple[Path, ...] = ()
    extra: tuple[str, ...] = ()
    evaluation: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    def of(self, label: str) -> list[CellRecord]:
        """The cells of a method, by seed."""
        return sorted((c for c in self.cells if c.label == label), key=lambda c: c.seed)

    def evaluated(self, label: str, metric: str | None = None) -> list[CellRecord]:
        """The evaluated cells of a method that hold ``metric``, by seed."""
        cells = [c for c in self.of(label) if c.status == "evaluated"]
        return cells if metric is None else [c for c in cells if c.accuracy(metric) is not None]

    def metrics(self) -> list[str]:
        """Metrics found in any cell: in the order of the suite's evaluation, then of appearance;
        a further checkpoint's column follows that of the first."""
        found = {m: None for c in self.cells for m in c.metrics if c.accuracy(m) is not None}
        order = list(dict.fromkeys([*self.evaluation, *map(self._base, found)]))
        return sorted(found, key=lambda metric: order.index(self._base(metric)))

    def _base(self, metric: str) -> str:
        return metric.removesuffix(f"@{self.entry(metric).get('checkpoint')}")

    def entry(self, metric: str) -> Mapping[str, Any]:
        """What the first record with ``metric`` says of it; {} if none has it."""
        return next((c.metrics[metric] for c in self.cells if metric in c.metrics), {})

    def missing(self) -> list[CellRecord]:
        """Planned cells that are not evaluated."""
        return [c for c in self.cells if c.status != "evaluated"]


def nested(data: Any, *keys: str) -> Any:
    """A nested value, or None as soon as a key is absent."""
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def read_cell(path: Path, label: str = "", seed: int = 0) -> CellRecord:
    """Read one cell directory.

    Args:
        label, seed: what the plan says; used where the directory holds no configuration.

    Raises:
        BenchmarkError: a file is damaged; the message names it.
    """
    path = Path(path)
    if not (path / "config.json").exists():
        if (path / "model.json").exists() and (path / "evaluation.json").exists():
            return _read_own_model(path)
        return CellRecord(path, label or path.name, seed, "missing")
    anew = "delete the run's folder and run again"
    head = read_shaped(path / "config.json", Configuration, anew)
    config, method = head["config"], head["config"]["method"]
    shapes: dict[str, type[BaseModel]] = {
        "environment": Environment,
        "training": Training,
        "evaluation": Evaluation,
    }
    optional = {
        name: read_shaped(path / f"{name}.json", shape, "delete it and run again")
        if (path / f"{name}.json").exists()
        else {}
        for name, shape in shapes.items()
    }
    outcomes = read_outcomes(path / "outcomes.parquet")
    status: Status = "training"
    if (path / "training.json").exists():
        status = "trained"
        if (path / "evaluation.json").exists():
            status = "evaluated"
            _check_evaluation(path / "evaluation.json", optional["evaluation"], outcomes)
    evaluation = optional["evaluation"]
    for rule in (optional["training"].get("also") or {}) if status == "evaluated" else ():
        folder = path / f"deployed-{rule}"
        evaluation, outcomes = _with_checkpoint(evaluation, outcomes, folder, rule)
    optional["evaluation"] = evaluation
    return CellRecord(
        path=path,
        label=str(method.get("label") or method.get("name") or label or path.name),
        seed=int(config.get("seed") or seed),
        status=status,
        config_hash=str(head.get("hash", "")),
        family=head["family"],
        config=config,
        curves=read_curves(path / "metrics.jsonl"),
        outcomes=outcomes,
        **optional,
    )


def _with_checkpoint(
    evaluation: Mapping[str, Any], outcomes: pd.DataFrame | None, folder: Path, rule: str
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """A run's record with the figures of a further checkpoint as columns ``METRIC@RULE``.

    Raises:
        BenchmarkError: see ``read_cell``.
    """
    own = dict(evaluation)
    path = folder / "evaluation.json"
    if not path.exists():
        return own, outcomes
    further = read_shaped(path, Evaluation, "delete it and evaluate again")
    table = read_outcomes(folder / "outcomes.parquet")
    _check_evaluation(path, further, table)
    if nested(further, "dataset", "fingerprint") != nested(own, "dataset", "fingerprint"):
        return own, outcomes  # of other images, so no columns of this table
    metrics = dict(own["metrics"])
    for name, entry in further["metrics"].items():
        entry = {**entry, "checkpoint": rule}
        if parts := nested(entry, "detail", "of"):
            entry["detail"] = {**entry["detail"], "of": [f"{part}@{rule}" for part in parts]}
        metrics[f"{name}@{rule}"] = entry
    findings = [
        {**finding, "text": f"{finding['text']} ({rule} checkpoint)"}
        for finding in nested(further, "reliability", "findings") or []
    ]
    known = nested(own, "reliability", "findings") or []
    own["reliability"] = {**(own.get("reliability") or {}), "findings": [*known, *findings]}
    if outcomes is not None and table is not None:
        renamed = {name: _at_checkpoint(str(name), rule) for name in table if name != "label"}
        columns = table.drop(columns="label", errors="ignore").rename(columns=renamed)
        outcomes = outcomes.join(columns)
    return {**own, "metrics": metrics}, outcomes


def _at_checkpoint(column: str, rule: str) -> str:
    """``pgd20_linf`` and ``aa_linf/fab-t`` as ``pgd20_linf@best`` and ``aa_linf@best/fab-t``."""
    metric, slash, part = column.partition("/")
    return f"{metric}@{rule}{slash}{part}"


def _read_own_model(path: Path) -> CellRecord:
    """What ``evaluate --model`` left: an evaluation, no training and no configuration of one."""
    anew = "delete it and evaluate again"
    head = read_shaped(path / "model.json", OwnModel, anew)
    evaluation = read_shaped(path / "evaluation.json", Evaluation, anew)
    outcomes = read_outcomes(path / "outcomes.parquet")
    _check_evaluation(path / "evaluation.json", evaluation, outcomes)
    environment = path / "environment.json"
    return CellRecord(
        path=path,
        label=path.resolve().name,
        seed=0,
        status="evaluated",
        config={
            "dataset": head.get("dataset") or nested(evaluation, "dataset", "name"),
            "model": head.get("model"),
        },
        environment=read_shaped(environment, Environment, anew) if environment.exists() else {},
        evaluation=evaluation,
        outcomes=outcomes,
    )


def _check_evaluation(
    path: Path, evaluation: Mapping[str, Any], outcomes: pd.DataFrame | None
) -> None:
    """Every metric must give a fraction of its images, and that of its outcomes."""
    for name, entry in evaluation["metrics"].items():
        if (entry.get("correct") or 0) > entry["n"]:
            raise BenchmarkError(
                f"{path} is damaged (metric {name!r} is no fraction of its n); "
                "delete it and evaluate again"
            )
    reason = "" if outcomes is None else contradiction(evaluation["metrics"], outcomes)
    if reason:
        raise BenchmarkError(
            f"{path} or outcomes.parquet beside it is damaged ({reason}); delete both and "
            "evaluate again"
        )


def read_curves(path: Path) -> pd.DataFrame:
    """The validation points of metrics.jsonl, the last line of a step winning.

    A truncated last line is what a killed run leaves, so it is skipped; a bad line elsewhere is
    damage.

    Raises:
        BenchmarkError: a damaged line before the last.
    """
    if not path.exists():
        return pd.DataFrame()
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    except OSError as error:
        raise BenchmarkError(f"cannot read {path}: {error.strerror or error}") from error
    points: dict[Any, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            point = Figures.validate_python(json.loads(line))
            points[point["step"]] = point
        except (ValueError, KeyError, RecursionError) as error:
            if number == len(lines):
                break
            raise BenchmarkError(
                f"{path} is damaged (line {number}); delete the run's folder and run again"
            ) from error
    return pd.DataFrame([points[step] for step in sorted(points)])


def read_outcomes(path: Path) -> pd.DataFrame | None:
    """The per-image outcomes as nullable booleans, indexed by image; None if the file is absent.

    Raises:
        BenchmarkError: damaged.
    """
    if not path.exists():
        return None
    try:
        frame = read_frame(path)
        if "index" in frame.columns:
            frame = frame.set_index("index")
        for name in frame.columns.drop("label", errors="ignore"):
            frame[name] = frame[name].astype("boolean")
    # pyarrow has errors of its own for every way in which a file can be damaged
    except Exception as error:
        raise BenchmarkError(
            f"{path} is damaged ({type(error).__name__}); delete it and evaluate again"
        ) from error
    if frame.index.has_duplicates:
        raise BenchmarkError(f"{path} is damaged (an image is listed twice); evaluate again")
    return frame


def read_suite(out: Path, beside: Sequence[Path] = ()) -> SuiteRecord:
    """Read a suite's folder; without suite.json the suite is derived from the cells.

    Args:
        out: the suite's folder; or that of a run, or of a model of one's own.
        beside: further folders of runs and models of one's own, to stand in the same table.

    Raises:
        BenchmarkError: neither suite.json nor cells, a folder that is no evaluated run, one that
            was measured on other test images, or a damaged file.
    """
    out = Path(out)
    folders = sorted(p for p in (out / "cells").glob("*") if p.is_dir() and p.name[:1] != ".")
    extra: tuple[str, ...] = ()
    suite: dict[str, Any] = {}
    if (out / "suite.json").exists():
        suite = read_shaped(out / "suite.json", Plan, "delete it and run again")
        plan = suite.get("plan") or []
        cells = [read_cell(out / "cells" / p["slug"], p["label"], p["seed"]) for p in plan]
        planned = {c.path.name for c in cells}
        if not plan:
            cells = [read_cell(p) for p in folders]
            planned = {p.name for p in folders}
        extra = tuple(p.name for p in folders if p.name not in planned)
    elif folders:
        cells = [c for c in map(read_cell, folders) if c.config]
    elif (out / "config.json").exists() or (out / "model.json").exists():
        cells = [read_cell(out)]
    else:
        raise BenchmarkError(
            f"{out} holds no suite.json and no cells, and is no run; give the folder of a run"
        )
    for path in beside:
        cells.append(_beside(path, cells))
    cells, stale = _drop_stale(cells, suite.get("evaluation") or [])
    first = next((c.config for c in cells if c.config), {})
    order = [str(m) for m in suite.get("methods") or []]
    labels = dict.fromkeys([*order, *(c.label for c in cells)])
    seeds = suite.get("seeds") or sorted({c.seed for c in cells})
    limits = {nested(c.config, "dataset", "limit") for c in cells if c.config}
    limits.add(nested(suite, "dataset", "limit"))
    limits.discard(None)
    return SuiteRecord(
        path=out,
        name=str(suite.get("name") or first.get("suite") or out.resolve().name),
        title=str(suite.get("title") or suite.get("name") or first.get("suite") or out.name),
        description=str(suite.get("description") or ""),
        methods=tuple(labels),
        seeds=tuple(int(s) for s in seeds),
        dataset=_named(suite.get("dataset")) or _named(first.get("dataset")),
        model=_named(suite.get("model")) or _named(first.get("model")),
        limit=min(limits) if limits else None,
        cells=tuple(cells),
        beside=tuple(map(Path, beside)),
        extra=extra,
        evaluation=tuple(str(item["name"]) for item in suite.get("evaluation") or ()),
        stale=stale,
    )


def _beside(path: Path, cells: Sequence[CellRecord]) -> CellRecord:
    """A further row; its label is told from those of ``cells`` where it is another network's.

    Raises:
        BenchmarkError: no evaluated run, or one on other test images.
    """
    cell = read_cell(path)
    if cell.status != "evaluated":
        raise BenchmarkError(f"{path} holds no evaluated run; see run and evaluate")
    for other in cells:
        if other.metrics and images_of(other.evaluation) != images_of(cell.evaluation):
            raise BenchmarkError(
                f"{path} was evaluated on other test images than {other.path}; evaluate both on "
                "the same, or make two reports"
            )
    taken = {other.label for other in cells}
    if cell.label in taken:
        folder = path.resolve()
        names = [f"{folder.parent.name}/{folder.name}", str(path)]
        cell = replace(cell, label=next((n for n in names if n not in taken), f"{path} again"))
    return cell


def _drop_stale(
    cells: list[CellRecord], panel: list[Any]
) -> tuple[list[CellRecord], tuple[str, ...]]:
    """Leave out metrics whose settings are not those of the suite, or, where the suite has none for
    them, not the same in all runs: one column, one attack."""
    wanted = {
        metric["name"]: {key: value for key, value in metric.items() if key != "name"}
        for metric in panel
    }
    mixed = _mixed(cells, set(wanted))
    kept, stale = [], []
    for cell in cells:
        current = {}
        for name, entry in cell.metrics.items():
            base = name.removesuffix(f"@{entry.get('checkpoint')}")
            stands = is_current(entry, wanted[base]) if base in wanted else name not in mixed
            if stands:
                current[name] = entry
            else:
                stale.append(f"{name} of {cell.label} seed {cell.seed}")
        for name, entry in list(current.items()):  # a union is no better than its parts
            if not set(nested(entry, "detail", "of") or ()) <= current.keys():
                del current[name]
                stale.append(f"{name} of {cell.label} seed {cell.seed}")
        if len(current) < len(cell.metrics):
            cell = replace(cell, evaluation={**cell.evaluation, "metrics": current})
        kept.append(cell)
    return kept, tuple(stale)


def _mixed(cells: list[CellRecord], wanted: set[str]) -> set[str]:
    """Metrics that are not the suite's, measured under different settings in different runs."""
    settings: dict[str, set[Any]] = {}
    for cell in cells:
        for name, entry in cell.metrics.items():
            if name.removesuffix(f"@{entry.get('checkpoint')}") not in wanted:
                settings.setdefault(name, set()).add(canonical_json(entry["settings"]))
    return {name for name, found in settings.items() if len(found) > 1}


def _named(value: Any) -> str:
    return str(value.get("name", "")) if isinstance(value, Mapping) else str(value or "")


def outcome_matrices(
    groups: Sequence[tuple[Sequence[CellRecord], str]],
) -> list[np.ndarray] | None:
    """Outcomes of several (cells, metric) groups over one common image axis.

    Returns:
        One array of shape (seeds, images) per group, NaN where an image was not attacked; None if
        a cell has no outcomes for its metric or the cells saw different test sets.
    """
    columns: list[list[pd.Series]] = []
    truth: set[Any] = set()
    for cells, metric in groups:
        for cell in cells:
            if cell.outcomes is None or metric not in cell.outcomes:
                return None
            truth.add(images_of(cell.evaluation))
        columns.append([c.outcomes[metric].astype("Float64") for c in cells])  # type: ignore[index]
    if len(truth) > 1:
        return None
    index = sorted(set().union(*(s.index for series in columns for s in series)))
    return [
        np.stack([s.reindex(index).to_numpy(dtype=float, na_value=np.nan) for s in series])
        for series in columns
    ]


def is_estimate(cell: CellRecord, metric: str) -> bool:
    """Whether the images with an outcome are a sample of survivors, and so none of all images."""
    return bool(nested(cell.metrics, metric, "form") == "estimate")


def measured_on(cell: CellRecord, metric: str) -> pd.Index | None:
    """The test images that a figure is about; None if that is not on record.

    An estimate is about all of them, although most have no outcome.
    """
    frame = cell.outcomes
    if frame is None:
        return None
    if is_estimate(cell, metric):
        return frame.index
    columns = _outcome_columns(frame, metric)
    return frame.index[frame[columns].notna().all(axis=1)] if columns else None


def _outcome_columns(frame: pd.DataFrame, metric: str) -> list[str]:
    """The column of a metric, or those of its parts (corruptions by name and severity)."""
    return [str(c) for c in frame.columns if c == metric or str(c).startswith(f"{metric}/")]


def accuracy_on(cell: CellRecord, metric: str, images: pd.Index) -> float | None:
    """Accuracy in [0, 1] on some of the images of a metric; None if it cannot be told."""
    own = measured_on(cell, metric)
    if own is None or not len(images) or not images.isin(own).all():
        return None
    if len(images) == len(own):
        return cell.accuracy(metric)
    if is_estimate(cell, metric):
        return None
    assert cell.outcomes is not None
    part = cell.outcomes.loc[images, _outcome_columns(cell.outcomes, metric)]
    return float(part.astype(float).to_numpy().mean())
