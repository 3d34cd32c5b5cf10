"""Reading what runs left behind. Nothing here writes, trains or attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from benchmark.core.config import canonical_json
from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.keys import images_of, is_current
from benchmark.records.outcomes import columns_of, read_outcomes
from benchmark.records.schema import (
    Figures,
    NetworkMeasurements,
    read_configuration,
    read_environment,
    read_evaluation,
    read_measured,
    read_model,
    read_path,
    read_plan,
    read_training,
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
        measured: by ``diagnose`` with the networks of the checkpoint; None if absent.
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
    measured: NetworkMeasurements | None = None

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
        return [(finding["name"], finding["text"]) for finding in found]

    @property
    def validation_images(self) -> int:
        """Held-out images of a validation point; 0 if unknown."""
        known = (
            nested(self.config, "train", "validation_images"),
            self.training.get("val_images"),
        )
        return min((int(n) for n in known if n), default=0)

    def accuracy(self, metric: str) -> float | None:
        """Accuracy in [0, 1], or None if the metric was not evaluated."""
        entry = self.metrics.get(metric)
        if entry is None:
            return None
        if entry["correct"] is not None:
            return float(entry["correct"]) / int(entry["n"])
        return float(entry["mean"])


@dataclass(frozen=True)
class SuiteRecord:
    """A suite and its cells, in order of presentation; planned cells without record included.

    Attributes:
        beside: folders of further runs and of models of one's own, whose rows come last.
        extra: folders under cells/ that are not in the plan (they are named, never shown).
        evaluation: names of the suite's metrics, in order.
        stale: "metric of method seed s" measured under other settings than the suite's, or than
            other runs; not shown.
        fronts: by name, the labels of settings of a method that trade clean for robust accuracy.
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
    fronts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

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


