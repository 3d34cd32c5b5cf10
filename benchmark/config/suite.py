"""The schema of a suite and of its cells; every configuration is validated here, once."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from benchmark.config.panels import expanded, standard_panel
from benchmark.config.trained import found
from benchmark.core.config import Config, Problems, config_hash, parse, parse_yaml, problems
from benchmark.core.errors import ConfigError
from benchmark.core.files import at_home
from benchmark.core.mesh import BatchStatistics
from benchmark.core.method import (
    RECIPES,
    Recipe,
    SingleLearner,
    make_recipe,
    trained_weights,
)
from benchmark.core.objective import METHODS, is_objective
from benchmark.core.optimizer import DEFAULT_SCHEDULE, OptimizerConfig
from benchmark.core.outside import label_of
from benchmark.core.registry import did_you_mean
from benchmark.core.schedule import Schedule
from benchmark.core.threat import DEFAULT_THREATS, ThreatModel
from benchmark.data.source import DatasetConfig
from benchmark.metrics.metric import MetricRef, check_panel, make_metric
from benchmark.models.config import ModelConfig

Selection = Literal["last", "best", "best-sum"]
# Nobody means more images in a batch, or more validations, than this.
_MANY = 10**6


def _check_once(what: str, values: Sequence[Any], advice: str = "") -> None:
    first: dict[Any, Any] = {}
    for value in values:
        # Names are those of folders and files; some systems take capitals for small letters.
        same = value.casefold() if isinstance(value, str) else value
        if same in first and value == first[same]:
            raise ValueError(f"{what} {value!r} is given twice{advice}")
        if same in first:
            raise ValueError(
                f"{what}s {first[same]!r} and {value!r} differ in capitals alone, and would be "
                f"one folder on some systems{advice}"
            )
        first[same] = value


# Bytes of a name; a folder's adds seed and hash, a file's kind and ending, and the strictest of
# common file systems (encrypted home folders) take 143 in all.
_LONGEST_NAME = 100


def _check_name(name: str) -> str:
    size = len(name.encode(errors="replace"))
    if size > _LONGEST_NAME:
        raise ValueError(
            f"{name[:20] + '...'!r} names files and has {size} bytes; use at most {_LONGEST_NAME}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.@+-]*", name):
        raise ValueError(f"{name!r} names files: use letters, digits and . _ - @ + only")
    return name


# A name that folders and columns of files are called by.
Name = Annotated[str, AfterValidator(_check_name)]


class TrainConfig(Config):
    """The training recipe that all methods of a suite share.

    Attributes:
        epochs: passes over the training images; fractions allowed.
        batch_size: images per optimiser step.
        precision: fp32, tf32 (CUDA: products of 10 bits), or bf16 (autocast of the networks);
            weights stay fp32.
        validations: how often the deployed model is validated, evenly spread, last at the end.
        validation_images: at most this many held-out images, a seeded sample.
        training_images: on how many training images, a seeded sample without augmentation, the
            same accuracies are recorded at each validation; their lead over the held-out ones is
            robust overfitting (2002.11569). 0: none.
        validation_threat: PGD on the held-out images; default: the training threat model ``linf``.
        selection: the rule for the checkpoint that is deployed, chosen at the validations:
            ``last``; ``best``, by PGD accuracy on held-out training images (ties are decided by
            clean accuracy); ``best-sum``, the rule of the released Generalist code, but on held-out
            images: among checkpoints with a clean accuracy of at least ``selection_floor`` (among
            all, if none has it), the largest sum of clean and PGD accuracy. The test set is never
            used. ``best`` and ``best-sum`` ignore checkpoints before a Generalist has mixed in
            every learner, or SWA its first network. With several rules, the checkpoint of the first
            is deployed, and each rule gets its own columns.
        selection_floor: see above; 0.88 in the released code.
        batchnorm: BatchNorm statistics if several processes share a batch: those of the whole
            batch, as in one process, or those of each process's part.
        accumulate: number of micro-batches (turns) into which a batch is divided if memory is too
            small for all of it. The gradients are those of the mean loss of the whole batch, up to
            the order of sums; BatchNorm, however, normalises each turn by its own statistics, and
            moves its running averages at every turn.
        crafting: how the network runs while training images are crafted on it: ``eager``;
            ``compiled`` by torch.compile (on CUDA devices as a CUDA graph); or ``fastest``, one of
            the two, chosen by a short measurement at the start, which is recorded. Compiling takes
            up to a minute, and changes the last bits of gradients. It concerns attacks in eval
            mode; others run eagerly.
        snapshots: how many times the networks are kept while training, for ``theory``: in the
            middle of each of so many equal parts, so that none of the papers' redistributions falls
            on one (with a multiple of 24, each cycle is met in its middle), and after the last
            step. Each takes the weights of every learner and of the deployed network on disk.
    """

    epochs: float = Field(default=30, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=128, ge=2, le=_MANY)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    validations: int = Field(default=10, ge=1, le=_MANY)
    validation_images: int = Field(default=500, ge=1)
    training_images: int = Field(default=0, ge=0)
    validation_threat: ThreatModel = DEFAULT_THREATS["linf"]
    selection: tuple[Selection, ...] = Field(default=("last",), min_length=1)
    selection_floor: float = Field(default=0.88, ge=0, le=1)
    batchnorm: BatchStatistics = "synchronised"
    accumulate: int = Field(default=1, ge=1)
    crafting: Literal["eager", "compiled", "fastest"] = "eager"
    snapshots: int = Field(default=0, ge=0, le=_MANY)

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later options that are off, so that hashes of earlier records stay the same."""
        data = default(self)
        if self.batchnorm == "synchronised":
            data.pop("batchnorm", None)
        if self.accumulate == 1:
            data.pop("accumulate", None)
        if self.crafting == "eager":
            data.pop("crafting", None)
        if not self.training_images:
            data.pop("training_images", None)
        if not self.snapshots:
            data.pop("snapshots", None)
        if len(self.selection) == 1:
            data["selection"] = self.selection[0]
        if "best-sum" not in self.selection:
            data.pop("selection_floor", None)
        return data

    @field_validator("selection", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("selection")
    @classmethod
    def _each_once(cls, value: tuple[Selection, ...]) -> tuple[Selection, ...]:
        _check_once("rule", value)
        return value


class CellConfig(Config):
    """One run: method x data set x model x seed. Its hash names the run's directory.

    Attributes:
        needs: the runs of the same suite from which the method starts or learns: the names of their
            directories, by label.
    """

    dataset: DatasetConfig
    model: ModelConfig
    recipe: SerializeAsAny[Recipe]
    train: TrainConfig
    seed: int = Field(ge=0, lt=2**32)
    needs: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = default(self)
        return data if self.needs else {k: v for k, v in data.items() if k != "needs"}

    @field_validator("recipe", mode="before")
    @classmethod
    def _recipe(cls, value: Any) -> Any:
        return make_recipe(value) if isinstance(value, Mapping) else value

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits over everything that training depends on."""
        aside = {"download": False, "test_limit": None, "test_list": None}
        return config_hash(
            self.model_copy(update={"dataset": self.dataset.model_copy(update=aside)})
        )


class Cell(Config):
    """A cell and its name in the tables."""

    label: Name
    config: CellConfig

    @property
    def slug(self) -> str:
        """The name of the run's directory."""
        return f"{self.label}-s{self.config.seed}-{self.config.hash}"


class MethodEntry(Config):
    """A row of the tables: a method, and those hyper-parameters that differ from its preset.

    Attributes:
        given: the entry as the suite has it, before defaults are filled in.
    """

    label: Name
    recipe: SerializeAsAny[Recipe]
    given: dict[str, Any] = Field(default_factory=dict, exclude=True)

    @property
    def needs(self) -> list[str]:
        """The labels of the rows that it begins with or learns from."""
        labels = (weights.method for weights, _ in trained_weights(self.recipe))
        return list(dict.fromkeys(label for label in labels if label))


class SuiteConfig(Config):
    """A matrix of runs, their evaluation and their report.

    Attributes:
        name, title, description, hardware: for people.
        dataset, model, train: common to all cells.
        threats: training threat models by name, to which recipes refer. For ``linf``, ``l2`` and
            ``l1``, keys that are not given keep their default.
        optimizer, schedule: defaults of every learner.
        methods: names, or mappings with ``name``, optional ``label`` and hyper-parameters. A name
            may be ``my_file.py:MyMethod`` or ``my_module:MyMethod``, looked for in the working
            directory; the hash of the file is recorded, so a changed file gives another run. With
            ``recipe: authors`` (or the name ``trades@authors``), optimiser and schedule are those
            of the method's authors instead of ``optimizer`` and ``schedule`` above.
        seeds: each seed is one cell per method.
        evaluation: metrics in the order of the tables' columns; ``{panel: NAME}`` means those of a
            panel (see ``config.panels``).
        fronts: for each name, the labels of a method's settings that trade clean for robust
            accuracy, such as one per beta of TRADES. Reports draw each front as a line, compare the
            areas that fronts dominate, and compute the distance of each Generalist from the fronts
            of other methods.
    """

    name: Name
    title: str = ""
    description: str = ""
    hardware: str = ""
    dataset: DatasetConfig = DatasetConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    threats: dict[str, ThreatModel] = Field(default_factory=lambda: dict(DEFAULT_THREATS))
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: Schedule = DEFAULT_SCHEDULE
    methods: tuple[MethodEntry, ...]
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (0,)
    evaluation: tuple[MetricRef, ...] = Field(default_factory=standard_panel, min_length=1)
    fronts: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Resolve each method against the suite's threat models, optimiser and schedule."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        threats, wrong = _threats(data.get("threats") or {})
        data["threats"] = _Wrong(wrong) if wrong else threats
        train = data.get("train")
        if isinstance(train, Mapping) and not train.get("validation_threat"):
            data["train"] = {**train, "validation_threat": threats["linf"]}
        context = {
            "threats": threats,
            "weights": found,
            "learner": {
                # A wrong one is named by its own check, once, and not again by every method.
                key: data[key]
                for key, cls in (("optimizer", OptimizerConfig), ("schedule", Schedule))
                if data.get(key) and _fits(cls, data[key])
            },
        }
        data["methods"] = _each(data.get("methods") or [], lambda item: [_entry(item, context)])
        if isinstance(data.get("evaluation"), list):
            data["evaluation"] = _each(
                data["evaluation"], lambda item: [make_metric(one) for one in expanded(item)]
            )
        return data

    @field_validator("threats", "methods", "evaluation", mode="before")
    @classmethod
    def _report(cls, value: Any) -> Any:
        """What ``_fill`` found wrong, beside the wrong values of all other fields."""
        if isinstance(value, _Wrong):
            raise Problems(value.texts)
        return value

    @model_validator(mode="after")
    def _check(self) -> SuiteConfig:
        labels = [entry.label for entry in self.methods]
        _check_once("method", labels, "; give each its own label")
        _check_once("seed", self.seeds)
        in_order_of_need(self.methods)
        if not labels or not self.seeds:
            raise ValueError("a suite needs at least one method and one seed")
        check_panel(self.evaluation)
        for name, front in self.fronts.items():
            unknown = [label for label in front if label not in labels]
            if unknown or not front:
                raise ValueError(
                    f"front {name!r} names {', '.join(unknown) or 'no method'}; name labels of "
                    f"the suite's methods: {', '.join(labels)}"
                )
        return self

    def cells(self) -> list[Cell]:
        """The cells, seed by seed, so that there is a complete first table early. A run comes after
        the runs from which it learns."""
        cells = []
        for seed in self.seeds:
            slugs: dict[str, str] = {}
            for entry in in_order_of_need(self.methods):
                config = CellConfig(
                    dataset=self.dataset,
                    model=self.model,
                    recipe=entry.recipe,
                    train=self.train,
                    seed=seed,
                    needs={label: slugs[label] for label in entry.needs},
                )
                cell = Cell(label=entry.label, config=config)
                slugs[entry.label] = cell.slug
                cells.append(cell)
        return cells

    def resolved(self) -> dict[str, Any]:
        """Plain values of a suite file that states all settings, defaults too, and leads to the
        same cells."""
        data = self.model_dump(mode="json", exclude={"methods", "fronts"})
        methods = [{"label": e.label, **e.recipe.model_dump(mode="json")} for e in self.methods]
        # of a suite that is cut down (``only``), what is left
        labels = {entry.label for entry in self.methods}
        fronts = {name: [label for label in front if label in labels]
                  for name, front in self.fronts.items() if labels & set(front)}  # fmt: skip
        return {**data, "methods": methods, "fronts": fronts}

    def varied(
        self, entry: MethodEntry, settings: Mapping[str, Any], optimizer: Mapping[str, Any]
    ) -> MethodEntry:
        """One of the methods with other hyper-parameters.

        Args:
            settings: settings of the method, which replace those of the suite.
            optimizer: changes of the suite's optimiser, for learners that do not set their own.

        Raises:
            ConfigError: a setting that the method does not take.
        """
        own = OptimizerConfig.model_validate(
            {**self.optimizer.model_dump(mode="json"), **optimizer}
        )
        context = self._context(own)
        item = {**(entry.given or {"name": entry.recipe.name}), **settings, "label": entry.label}
        try:
            return MethodEntry.model_validate(_entry(item, context))
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _context(self, optimizer: OptimizerConfig) -> dict[str, Any]:
        """The defaults for settings that a method does not give."""
        return {
            "threats": self.threats,
            "weights": found,
            "learner": {
                "optimizer": optimizer.model_dump(mode="json"),
                "schedule": self.schedule.model_dump(mode="json"),
            },
        }

    def only(self, methods: Sequence[str], seeds: Sequence[int]) -> SuiteConfig:
        """The suite restricted to some labels or method names (and seeds); empty means all.

        A registered method that the suite does not have is added with its preset. ``NAME@authors``
        and ``NAME@common`` mean a method or a label with that recipe, as a separate row. The rows
        from which a chosen row learns are included too.

        Raises:
            ConfigError: unknown method, or one without an authors' recipe.
        """
        seeds = tuple(dict.fromkeys(seeds)) or self.seeds
        if not methods:
            return self.model_copy(update={"seeds": seeds})
        chosen: list[MethodEntry] = []
        context = self._context(self.optimizer)
        for name in methods:
            own = [entry for entry in self.methods if name == entry.label]
            bare, recipe = (name, {}) if own else _split(name)
            own = own or [entry for entry in self.methods if bare == entry.label]
            own = own or [e for e in self.methods if bare == e.recipe.name.partition("#")[0]]
            if not own and bare not in METHODS:
                known = {entry.label for entry in self.methods} | set(METHODS.names())
                raise ConfigError(f"unknown method {name!r}; {METHODS.advice(bare, known)}")
            if own and not recipe:
                chosen += own
                continue
            given = [entry.given for entry in own] or [{"name": bare}]
            try:
                for item in given:
                    label = item.get("label", label_of(item["name"])) + name.removeprefix(bare)
                    entry = _entry({**item, **recipe, "label": label}, context)
                    chosen.append(MethodEntry.model_validate(entry))
            except ValueError as error:
                raise ConfigError(f"--method {name}: {error}") from error
        rows = {entry.label: entry for entry in (*self.methods, *chosen)}
        for entry in chosen:  # the list grows in the loop
            for label in entry.needs:
                if label not in rows and label in METHODS:
                    rows[label] = MethodEntry.model_validate(_entry(label, context))
                if label not in rows:
                    raise ConfigError(_no_such_row(entry, label))
                if rows[label] not in chosen:
                    chosen.append(rows[label])
        unique = {entry.label: entry for entry in chosen}
        return self.model_copy(update={"methods": tuple(unique.values()), "seeds": seeds})


def in_order_of_need(entries: Sequence[MethodEntry]) -> list[MethodEntry]:
    """The entries in their order, but each after those that it needs.

    Raises:
        ValueError: a needed entry is missing, or entries need each other in a circle.
    """
    rows = {entry.label: entry for entry in entries}
    placed: dict[str, MethodEntry] = {}

    def place(entry: MethodEntry, path: tuple[str, ...]) -> None:
        if entry.label in path:
            chain = " needs ".join((*path[path.index(entry.label) :], entry.label))
            raise ValueError(f"{chain}, so none of them can be trained first")
        for label in entry.needs if entry.label not in placed else ():
            if label not in rows:
                raise ValueError(_no_such_row(entry, label))
            place(rows[label], (*path, entry.label))
        placed.setdefault(entry.label, entry)

    for entry in entries:
        place(entry, ())
    return list(placed.values())


def _no_such_row(entry: MethodEntry, label: str) -> str:
    return (
        f"method {entry.label} needs the run of a row {label!r}, which the suite does not have; "
        f"add {label} to its methods, or name the folder of a trained run or a checkpoint instead"
    )


@dataclass(frozen=True)
class _Wrong:
    """Replaces the value of a field that is faulty, and holds messages on its faults."""

    texts: Sequence[str]


def _each(items: Any, made: Callable[[Any], list[Any]]) -> Any:
    """The results of ``made`` for all ``items``, or all their faults."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return _Wrong([f"methods must be a list, not {items!r}"])
    results: list[Any] = []
    wrong: list[str] = []
    for item in items:
        try:
            results += made(item)
        except Problems as error:
            wrong += error.texts
        except ValueError as error:
            wrong.append(str(error))
    return _Wrong(wrong) if wrong else results


def _fits(cls: Any, value: Any) -> bool:
    try:
        TypeAdapter(cls).validate_python(value)
    except ValidationError:
        return False
    return True


def _threats(given: Any) -> tuple[dict[str, ThreatModel], list[str]]:
    """The default threat models and the given ones, which may give only some keys of a default; and
    the faults of others."""
    threats = dict(DEFAULT_THREATS)
    wrong: list[str] = []
    if not isinstance(given, Mapping):
        return threats, [f"threats must be a mapping of names to threat models, not {given!r}"]
    for name, value in given.items():
        default = DEFAULT_THREATS.get(name)
        if default and isinstance(value, Mapping) and "norm" not in value:
            # A step size belongs to an eps and a number of steps.
            stale = {"step"} if value.keys() & {"eps", "steps"} else set()
            value = {**default.model_dump(exclude=stale), **value}
        try:
            threats[name] = ThreatModel.model_validate(value)
        except ValidationError as error:
            wrong += [f"threats.{name}: {text}" for text in problems(error, ThreatModel)]
            threats.setdefault(name, DEFAULT_THREATS["linf"])  # so that methods can refer to it
    return threats, wrong


def _entry(item: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(item, MethodEntry):
        return item
    if isinstance(item, str):
        name, whose = _split(item)
        item = {"name": name, **whose, "label": label_of(item)}
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ValueError(f"a method is a name or a mapping with a name, not {item!r}")
    parameters = {key: value for key, value in item.items() if key != "label"}
    label = item.get("label", label_of(item["name"]))
    try:
        recipe = make_recipe(parameters, context)
        return {"label": label, "recipe": recipe, "given": dict(item)}
    except ConfigError as error:
        raise ValueError(str(error)) from error
    except ValidationError as error:
        schema = _schema_of(METHODS.get(item["name"]))
        # Settings of an objective and of its learner stand side by side in a suite.
        texts = [re.sub(r"^(unknown key ')?learner\.(objective(: |\.))?", r"\1", text)
                 for text in problems(error, schema)]  # fmt: skip
        raise Problems([f"method {label}: {text}" for text in texts]) from error


def _split(name: str) -> tuple[str, dict[str, str]]:
    """A method's name without ``@authors`` or ``@common`` at its end, and the recipe from it."""
    bare, _, recipe = name.rpartition("@")
    return (bare, {"recipe": recipe}) if bare and recipe in RECIPES else (name, {})


def _schema_of(cls: Any) -> Any:
    """The class whose field names are suggested for a misspelt key."""
    return SingleLearner if is_objective(cls) else cls


def suite_names() -> list[str]:
    """The suites that ship with the package."""
    folder = resources.files("benchmark.suites")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_suite(
    name: str, overrides: Iterable[str] = (), extra: Mapping[str, Any] | None = None
) -> SuiteConfig:
    """A suite by name, or from a YAML file of the user's.

    Args:
        name: name of a shipped suite, or a path ending in .yaml. A file may give another suite as
            its ``base``, of which it then changes single keys (lists are replaced as a whole); that
            one may have a base too.
        overrides: ``dotted.key=value`` settings, values in YAML.
        extra: a nested mapping that changes the result of the overrides.

    Raises:
        ConfigError: unknown suite, unreadable file, wrong key or value.
    """
    names, layers = [name], [_read_suite(name)]
    while base := layers[-1].pop("base", None):
        if str(base) in names:
            raise ConfigError(f"suite {name} has itself as its base; choose another one")
        names.append(str(base))
        layers.append(_read_suite(names[-1]))
    data = layers.pop()
    while layers:
        _merge(data, layers.pop(), nulls=True)
    return build_suite(data, overrides, extra)


def _read_suite(name: str) -> dict[str, Any]:
    """The mapping in a suite's file, with its name."""
    if name.endswith((".yaml", ".yml")):
        path = at_home(Path(name))
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigError(f"suite file {name} does not exist{_file_called(name)}") from error
        except (OSError, ValueError) as error:  # such as bytes that are no UTF-8
            raise ConfigError(f"suite file {name} cannot be read: {error}") from error
        name = path.stem
    else:
        if name not in suite_names():
            advice = _file_called(name) or (
                f"; {did_you_mean(name, suite_names())} (a suite of your own is given as a path "
                "ending in .yaml)"
            )
            raise ConfigError(f"unknown suite {name!r}{advice}")
        text = (resources.files("benchmark.suites") / f"{name}.yaml").read_text(encoding="utf-8")
    data = parse_yaml(text, f"suite {name}")
    if not isinstance(data, dict):
        raise ConfigError(f"suite {name} must be a mapping of keys to values")
    return {"name": name, **data}


def _file_called(name: str) -> str:
    """The end of a message: the file that was probably meant by ``name``, if there is one."""
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    files = (f"{stem}{suffix}" for suffix in (".yaml", ".yml"))
    found = next((path for path in files if at_home(Path(path)).is_file()), None)
    return f"; did you mean {found}?" if found else ""


def build_suite(
    data: Mapping[str, Any], overrides: Iterable[str] = (), extra: Mapping[str, Any] | None = None
) -> SuiteConfig:
    """A suite from a mapping; arguments and errors as for ``load_suite``."""
    settings = apply_overrides(data, overrides)
    for group in extra or {}:
        if not isinstance(settings.get(group, {}), dict):
            raise ConfigError(
                f"{group} must be a group of settings, such as {group}: {{name: ...}}"
            )
    _merge(settings, extra or {}, nulls=False)
    return parse(SuiteConfig, settings, where=f"suite {settings.get('name')}")


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with ``dotted.key=value`` settings applied, values in YAML."""
    settings = copy.deepcopy(dict(data))
    overrides = list(overrides)
    keys = [override.partition("=")[0].strip() for override in overrides]
    for key in keys:
        if keys.count(key) > 1:
            both = [text for text, other in zip(overrides, keys, strict=True) if other == key]
            raise ConfigError(f"{key} is given twice ({', '.join(both)}); keep one of them")
    for override in overrides:
        _override(settings, override)
    return settings


def _override(data: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text!r}: write it as key=value, for instance train.epochs=3")
    *parents, last = key.strip().split(".")
    here: Any = data
    for part in parents:
        here = here.setdefault(part, {}) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            raise ConfigError(f"--set {text!r}: {part!r} is not a group of settings")
    here[last] = parse_yaml(value, f"--set {text!r}: the value")


def _merge(data: dict[str, Any], extra: Mapping[str, Any], *, nulls: bool) -> None:
    """Change ``data`` by the values of ``extra``, key by key.

    Args:
        nulls: whether None replaces a value, as null in a suite file does with what its base says;
            otherwise it leaves the value, as an option that was not given does.
    """
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(data.setdefault(key, {}), dict):
            _merge(data[key], value, nulls=nulls)
        elif nulls or value is not None:
            data[key] = value
