"""The work behind ``generalist-bench evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmark.attacks.autoattack import Precision
from benchmark.commands.options import Options
from benchmark.commands.run import locked, read_cell_config
from benchmark.config.panels import PANELS, Amount, Radii
from benchmark.config.suite import CellConfig, apply_overrides
from benchmark.core.config import canonical_json, config_hash, explain, parse
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.data import sources
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Dataset
from benchmark.data.shifted import SHIFTED, find_shifted
from benchmark.data.source import DATASETS
from benchmark.evaluation.evaluator import Evaluator
from benchmark.evaluation.identity import images_hash
from benchmark.metrics.metric import Metric, make_metric
from benchmark.models.adapt import notes_of
from benchmark.models.loading import load_external
from benchmark.records import earlier
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.keys import images_of
from benchmark.records.keys import weights as weights_in
from benchmark.records.schema import (
    read_configuration,
    read_evaluation,
    read_plan,
    read_training,
    write_environment,
    write_model,
)
from benchmark.records.statistics import Interval, population_interval, wilson
from benchmark.training.selection import load_deployed, record_directories, weights_path

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Instead:
    """What to do in AutoAttack's place: estimate it from a sample of survivors, or screen.

    Attributes:
        budget: survivors to attack; or
        halfwidth: of the 95 % interval, in percentage points.
        precision: bf16 for a screening, of PGD too.
    """

    budget: int | None = None
    halfwidth: float | None = None
    precision: Precision = "fp32"

    def __bool__(self) -> bool:
        return bool(self.budget or self.halfwidth or self.precision != "fp32")

    def of(self, metrics: Sequence[Metric]) -> list[Metric]:
        """The ``metrics``, with every AutoAttack replaced; by a screening every PGD too.

        Raises:
            ConfigError: more than one replacement is asked for, or there is nothing to replace.
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
        # A union is of verdicts, which an estimate or a screening does not give.
        return [
            other or metric
            for metric, other in zip(metrics, replaced, strict=True)
            if other or not metric.parts
        ]


@dataclass(frozen=True)
class How:
    """How to evaluate, whatever the model.

    Attributes:
        only: metrics to measure; all if empty.
        panel: a name of ``PANELS``; None for the suite's own, or ``standard``.
        eps_linf, eps_l2, eps_l1: radii as text, in [0, 1] pixel units; () and None where nothing
            was said. Of several under l_inf, metrics carry theirs in the name (``aa_linf@1/255``).
        options: numbers over those of the panel.
        keep_adversarial: also write AutoAttack's examples.
        batch_size: images per forward pass; AutoAttack's random starts depend on it.
    """

    data_root: Path
    device: torch.device
    progress: Progress
    only: Sequence[str] = ()
    panel: str | None = None
    eps_linf: Sequence[str] = ()
    eps_l2: str | None = None
    eps_l1: str | None = None
    options: Options = field(default_factory=Options)
    instead: Instead = Instead()
    keep_adversarial: bool = False
    batch_size: int = 256
    ranks: Ranks = ALONE

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
        """For ``data``, read under ``limit``."""
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

    def metrics_of(self, name: str, radii: Radii, dataset: str) -> list[Metric]:
        """The panel ``name``; with ``ood``, every shifted test set of ``dataset`` that is there."""
        try:
            metrics = list(PANELS.get(name)(radii, Amount()))
        except ValueError as error:
            raise ConfigError(f"panel {name}: {error}") from error
        if name == "ood":
            metrics += [
                make_metric({"kind": "shift", "test_set": shifted})
                for shifted, entry in SHIFTED.items()
                if entry.base == dataset and find_shifted(shifted, self.data_root)
            ]
        return metrics

    def panel_at(self, name: str, radii: Sequence[Radii], dataset: str) -> list[Metric]:
        """The panel at each of ``radii``; what does not depend on the l_inf radius once."""
        panel: dict[str, Metric] = {}
        for each in radii:
            metrics = self.metrics_of(name, each, dataset)
            for metric in _at(metrics, each.linf) if len(radii) > 1 else metrics:
                panel.setdefault(metric.name, metric)
        return list(panel.values())

    def possible(self, metrics: Sequence[Metric], data: Dataset) -> list[Metric]:
        """Without what a panel cannot measure on ``data``, unless it is asked for by name: images
        that are streamed are not corrupted."""
        if self.only:
            return list(metrics)
        setup = self.evaluator(data, None)
        return [metric for metric in metrics if metric.possible(setup)]

    def lock(self, folders: Sequence[Path]) -> AbstractContextManager[None]:
        """Hold the run folders; the first rank does so for all."""
        return locked(folders if self.ranks.first else [])


