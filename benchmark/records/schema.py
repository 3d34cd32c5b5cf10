"""The form of every JSON file of a study; its writers and its readers go through this module.

A file with an unknown, missing or wrongly typed key counts as damaged. Only the settings and side
results of a metric, and the parts of a configuration, can have any keys, since their own classes
check them; of those, the keys that reports use are listed here. In addition to the fields of the
models, files have a ``schema_version``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from benchmark.core.config import explain
from benchmark.core.errors import BenchmarkError
from benchmark.core.files import read_json, write_json
from benchmark.records.files import RunFiles, SuiteFiles

# Raised whenever a file's form changes, so that no reader takes one form for another.
SCHEMA_VERSION = 1

Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.@+-]{0,199}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Free(BaseModel):
    """A mapping that another class defines; only a part of its keys is listed here."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Detail(_Free):
    """Side results of a metric.

    Attributes:
        of: metrics that it was computed from.
        source: of the images; per_corruption: accuracies by corruption, one per severity.
        radii: of an attack at several, ascending; accuracies: one per radius; clean: without it.
        warnings: of the attack, in words.
        low, high: an interval for these test images.
    """

    of: list[str] | None = None
    source: str | None = None
    severities: list[int] | None = None
    per_corruption: dict[str, list[Share]] | None = None
    radii: list[str] | None = None
    clean: Share | None = None
    accuracies: list[Share] | None = None
    warnings: list[str] | None = None
    low: Share | None = None
    high: Share | None = None


class Entry(_Strict):
    """One metric's figure.

    Attributes:
        key: a hash of what follows up to ``settings``, see ``keys.metric_key``.
        model, function, data: hashes of the weights, of what the code makes of them (None where
            that was not recorded) and of the images.
        kind: the metric's registered name. What else says what the metric is stands in
            ``Metric.about``.
        outcomes: which images have outcomes: the test split's, others of a table of their own, or
            none.
        n: images; correct: how many of them are right, None where ``mean`` is no such share.
        mean: the figure, in [0, 1].
    """

    key: str
    model: str
    function: str | None
    data: str
    kind: str
    settings: dict[str, Any]
    title: str
    description: str
    role: Literal["clean", "attack", "other"]
    form: Literal["", "screening", "estimate"]
    ball: Annotated[list[str], Field(min_length=2, max_length=2)] | None
    reference: bool
    higher_is_better: bool
    detail: Detail
    outcomes: Literal["test", "own", "none"]
    n: Annotated[int, Field(ge=1, lt=2**53)]
    correct: Count | None
    mean: Share
    seconds: Positive

    @model_validator(mode="after")
    def _is_a_fraction(self) -> Entry:
        if self.correct is not None and self.correct > self.n:
            raise ValueError(f"{self.correct} of {self.n} images are no fraction")
        return self


class Probe(_Strict):
    """The outputs of a network on fixed images, see ``evaluation.identity``."""

    weights: str
    source: str
    logits: list[float | None]
    gradient: list[float | None]


class Images(_Strict):
    """The test images of a record.

    Attributes:
        fingerprint: of the data set's files; images_hash: of the test images themselves.
        images: how many; size: their height and width in pixels; limit: the cap, None without.
    """

    name: str
    fingerprint: str
    images_hash: str
    source: str
    split: Literal["test"]
    images: Count
    size: Count
    classes: list[str]
    notes: list[str]
    limit: Count | None


class Finding(_Strict):
    """Something that makes attack results doubtful; ``function``: of which network."""

    name: str
    text: str
    function: str


class Reliability(_Strict):
    """What was checked: ``images`` that were looked at, and hashes of the networks' functions."""

    images: Count
    checked: list[str]
    findings: list[Finding]


class Evaluation(_Strict):
    """``evaluation.json``; ``functions``: probes by the hashes that entries refer to."""

    metrics: dict[str, Entry]
    dataset: Images
    functions: dict[str, Probe]
    reliability: Reliability


