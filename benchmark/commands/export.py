"""A finished run as a model repository of the Hugging Face Hub: weights, configuration, card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.commands.figures import figures_of, read_figures
from benchmark.commands.hub import CONFIG, INSTALL, PREFIX, WEIGHTS, HubConfig, load_hub_model
from benchmark.config.recorded import read_cell_config
from benchmark.config.suite import CellConfig
from benchmark.core.errors import CheckpointError, ConfigError
from benchmark.core.files import atomic_path, remove_temporaries, write_json, write_text
from benchmark.core.hashing import tensors_hash
from benchmark.data import sources
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.models.zoo import options_of
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_environment, read_evaluation, read_training
from benchmark.records.study import evaluated_run, read_suite
from benchmark.report.summarise import summarise
from benchmark.training.build import suite_network
from benchmark.training.selection import load_deployed
from benchmark.training.state import check_same_data

_CARD = "README.md"
_FILES = {CONFIG, WEIGHTS, _CARD}


@dataclass(frozen=True)
class _Run:
    """All that a card is made of.

    Attributes:
        metrics: by name the entry of ``evaluation.json``, of the exported weights alone.
        figures: the same as ``read_figures`` gives them.
        warnings: the report's, of this run.
    """

    config: HubConfig
    cell: CellConfig
    metrics: Mapping[str, Any]
    figures: Mapping[str, Any]
    warnings: tuple[str, ...]
    training: Mapping[str, Any]
    environment: Mapping[str, Any]
    test_set: Mapping[str, Any]
    license: str | None

    @property
    def name(self) -> str:
        cell = self.cell
        return f"{self.config.method}-{cell.dataset.name}-{cell.model.name}-s{cell.seed}"


def export_to_hub(run: Path, *, data_root: Path, out: Path, license: str | None = None) -> Path:
    """Write ``run`` into the folder ``out``, and read it again: the network that comes back gives
    the same logits, bit for bit.

    Args:
        out: new, empty, or an earlier export.
        license: of the weights, as the Hub spells it (``mit``, ``cc-by-4.0``); None leaves it
            unstated.

    Returns:
        The folder.

    Raises:
        BenchmarkError: no evaluated run; a network that cannot be built without the code of the
            run's author, or that was given in Python.
    """
    _check_packages()
    run = evaluated_run(run)
    files = RunFiles(run)
    if out.is_dir():
        remove_temporaries(out)
    if (out.is_dir() and {path.name for path in out.iterdir()} - _FILES) or out.is_file():
        raise ConfigError(f"{out} holds other files; choose another --out")
    label, cell = read_cell_config(run)
    training, evaluation = read_training(run), read_evaluation(run)
    data = sources.load(cell.dataset, data_root)
    check_same_data(training["data"], data, files.training)
    device = torch.device("cpu")
    model = load_deployed(cell, data, run, device)
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    weights = tensors_hash(state)
    metrics = figures_of(weights, evaluation["metrics"], files)
    figures = read_figures(run)
    config = HubConfig(
        library_name="generalist-bench",
        format=1,
        method=label,
        hash=cell.hash,
        weights=weights,
        classes=data.classes,
        image_size=data.image_size,
        channels=3 if data.channels == 3 else 1,
        model=cell.model if _is_one_network(model, cell, data) else None,
        run=_without_folders(cell.model_dump(mode="json")),
    )
    exported = _Run(
        config=config,
        cell=cell,
        metrics=metrics,
        figures={name: figures[name] for name in metrics},
        warnings=summarise(read_suite(run)).findings.warnings,
        training=training,
        environment=read_environment(run),
        test_set=evaluation["dataset"],
        license=license,
    )
    _write_weights(state, out / WEIGHTS)
    write_json(out / CONFIG, config.model_dump(mode="json"))
    write_text(out / _CARD, _card(exported))
    _check(out, model, data)
    return out


def _check_packages() -> None:
    try:
        import huggingface_hub  # noqa: F401, PLC0415 - an optional extra
        import safetensors  # noqa: F401, PLC0415 - the same
    except ImportError as error:
        raise ConfigError(f"export --hub needs the {error.name} package: {INSTALL}") from error


def _is_one_network(model: nn.Module, cell: CellConfig, data: Dataset) -> bool:
    """Whether the deployed network is one of the suite's architecture."""
    fresh = suite_network(cell, data, torch.device("cpu"))
    own = options_of(model)
    return own is not None and own == options_of(fresh)


def _without_folders(value: Any) -> Any:
    """A configuration whose files are named without the folders that they are in here."""
    if isinstance(value, Mapping):
        return {
            key: Path(inner).name
            if key == "path" and isinstance(inner, str)
            else _without_folders(inner)
            for key, inner in value.items()
        }
    return [_without_folders(inner) for inner in value] if isinstance(value, list) else value