@dataclass(frozen=True)
class OtherImages:
    """Another test set for trained runs; what it gives stands beside their own record.

    Attributes:
        name: of the data set; settings: ``dataset.KEY=VALUE``; limit: cap on the images.
    """

    name: str
    settings: Sequence[str] = ()
    limit: int | None = None

    def config(self) -> DatasetConfig:
        """Raises ConfigError: an unknown set or key, or a setting of something else."""
        return _dataset_config(self.name, self.limit, self.settings, models=False)[0]


def evaluate_runs(folders: Sequence[Path], how: How, other: OtherImages | None = None) -> Results:
    """Evaluate trained runs (or all of a suite's plan) by the panel of their suite, or another.

    Metrics that the suite has keep the suite's settings, so that its table stays one attack per
    column. With ``how.instead``, nothing but AutoAttack's replacement is measured. A run of
    ``train`` has no suite's panel; it is measured by ``standard``, AutoAttack on 1,000 images
    unless said.

    Args:
        other: measure on its test images instead, into ``RUN/evaluations/NAME-HASH``.

    Returns:
        By run and metric, see ``_summary``; empty but on the first rank.

    Raises:
        BenchmarkError: a folder without trained runs; a damaged record or checkpoint.
        ConfigError: options that do not fit the runs; other images that the networks cannot take.
    """
    runs = list({run.resolve(): run for folder in folders for run in _runs_in(folder)}.values())
    evaluators: dict[str, Evaluator] = {}
    results: Results = {}
    # Everything that can be wrong with a record is found before any long work.
    instead = other.config() if other else None
    configs = [read_cell_config(run)[1] for run in runs]
    panels = [
        _panel_for(run, config, how, instead) for run, config in zip(runs, configs, strict=True)
    ]
    with how.lock(runs):
        for run, config, panel in zip(runs, configs, panels, strict=True):
            dataset = instead or config.dataset
            key = canonical_json(dataset)
            if key not in evaluators:
                data = sources.load(dataset, how.data_root, training=instead is None)
                how.options.check_size(len(data.test), data.name)
                evaluators[key] = how.evaluator(data, dataset.limit)
            evaluator = evaluators[key]
            if instead:
                _check_fits(run, config, evaluator.data)
            if how.panel or instead:
                panel = how.possible(panel, evaluator.data)
            for rule, record in record_directories(config, run).items():
                model = load_deployed(config, evaluator.data, run, how.device, rule)
                folder = _folder_beside(run, record, evaluator.data) if instead else record
                if instead and how.ranks.first:
                    label = f"{read_cell_config(run)[0]} seed {config.seed}"
                    weights = weights_path(config, run, rule).name
                    _write_head(folder, how, label, weights, instead)
                evaluator.evaluate(model, panel, folder)
                if how.ranks.first:
                    where = folder if instead else run
                    name = str(where.relative_to(run.parent))
                    chosen = "" if record == run or instead else f"@{rule}"
                    results[f"{name}{chosen}"] = summary(folder)
    return results


