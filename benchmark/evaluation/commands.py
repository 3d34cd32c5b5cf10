"""The work behind ``generalist-bench evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmark.core.config import canonical_json, config_hash, parse
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.files import read_json, write_json
from benchmark.core.hashing import tensors_hash
from benchmark.core.progress import Progress
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.data import sources
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Split
from benchmark.evaluation.panel import Evaluator
from benchmark.evaluation.record import read_evaluation
from benchmark.models.loading import load_external
from benchmark.suites.metrics import AutoAttackEstimate, AutoAttackMetric, Metric, Panel
from benchmark.suites.panels import standard_panel
from benchmark.suites.run import locked, read_cell_config, read_plan
from benchmark.suites.schema import apply_overrides
from benchmark.training.loop import load_deployed

ESTIMATE = "autoattack-estimate"

Results = dict[str, dict[str, Any]]


def evaluate_runs(
    folders: Sequence[Path],
    *,
    data_root: Path,
    device: torch.device,
    progress: Progress,
    only: Sequence[str] = (),
    aa_budget: int | None = None,
    aa_halfwidth: float | None = None,
) -> Results:
    """Evaluate trained runs (or all of a suite's plan) by the panel of their suite.

    With a budget or a half-width (in percentage points), AutoAttack is estimated on a sample of
    survivors instead, and nothing else is measured.

    Returns:
        By run and metric: mean, n, correct (None for means over several outcomes) and settings.

    Raises:
        BenchmarkError: a folder without trained runs; a damaged record or checkpoint.
    """
    runs = list({run.resolve(): run for folder in folders for run in _runs_in(folder)}.values())
    evaluators: dict[str, Evaluator] = {}
    results: Results = {}
    # Everything that can be wrong with a record is found before any long work.
    configs = [read_cell_config(run)[1] for run in runs]
    panels = [choose_metrics(panel_of(run), only) for run in runs]
    if aa_budget or aa_halfwidth:
        panels = [
            [m for m in _estimates(panel, aa_budget, aa_halfwidth) if m.kind == ESTIMATE]
            for panel in panels
        ]
    with locked(runs):
        for run, config, panel in zip(runs, configs, panels, strict=True):
            key = canonical_json(config.dataset)
            if key not in evaluators:
                data = sources.load(config.dataset, data_root)
                evaluators[key] = Evaluator(
                    data,
                    device,
                    progress=progress,
                    data_root=data_root,
                    limit=config.dataset.limit,
                )
            evaluator = evaluators[key]
            model = load_deployed(config, evaluator.data, run, device)
            evaluator.evaluate(model, panel, run)
            results[run.name] = _summary(run)
    return results


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "config.json").exists():
        runs = [folder]
    elif (folder / "suite.json").exists():
        runs = [folder / "cells" / slug for _, _, slug in read_plan(folder)[1]]
    else:
        runs = []
    trained = [run for run in runs if (run / "training.json").exists()]
    if not trained:
        raise BenchmarkError(f"{folder} holds no trained run; train one first (see run and train)")
    return trained


def panel_of(run: Path) -> tuple[Metric, ...]:
    """The evaluation of the suite that ``run`` belongs to."""
    path = run.resolve().parent.parent / "suite.json"
    suite = read_json(path)
    if not isinstance(suite, dict):
        raise BenchmarkError(f"{path} is damaged; run the suite again")
    return parse(Panel, {"metrics": suite.get("evaluation", ())}, where=str(path)).metrics


def choose_metrics(metrics: Sequence[Metric], only: Sequence[str]) -> list[Metric]:
    """The ``metrics`` named in ``only``, or all. Raises ConfigError for an unknown name."""
    names = [metric.name for metric in metrics]
    for name in only:
        if name not in names:
            raise ConfigError(f"unknown metric {name!r}; {did_you_mean(name, names)}")
    return [metric for metric in metrics if not only or metric.name in only]


def evaluate_external(
    spec: str,
    checkpoint: Path | None,
    *,
    dataset: str,
    eps_linf: Sequence[str],
    eps_l2: str,
    n: int | None,
    n_aa: int | None,
    limit: int | None,
    out: Path | None,
    data_root: Path,
    device: torch.device,
    progress: Progress,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    seed: int = 0,
    aa_budget: int | None = None,
    aa_halfwidth: float | None = None,
) -> Results:
    """Evaluate a user's own model on the test split of a data set.

    With several radii, the l_inf metrics carry theirs in the name (``aa_linf@1/255``).

    Args:
        spec, checkpoint: see ``load_external``.
        eps_linf, eps_l2: radii as text, in [0, 1] pixel units.
        n, n_aa: test images, and those for AutoAttack; None for all, and for as many as ``n``.
        limit: cap on the images that are read.
        settings: ``dataset.KEY=VALUE`` and, for a listed architecture, ``model.KEY=VALUE``.
        seed: of the sample of images and of the attacks.
        aa_budget, aa_halfwidth: see ``evaluate_runs``; the other metrics are measured as ever.
        out: None for a folder below runs/evaluate that belongs to these weights and images, so
            that no model's results replace another's.

    Raises:
        ConfigError, CheckpointError: a model or checkpoint that cannot be used.
        DataError: no such data.
    """
    panel: dict[str, Metric] = {}
    l2 = _radius("--eps-l2", eps_l2, "l2")
    for eps in eps_linf:
        for metric in standard_panel(_radius("--eps", eps, "linf"), l2, n, n_aa or n):
            name = metric.name
            if len(eps_linf) > 1 and name.endswith("_linf"):
                name = f"{name}@{eps}"
            panel.setdefault(name, metric.model_copy(update={"name": name, "seed": seed}))
    chosen = choose_metrics(list(panel.values()), only)
    if aa_budget or aa_halfwidth:
        chosen = _estimates(chosen, aa_budget, aa_halfwidth)
    groups = apply_overrides(
        {"dataset": {"name": dataset, "limit": limit}, "model": {"name": spec}}, settings
    )
    config = parse(DatasetConfig, groups["dataset"], where="--dataset")
    progress.say(f"reading {dataset}")
    data = sources.load(config, data_root)
    if not isinstance(data.test, Split) and not only:  # corrupted are images in memory alone
        chosen = [metric for metric in chosen if metric.kind != "corruptions"]
    own = {key: value for key, value in groups["model"].items() if key != "name"}
    model = load_external(
        spec, checkpoint, data.num_classes, image_size=data.image_size, settings=own
    )
    if out is None:
        used = {"data": data.fingerprint, "weights": tensors_hash(model.state_dict())}
        out = Path("runs/evaluate") / f"{spec.replace(':', '-')}-{config_hash(used)}"
    _refuse_foreign(out, tensors_hash(model.state_dict()), data.fingerprint)
    with locked([out]):
        write_json(out / "environment.json", environment(str(device), torch.get_num_threads()))
        write_json(
            out / "model.json",
            {
                "model": spec,
                "checkpoint": checkpoint.name if checkpoint else None,
                "dataset": config.model_dump(mode="json"),
            },
        )
        evaluator = Evaluator(
            data, device, progress=progress, data_root=data_root, limit=config.limit
        )
        evaluator.evaluate(model.to(device), chosen, out)
    return {spec: _summary(out)}


def _estimates(
    metrics: Sequence[Metric], budget: int | None, halfwidth: float | None
) -> list[Metric]:
    """The metrics, with every AutoAttack replaced by its estimate.

    Raises:
        ConfigError: both or neither of budget and half-width, or no AutoAttack.
    """
    if not any(metric.kind == "autoattack" for metric in metrics):
        raise ConfigError("--aa-budget and --aa-halfwidth need an AutoAttack among the metrics")
    return [
        parse(
            AutoAttackEstimate,
            {
                "name": f"{metric.name}_estimate",
                "norm": metric.norm,
                "eps": metric.eps,
                "seed": metric.seed,
                "budget": budget,
                "halfwidth": halfwidth,
            },
            where="--aa-budget, --aa-halfwidth",
        )
        if isinstance(metric, AutoAttackMetric)
        else metric
        for metric in metrics
    ]


def _refuse_foreign(out: Path, model_hash: str, fingerprint: str) -> None:
    """Raise ConfigError if ``out`` holds a trained run, or another model's evaluation."""
    other = "a trained run" if (out / "config.json").exists() else ""
    path = out / "evaluation.json"
    if not other and path.exists():
        known = read_evaluation(path)
        if (known["model_hash"], known["dataset"]["fingerprint"]) != (model_hash, fingerprint):
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


def _summary(run: Path) -> dict[str, Any]:
    record = read_evaluation(run / "evaluation.json")
    metrics, limit = record["metrics"], record["dataset"].get("limit")
    return {
        name: {
            "mean": entry["mean"],
            "n": entry["n"],
            "correct": entry["correct"],
            **{end: entry["detail"][end] for end in ("low", "high") if end in entry["detail"]},
            "settings": _settings(entry["detail"])
            + (f" limit={limit} (a trial run)" if limit else ""),
        }
        for name, entry in metrics.items()
    }


def _settings(detail: dict[str, Any]) -> str:
    threat = detail.get("threat", detail)
    keys = ("norm", "eps", "step", "steps", "version", "source")
    text = " ".join(f"{key}={threat[key]}" for key in keys if key in threat)
    if "low" in detail:
        low, high = (100 * detail[end] for end in ("low", "high"))
        text += (
            f" ESTIMATE [{low:.1f}, {high:.1f}], {detail['attacked']} of {detail['survivors']} "
            f"survivors attacked ({detail['interval']})"
        )
    return text
