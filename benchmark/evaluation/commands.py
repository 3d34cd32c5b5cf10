"""The work behind ``generalist-bench evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.attacks.autoattack import Precision
from benchmark.core.config import canonical_json, config_hash, parse
from benchmark.core.environment import environment
from benchmark.core.errors import BenchmarkError, ConfigError
from benchmark.core.files import write_json
from benchmark.core.hashing import tensors_hash
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.registry import did_you_mean
from benchmark.core.threat import NormName, Pixels, check_eps
from benchmark.data import sources
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Dataset
from benchmark.data.shifted import SHIFTED, find_shifted
from benchmark.evaluation.panel import Evaluator
from benchmark.evaluation.record import read_evaluation
from benchmark.evaluation.shape import Plan, read_shaped
from benchmark.metrics.metric import Metric, make_metric
from benchmark.models.loading import load_external
from benchmark.suites.panels import PANELS, Amount, Radii
from benchmark.suites.run import locked, read_cell_config, read_plan
from benchmark.suites.schema import CellConfig, apply_overrides
from benchmark.training.loop import load_deployed

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
        replaced = [
            metric.estimated(self.budget, self.halfwidth) if estimate else metric.screened()
            for metric in metrics
        ]
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
        n, n_aa: test images of the panel's metrics, and of AutoAttack; None for all, and for as
            many as ``n``.
        keep_adversarial: also write AutoAttack's examples.
        batch_size: images per forward pass; AutoAttack's random starts depend on it.
    """

    data_root: Path
    device: torch.device
    progress: Progress
    only: Sequence[str] = ()
    panel: str | None = None
    n: int | None = None
    n_aa: int | None = None
    instead: Instead = Instead()
    keep_adversarial: bool = False
    batch_size: int = 256
    ranks: Ranks = ALONE

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
            metrics = list(PANELS.get(name)(radii, Amount(self.n, self.n_aa)))
        except ValueError as error:
            raise ConfigError(f"panel {name}: {error}") from error
        if name == "ood":
            metrics += [
                make_metric({"kind": "shift", "test_set": shifted, "n": self.n})
                for shifted, entry in SHIFTED.items()
                if entry.base == dataset and find_shifted(shifted, self.data_root)
            ]
        return metrics

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


def evaluate_runs(folders: Sequence[Path], how: How) -> Results:
    """Evaluate trained runs (or all of a suite's plan) by the panel of their suite, or another.

    Metrics that the suite has keep the suite's settings, so that its table stays one attack per
    column. With ``how.instead``, nothing but AutoAttack's replacement is measured.

    Returns:
        By run and metric: mean, n, correct (None for means over several outcomes) and settings;
        empty but on the first rank.

    Raises:
        BenchmarkError: a folder without trained runs; a damaged record or checkpoint.
    """
    runs = list({run.resolve(): run for folder in folders for run in _runs_in(folder)}.values())
    evaluators: dict[str, Evaluator] = {}
    results: Results = {}
    # Everything that can be wrong with a record is found before any long work.
    configs = [read_cell_config(run)[1] for run in runs]
    panels = [_panel_for(run, config, how) for run, config in zip(runs, configs, strict=True)]
    with how.lock(runs):
        for run, config, panel in zip(runs, configs, panels, strict=True):
            key = canonical_json(config.dataset)
            if key not in evaluators:
                data = sources.load(config.dataset, how.data_root)
                evaluators[key] = how.evaluator(data, config.dataset.limit)
            evaluator = evaluators[key]
            model = load_deployed(config, evaluator.data, run, how.device)
            if how.panel:
                panel = how.possible(panel, evaluator.data)
            evaluator.evaluate(model, panel, run)
            if how.ranks.first:
                results[run.name] = _summary(run)
    return results