def _folder_beside(run: Path, record: Path, data: Dataset) -> Path:
    """Where figures of ``run`` on the test images of ``data`` stand, beside its ``record``.

    Raises:
        ConfigError: they are the run's own.
    """
    if data.fingerprint == read_training(run)["data"]:
        raise ConfigError(f"--dataset gives the images that {run.name} was made with; leave it out")
    return RunFiles(record).elsewhere(f"{data.name}-{images_hash(data)}")


def _check_fits(run: Path, config: CellConfig, data: Dataset) -> None:
    """Raise ConfigError if the run's network cannot be held against the test images of ``data``."""
    known = _trained_on(run)
    classes, size = known.get("classes"), known.get("size") or config.dataset.size
    if classes and len(classes) != data.num_classes:
        raise ConfigError(
            f"the network of {run.name} tells {len(classes)} classes and {data.name} has "
            f"{data.num_classes} classes"
        )
    if size and size != data.image_size:
        raise ConfigError(
            f"the network of {run.name} takes images of {size} pixels and {data.name} has "
            f"{data.image_size} pixels; add --set dataset.size={size}"
        )


def _trained_on(run: Path) -> dict[str, Any]:
    """What the run's own record says of its data set, as far as it was evaluated."""
    return read_evaluation(run)["dataset"] if RunFiles(run).evaluation.exists() else {}


def _write_head(
    out: Path,
    how: How,
    label: str,
    checkpoint: str | None,
    dataset: DatasetConfig,
    notes: Sequence[str] = (),
) -> None:
    """What an evaluation outside a suite says of itself."""
    write_environment(out, environment(str(how.device), torch.get_num_threads()))
    content = {
        "model": label,
        "checkpoint": checkpoint,
        "dataset": dataset.model_dump(mode="json"),
        "notes": list(notes),
    }
    write_model(out, content)


def _panel_for(
    run: Path, config: CellConfig, how: How, other: DatasetConfig | None
) -> list[Metric]:
    """What to measure of a run.

    Raises:
        ConfigError: nothing says what; radii for a run whose suite has its own.
    """
    own = panel_of(run)
    dataset = (other or config.dataset).name
    given = bool(how.eps_linf or how.eps_l2 or how.eps_l1)
    if own and given and not other:
        raise ConfigError(
            "--eps is for models of your own, runs of train and other test sets: "
            f"{run.name} is attacked at the radii of its suite, which its table is made of"
        )
    if own is None and not (how.panel or how.only):
        raise ConfigError(
            f"{run} is a run of the suite {_suite_of(run)!r}, whose folder is not around it, so "
            "nothing says what to measure: name a panel (--panel standard) or metrics (--metric "
            "clean), or put the run back into cells/ of the suite's folder"
        )
    metrics: Sequence[Metric]
    if own and not (how.panel or given):
        metrics = own
    elif how.panel:
        radii = how.radii(_radii(own) if own else _usual(dataset))
        named = {} if given else {metric.name: metric for metric in own or ()}
        asked = how.panel_at(how.panel, radii, dataset)
        metrics = [named.get(metric.name, metric) for metric in asked]
    elif how.only:
        radii = how.radii(_usual(dataset))
        metrics = _first_with(how.only, [how.panel_at(name, radii, dataset) for name in _names()])
    else:
        metrics = how.panel_at("standard", how.radii(_usual(dataset)), dataset)
    if not (own or how.panel):  # hours on a whole test set, so not unasked
        metrics = [
            metric.model_copy(update={"n": _UNASKED}) if metric.reference else metric
            for metric in metrics
        ]
    own_forms = choose_metrics(metrics, how.only)
    chosen = how.instead.of(own_forms)
    if how.instead:
        chosen = [metric for metric in chosen if metric not in own_forms]
    columns = () if other else [metric.name for metric in own or ()]
    return how.options.over(chosen, columns)


def _names() -> list[str]:
    """Panels, the one of general use first."""
    return ["standard", *PANELS.names()]


