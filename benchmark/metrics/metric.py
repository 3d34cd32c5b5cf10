"""The contract of a metric, and how a metric is found by its kind.

A metric is one class in one file: its settings, its name, how it is measured, what it costs and how
a table's footnote describes it. The entry-point group ``generalist_bench.metrics`` lists the kinds,
so that an installed package can add one without a change here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pandas as pd
import torch
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from torch import Tensor, nn

from benchmark.core.config import Config, Problems, problems
from benchmark.core.errors import ConfigError
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.registry import Registry
from benchmark.core.threat import NormName, Pixels
from benchmark.data.batches import IndexedBatch
from benchmark.data.dataset import Dataset
from benchmark.data.loader import evaluation_batches
from benchmark.metrics.outcomes import sample
from benchmark.records.files import RunFiles

T = TypeVar("T")

METRICS: Registry[type[Metric]] = Registry("metric kind", "generalist_bench.metrics")


@dataclass
class Measured:
    """The result of one measurement.

    Attributes:
        indices: of the test images it was made on, int64 [m].
        value: the figure, in [0, 1]; tables show it in per cent.
        outcomes: right (True) or wrong for each of ``indices``, by column name; a column may also
            be a pandas array over all test images, null where an image was not tried. Empty for a
            metric that does not judge images one by one.
        detail: the settings and side results for the record, as JSON values.
        correct: how many of ``indices`` are right; None if ``value`` is not the share of these.
        frame: instead of ``outcomes``, the table of outcomes on images other than the test split's.
    """

    indices: Tensor
    value: float
    outcomes: dict[str, Any] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    correct: int | None = None
    frame: pd.DataFrame | None = None

    @property
    def where(self) -> Literal["test", "own", "none"]:
        """Which images have outcomes: the test split's, others of a table of their own, or none."""
        if self.frame is not None:
            return "own"
        return "test" if self.outcomes else "none"


@dataclass
class Setup:
    """What the measurements of one evaluation have in common.

    Attributes:
        batch_size: images per forward pass.
        data_root: folder with the user's published CIFAR-10-C files and shifted test sets, if any.
        limit: the limit on the number of images with which the data were loaded.
        ranks: processes that share a metric's work if the metric allows it (``Metric.shared``).
        keep_adversarial: write the adversarial examples of AutoAttack too.
        cache: values that the measurement of one model can keep for that of the next, by key.
        runs: runs of the same study with the same seed, by label; set by the evaluator for each
            record.
    """

    data: Dataset
    device: Any
    batch_size: int = 256
    progress: Progress = field(default_factory=lambda: Progress(quiet=True))
    data_root: Path | None = None
    limit: int | None = None
    ranks: Ranks = ALONE
    keep_adversarial: bool = False
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)
    runs: Mapping[str, Path] = field(default_factory=dict)

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """The value under ``key``, made now if it is not there."""
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value

    def network(self, place: Path, model: str | None) -> nn.Module:
        """Another trained network, on the device; the evaluator knows how to load one.

        Args:
            place: folder of a trained run, whose deployed network it is; or a file.
            model: architecture of the weights in a file, as ``evaluate-model`` takes it.

        Raises:
            BenchmarkError: there is no such network, or it is damaged.
        """
        raise NotImplementedError

    def batches(self, indices: Tensor) -> Iterator[IndexedBatch]:
        """(indices, x [n, c, h, w] in [0, 1], y [n]) of test images, in order."""
        return evaluation_batches(
            self.data.test, self.batch_size, indices=indices, device=self.device
        )


@dataclass
class Context:
    """One measurement: a model, and the record that it goes into.

    Attributes:
        model: images [n, c, h, w] in [0, 1] to logits [n, k]; in eval mode.
        model_hash: of its weights.
        directory: of the record; unfinished work and examples are kept there.
        outcomes: of the metrics measured before, a row per test image.
        known: the metric's entry on record, of the same weights, function and images but under
            whatever settings; None if there is none.
    """

    setup: Setup
    model: nn.Module
    model_hash: str
    directory: Path
    outcomes: pd.DataFrame
    known: Mapping[str, Any] | None = None

    def label(self, metric: Metric) -> str:
        """What the progress line calls this measurement."""
        return f"{self.directory.name}: {metric.name}"


@dataclass
class Numbers:
    """Numbers of the command line that only some attacks take.

    Attributes:
        steps, step, restarts: of PGD; None where nothing was said.
        taken: options that a metric took.
    """

    steps: int | None = None
    step: str | None = None
    restarts: int | None = None
    taken: set[str] = field(default_factory=set)


