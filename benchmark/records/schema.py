"""What the files of a run must look like before anything is computed from them.

Only what is computed with is stated; everything else in a record may be as it likes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from benchmark.core.config import explain
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_json

Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.@+-]{0,199}$")]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Detail(_Shape):
    of: list[str] | None = None
    source: str | None = None
    per_corruption: dict[str, Any] | None = None


class _Entry(_Shape):
    n: Annotated[int, Field(ge=1, lt=2**53)]
    correct: Count | None = None
    mean: Share | None = None
    kind: str
    settings: dict[str, Any]
    title: str
    description: str
    role: Literal["clean", "attack", "other"]
    form: Literal["", "screening", "estimate"]
    ball: list[str] | None
    reference: bool
    higher_is_better: bool
    outcomes: Literal["test", "own", "none"]
    key: str | None = None
    model: str | None = None
    function: str | None = None
    data: str | None = None
    detail: _Detail | None = None


class _Probe(_Shape):
    weights: str
    source: str
    logits: list[float | None]
    gradient: list[float | None]


class _Images(_Shape):
    name: str | None = None
    fingerprint: str | None = None
    images_hash: str | None = None
    limit: Count | None = None


class _Finding(_Shape):
    name: str
    text: str
    function: str | None = None


class _Reliability(_Shape):
    checked: list[str] | None = None
    findings: list[_Finding] | None = None


class Evaluation(_Shape):
    """``evaluation.json``."""

    metrics: dict[str, _Entry]
    dataset: _Images | None = None
    functions: dict[str, _Probe] | None = None
    reliability: _Reliability | None = None


class Superseded(_Shape):
    """A figure in ``earlier/``."""

    name: str
    entry: _Entry
    dataset: _Images
    functions: dict[str, _Probe]


class OwnModel(_Shape):
    """``model.json`` of an evaluation outside a suite."""

    model: str | None = None
    checkpoint: str | None = None


class Environment(_Shape):
    """``environment.json``."""


class _Chosen(_Shape):
    selected_epoch: float | None = None
    val_clean: Share | None = None
    val_pgd: Share | None = None
    mixing: dict[str, Share] | None = None


class Training(_Chosen):
    """``training.json``."""

    data: str | None = None
    steps: Count | None = None
    epochs: float | None = None
    seconds: float | None = None
    gradient_passes: float | None = None
    passes_per_image: float | None = None
    inference_passes: float | None = None
    checkpoint_rule: str | None = None
    also: dict[Word, _Chosen] | None = None
    selection_floor: Share | None = None


class _Method(_Shape):
    name: str | None = None
    label: str | None = None
    recipe: dict[str, Any] | None = None


class _Train(_Shape):
    batch_size: Count | None = None
    precision: str | None = None


class _Cell(_Shape):
    method: _Method
    seed: Count | None = None
    dataset: _Images | str | None = None
    model: dict[str, Any] | str | None = None
    train: _Train | None = None


class Configuration(_Shape):
    """``config.json``."""

    hash: str | None = None
    family: str
    config: _Cell


class _Planned(_Shape):
    slug: Word
    label: str
    seed: Count


class _Metric(_Shape):
    name: str


class Plan(_Shape):
    """``suite.json``."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    methods: list[str] | None = None
    seeds: list[Count] | None = None
    dataset: _Images | str | None = None
    model: dict[str, Any] | str | None = None
    evaluation: list[_Metric] | None = None
    plan: list[_Planned] | None = None


Figures = TypeAdapter(
    dict[str, Annotated[float, Field(allow_inf_nan=False)] | None], config={"strict": True}
)


def read_training(directory: Path) -> dict[str, Any]:
    """The content of a run's ``training.json``.

    Raises:
        BenchmarkError: missing or damaged.
    """
    # The checkpoint is of the last step, so that nothing is trained again.
    return read_shaped(directory / "training.json", Training, "delete it and run again")


def read_shaped(path: Path, shape: type[BaseModel], remedy: str) -> dict[str, Any]:
    """The content of a JSON file of that ``shape``, as it stands there.

    Raises:
        BenchmarkError: missing or damaged; ``remedy`` closes the message.
    """
    value = read_json(path)
    try:
        shape.model_validate(value)
    except ValidationError as error:
        why = explain(error, shape)
        raise BenchmarkError(f"{path} is damaged ({why[:200]}); {remedy}") from error
    return dict(value)
