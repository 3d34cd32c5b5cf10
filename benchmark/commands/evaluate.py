"""Measure trained runs again: by other metrics, or on another test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.commands.figures import AskedFigures
from benchmark.commands.hub import PREFIX
from benchmark.commands.panels import (
    choose_metrics,
    find_panel,
    panel_at,
    radii_of,
    suite_metrics,
    usual_radii,
)
from benchmark.commands.request import EvaluationRequest, split_settings
from benchmark.commands.run import read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.config import canonical_json
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.data.source import DatasetConfig
from benchmark.evaluation.evaluator import Evaluator
from benchmark.evaluation.identity import images_hash
from benchmark.metrics.metric import Metric
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.schema import (
    read_configuration,
    read_evaluation,
    read_plan,
    read_training,
)
from benchmark.training.selection import load_deployed, record_directories, weights_path

# Test images of AutoAttack where neither a suite nor the command line says how many: on a whole
# test set it takes hours, which users rarely want.
_AUTOATTACK_IMAGES = 1000


@dataclass(frozen=True)
class OtherTestSet:
    """A test set that the runs were not made with; its figures stand beside their own record.

    Attributes:
        name: of the data set.
        settings: ``dataset.KEY=VALUE``.
        limit: cap on the images.
    """

    name: str
    settings: Sequence[str] = ()
    limit: int | None = None

    def config(self) -> DatasetConfig:
        """Raises ConfigError: an unknown set or key, or a setting of something else."""
        return split_settings({"name": self.name}, self.limit, self.settings, ["dataset"])[0]


def evaluate_runs(
    folders: Sequence[Path], request: EvaluationRequest, other: OtherTestSet | None = None
) -> AskedFigures:
    """Evaluate trained runs (or all of a suite's plan) by the metrics of their suite, or others.

    Metrics that the suite has keep the suite's settings, so that its table stays one attack per
    column. With ``request.cheaper``, nothing but AutoAttack's replacement is measured. A run of
    ``train`` has no suite; it is measured by the panel ``standard``, AutoAttack on 1,000 images
    unless the request says otherwise.

    Args:
        other: measure on its test images instead, into ``RUN/evaluations/NAME-HASH``.

    Returns:
        By run, the figures of the metrics that were asked for; empty but on the first rank.

    Raises:
        BenchmarkError: a folder without trained runs; a damaged record or checkpoint.
        ConfigError: options that do not fit the runs; other images that the networks cannot take.
    """
    runs = list({run.resolve(): run for folder in folders for run in _runs_in(folder)}.values())
    evaluators: dict[str, Evaluator] = {}
    measured = AskedFigures()
    # Everything that can be wrong with a record is found before any long work.
    instead = other.config() if other else None
    configs = [read_cell_config(run)[1] for run in runs]
    panels = [
        _metrics_for(run, config, request, instead)
        for run, config in zip(runs, configs, strict=True)
    ]
    with request.lock(runs):
        for run, config, metrics in zip(runs, configs, panels, strict=True):
            dataset = instead or config.dataset
            key = canonical_json(dataset)
            if key not in evaluators:
                data = sources.load(dataset, request.data_root, training=instead is None)
                request.options.check_size(len(data.test), data.name)
                evaluators[key] = request.evaluator(data, dataset.limit)
            evaluator = evaluators[key]
            if instead:
                _check_fits(run, config, evaluator.data)
            if request.panel or instead:
                metrics = request.possible(metrics, evaluator.data)
            for rule, record in record_directories(config, run).items():
                model = load_deployed(config, evaluator.data, run, request.device, rule)
                folder = _folder_beside(run, record, evaluator.data) if instead else record
                if instead and request.ranks.first:
                    label = f"{read_cell_config(run)[0]} seed {config.seed}"
                    weights = weights_path(config, run, rule).name
                    request.describe_network(folder, label, weights, instead)
                evaluator.evaluate(model, metrics, folder)
                if request.ranks.first:
                    where = folder if instead else run
                    name = str(where.relative_to(run.parent))
                    chosen = "" if record == run or instead else f"@{rule}"
                    measured.add(f"{name}{chosen}", folder, request.asked(metrics))
    return measured


def _runs_in(folder: Path) -> list[Path]:
    if str(folder).startswith(PREFIX):
        raise ConfigError(f"{folder} is a network and no run; measure it by evaluate-model")
    if not folder.exists():
        raise BenchmarkError(
            f"there is no folder {folder}; name a run, or measure a network of your own by "
            "evaluate-model"
        )
    if RunFiles(folder).configuration.exists():
        runs = [folder]
    elif SuiteFiles(folder).plan.exists():
        runs = [SuiteFiles(folder).cell(cell["slug"]) for cell in read_plan(folder)["plan"]]
    else:
        runs = []
    trained = [run for run in runs if RunFiles(run).training.exists()]
    if not trained:
        raise BenchmarkError(
            f"{folder} holds no trained run; train one first (see run and train), or measure a "
            "network of your own by evaluate-model"
        )
    return trained


def _metrics_for(
    run: Path, config: CellConfig, request: EvaluationRequest, other: DatasetConfig | None
) -> list[Metric]:
    """What to measure of a run.

    Raises:
        ConfigError: nothing says what; radii for a run whose suite has its own.
    """
    if request.metrics:
        return request.options.over(request.metrics)
    own = suite_metrics(run)
    if own and request.gives_radii and not other:
        raise ConfigError(
            "--eps is for runs of train and for other test sets: "
            f"{run.name} is attacked at the radii of its suite, which its table is made of"
        )
    if own is None and not (request.panel or request.only):
        raise ConfigError(
            f"{run} is a run of the suite {_suite_of(run)!r}, whose folder is not around it, so "
            "nothing says what to measure: name a panel (--panel standard) or metrics (--metric "
            "clean), or put the run back into cells/ of the suite's folder"
        )
    metrics = _candidates(own, request, (other or config.dataset).name)
    if not (own or request.panel):
        metrics = [
            metric.model_copy(update={"n": _AUTOATTACK_IMAGES}) if metric.reference else metric
            for metric in metrics
        ]
    chosen = choose_metrics(metrics, request.only, request.given)
    if request.cheaper:
        replaced = request.cheaper.replace(chosen)
        chosen = [metric for metric in replaced if metric not in chosen]
    columns = () if other else [metric.name for metric in own or ()]
    return request.options.over(chosen, columns)


def _candidates(
    own: Sequence[Metric] | None, request: EvaluationRequest, dataset: str
) -> Sequence[Metric]:
    """The metrics from which ``request.only`` chooses.

    Args:
        own: the metrics of the run's suite, if it has one.
    """
    root = request.data_root
    if request.panel:
        radii = request.radii(radii_of(own) if own else usual_radii(dataset))
        keep = {} if request.gives_radii else {metric.name: metric for metric in own or ()}
        asked = panel_at(request.panel, radii, dataset, root)
        return [keep.get(metric.name, metric) for metric in asked]
    if own and not request.gives_radii:
        return own
    radii = request.radii(usual_radii(dataset))
    if request.only:
        return find_panel(request.named, radii, dataset, root)
    return panel_at("standard", radii, dataset, root)


def _suite_of(run: Path) -> str:
    return str(read_configuration(run)["config"]["suite"])


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
    """What the run's own record says of its data set; nothing before it was evaluated."""
    return read_evaluation(run)["dataset"] if RunFiles(run).evaluation.exists() else {}
