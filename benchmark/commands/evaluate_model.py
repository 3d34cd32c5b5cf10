"""Measure a network of one's own on the test split of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.commands.figures import Figures, read_figures
from benchmark.commands.panels import choose_metrics, panel_at
from benchmark.commands.request import EvaluationRequest, split_settings
from benchmark.config.panels import Radii
from benchmark.core.config import config_hash
from benchmark.core.errors import ConfigError
from benchmark.core.hashing import tensors_hash
from benchmark.data import sources
from benchmark.evaluation.identity import images_hash
from benchmark.models.adapt import notes_of
from benchmark.models.loading import load_external
from benchmark.records.files import RunFiles
from benchmark.records.keys import images_of
from benchmark.records.keys import weights as weights_in
from benchmark.records.schema import read_evaluation


def evaluate_model(
    spec: str,
    checkpoint: Path | None,
    request: EvaluationRequest,
    *,
    dataset: str,
    limit: int | None,
    out: Path | None,
    settings: Sequence[str] = (),
) -> Figures:
    """Evaluate a user's own network on the test split of a data set.

    Args:
        spec, checkpoint: see ``load_external``.
        limit: cap on the images that are read.
        settings: ``dataset.KEY=VALUE`` and, for a listed architecture or ``robustbench:ID``,
            ``model.KEY=VALUE``.
        out: where the record goes; None for a folder below runs/evaluate that is named by these
            weights and images, so that no network's results replace another's.

    Returns:
        The figures of ``spec``, see ``read_figures``; nothing but on the first rank.

    Raises:
        ConfigError, CheckpointError: a network or checkpoint that cannot be used.
        DataError: no such data.
    """
    radii = request.radii(Radii())
    panel = panel_at(request.panel or "standard", radii, dataset, request.data_root)
    metrics = request.cheaper.replace(choose_metrics(panel, request.only, request.given))
    metrics = request.options.over(metrics)
    config, own_settings = split_settings(dataset, limit, settings, ["dataset", "model"])
    if "name" in own_settings:
        raise ConfigError("--set model.name has no place here: MODEL names the network")
    request.progress.say(f"reading {dataset}")
    data = sources.load(config, request.data_root, training=False)
    for note in data.notes:
        request.progress.say(f"  {note}")
    images = len(data.test)
    request.options.check_size(images, data.name)
    metrics = request.possible(metrics, data)
    model = load_external(
        spec,
        checkpoint,
        data.num_classes,
        image_size=data.image_size,
        channels=data.channels,
        settings=own_settings,
        device=request.device,
        batch=min(request.batch_size, request.options.n or images, images),
    )
    notes = notes_of(model)
    for note in notes:
        request.progress.say(f"{spec}: {note}")
    label = Path(spec).name  # of a file, without its folder
    weights, test_images = tensors_hash(model.state_dict()), images_hash(data)
    if out is None:
        key = config_hash({"data": test_images, "weights": weights})
        out = Path("runs/evaluate") / f"{label.replace(':', '-')}-{key}"
    _refuse_foreign(out, weights, test_images)
    with request.lock([out]):
        if request.ranks.first:
            name = checkpoint.name if checkpoint else None
            request.describe_network(out, label, name, config, notes)
        request.evaluator(data, config.limit).evaluate(model, metrics, out)
    return {spec: read_figures(out)} if request.ranks.first else {}


def _refuse_foreign(out: Path, weights: str, images: str) -> None:
    """Raise ConfigError if ``out`` holds a trained run, or another network's evaluation."""
    other = "a trained run" if RunFiles(out).configuration.exists() else ""
    if not other and RunFiles(out).evaluation.exists():
        known = read_evaluation(out)
        if set(weights_in(known)) - {weights} or images_of(known) != images:
            other = "the evaluation of other weights or images"
    if other:
        raise ConfigError(f"{out} holds {other}, which would be replaced; choose another --out")