def _panel_for(run: Path, config: CellConfig, how: How) -> list[Metric]:
    own = panel_of(run)
    metrics: Sequence[Metric] = own
    if how.panel:
        named = {metric.name: metric for metric in own}
        asked = how.metrics_of(how.panel, _radii(own), config.dataset.name)
        metrics = [named.get(metric.name, metric) for metric in asked]
    chosen = choose_metrics(metrics, how.only)
    return [metric for metric in how.instead.of(chosen) if not how.instead or metric not in chosen]


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
    suite = read_shaped(path, Plan, "run the suite again")
    try:
        return tuple(make_metric(item) for item in suite.get("evaluation", ()))
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
    eps_linf: Sequence[str],
    eps_l2: str,
    eps_l1: str,
    limit: int | None,
    out: Path | None,
    settings: Sequence[str] = (),
    seed: int = 0,
) -> Results:
    """Evaluate a user's own model on the test split of a data set.

    With several radii, the l_inf metrics carry theirs in the name (``aa_linf@1/255``).

    Args:
        spec, checkpoint: see ``load_external``.
        eps_linf, eps_l2, eps_l1: radii as text, in [0, 1] pixel units.
        limit: cap on the images that are read.
        settings: ``dataset.KEY=VALUE`` and, for a listed architecture or ``robustbench:ID``,
            ``model.KEY=VALUE``.
        seed: of the sample of images and of the attacks.
        out: None for a folder below runs/evaluate that belongs to these weights and images, so
            that no model's results replace another's.

    Raises:
        ConfigError, CheckpointError: a model or checkpoint that cannot be used.
        DataError: no such data.
    """
    radii = [
        Radii(
            _radius("--eps", eps, "linf"),
            _radius("--eps-l2", eps_l2, "l2"),
            _radius("--eps-l1", eps_l1, "l1"),
        )
        for eps in eps_linf
    ]
    chosen = how.instead.of(choose_metrics(_panel_at(radii, how, dataset, seed), how.only))
    groups = apply_overrides(
        {"dataset": {"name": dataset, "limit": limit}, "model": {"name": spec}}, settings
    )
    config = parse(DatasetConfig, groups["dataset"], where="--dataset")
    how.progress.say(f"reading {dataset}")
    data = sources.load(config, how.data_root)
    chosen = how.possible(chosen, data)
    own = {key: value for key, value in groups["model"].items() if key != "name"}
    model = load_external(
        spec,
        checkpoint,
        data.num_classes,
        image_size=data.image_size,
        settings=own,
        device=how.device,
    )
    label = Path(spec).name  # of a file, without its folder
    if out is None:
        used = {"data": data.fingerprint, "weights": tensors_hash(model.state_dict())}
        out = Path("runs/evaluate") / f"{label.replace(':', '-')}-{config_hash(used)}"
    _refuse_foreign(out, tensors_hash(model.state_dict()), data.fingerprint)
    with how.lock([out]):
        if how.ranks.first:
            threads = torch.get_num_threads()
            write_json(out / "environment.json", environment(str(how.device), threads))
            write_json(
                out / "model.json",
                {
                    "model": label,
                    "checkpoint": checkpoint.name if checkpoint else None,
                    "dataset": config.model_dump(mode="json"),
                },
            )
        evaluator = how.evaluator(data, config.limit)
        evaluator.evaluate(model, chosen, out)
    return {spec: _summary(out)} if how.ranks.first else {}


def _panel_at(radii: Sequence[Radii], how: How, dataset: str, seed: int) -> list[Metric]:
    """The panel asked for, at each of ``radii``; what does not depend on the l_inf radius once."""
    panel: dict[str, Metric] = {}
    for each in radii:
        metrics = how.metrics_of(how.panel or "standard", each, dataset)
        for metric in _at(metrics, each.linf) if len(radii) > 1 else metrics:
            # A metric that is computed from others draws nothing itself.
            own = {} if metric.parts else {"seed": seed}
            panel.setdefault(metric.name, metric.model_copy(update=own))
    return list(panel.values())


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
    known = {**detail, **detail.get("threat", {})}
    keys = ["norm", "eps", "step", "steps", "version", "source"]
    keys += ["precision"] if detail.get("precision", "fp32") != "fp32" else []
    text = " ".join(f"{key}={known[key]}" for key in keys if key in known)
    if "low" in detail:
        low, high = (100 * detail[end] for end in ("low", "high"))
        text += (
            f" ESTIMATE [{low:.1f}, {high:.1f}], {detail['attacked']} of {detail['survivors']} "
            f"survivors attacked ({detail['interval']})"
        )
    return text