class Superseded(_Strict):
    """A figure in ``earlier/``."""

    name: str
    entry: Entry
    dataset: Images
    functions: dict[str, Probe]


class _Dataset(_Free):
    name: str
    limit: Count | None


class _Named(_Free):
    name: str


class OwnModel(_Strict):
    """``model.json`` of an evaluation outside a suite.

    Attributes:
        model: what the network was called; checkpoint: the file of its weights, if there is one.
        notes: what was done to the network to evaluate it.
        family, seed: of a point of a ``WeightPath``, whose rows stand with those of runs.
    """

    model: str
    checkpoint: str | None
    dataset: _Dataset
    notes: list[str]
    family: str | None = None
    seed: Count | None = None


class Environment(_Strict):
    """``environment.json``: versions of the packages in ``core.environment``, machine and code."""

    python: str
    generalist_bench: str = Field(alias="generalist-bench")
    torch: str
    torchvision: str
    numpy: str
    scipy: str
    pillow: str
    pyautoattack: str
    scikit_learn: str = Field(alias="scikit-learn")
    platform: str
    machine: str
    device: str
    processor: str
    threads: Annotated[int, Field(ge=1)]
    git: str | None
    date: str


class _Chosen(_Strict):
    """A checkpoint that a rule chose; ``mixing`` of methods that mix learners."""

    selected_epoch: Positive
    val_clean: Share
    val_pgd: Share
    mixing: dict[str, float] | None = None


class Processes(_Strict):
    """How processes shared a training; ``batchnorm`` where they cut batches."""

    learners: Annotated[int, Field(ge=1)]
    data: Annotated[int, Field(ge=1)]
    batchnorm: str | None = None


class TrainingWarning(_Strict):
    """A signature of failure seen in training.

    Attributes:
        name: of the signature; text: its evidence, in words and numbers.
        epoch: of the validation at which it was first seen.
    """

    name: str
    epoch: Positive
    text: str


class Crafting(_Strict):
    """How training images were crafted: measured milliseconds of a gradient to a batch's images.

    Attributes:
        chosen: ``eager`` or ``compiled``.
        failure: why the network cannot be compiled, in place of ``compiled_ms``.
    """

    chosen: Literal["eager", "compiled"]
    eager_ms: Positive
    compiled_ms: Positive | None = None
    failure: str | None = None


class Training(_Chosen):
    """``training.json``: length and cost, and the checkpoint that the first rule chose.

    Attributes:
        data: fingerprint of the data set.
        images: training images met; seconds: of the steps alone.
        gradient_passes: in all; passes_per_image: per image and step.
        inference_passes: of the deployed model per image.
        peak_memory: the most bytes in use since training was started or last resumed, of the
            process that needed most: on CUDA of tensors on the device, on a CPU of the whole
            process; absent where it is unknown.
        also: what further rules chose, if there are any.
        selection_floor, floor_missed: of the rule best-sum.
        trained: SHA-256 of the trained weights that it began with or learned from, if there are
            any, by the label of their run or their path.
        crafting: if it was measured.
        warnings: of training, in the order they were raised, if there are any.
    """

    data: str
    steps: Count
    epochs: Positive
    images: Count
    seconds: Positive
    processes: Processes
    crafting: Crafting | None = None
    gradient_passes: Positive
    passes_per_image: Positive
    inference_passes: Annotated[int, Field(ge=1)]
    checkpoint_rule: str
    also: dict[Word, _Chosen] | None = None
    selection_floor: Share | None = None
    floor_missed: bool | None = None
    warnings: list[TrainingWarning] | None = None
    peak_memory: Count | None = None
    parameters: Count
    trained: dict[str, str] | None = None
    train_images: Count
    val_images: Count


class PairedAccuracies(_Strict):
    """Accuracies of two networks on the same images; ``error``: standard error of the gain."""

    first: Share
    second: Share
    error: Positive

    @property
    def gain(self) -> float:
        """What the second has more."""
        return self.second - self.first