def _write_weights(state: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save  # noqa: PLC0415 - an optional extra

    with atomic_path(path) as temporary:
        temporary.write_bytes(save(dict(state), metadata={"format": "pt"}))


@torch.no_grad()
def _check(out: Path, model: nn.Module, data: Dataset) -> None:
    """Raise CheckpointError: what was written is another network."""
    indices = torch.arange(min(8, len(data.test)))
    _, images, _ = next(iter(evaluation_batches(data.test, 8, indices=indices)))
    again = load_hub_model(f"{PREFIX}{out}").network
    if not torch.equal(again(images), model(images)):
        raise CheckpointError(f"{out} gives other logits than the run, so do not publish it")


def _card(run: _Run) -> str:
    """``README.md``: metadata that the Hub reads, and the text."""
    # an optional extra
    from huggingface_hub import EvalResult, ModelCardData  # noqa: PLC0415

    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=run.cell.dataset.name,
            dataset_name=run.cell.dataset.name,
            dataset_split="test",
            metric_type="accuracy" if entry["higher_is_better"] else entry["kind"],
            metric_name=f"{entry['title']} (%)",
            metric_value=round(100 * entry["mean"], 2),
            metric_args={"n": entry["n"], **_interval_argument(run.figures[name])},
        )
        for name, entry in run.metrics.items()
    ]
    data = ModelCardData(
        license=run.license,
        library_name="generalist-bench",
        pipeline_tag="image-classification",
        tags=["adversarial-robustness", "adversarial-training", run.cell.recipe.name],
        datasets=[run.cell.dataset.name],
        metrics=["accuracy"],
        model_name=run.name,
        eval_results=results,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(run)}"


def _interval_argument(figure: Mapping[str, Any]) -> dict[str, Any]:
    ends = _ends(figure)
    return {"interval_95": [round(100 * end, 2) for end in ends]} if ends else {}


def _ends(figure: Mapping[str, Any]) -> tuple[float, float] | None:
    """The interval for new images."""
    if "low" not in figure:
        return None
    return figure.get("population_low", figure["low"]), figure.get(
        "population_high", figure["high"]
    )


def _rows(run: _Run) -> Iterator[str]:
    for name, entry in run.metrics.items():
        ends = _ends(run.figures[name])
        interval = f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]" if ends else "-"
        settings = entry["description"] or run.figures[name]["settings"]
        cells = [
            entry["title"],
            f"{100 * entry['mean']:.2f}",
            interval,
            f"{entry['n']:,}",
            settings,
        ]
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _findings(run: _Run) -> list[str]:
    # the marks of a report's table
    lines = [f"- {text.removeprefix('[!] ').removeprefix('[u] ')}" for text in run.warnings]
    return lines or [
        "The reliability checks (masked gradients, randomness, layers in training mode and others) "
        "and the report found nothing that makes these figures doubtful."
    ]


def _text(run: _Run) -> str:
    cell, training, seen = run.cell, run.training, run.test_set
    rows = "\n".join(_rows(run))
    shape = f"{run.config.channels}, {run.config.image_size}, {run.config.image_size}"
    findings = "\n".join(_findings(run))
    license = (
        f"The weights are under the licence `{run.license}`."
        if run.license
        else "No licence is stated, so nobody but the author may use the weights."
    )
    packages = ", ".join(
        f"{name} {run.environment[name]}" for name in ("generalist-bench", "torch", "pyautoattack")
    )
    return f"""# {run.name}

An image classifier, trained by the method `{cell.recipe.name}` on `{cell.dataset.name}` and
evaluated with Generalist-Bench. It maps images [n, {shape}] with pixels in [0, 1] to logits
[n, {len(run.config.classes)}].

## Accuracy

| metric | % | 95 % interval | n | settings |
|---|---|---|---|---|
{rows}

One training (seed {cell.seed}): the intervals are for new images and say nothing about other seeds.
Test images: {seen["source"]}. Robust accuracy counts an image that is wrong when clean as not
robust.

## What was found

{findings}

## Use

```sh
pip install 'generalist-bench[hub]'
generalist-bench evaluate-model {PREFIX}OWNER/NAME --data-root DIR
```

```python
from benchmark.commands.hub import load_hub_model

network = load_hub_model("{PREFIX}OWNER/NAME").network
```

A folder in the place of `OWNER/NAME` works too.

## Training

| | |
|---|---|
| method | {run.config.method} (`{cell.recipe.name}`) |
| architecture | {cell.model.name}, {training["parameters"]:,} parameters |
| length | {training["epochs"]:g} epochs, {training["steps"]:,} steps |
| batch size | {cell.train.batch_size} |
| training images | {training["train_images"]:,}, and {training["val_images"]:,} held out |
| checkpoint | {training["checkpoint_rule"]} |
| cost | {training["gradient_passes"]:,.0f} gradient passes of an image |
| forward passes per image | {training["inference_passes"]} |
| configuration | `{CONFIG}`, hash {run.config.hash} |
| weights | `{WEIGHTS}`, hash {run.config.weights} |
| versions | {packages} |

## Licence

{license}
"""