def _first_with(names: Sequence[str], panels: Sequence[Sequence[Metric]]) -> Sequence[Metric]:
    """The first of the panels that has all the metrics.

    Raises:
        ConfigError: none has.
    """
    for panel in panels:
        if set(names) <= {metric.name for metric in panel}:
            return panel
    known = sorted({metric.name for panel in panels for metric in panel})
    wrong = next((name for name in names if name not in known), None)
    if wrong is None:
        raise ConfigError(f"no panel has all of {', '.join(names)}; name fewer at once")
    raise ConfigError(f"unknown metric {wrong!r}; {did_you_mean(wrong, known)}")


def find_panel(names: Sequence[str], dataset: str, data_root: Path) -> Sequence[Metric]:
    """The first panel with all the metrics, at the usual radii of the data set."""
    how = How(data_root, torch.device("cpu"), Progress(quiet=True))
    radii = [_usual(dataset)]
    return _first_with(names, [how.panel_at(name, radii, dataset) for name in _names()])


# Test images of AutoAttack where neither a suite nor the command line says how many.
_UNASKED = 1000


def _usual(dataset: str) -> Radii:
    """Radii where no suite sets them: those of the papers on the data set."""
    return Radii(**DATASETS.get(dataset).radii)


def _suite_of(run: Path) -> str:
    return str(read_configuration(run)["config"]["suite"])


def _radii(metrics: Sequence[Metric]) -> Radii:
    """The radii of a suite's evaluation; the usual ones for norms that it does not attack in.

    Raises:
        ConfigError: several under one norm.
    """
    found: dict[NormName, set[str]] = {}
    for metric in metrics:
        if metric.ball and not metric.tag:
            norm, eps = metric.ball
            found.setdefault(norm, set()).add(str(eps))
    for norm, texts in found.items():
        if len({Pixels(text) for text in texts}) > 1:
            raise ConfigError(
                f"the suite attacks with several {norm} radii ({', '.join(sorted(texts))}), so a "
                "panel has none to follow; put {panel: NAME} into the suite's own evaluation"
            )
    return Radii(**{norm: min(texts) for norm, texts in found.items()})


def _runs_in(folder: Path) -> list[Path]:
    if RunFiles(folder).configuration.exists():
        runs = [folder]
    elif SuiteFiles(folder).plan.exists():
        runs = [SuiteFiles(folder).cell(cell["slug"]) for cell in read_plan(folder)["plan"]]
    else:
        runs = []
    trained = [run for run in runs if RunFiles(run).training.exists()]
    if not trained:
        raise BenchmarkError(f"{folder} holds no trained run; train one first (see run and train)")
    return trained


def panel_of(run: Path) -> tuple[Metric, ...] | None:
    """The evaluation of the suite that ``run`` belongs to; () for a run of ``train``, and None
    where the suite's folder is not around it."""
    out = run.resolve().parent.parent
    path = SuiteFiles(out).plan
    if not path.exists():
        return None
    suite = read_plan(out)
    if run.resolve().name not in {cell["slug"] for cell in suite["plan"]}:
        return None
    try:
        return tuple(make_metric(item) for item in suite["evaluation"])
    except ValueError as error:
        raise BenchmarkError(f"{path} is damaged ({error}); run the suite again") from error


def choose_metrics(metrics: Sequence[Metric], only: Sequence[str]) -> list[Metric]:
    """The ``metrics`` named in ``only``, with the parts of their unions, or all.

    Raises:
        ConfigError: an unknown name.
    """
    names = [metric.name for metric in metrics]
    for name in only:
        if name not in names:
            raise ConfigError(f"unknown metric {name!r}; {did_you_mean(name, names)}")
    wanted = set(only)
    for metric in metrics:
        if metric.name in only:
            wanted |= set(metric.parts)
    return [metric for metric in metrics if not only or metric.name in wanted]