class Barrier(_Strict):
    """The straight line in weight space between two base learners, at its worst point.

    Attributes:
        share: of the second learner there.
        excess: mean cross-entropy there above the mean of both ends by the same shares, in nats;
            error: its standard error over images.
        accuracy: there; ends: of the learners.
    """

    first: str
    second: str
    share: Share
    excess: float
    error: Positive
    accuracy: Share
    ends: Annotated[list[Share], Field(min_length=2, max_length=2)]


class NetworkMeasurements(_Strict):
    """``diagnosis.json``: what ``diagnose`` measured with the networks of a run's checkpoint, on
    held-out training images.

    Attributes:
        step: of the checkpoint; images: that were looked at; classes: of the data set.
        reestimated: by ``clean`` and ``pgd``, with BatchNorm statistics as deployed and then
            re-estimated on clean training images; empty without BatchNorm.
        learners_step: of the checkpoint that base learners were measured at, the last in which they
            differ; None if there is none, or no mixture of base learners. The last step of a
            training often hands the mixture back to all of them.
        robust: name of the base learner with the highest PGD accuracy then; over_robust: by
            ``clean`` and ``pgd``, that learner (its moving average where the method keeps one) and
            then the network deployed at that step.
        barriers: between base learners of one architecture.
    """

    step: Count
    images: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
    reestimated: dict[Literal["clean", "pgd"], PairedAccuracies]
    learners_step: Count | None
    robust: str | None
    over_robust: dict[Literal["clean", "pgd"], PairedAccuracies]
    barriers: list[Barrier]


class Inequality(_Strict):
    """Both sides, of which the left should be no larger; ``error``: standard error over images of
    their difference, 0 where it has none."""

    left: float
    right: float
    error: Positive

    @property
    def slack(self) -> float:
        """How much the right side has more."""
        return self.right - self.left


class Apart(_Strict):
    """What one image changes in the networks of a point.

    Attributes:
        distances: l_2 between the parameters of the two runs, by network; norm: of the deployed
            network's parameters.
        mean, largest: over images, of absolute differences of losses, by network and task.
        bounds: ``parameters``, ``mean loss`` and ``largest loss``.
    """

    distances: dict[str, Positive]
    norm: Positive
    mean: dict[str, dict[str, Positive]]
    largest: dict[str, dict[str, Positive]]
    bounds: dict[str, Inequality]


class TheoryPoint(_Strict):
    """The networks after a step.

    Attributes:
        ratios: gamma by learner; weights: of the learners in the moving average.
        checked: whether the bounds say something: a learner differs from the deployed network, and
            the point is not the first, which knows nothing of the steps before it.
        risks: by network and task.
        bounds: by task, of all tasks, of own tasks.
        stability: against the other run, if there is one.
    """

    step: Count
    progress: Share
    ratios: dict[str, float]
    weights: dict[str, float]
    checked: bool
    risks: dict[str, dict[str, Positive]]
    bounds: dict[str, Inequality]
    stability: Apart | None = None


class Regret(_Strict):
    """Of a learner on its own task: mean and least risk of its path, and their difference."""

    mean: Positive
    best: Positive
    regret: Positive


class Theory(_Strict):
    """``theory.json``: what was measured along the trajectory of a run, or of two that differ in
    one training image.

    Attributes:
        run, other: label and seed; without: the training image that each leaves out.
        images: held-out images that losses were measured on.
        tasks: by learner, in words.
        regrets: by learner.
    """

    run: str
    other: str | None
    without: list[Count | None]
    images: Annotated[int, Field(ge=1)]
    tasks: dict[str, str]
    points: Annotated[list[TheoryPoint], Field(min_length=1)]
    regrets: dict[str, Regret]


class _Method(_Strict):
    name: str
    label: str
    recipe: dict[str, Any]


