"""Writes a finished run as files for RobustBench: model, figures, and the text of the issue."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from benchmark.commands.figures import figures_of
from benchmark.commands.leaderboard import (
    FOLDERS,
    Paper,
    Threat,
    board_of,
    reported_metric,
    violations,
)
from benchmark.commands.run import read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.config import parse, parse_yaml
from benchmark.core.errors import BenchmarkError, CheckpointError, ConfigError
from benchmark.core.files import (
    atomic_path,
    remove_temporaries,
    save_tensors,
    write_json,
    write_text,
)
from benchmark.core.hashing import file_digest, tensors_hash
from benchmark.data import sources
from benchmark.data.dataset import Dataset, StreamedSplit
from benchmark.data.loader import evaluation_batches
from benchmark.models.robustbench import imagenet_files
from benchmark.models.standalone import standalone_source
from benchmark.models.weights import read_state_dict
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_environment, read_evaluation, read_training
from benchmark.records.study import evaluated_run
from benchmark.training.selection import load_deployed
from benchmark.training.state import check_same_data

_DRAFT = "DRAFT-DO-NOT-SUBMIT.txt"
_FILES = {
    "README.md",
    "__pycache__",
    "checkpoint.pt",
    "evaluation.log",
    "issue.md",
    "model.py",
    "model_info",
    _DRAFT,
}


@dataclass(frozen=True)
class _Submission:
    """All data that the texts of a submission need.

    Attributes:
        weights: hash of the deployed model's.
        metric: the metric whose accuracy is the robust accuracy; None in a draft without one.
        reasons: why the board would refuse it; only a draft can have reasons.
    """

    label: str
    config: CellConfig
    training: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    environment: Mapping[str, Any]
    threat: Threat
    paper: Paper
    weights: str
    metric: str | None
    reasons: Sequence[str]

    @property
    def id(self) -> str:
        return self.paper.id or f"Draft_{self.label}"

    @property
    def dataset(self) -> str:
        return self.config.dataset.name

    @property
    def trained_on(self) -> str:
        extra = self.config.dataset.extra
        also = f" and extra images ({Path(extra.path).name})" if extra else ""
        return f"{self.dataset}{also}"

    @property
    def detail(self) -> Mapping[str, Any]:
        """Of the metric that is reported."""
        detail: Mapping[str, Any] = self.evaluation["metrics"][self.metric]["detail"]
        return detail


def submit(
    run: Path,
    *,
    data_root: Path,
    out: Path | None,
    threat: Threat,
    info: Path | None,
    draft: bool,
) -> Path:
    """Write the bundle of ``run`` for the board of its data set under ``threat``.

    Args:
        out: a folder that is new, empty or holds an earlier bundle; default: ``run/submission``.
        info: YAML file with information that only the author has, see ``Paper``.
        draft: write it even if the board would refuse it, with the reasons in every text.

    Returns:
        The bundle's folder.

    Raises:
        BenchmarkError: no evaluated run; without ``draft``, the board would refuse the run (all
            reasons in one message); a network that cannot be rebuilt from source.
    """
    run = evaluated_run(run)
    files = RunFiles(run)
    out = out or run / "submission"
    _check_folder(out)
    paper = _read_paper(info)
    label, config = read_cell_config(run)
    paper = _with_additional_data(paper, config)
    training, evaluation = read_training(run), read_evaluation(run)
    reasons = violations(threat, config, evaluation)
    found = len(reasons)
    if missing := paper.missing():
        reasons.append(f"--info does not state {', '.join(missing)}")
    _refuse(reasons, config, threat, draft)

    data = sources.load(config.dataset, data_root)
    check_same_data(training["data"], data, files.training)
    check_same_data(evaluation["dataset"]["fingerprint"], data, files.evaluation)
    reasons += _against_files(data)
    _refuse(reasons, config, threat, draft)
    model = load_deployed(config, data, run, torch.device("cpu"))
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    weights = tensors_hash(state)
    own = figures_of(weights, evaluation["metrics"], files)
    if len(own) < len(evaluation["metrics"]):  # a run may be evaluated at two checkpoints
        evaluation = {**evaluation, "metrics": own}
        reasons = violations(threat, config, evaluation) + reasons[found:]
        _refuse(reasons, config, threat, draft)
    submission = _Submission(
        label=label,
        config=config,
        training=training,
        evaluation=evaluation,
        environment=read_environment(run),
        threat=threat,
        paper=paper,
        weights=weights,
        metric=reported_metric(
            evaluation["metrics"], threat, board_of(config.dataset.name, threat)
        ),
        reasons=reasons,
    )
    _write(submission, model, state, data, out)
    return out


def _refuse(reasons: Sequence[str], config: CellConfig, threat: Threat, draft: bool) -> None:
    if reasons and not draft:
        raise BenchmarkError(
            f"RobustBench's board of {config.dataset.name} under {threat} would not take this run: "
            f"{'; '.join(reasons)}. Correct that, or add --draft for files that are marked as draft"
        )


def _check_folder(out: Path) -> None:
    """Raise ConfigError if ``out`` holds anything but an earlier bundle."""
    if out.is_dir():
        remove_temporaries(out)
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names - _FILES:
        raise ConfigError(f"{out} holds other files; choose another --out")


def _read_paper(path: Path | None) -> Paper:
    if path is None:
        return Paper()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--info {path} cannot be read ({error}); check the path") from error
    content = parse_yaml(text, f"--info {path}")
    if not isinstance(content, dict):
        raise ConfigError(f"--info {path} must be a mapping of keys to values")
    return parse(Paper, content, where=f"--info {path}")


def _with_additional_data(paper: Paper, config: CellConfig) -> Paper:
    """``paper``, with additional data set to true for a run with ``dataset.extra``.

    Raises:
        ConfigError: it says false.
    """
    if config.dataset.extra is None:
        return paper
    if paper.additional_data is False:
        raise ConfigError(
            "--info says additional_data: false, but the run was trained on extra images too "
            f"({Path(config.dataset.extra.path).name}); say true"
        )
    return paper.model_copy(update={"additional_data": True})


def _against_files(data: Dataset) -> list[str]:
    """The board's objections to the images: ImageNet's board has a fixed set of images."""
    if not isinstance(data.test, StreamedSplit) or data.name != "imagenet":
        return []
    try:
        wanted = imagenet_files()
    except BenchmarkError as error:
        return [f"whether these are the board's images cannot be checked: {error}"]
    others = wanted - set(data.test.files)
    return [f"{len(others):,} of the board's images are missing"] if others else []


def _write(
    submission: _Submission, model: nn.Module, state: dict[str, Any], data: Dataset, out: Path
) -> None:
    indices = torch.arange(min(8, len(data.test)))
    _, images, _ = next(iter(evaluation_batches(data.test, 8, indices=indices)))
    title = f"{submission.id}: {submission.label}, trained on {submission.trained_on}."
    source = standalone_source(model, title, images)

    shutil.rmtree(out / "model_info", ignore_errors=True)
    (out / _DRAFT).unlink(missing_ok=True)
    if submission.reasons:
        write_text(out / _DRAFT, _draft_notice(submission))
    with atomic_path(out / "checkpoint.pt") as temporary:
        save_tensors(state, temporary, out / "checkpoint.pt")
    if tensors_hash(read_state_dict(out / "checkpoint.pt")) != submission.weights:
        raise CheckpointError(f"{out}/checkpoint.pt is not what was written; check the disk")
    write_text(out / "model.py", source)
    folder = out / "model_info" / submission.dataset / FOLDERS[submission.threat]
    write_json(folder / f"{submission.id}.json", _model_info(submission))
    write_text(out / "evaluation.log", _log(submission))
    write_text(out / "issue.md", _issue(submission))
    write_text(out / "README.md", _readme(submission, file_digest(out / "checkpoint.pt")))


def _accuracy(entry: Mapping[str, Any]) -> str:
    """In per cent."""
    correct = entry["correct"]
    return f"{100 * (entry['mean'] if correct is None else correct / entry['n']):.2f}"


def _figures(submission: _Submission) -> tuple[str | None, str | None, str | None]:
    """Clean accuracy, robust accuracy and eps as the boards write them."""
    metrics = submission.evaluation["metrics"]
    clean = next((_accuracy(e) for e in metrics.values() if e["role"] == "clean"), None)
    if submission.metric is None:
        return clean, None, None
    return clean, _accuracy(metrics[submission.metric]), submission.detail.get("eps")


def _model_info(submission: _Submission) -> dict[str, Any]:
    """The keys of a file in RobustBench's model_info, in its order."""
    paper, (clean, robust, eps) = submission.paper, _figures(submission)
    accuracy = "corruptions_acc" if submission.threat == "corruptions" else "autoattack_acc"
    optional = {key: getattr(paper, key) for key in ("external", "unreliable", "footnote")}
    if submission.reasons:
        optional["footnote"] = _draft_notice(submission)
    return {
        "link": paper.link,
        "name": paper.name,
        "authors": paper.authors,
        "additional_data": paper.additional_data,
        "number_forward_passes": submission.training["inference_passes"],
        "dataset": submission.dataset,
        "venue": paper.venue,
        "architecture": paper.architecture,
        "eps": eps,
        "clean_acc": clean,
        "reported": paper.reported,
        accuracy: robust,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _draft_notice(submission: _Submission) -> str:
    reasons = "".join(f"\n- {reason}" for reason in submission.reasons)
    return f"DRAFT, not for the leaderboard. RobustBench would not take it:{reasons}\n"


def _log(submission: _Submission) -> str:
    """Every measurement with its settings, as YAML for people."""
    metrics = {
        name: {
            "accuracy in per cent": float(_accuracy(entry)),
            **{key: entry[key] for key in ("kind", "n", "correct")},
            # an estimate's order of all its images is no reading
            **{key: value for key, value in entry["detail"].items() if key != "order"},
        }
        for name, entry in submission.evaluation["metrics"].items()
    }
    dataset = {k: v for k, v in submission.evaluation["dataset"].items() if k != "classes"}
    content = {
        "model": {
            "method": submission.label,
            "seed": submission.config.seed,
            "architecture": submission.config.model.model_dump(mode="json"),
            "weights": submission.weights,
        },
        "board": f"{submission.dataset} {FOLDERS[submission.threat]}",
        "trained on": submission.trained_on,
        "against it": list(submission.reasons) or "nothing was found",
        "dataset": dataset,
        "metrics": metrics,
        "reliability": submission.evaluation["reliability"],
        "training": dict(submission.training),
        "environment of training": dict(submission.environment),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _issue(submission: _Submission) -> str:
    paper, (clean, robust, eps) = submission.paper, _figures(submission)
    model_info = f"{submission.dataset}/{FOLDERS[submission.threat]}/{submission.id}.json"
    zoo = "x" if paper.license else " "
    additional = {True: "true", False: "false", None: "not stated"}[paper.additional_data]
    if extra := submission.config.dataset.extra:
        additional += f" ({Path(extra.path).name}, {100 * extra.share:g} % of each training batch)"
    return f"""{_banner(submission)}Title: [New Model] {submission.id}
Label: new-model

## Paper

- Paper Title: {paper.name or "not stated"}
- Paper URL: {paper.link or "not stated"}
- Paper authors: {paper.authors or "not stated"}

## Model

- Architecture: {paper.architecture or "not stated"}
- Dataset: {submission.dataset}
- Threat Model: {FOLDERS[submission.threat]}
- eps: {eps or "not stated"}{" (for the board's 0.5)" if eps == "128/255" else ""}
- Clean accuracy: {_percent(clean)}
- Robust accuracy: {_percent(robust)}
- Additional data: {additional}
- Forward passes per image: {submission.training["inference_passes"]}
- Evaluation method: {_method(submission)}
- Checkpoint and code: {paper.code or "checkpoint.pt and model.py, attached"}
- Entry: model_info/{model_info}

## Model Zoo

- [{zoo}] I want to add my models to the Model Zoo
- [ ] I use an architecture that is included among `model_zoo/architectures` or in timm
  (otherwise: model.py, which needs nothing else)
- [{zoo}] License: {paper.license or "none given"}
"""


def _percent(accuracy: str | None) -> str:
    return "not measured" if accuracy is None else f"{accuracy} %"


def _method(submission: _Submission) -> str:
    if submission.metric is None:
        return "none"
    detail = submission.detail
    if submission.threat == "corruptions":
        return f"15 corruptions x {len(detail['severities'])} severities, {detail['source']} images"
    n = submission.evaluation["metrics"][submission.metric]["n"]
    pyautoattack = detail["versions"]["pyautoattack"]
    return (
        f"AutoAttack, {detail['version']}, pyautoattack {pyautoattack}, {n:,} images, "
        f"seed {detail['seed']}"
    )


def _banner(submission: _Submission) -> str:
    """On top of a draft's texts."""
    if not submission.reasons:
        return ""
    return "".join(f"> {line}\n" for line in _draft_notice(submission).splitlines()) + "\n"


def _readme(submission: _Submission, digest: str) -> str:
    threat, dataset = FOLDERS[submission.threat], submission.dataset
    _, _, eps = _figures(submission)
    board = board_of(dataset, submission.threat)
    arguments = [f"dataset={dataset!r}", f"threat_model={threat!r}"]
    arguments += [f"n_examples={board.images}"] if board else []
    arguments += [f"eps={eps}"] if eps else []
    if board and board.preprocessing:
        arguments += [f'preprocessing="{board.preprocessing}"']
    # AutoAttack's seed is per batch, so its starts depend on the batches
    size = submission.detail.get("batch_size") if submission.metric else None
    arguments += [f"batch_size={size}"] if size else []
    return f"""{_banner(submission)}# {submission.id}

A model for RobustBench's board {dataset}, {threat}.

| file | content |
|---|---|
| `model.py` | the network's source; needs only torch (and torchvision for ImageNet networks) |
| `checkpoint.pt` | its weights, tensors only; SHA-256 {digest} |
| `model_info/{dataset}/{threat}/{submission.id}.json` | the leaderboard's entry |
| `evaluation.log` | every figure with n, seed, eps, steps, versions and warnings |
| `issue.md` | the text of the issue |

## Check

`load()` of `model.py` gives the network in eval mode: images in [0, 1] to logits. RobustBench's own
evaluation of it, where generalist-bench is installed with its extra `robustbench`:

```python
from benchmark.models.robustbench import import_robustbench

from model import load

import_robustbench().benchmark(load(), {", ".join(arguments)})
```

The figures were measured on: {submission.evaluation["dataset"]["source"]}. RobustBench measures on
the official files; images that were encoded again give other figures.

## Submit

Open an issue at github.com/RobustBench/robustbench/issues with the title and the text of
`issue.md`, and give a link to `model.py` and `checkpoint.pt`. The board wants models with gradients
that are not zero, a forward pass without randomness, and no optimisation in it.
"""