def study_around(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The folder and the plan of the study that the run in the folder ``run`` belongs to; None
    without a plan that has it.

    Raises:
        BenchmarkError: a damaged plan.
    """
    out = run.parent.parent
    if not SuiteFiles(out).plan.exists():
        return None
    suite = read_plan(out)
    return (out, suite) if any(item["slug"] == run.name for item in suite["plan"]) else None


def runs_beside(directory: Path) -> dict[str, Path]:
    """By label the runs of the study that ``directory`` belongs to, with its seed; {} without one.

    Args:
        directory: a run's folder, or one in it.

    Raises:
        BenchmarkError: a damaged plan.
    """
    folder = Path(directory).resolve()
    for run in (folder, *folder.parents[:3]):
        if found := study_around(run):
            out, plan = found[0], found[1]["plan"]
            seeds = {item["seed"] for item in plan if item["slug"] == run.name}
            return {p["label"]: SuiteFiles(out).cell(p["slug"]) for p in plan if p["seed"] in seeds}
    return {}


def shown_by(record: Path) -> Path:
    """The folder of which a report shows the record in the folder ``record``: the study's, if its
    plan has the run; else ``record`` itself.

    Raises:
        BenchmarkError: a damaged plan.
    """
    # one level up for the weights of a further rule
    found = study_around(record) or study_around(record.parent)
    return found[0] if found else record


def the_run(folder: Path) -> Path:
    """The run that ``folder`` is, or the only one in it.

    Raises:
        BenchmarkError: there is no such folder; it holds several runs (they are named), or none.
    """
    if not folder.exists():
        raise BenchmarkError(f"there is no folder {folder}")
    files = RunFiles(folder)
    if files.configuration.exists() or files.evaluation.exists():
        return folder
    runs = sorted(path.parent for path in SuiteFiles(folder).cells.glob("*/config.json"))
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise BenchmarkError(
            f"{folder} is no run's folder, and holds no run; a run is a folder in OUT/cells, which "
            "run and train write"
        )
    listed = ", ".join(map(str, runs[:8])) + (", ..." if len(runs) > 8 else "")
    raise BenchmarkError(f"{folder} holds {len(runs)} runs; name one of them: {listed}")


def evaluated_run(folder: Path) -> Path:
    """The trained and evaluated run that ``folder`` is, or the only one in it.

    Raises:
        BenchmarkError: see ``the_run``; the run is not trained to the end, or not evaluated.
    """
    run = the_run(folder)
    files = RunFiles(run)
    if not files.training.exists():
        raise BenchmarkError(f"{run} is not trained to the end; finish it first")
    if not files.evaluation.exists():
        raise BenchmarkError(f"{run} is not evaluated; run: generalist-bench evaluate {run}")
    return run


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
        BenchmarkError: a file is missing, damaged or of another version; the message names it.
    """
    path = Path(path)
    files = RunFiles(path)
    if not files.configuration.exists():
        if files.model.exists() and files.evaluation.exists():
            return _read_own_model(path)
        return CellRecord(path, label or path.name, seed, "missing")
    head = read_configuration(path)
    config, method = head["config"], head["config"]["method"]
    environment = read_environment(path) if files.environment.exists() else {}
    training = read_training(path) if files.training.exists() else {}
    evaluation, outcomes = _read_figures(path) if files.evaluation.exists() else ({}, None)
    status: Status = "training"
    if training:
        status = "evaluated" if evaluation else "trained"
    for rule in training.get("also") or {} if status == "evaluated" else ():
        evaluation, outcomes = _with_checkpoint(evaluation, outcomes, files.chosen_by(rule), rule)
    return CellRecord(
        path=path,
        label=method["label"],
        seed=config["seed"],
        status=status,
        config_hash=head["hash"],
        family=head["family"],
        config=config,
        environment=environment,
        curves=read_curves(files.curves),
        training=training,
        evaluation=evaluation,
        outcomes=outcomes,
        measured=read_measured(path) if files.diagnosis.exists() else None,
    )


def _read_figures(path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """An evaluation and its outcomes."""
    evaluation = read_evaluation(path)
    return evaluation, read_outcomes(RunFiles(path).outcomes, evaluation["metrics"])


def _with_checkpoint(
    evaluation: Mapping[str, Any], outcomes: pd.DataFrame | None, folder: Path, rule: str
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """A run's record with the figures of a further checkpoint as columns ``METRIC@RULE``.

    Raises:
        BenchmarkError: see ``read_cell``.
    """
    own = dict(evaluation)
    if not RunFiles(folder).evaluation.exists():
        return own, outcomes
    further, table = _read_figures(folder)
    if images_of(further) != images_of(own):
        return own, outcomes  # of other images, so no columns of this table
    metrics = dict(own["metrics"])
    for name, entry in further["metrics"].items():
        entry = {**entry, "checkpoint": rule}
        if parts := entry["detail"].get("of"):
            entry["detail"] = {**entry["detail"], "of": [f"{part}@{rule}" for part in parts]}
        metrics[f"{name}@{rule}"] = entry
    findings = [
        *own["reliability"]["findings"],
        *(
            {**finding, "text": f"{finding['text']} ({rule} checkpoint)"}
            for finding in further["reliability"]["findings"]
        ),
    ]
    if outcomes is not None:
        renamed = {name: _at_checkpoint(str(name), rule) for name in table if name != "label"}
        outcomes = outcomes.join(table.drop(columns="label").rename(columns=renamed))
    reliability = {**own["reliability"], "findings": findings}
    return {**own, "metrics": metrics, "reliability": reliability}, outcomes


def _at_checkpoint(column: str, rule: str) -> str:
    """``pgd20_linf`` and ``aa_linf/fab-t`` as ``pgd20_linf@best`` and ``aa_linf@best/fab-t``."""
    metric, slash, part = column.partition("/")
    return f"{metric}@{rule}{slash}{part}"


def _read_own_model(path: Path) -> CellRecord:
    """What ``evaluate-model`` left: an evaluation, no training and no configuration of one."""
    head = read_model(path)
    evaluation, outcomes = _read_figures(path)
    return CellRecord(
        path=path,
        label=head["model"] if "seed" in head else path.resolve().name,
        seed=head.get("seed") or 0,
        status="evaluated",
        family=head.get("family") or "other",
        config={"dataset": head["dataset"], "model": head["model"]},
        environment=read_environment(path),
        evaluation=evaluation,
        outcomes=outcomes,
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
            if missing := {"step", "epoch", "progress"} - point.keys():
                raise ValueError(f"no {missing}")
            points[point["step"]] = point
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise BenchmarkError(
                f"{path} is damaged (line {number}); delete the run's folder and run again"
            ) from error
    return pd.DataFrame([points[step] for step in sorted(points)])


def read_suite(out: Path, beside: Sequence[Path] = ()) -> SuiteRecord:
    """Read a suite's folder, or a single run as a suite of one.

    Args:
        out: the suite's folder; or that of a run, or of a model of one's own.
        beside: further folders of runs and models of one's own, to stand in the same table; the
            points of a folder of ``interpolate`` are rows, and together a front.

    Raises:
        BenchmarkError: ``out`` holds neither a suite nor a run; a folder of ``beside`` that is no
            evaluated run, or was measured on other test images; or see ``read_cell``.
    """
    out = Path(out)
    files, run = SuiteFiles(out), RunFiles(out)
    extra: tuple[str, ...] = ()
    suite: dict[str, Any] = {}
    if files.plan.exists():
        suite = read_plan(out)
        cells = [read_cell(files.cell(p["slug"]), p["label"], p["seed"]) for p in suite["plan"]]
        planned = {cell.path.name for cell in cells}
        folders = (p.name for p in files.cells.glob("*") if p.is_dir() and p.name[:1] != ".")
        extra = tuple(sorted(name for name in folders if name not in planned))
    elif run.configuration.exists() or run.model.exists():
        cells = [read_cell(out)]
    else:
        raise BenchmarkError(
            f"{out} holds neither a suite ({files.plan.name}) nor a run "
            f"({run.configuration.name}); give the folder of one"
        )
    fronts = {name: tuple(front) for name, front in suite.get("fronts", {}).items()}
    for path in beside:
        if RunFiles(path).path.exists():
            name, points = _path_beside(path, cells)
            fronts[name] = tuple(dict.fromkeys([*fronts.get(name, ()), *(p.label for p in points)]))
            cells += points
        else:
            cells.append(_beside(path, cells))
    cells, stale = _drop_stale(cells, suite.get("evaluation", []))
    first = next((c.config for c in cells if c.config), {})
    labels = dict.fromkeys([*suite.get("methods", ()), *(c.label for c in cells)])
    seeds = suite.get("seeds") or sorted({c.seed for c in cells})
    limits = {nested(c.config, "dataset", "limit") for c in cells if c.config}
    limits.add(nested(suite, "dataset", "limit"))
    limits.discard(None)
    name = suite.get("name") or first.get("suite") or out.resolve().name
    return SuiteRecord(
        path=out,
        name=name,
        title=suite.get("title") or name,
        description=suite.get("description", ""),
        methods=tuple(labels),
        seeds=tuple(seeds),
        dataset=_named(suite.get("dataset") or first.get("dataset")),
        model=_named(suite.get("model") or first.get("model")),
        limit=min(limits) if limits else None,
        cells=tuple(cells),
        beside=tuple(map(Path, beside)),
        extra=extra,
        evaluation=tuple(item["name"] for item in suite.get("evaluation", ())),
        stale=stale,
        fronts=fronts,
    )


def _beside(path: Path, cells: Sequence[CellRecord]) -> CellRecord:
    """A further row; its label is told from those of ``cells`` where it is another network's.

    Raises:
        BenchmarkError: no evaluated run, or one on other test images.
    """
    cell = _on_same_images(path, cells)
    taken = {other.label for other in cells}
    if cell.label in taken:
        folder = path.resolve()
        names = [f"{folder.parent.name}/{folder.name}", str(path)]
        cell = replace(cell, label=next((n for n in names if n not in taken), f"{path} again"))
    return cell


def _path_beside(path: Path, cells: Sequence[CellRecord]) -> tuple[str, list[CellRecord]]:
    """The points of a path in weight space, and what they are called together. Those of another
    seed have the same labels.

    Raises:
        BenchmarkError: see ``_beside``.
    """
    head = read_path(path)
    return head["front"], [_on_same_images(path / point, cells) for point in head["points"]]


def _on_same_images(path: Path, cells: Sequence[CellRecord]) -> CellRecord:
    cell = read_cell(path)
    if cell.status != "evaluated":
        raise BenchmarkError(f"{path} holds no evaluated run; see run and evaluate")
    for other in cells:
        if other.metrics and images_of(other.evaluation) != images_of(cell.evaluation):
            raise BenchmarkError(
                f"{path} was evaluated on other test images than {other.path}; evaluate both on "
                "the same, or make two reports"
            )
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
            if not set(entry["detail"].get("of") or ()) <= current.keys():
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
    columns = columns_of(frame, metric)
    return frame.index[frame[columns].notna().all(axis=1)] if columns else None


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
    part = cell.outcomes.loc[images, columns_of(cell.outcomes, metric)]
    return float(part.astype(float).to_numpy().mean())