def evaluate_external(
    spec: str,
    checkpoint: Path | None,
    how: How,
    *,
    dataset: str,
    limit: int | None,
    out: Path | None,
    settings: Sequence[str] = (),
) -> Results:
    """Evaluate a user's own model on the test split of a data set.

    Args:
        spec, checkpoint: see ``load_external``.
        limit: cap on the images that are read.
        settings: ``dataset.KEY=VALUE`` and, for a listed architecture or ``robustbench:ID``,
            ``model.KEY=VALUE``.
        out: None for a folder below runs/evaluate that belongs to these weights and images, so
            that no model's results replace another's.

    Raises:
        ConfigError, CheckpointError: a model or checkpoint that cannot be used.
        DataError: no such data.
    """
    panel = how.panel_at(how.panel or "standard", how.radii(Radii()), dataset)
    chosen = how.options.over(how.instead.of(choose_metrics(panel, how.only)))
    config, own = _dataset_config(dataset, limit, settings, models=True)
    how.progress.say(f"reading {dataset}")
    data = sources.load(config, how.data_root, training=False)
    for note in data.notes:
        how.progress.say(f"  {note}")
    how.options.check_size(len(data.test), data.name)
    chosen = how.possible(chosen, data)
    model = load_external(
        spec,
        checkpoint,
        data.num_classes,
        image_size=data.image_size,
        channels=data.channels,
        settings=own,
        device=how.device,
        batch=min(how.batch_size, how.options.n or len(data.test), len(data.test)),
    )
    for note in notes_of(model):
        how.progress.say(f"{spec}: {note}")
    label = Path(spec).name  # of a file, without its folder
    weights, images = tensors_hash(model.state_dict()), images_hash(data)
    if out is None:
        used = config_hash({"data": images, "weights": weights})
        out = Path("runs/evaluate") / f"{label.replace(':', '-')}-{used}"
    _refuse_foreign(out, weights, images)
    with how.lock([out]):
        if how.ranks.first:
            _write_head(
                out,
                how,
                label,
                checkpoint.name if checkpoint else None,
                config,
                notes=notes_of(model),
            )
        evaluator = how.evaluator(data, config.limit)
        evaluator.evaluate(model, chosen, out)
    return {spec: summary(out)} if how.ranks.first else {}


def _dataset_config(
    name: str, limit: int | None, settings: Sequence[str], *, models: bool
) -> tuple[DatasetConfig, dict[str, Any]]:
    """The data set that the command line describes, and settings of the model.

    Args:
        models: whether settings of a model have a place here.

    Raises:
        ConfigError: an unknown key, or a setting of something else.
    """
    base = {"dataset": {"name": name, "limit": limit}, "model": {}}
    groups = apply_overrides(base, settings)
    foreign = sorted(groups.keys() - base.keys())
    if groups["model"] and not models:
        foreign.append("model")
    if foreign:
        kinds = "dataset.KEY=VALUE" + (" or model.KEY=VALUE" if models else "")
        raise ConfigError(f"--set {foreign[0]} has no place here; write {kinds}")
    if "name" in groups["model"]:
        raise ConfigError("--set model.name has no place here; --model names the network")
    return parse(DatasetConfig, groups["dataset"], where="--dataset"), groups["model"]


def _at(metrics: Sequence[Metric], eps: str) -> list[Metric]:
    """``metrics`` with the radius as the tag of those under l_inf, and of what is computed from
    them."""
    tagged: dict[str, Metric] = {}
    for metric in metrics:
        names = {name: other.name for name, other in tagged.items()}
        renamed = metric.with_parts(names)
        if (metric.ball and metric.ball[0] == "linf") or renamed != metric:
            tag = f"{metric.tag}-{eps}" if metric.tag else eps
            renamed = renamed.model_copy(update={"tag": tag})
        tagged[metric.name] = renamed
    return list(tagged.values())