class _Train(_Free):
    batch_size: Count
    precision: str | None = None
    validation_images: Count | None = None


class _Cell(_Strict):
    suite: str
    method: _Method
    dataset: _Dataset
    model: _Named
    train: _Train
    seed: Count
    needs: dict[Word, Word] | None = None


class Configuration(_Strict):
    """``config.json``: the resolved configuration, its hash, and the method's family."""

    hash: str
    family: str
    config: _Cell


class _Planned(_Strict):
    slug: Word
    label: str
    seed: Count


class Plan(_Strict):
    """``suite.json``: the suite and the cells that were asked for; ``evaluation`` is empty where
    the suite does not say what is measured. ``fronts`` names settings of a method that trade clean
    for robust accuracy, by their labels."""

    name: str
    title: str
    description: str
    hardware: str
    methods: list[str]
    seeds: list[Count]
    dataset: _Dataset
    model: _Named
    train: dict[str, Any]
    evaluation: list[_Named]
    fronts: dict[str, list[str]] = {}
    plan: list[_Planned]


class _Knob(_Strict):
    name: str
    low: float
    high: float
    log: bool


class _Trial(_Strict):
    """``values`` by knob, none for the suite's own settings; no score if training diverged."""

    values: dict[str, float]
    slug: Word
    score: Share | None
    clean: Share | None = None
    pgd: Share | None = None
    gradient_passes: Positive | None = None


class Tuning(_Strict):
    """``tuning.json``: by method, what was searched and every trial, in order."""

    suite: str
    seed: Count
    score: str
    space: dict[str, list[_Knob]]
    trials: dict[str, list[_Trial]]


class Followed(_Strict):
    """How far a logger has followed a run's record.

    Attributes:
        id: by which the logger's service or files know the run; None where the logger needs none.
        step: of the last line of the curves that was sent; None if none was.
        figures: of the evaluation, as they were sent last.
    """

    id: str | None
    step: Count | None
    figures: dict[str, float]


class Logged(_Strict):
    """``logged.json``: by name of a logger, how far it is."""

    loggers: dict[str, Followed]


class WeightPath(_Strict):
    """``path.json``: what networks were mixed in weight space.

    Attributes:
        front: what reports call the points together.
        ends: label and seed of each run, or the base learners of one.
        step: that base learners are of; None for runs.
        points: the points' folders, of which reports make a front.
    """

    front: str
    ends: Annotated[list[str], Field(min_length=2)]
    step: Count | None
    points: list[Word]
    batchnorm: Literal["reestimated"]


# A line of the curves.
Figures = TypeAdapter(
    dict[str, Annotated[float, Field(allow_inf_nan=False)] | None], config={"strict": True}
)

Content = Mapping[str, Any]


def read_plan(out: Path) -> dict[str, Any]:
    """The content of a suite's ``suite.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(SuiteFiles(out).plan, Plan, "delete it and run again")


def write_plan(out: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(SuiteFiles(out).plan, Plan, content)


def read_tuning(out: Path) -> dict[str, Any]:
    """The content of a ``tuning.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(SuiteFiles(out).tuning, Tuning, "delete it to begin the search anew")


def write_tuning(out: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(SuiteFiles(out).tuning, Tuning, content)


def read_configuration(directory: Path) -> dict[str, Any]:
    """The content of a run's ``config.json``. Raises BenchmarkError: see ``read_record``."""
    remedy = "delete the run's folder to train it from the start"
    return read_record(RunFiles(directory).configuration, Configuration, remedy)


def write_configuration(directory: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).configuration, Configuration, content)


def read_environment(directory: Path) -> dict[str, Any]:
    """The content of an ``environment.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(RunFiles(directory).environment, Environment, "delete it and run again")


def write_environment(directory: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).environment, Environment, content)


def read_logged(directory: Path) -> Logged:
    """A run's ``logged.json``. Raises BenchmarkError: see ``read_record``."""
    remedy = "delete it to log the run anew"
    return Logged.model_validate(read_record(RunFiles(directory).logged, Logged, remedy))