class Metric(Config, ABC):
    """A column of the tables, by its settings.

    A subclass has ``kind`` as a field with a single value, the name of its entry point, and adds
    its settings. Its name follows from the settings, so that an attack cannot have the name of
    another in a table.

    Attributes:
        tag: distinguishes two metrics that would have the same name; ``name@tag`` in tables.
        n: number of test images, a sample drawn by ``seed``; None for all.
        seed: seed of the sample and of all random numbers in the measurement.
    """

    kind: str
    tag: str = Field(default="", pattern=r"^([A-Za-z0-9][\w.+/-]*)?$", max_length=60)
    n: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    # Whether every process takes part in ``measure``; otherwise the first one measures alone.
    shared: ClassVar[bool] = False
    # The option of the command line that says on how many images it is measured, in place of --n:
    # --n-aa where an image costs hundreds of passes.
    count_option: ClassVar[Literal["--n", "--n-aa", "--n-pgd"]] = "--n"
    # Whether weaker attacks in the same ball are also shown on the images of this one.
    reference: ClassVar[bool] = False
    # Whether there is one outcome for each attacked test image, so that unions can use it.
    per_image: ClassVar[bool] = True
    # Where there is not: whether the figure is still the mean of outcomes (several per image, or of
    # other images), so that it can be taken class by class.
    mean_of_outcomes: ClassVar[bool] = False
    # Whether a larger figure is a better one.
    higher_is_better: ClassVar[bool] = True
    # Clean accuracy, accuracy under an attack of the test images, or anything else.
    role: ClassVar[Literal["clean", "attack", "other"]] = "other"
    # Whether ``examples`` gives adversarial images for people to look at.
    has_examples: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _without_derived(cls, data: Any) -> Any:
        """Accept a metric as it is listed in records, where its derived name stands beside it."""
        if isinstance(data, Mapping) and "name" in data:
            settings = {key: value for key, value in data.items() if key != "name"}
            name = cls.model_validate(settings).name
            if data["name"] != name:
                raise ValueError(
                    f"the name of a metric follows from its settings: this one is {name!r}, not "
                    f"{data['name']!r}; leave name out, and give a tag to tell two metrics apart"
                )
            return settings
        return data

    @property
    def name(self) -> str:
        """What records and tables call this metric: its base name, and its tag if there is one."""
        return f"{self.base_name}@{self.tag}" if self.tag else self.base_name

    @property
    def title(self) -> str:
        """The heading of its column."""
        return f"{self.base_title} ({self.tag})" if self.tag else self.base_title

    @property
    def base_name(self) -> str:
        """The name that follows from the settings, without the tag."""
        return self.kind

    @property
    def base_title(self) -> str:
        """The heading without the tag."""
        return self.kind.capitalize()

    @property
    def ball(self) -> tuple[NormName, Pixels] | None:
        """Norm and radius of the attack, None if the metric attacks in no norm ball."""
        return None

    @property
    def form(self) -> Literal["", "screening", "estimate"]:
        """What the figure is where it is no verdict on every image of the metric."""
        return ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the metrics whose outcomes this one is computed from."""
        return ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Labels of the rows of the same study whose trained networks it uses."""
        return ()

    def takes(self, part: Metric) -> bool:
        """Whether this metric can be computed from ``part``."""
        return part.per_image

    def with_parts(self, names: Mapping[str, str]) -> Metric:
        """The metric with some of its ``parts`` called otherwise."""
        return self

    def screened(self) -> Metric | None:
        """The same attack crafted in bf16 as a fast screening; None if there is no such form."""
        return None

    def estimated(self, budget: int | None, halfwidth: float | None) -> Metric | None:
        """An estimate of this metric from a sample of images; None if there is no such form."""
        return None

    def settings(self) -> dict[str, Any]:
        """Everything that a figure of this metric depends on, as JSON values."""
        return self.model_dump(mode="json")

    def check(self, setup: Setup) -> None:
        """Refuse before any long work what cannot be measured on these data.

        Raises:
            BenchmarkError: in a sentence that says what to do.
        """

    def possible(self, setup: Setup) -> bool:
        """Whether a panel should include this metric on these data."""
        return True

    def images_of(self, setup: Setup, record: Mapping[str, Any], images: str) -> str:
        """A hash of the images that are measured, so that figures on other images are not mixed up
        with this one.

        Args:
            record: the entries of the metrics on record, by name.
            images: the hash of the test images.
        """
        return images

    def kept_examples(self, directory: Path, setup: Setup) -> Path | None:
        """Where the adversarial examples go; None if none are asked for, or the metric has none."""
        return None

    def with_numbers(self, numbers: Numbers) -> Metric:
        """The metric with numbers of the command line that are its own, such as PGD's steps.

        A metric notes in ``numbers.taken`` which ones it takes, whether or not they change it.

        Raises:
            ConfigError: an attack that cannot be.
        """
        return self

    @abstractmethod
    def measure(self, context: Context) -> Measured:
        """Measure the model.

        Raises:
            BenchmarkError: it cannot be done, in a sentence that says what to do.
        """

    @abstractmethod
    def passes(self, images: int) -> float:
        """The work on ``images`` test images in forward and input-gradient passes, at most.

        A forward pass alone counts ``FORWARD``.
        """

    def about(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """What the record says about the metric, so that readers of the record do not need its
        class; JSON values."""
        return {
            "kind": self.kind,
            "settings": self.settings(),
            "title": self.title,
            "description": self.describe(detail),
            "role": self.role,
            "form": self.form,
            "ball": None if self.ball is None else [self.ball[0], str(self.ball[1])],
            "reference": self.reference,
            "higher_is_better": self.higher_is_better,
            "detail": dict(detail),
        }

    def describe(self, detail: Mapping[str, Any]) -> str:
        """The settings in words, for the footnote of a table; ``detail`` is the record's."""
        return ""

    def examples(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Adversarial images of ``x`` [n, c, h, w] in [0, 1], if the metric ``has_examples``.

        ``model`` is in crafting state.
        """
        raise NotImplementedError(self.kind)

    def journal(self, directory: Path) -> Path:
        """The folder in which unfinished work is kept; it is deleted after the measurement."""
        return RunFiles(directory).unfinished(self.name)

    # What subclasses share.

    def indices(self, setup: Setup) -> Tensor:
        """The test images of this metric, ascending."""
        return sample(len(setup.data.test), self.n, self.seed)

    def count(self, images: int) -> int:
        """How many of ``images`` test images are used."""
        return min(self.n or images, images)

    def whole(self, indices: Tensor, right: Tensor, detail: dict[str, Any]) -> Measured:
        """A measurement with one outcome per image: ``right``, bool [m]."""
        return Measured(
            indices,
            float(right.double().mean()),
            {self.name: right},
            detail,
            int(right.sum()),
        )


# The cost of a forward pass, as a share of a forward and input-gradient pass.
FORWARD = 0.45


def norm_in_title(norm: NormName) -> str:
    """The norm for a heading, after a space; nothing for l_inf, which is the default."""
    return "" if norm == "linf" else f" {norm}"


def sentence(detail: Mapping[str, Any], forms: Mapping[str, str]) -> str:
    """The values of ``detail`` in words: ``forms`` maps a key to text around its value.

    Keys that the record lacks are left out; a list is written with commas.
    """
    parts = []
    for key, form in forms.items():
        value = detail.get(key)
        if value is None:
            continue
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        parts.append(form.format(text))
    return ", ".join(parts)


def make_metric(value: Any) -> Metric:
    """A validated metric from ``{"kind": ..., settings}``.

    Raises:
        ValueError: no mapping, an unknown kind (with near misses), or wrong settings.
    """
    if isinstance(value, Metric):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise ValueError(f"a metric is a mapping with a kind, not {value!r}")
    try:
        cls = METRICS.get(value["kind"])
        return cls.model_validate(dict(value))
    except ConfigError as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        texts = [f"metric {value['kind']}: {text}" for text in problems(error, cls)]
        raise Problems(texts) from error


# A metric in a configuration, validated by the class of its kind.
MetricRef = Annotated[SerializeAsAny[Metric], BeforeValidator(make_metric)]


def check_panel(metrics: Sequence[Metric]) -> None:
    """Raise ValueError if two metrics have one name, or one is computed from a metric that is not
    measured before it or does not judge images."""
    for number, metric in enumerate(metrics):
        before = metrics[:number]
        if metric.name in ("index", "label"):  # columns that every table of outcomes has
            raise ValueError(f"a metric cannot be called {metric.name!r}; give it a tag")
        if metric.name in {other.name for other in before}:
            raise ValueError(f"metric {metric.name!r} is given twice; give one of them a tag")
        known = {other.name: other for other in before}
        for part in metric.parts:
            if part not in known:
                raise ValueError(
                    f"{metric.name} is computed from {part!r}, which must be a metric before it"
                )
            if not metric.takes(known[part]):
                raise ValueError(
                    f"{metric.name} cannot be computed from {part!r}: it needs a verdict on each "
                    "test image"
                )