def _refuse_foreign(out: Path, weights: str, images: str) -> None:
    """Raise ConfigError if ``out`` holds a trained run, or another model's evaluation."""
    other = "a trained run" if RunFiles(out).configuration.exists() else ""
    if not other and RunFiles(out).evaluation.exists():
        known = read_evaluation(out)
        if set(weights_in(known)) - {weights} or images_of(known) != images:
            other = "the evaluation of other weights or images"
    if other:
        raise ConfigError(f"{out} holds {other}, which would be replaced; choose another --out")


def _radius(option: str, text: str, norm: NormName) -> str:
    """``text``, if it is a radius under ``norm``."""
    try:
        check_eps(Pixels(text), norm)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}") from error
    return text


def summary(folder: Path) -> dict[str, dict[str, Any]]:
    """What the record in ``folder`` says of each metric.

    Returns:
        By metric: ``mean``, ``n``, ``correct`` (None for means over several outcomes), the 95 %
        interval ``low`` to ``high``, ``settings`` in words, ``findings`` of the reliability checks
        (name and text), ``warnings`` of AutoAttack, and ``earlier``: figures under the same name
        whose place this one took, with the reason.
    """
    record = read_evaluation(folder)
    metrics, limit = record["metrics"], record["dataset"]["limit"]
    findings = record["reliability"]["findings"]
    before = [kept for kept in earlier.listed(folder) if kept["entry"]["key"] not in
              {entry["key"] for entry in metrics.values()}]  # fmt: skip
    return {
        name: {
            **_figure(entry, limit),
            "findings": [
                {"name": found["name"], "text": found["text"]}
                for found in findings
                if found["function"] == entry["function"]
            ],
            "warnings": list(entry["detail"].get("warnings", ())),
            "earlier": [
                {
                    **_figure(kept["entry"], kept["dataset"]["limit"]),
                    "reason": _reason(kept["entry"], entry),
                }
                for kept in before
                if kept["name"] == name
            ],
        }
        for name, entry in metrics.items()
    }


def _figure(entry: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {
        "mean": entry["mean"],
        "n": entry["n"],
        "correct": entry["correct"],
        **_ends(entry),
        "settings": _settings(entry) + (f" limit={limit} (a trial run)" if limit else ""),
    }


def _reason(one: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Why a figure is not the present one."""
    for key, what in (("data", "other images"), ("model", "other weights"),
                      ("function", "another function of the same weights")):  # fmt: skip
        if one[key] != present[key]:
            return what
    return "other settings"


def _ends(entry: Mapping[str, Any]) -> dict[str, float]:
    """The 95 % interval; of an estimate, for these test images and for new images. A figure that is
    no share of images has none."""
    detail = entry["detail"]
    if entry["outcomes"] == "none":
        return {}
    if "low" not in detail:
        interval = wilson(entry["mean"] * entry["n"], entry["n"])
        return {"low": interval.low, "high": interval.high}
    own = Interval(entry["mean"], detail["low"], detail["high"])
    wide = population_interval(own, entry["n"])
    return {
        "low": own.low,
        "high": own.high,
        "population_low": wide.low,
        "population_high": wide.high,
    }


def _settings(entry: Mapping[str, Any]) -> str:
    detail = entry["detail"]
    known = {**detail, **detail.get("threat", {})}
    keys = ["norm", "eps", "step", "steps", "version", "source"]
    keys += ["precision"] if detail.get("precision", "fp32") != "fp32" else []
    text = " ".join(f"{key}={known[key]}" for key in keys if key in known)
    if entry["form"] == "estimate":
        low, high, wide_low, wide_high = (100 * end for end in _ends(entry).values())
        text += (
            f" ESTIMATE [{wide_low:.1f}, {wide_high:.1f}] for new images, [{low:.1f}, {high:.1f}] "
            f"for these, {detail['attacked']} of {detail['survivors']} survivors attacked "
            f"({detail['interval']})"
        )
    return text
