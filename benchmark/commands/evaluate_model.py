"""Measure a network of one's own on the test split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from benchmark.commands.figures import AskedFigures
from benchmark.commands.hub import PREFIX, load_hub_model
from benchmark.commands.panels import choose_metrics, panel_at
from benchmark.commands.request import EvaluationRequest, split_settings
from benchmark.config.panels import Radii
from benchmark.core.config import config_hash
from benchmark.core.errors import ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.data import sources
from benchmark.data.dataset import Dataset, Split
from benchmark.data.given import given_source
from benchmark.data.source import DATASETS, DatasetConfig
from benchmark.evaluation.identity import images_hash
from benchmark.metrics.metric import Metric
from benchmark.models.adapt import adapted, notes_of
from benchmark.models.loading import TRIED_BATCHES, check_spec, load_external
from benchmark.records.files import RunFiles
from benchmark.records.keys import images_of
from benchmark.records.keys import weights as weights_in
from benchmark.records.schema import read_evaluation


def evaluate_model(
    spec: str,
    checkpoint: Path | None,
    request: EvaluationRequest,
    *,
    dataset: str | None,
    limit: int | None,
    out: Path | None,
    settings: Sequence[str] = (),
) -> AskedFigures:
    """Evaluate a user's own network on the test split of a data set.

    Args:
        spec, checkpoint: see ``load_external``; or ``hf:PATH_OR_ID``, see ``load_hub_model``.
        dataset: by name; None for that of an ``hf:`` network, else cifar10.
        limit: cap on the images that are read.
        settings: ``dataset.KEY=VALUE`` and, for a listed architecture or ``robustbench:ID``,
            ``model.KEY=VALUE``.
        out: where the record goes; None for a folder below runs/evaluate that is named by these
            weights and images, so that no network's results replace another's.

    Returns:
        The figures of ``spec`` that were asked for; nothing but on the first rank.

    Raises:
        ConfigError, CheckpointError: a network or checkpoint that cannot be used.
        DataError: no such data.
    """
    hub = load_hub_model(spec) if spec.startswith(PREFIX) else None
    if hub and checkpoint:
        raise ConfigError(f"{spec} brings its own weights; leave --checkpoint out")
    # its images are as the network was trained on: of the same size, for one
    described = hub.config.images if hub and not dataset else {"name": dataset or "cifar10"}
    config, own_settings = split_settings(described, limit, settings, ["dataset", "model"])
    radii = request.radii(Radii())
    panel = panel_at(request.panel or "standard", radii, config.name, request.data_root)
    metrics = request.cheaper.replace(choose_metrics(panel, request.only, request.given))
    metrics = request.options.over(metrics)
    if "name" in own_settings:
        raise ConfigError("--set model.name has no place here: MODEL names the network")
    if hub and own_settings:
        raise ConfigError(f"--set model.{next(iter(own_settings))}: {spec} states its architecture")
    if not hub:
        without_key = {key: v for key, v in own_settings.items() if key != "checkpoint_key"}
        check_spec(spec, checkpoint, without_key)
    request.progress.say(f"reading {config.name}")
    data = sources.load(config, request.data_root, training=False)
    for note in data.notes:
        request.progress.say(f"  {note}")
    images = len(data.test)
    request.options.check_size(images, data.name)
    metrics = request.possible(metrics, data)
    batch = min(request.batch_size, request.options.n or images, images)
    if hub:
        shape = (data.channels, data.image_size, data.image_size)
        batches = tuple(dict.fromkeys((*TRIED_BATCHES, batch)))
        network = hub.network.to(request.device)
        model = adapted(network, spec, data.num_classes, shape, batches, request.device)
    else:
        model = load_external(
            spec,
            checkpoint,
            data.num_classes,
            image_size=data.image_size,
            channels=data.channels,
            settings=own_settings,
            device=request.device,
            batch=batch,
        )
    for note in notes_of(model):
        request.progress.say(f"{spec}: {note}")
    label = Path(spec).name  # of a file, without its folder
    if out is None:
        key = config_hash({"data": images_hash(data), "weights": tensors_hash(model.state_dict())})
        out = Path("runs/evaluate") / f"{label.replace(':', '-')}-{key}"
    name = checkpoint.name if checkpoint else None
    _measure(model, label, name, data, config, metrics, request, out)
    measured = AskedFigures()
    if request.ranks.first:
        measured.add(spec, out, request.asked(metrics))
    return measured


def evaluate_given(
    network: nn.Module,
    images: Split,
    request: EvaluationRequest,
    out: Path,
    *,
    label: str,
    classes: tuple[str, ...],
    where: str,
) -> None:
    """Evaluate a network in memory on images in memory, and leave the record in ``out``.

    The network is in eval mode afterwards; nothing else about it has changed.

    Args:
        network: on ``request.device``.
        label: of the network, in tables.
        classes: their names; as many as the network has logits.
        where: what the images are, for the record.

    Raises:
        ConfigError: a network that cannot be used, or ``out`` holds another record.
        BenchmarkError: see ``Evaluator.evaluate``.
    """
    count = len(images)
    largest = min(request.batch_size, request.options.n or count, count)
    shape = (images.channels, images.image_size, images.image_size)
    batches = tuple(dict.fromkeys((*TRIED_BATCHES, largest)))
    model = adapted(network, label, len(classes), shape, batches, request.device)
    with DATASETS.lent(*given_source(None, images, classes, where)) as name:
        config = DatasetConfig(name=name)
        data = sources.load(config, request.data_root, training=False)
        metrics = request.options.over(request.metrics)
        _measure(model, label, None, data, config, metrics, request, out)


def _measure(
    model: nn.Module,
    label: str,
    checkpoint: str | None,
    data: Dataset,
    config: DatasetConfig,
    metrics: Sequence[Metric],
    request: EvaluationRequest,
    out: Path,
) -> None:
    """Evaluate ``model`` on ``data`` and leave the record in ``out``."""
    _refuse_foreign(out, tensors_hash(model.state_dict()), images_hash(data))
    with request.lock([out]):
        if request.ranks.first:
            request.describe_network(out, label, checkpoint, config, notes_of(model))
        request.evaluator(data, config.limit).evaluate(model, metrics, out)


def _refuse_foreign(out: Path, weights: str, images: str) -> None:
    """Raise ConfigError if ``out`` holds a trained run, or another network's evaluation."""
    other = "a trained run" if RunFiles(out).configuration.exists() else ""
    if not other and RunFiles(out).evaluation.exists():
        known = read_evaluation(out)
        if set(weights_in(known)) - {weights} or images_of(known) != images:
            other = "the evaluation of other weights or images"
    if other:
        raise ConfigError(f"{out} holds {other}, which would be replaced; choose another --out")