def write_logged(directory: Path, logged: Logged) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).logged, Logged, logged.model_dump(mode="json"))


def read_training(directory: Path) -> dict[str, Any]:
    """The content of a run's ``training.json``. Raises BenchmarkError: see ``read_record``."""
    # The checkpoint is of the last step, so that nothing is trained again.
    return read_record(RunFiles(directory).training, Training, "delete it and run again")


def write_training(directory: Path, content: Content) -> None:
    """Write it: training is over. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).training, Training, content)


def read_measured(directory: Path) -> NetworkMeasurements:
    """A run's ``diagnosis.json``. Raises BenchmarkError: see ``read_record``."""
    remedy = "delete it and diagnose again"
    return NetworkMeasurements.model_validate(
        read_record(RunFiles(directory).diagnosis, NetworkMeasurements, remedy)
    )


def write_measured(directory: Path, measured: NetworkMeasurements) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(
        RunFiles(directory).diagnosis, NetworkMeasurements, measured.model_dump(mode="json")
    )


def read_model(directory: Path) -> dict[str, Any]:
    """The content of a ``model.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(RunFiles(directory).model, OwnModel, "delete it and evaluate again")


def write_model(directory: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).model, OwnModel, content)


def read_evaluation(directory: Path) -> dict[str, Any]:
    """The content of an ``evaluation.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(RunFiles(directory).evaluation, Evaluation, "delete it to evaluate again")


def write_evaluation(directory: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).evaluation, Evaluation, content)


def read_theory(directory: Path) -> Theory:
    """A ``theory.json``. Raises BenchmarkError: see ``read_record``."""
    remedy = "delete it and measure again"
    return Theory.model_validate(read_record(RunFiles(directory).theory, Theory, remedy))


def write_theory(directory: Path, measured: Theory) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).theory, Theory, measured.model_dump(mode="json"))


def read_path(directory: Path) -> dict[str, Any]:
    """The content of a ``path.json``. Raises BenchmarkError: see ``read_record``."""
    return read_record(RunFiles(directory).path, WeightPath, "delete it and interpolate again")


def write_path(directory: Path, content: Content) -> None:
    """Write it. Raises BenchmarkError: see ``write_record``."""
    write_record(RunFiles(directory).path, WeightPath, content)


def read_record(path: Path, form: type[BaseModel], remedy: str) -> dict[str, Any]:
    """The content of a JSON file of that ``form``, as it stands there but for its version.

    Raises:
        BenchmarkError: missing, damaged or of another ``schema_version``; ``remedy`` closes the
            message.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise BenchmarkError(f"{path} is damaged (it is no JSON object); {remedy}")
    version = value.pop("schema_version", None)
    if type(version) is not int or version != SCHEMA_VERSION:
        said = "no schema_version" if version is None else f"schema_version {str(version)[:20]}"
        raise BenchmarkError(
            f"{path} has {said}, but this generalist-bench reads {SCHEMA_VERSION}: use the "
            f"version that wrote it, or {remedy}"
        )
    try:
        form.model_validate(value)
    except ValidationError as error:
        why = explain(error, form)
        raise BenchmarkError(f"{path} is damaged ({why[:200]}); {remedy}") from error
    return value


def write_record(path: Path, form: type[BaseModel], content: Content) -> None:
    """Write ``content`` atomically, with its version.

    Raises:
        BenchmarkError: it is not of that ``form``, as where a metric of another package gives what
            no record can hold; or the disk is full.
    """
    try:
        form.model_validate(dict(content))
    except ValidationError as error:
        raise BenchmarkError(
            f"{path} cannot be written: {explain(error, form)[:500]}; this is a fault of what "
            "measured or trained it"
        ) from error
    write_json(path, {"schema_version": SCHEMA_VERSION, **content})
