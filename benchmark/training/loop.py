"""Training one cell: the loop, validation, checkpoints and the record of what happened."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.core.batchnorm import synchronise_batchnorm
from benchmark.core.config import Config, parse
from benchmark.core.errors import BenchmarkError, CheckpointError, ConfigError, DivergenceError
from benchmark.core.files import write_json, write_text
from benchmark.core.layout import lay_out
from benchmark.core.mesh import Mesh, connect, layout
from benchmark.core.method import Method
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.core.setting import Setting
from benchmark.data.config import DatasetConfig
from benchmark.data.dataset import Dataset
from benchmark.data.loader import batch_bounds, evaluation_batches, train_loader
from benchmark.evaluation.outcomes import clean_outcomes, pgd_outcomes, sample
from benchmark.evaluation.shape import read_training
from benchmark.models.config import ModelConfig
from benchmark.models.zoo import build_model, recorded_state
from benchmark.suites.schema import CellConfig, Selection, TrainConfig
from benchmark.training import checkpoint
from benchmark.training.random_state import RandomState
from benchmark.training.views import Precision

# Batches between two looks at the loss: often enough to stop a diverged run early, seldom enough
# not to wait for an accelerator at every step.
_CHECK_EVERY = 20
# Times its value at the first step (or 1, if that is less): a loss beyond is no training any more.
# In the recorded studies no mean loss ever exceeds its first.
_EXPLODED = 1000.0
# Seconds between checkpoints (validation writes one too): what a kill can cost.
_CHECKPOINT_SECONDS = 60.0
# Clean training images for re-estimating BatchNorm statistics.
_CALIBRATION_IMAGES = 4096
# What a method calls its mixing ratios in ``diagnostics``.
_MIX = "mix/"


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        steps: optimiser steps in all.
        steps_per_epoch: of which this many make an epoch.
        images: training images met in all, repetitions counted.
    """

    steps: int
    steps_per_epoch: int
    images: int


def training_length(train: TrainConfig, dataset: DatasetConfig, images: int) -> Length:
    """The length of training by ``train`` on so many images.

    Raises:
        ConfigError: less than a step, or batches larger than the data (allowed under ``limit``,
            which is for smoke tests: the only batch of an epoch is then smaller).
    """
    if train.batch_size > images and dataset.limit is None:
        raise ConfigError(
            f"train.batch_size = {train.batch_size} is more than the {images} training images; "
            f"set train.batch_size to {images} or less"
        )
    sizes = [stop - start for start, stop in batch_bounds(images, train.batch_size)]
    wanted = train.epochs * len(sizes)
    if wanted < 1 - 1e-9:
        raise ConfigError(
            f"train.epochs = {train.epochs:g} is less than one step; an epoch has {len(sizes)}, so "
            f"set train.epochs to {1 / len(sizes):.2g} or more"
        )
    steps = round(wanted)
    epochs, rest = divmod(steps, len(sizes))
    return Length(steps, len(sizes), epochs * sum(sizes) + sum(sizes[:rest]))


def build_method(
    config: CellConfig,
    data: Dataset,
    device: torch.device,
    *,
    length: Length | None = None,
    generators: Callable[[int], torch.Generator] | None = None,
    mesh: Mesh | None = None,
) -> Method:
    """The method of a cell, with initial weights that depend on the cell's seed alone.

    Args:
        length: of training; None if the method is built for its deployed model's form only.
        generators: sources of the random draws made while training, by number of the learner.
        mesh: the processes that train together.
    """
    mesh = mesh or Mesh()
    # Weights that are loaded bring their own statistics, so a test split alone need not have any.
    mean, std = (0.0,) * data.channels, (1.0,) * data.channels
    if length is not None or len(data.train):
        mean, std = data.mean, data.std

    def new_model(init: int = 0, model: Mapping[str, Any] | None = None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            # Far apart, so that no seed of a suite meets another's further initialisations.
            torch.manual_seed(config.seed + 1_000_003 * init)
            network = build_model(
                config.model if model is None else parse(ModelConfig, model, where="learner.model"),
                num_classes=data.num_classes,
                image_size=data.image_size,
                mean=mean,
                std=std,
                channels=data.channels,
            )
        if mesh.data.size > 1 and mesh.data.statistics == "synchronised":
            network = synchronise_batchnorm(network, mesh.data)
        return lay_out(network.to(device))

    precision = Precision(config.train.precision, device)
    return config.recipe.build(
        Setting(
            new_model=new_model,
            total_steps=length.steps if length else 1,
            steps_per_epoch=length.steps_per_epoch if length else 1,
            generator=generators(0) if generators else None,
            generators=generators,
            calibration=lambda: calibration_batches(data, config.train.batch_size, device),
            crafting_view=precision.view,
            autocast=precision.autocast,
            mesh=mesh,
        )
    )


def calibration_batches(data: Dataset, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Clean training images for re-estimating BatchNorm statistics, always the same."""
    indices = sample(len(data.train), _CALIBRATION_IMAGES, seed=0)
    for _, x, _ in evaluation_batches(data.train, batch_size, indices=indices, device=device):
        yield x


def _mesh(
    config: CellConfig, data: Dataset, device: torch.device, ranks: Ranks, groups: int | None
) -> Mesh:
    """The processes of a cell as a grid, laid out for its method."""
    if ranks.world == 1:
        if groups not in (None, 1):
            raise ConfigError("--learner-groups is for several processes: start with torchrun")
        return Mesh()
    method = build_method(config, data, torch.device("cpu"))
    grid = layout(
        ranks.world,
        {name: learner.passes for name, learner in method.learners.items()},
        apart=method.apart,
        cuttable=method.cuttable,
        groups=groups,
    )
    return connect(ranks, grid, device, config.train.batchnorm)


class _Position(Config):
    """Where a checkpoint says that training stands, see ``Trainer``."""

    step: int = Field(ge=0)
    images: int = Field(ge=0)
    passes: float = Field(ge=0)
    seconds: float = Field(ge=0)
    losses: dict[str, tuple[float, int]]
    best: dict[str, list[float]]
    selected: dict[str, dict[str, float]]
    first: dict[str, float]


class Trainer:
    """Trains one cell in ``directory``; call ``run``.

    Several processes (``ranks``) train it together: each makes one of these with the same arguments
    and runs it, and the first alone writes.

    Writes ``metrics.jsonl`` (a line per epoch and per validation), ``checkpoint.pt`` (to resume;
    the one before it is kept, in case it is damaged), ``deployed.pt`` (state dict of the deployed
    model at the selected checkpoint; ``deployed-RULE.pt`` for every further rule of selection)
    and, last of all, ``training.json``, whose existence means that training is over.

    Args:
        learner_groups: how many groups of processes share the learners; None for a fast layout.

    Raises:
        ConfigError: TF32 off CUDA; see ``training_length`` and ``core.mesh.layout``.
    """

    def __init__(
        self,
        config: CellConfig,
        data: Dataset,
        directory: Path,
        *,
        device: torch.device,
        progress: Progress | None = None,
        tensorboard: bool = False,
        ranks: Ranks = ALONE,
        learner_groups: int | None = None,
    ) -> None:
        self.config, self.data, self.directory, self.device = config, data, directory, device
        self._reporter = progress or Progress(quiet=True)
        self._tensorboard = tensorboard
        if config.train.precision == "tf32" and device.type != "cuda":
            raise ConfigError(f"train.precision = tf32 is for CUDA devices, not for {device.type}")
        self._precision = Precision(config.train.precision, device)
        self._ranks = ranks
        self._mesh = _mesh(config, data, device, ranks, learner_groups)
        self._random = RandomState(config.seed, device, self._mesh.data)
        self._loader = train_loader(
            data.train,
            config.train.batch_size,
            seed=config.seed,
            crop=config.dataset.crop,
            flip=config.dataset.flip,
            device=device,
            axis=self._mesh.data,
        )
        length = training_length(config.train, config.dataset, len(data.train))
        self._total = length.steps
        self.method = build_method(
            config,
            data,
            device,
            length=length,
            generators=self._random.generator,
            mesh=self._mesh,
        )
        learners = self.method.learners.values()
        self._own = [number for number, learner in enumerate(learners) if learner.here]
        points = config.train.validations
        self._validate_at = {max(1, round(self._total * i / points)) for i in range(1, points + 1)}
        # Where training stands, apart from the method and the generators.
        self._step = self._images = 0
        self._seconds = self._passes = 0.0
        # By loss, since the last line: its sum over images, and their number (a learner may rest).
        self._losses: dict[str, Tensor] = {}
        self._summed: dict[str, int] = {}
        self._first: dict[str, float] = {}
        # By rule of selection: the score of the best checkpoint so far, and what is known of it.
        self._best: dict[str, list[float]] = {}
        self._selected: dict[str, dict[str, float]] = {}

    def run(self) -> None:
        """Train from the start, or from the last checkpoint, to the end.

        Raises:
            DivergenceError: a loss that is not finite, or absurd.
            CheckpointError: a checkpoint that is damaged or belongs to another configuration.
            KeyboardInterrupt: after SIGINT or SIGTERM, once a checkpoint is written; its argument
                is the signal's number.
        """
        self._resume()
        last_saved = time.monotonic()
        name = f"train {self.directory.name}"
        with (
            _interruptible(quiet=self._reporter.quiet) as interrupt,
            self._reporter.task(name, self._total, self._step) as task,
        ):
            for batch in self._batches():
                started = time.monotonic()
                self._update(batch)
                # Validation and checkpoints are not training time.
                self._seconds += time.monotonic() - started
                validated = self._step in self._validate_at
                note = self._validate() if validated else ""
                if not validated and self._step % self._loader.steps_per_epoch == 0:
                    self._log(self._line())
                due = time.monotonic() - last_saved > _CHECKPOINT_SECONDS
                stop, save = self._ranks.any(bool(interrupt), validated or due)
                if stop or save:
                    self._save()
                    last_saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt(interrupt.number or signal.SIGTERM)  # another's signal
                task.advance(1, note)
        self._finish()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches from the current step to the last."""
        while self._step < self._total:
            epoch, start = divmod(self._step, self._loader.steps_per_epoch)
            for batch in self._loader.epoch(epoch, start=start):
                if self._step >= self._total:
                    return
                yield batch

    def _update(self, batch: tuple[Tensor, Tensor]) -> None:
        with self._precision.kernels():
            losses = self.method.update(batch, self._step / self._total)
        data = self._mesh.data
        count = data.total
        weight = count * data.share / (1 if data.cut else data.size)  # sums to count over the axis
        for name, loss in losses.items():
            total = self._losses.get(name)
            self._losses[name] = loss * weight if total is None else total + loss * weight
            self._summed[name] = self._summed.get(name, 0) + count
        self._images += count
        self._passes += count * self.method.passes_at(self._step)
        self._step += 1
        if self._step == 1 or self._step % _CHECK_EVERY == 0 or self._step in self._validate_at:
            self._check_losses()

    def _check_losses(self) -> None:
        for name, mean in self._mean_losses().items():
            if not math.isfinite(mean):
                raise self._diverged(f"{name} is not finite")
            first = self._first.setdefault(name, mean)
            if mean > _EXPLODED * max(1.0, abs(first)):
                raise self._diverged(f"{name} has exploded, from {first:.3g} to {mean:.3g},")

    def _check_weights(self) -> None:
        self._stop_at(
            f"learner {name} has weights that are not finite"
            for name, learner in self.method.learners.items()
            if not all(bool(weight.isfinite().all()) for weight in learner.model.parameters())
        )

    def _stop_at(self, found: Iterable[str]) -> None:
        """Raise DivergenceError, in every process, if one of them found something."""
        for what in self._ranks.gather(next(iter(found), None)):
            if what:
                raise self._diverged(what)

    def _diverged(self, what: str) -> DivergenceError:
        saved = self.directory / "checkpoint.pt"
        last = f"the last good checkpoint is {saved}" if saved.exists() else "no checkpoint yet"
        return DivergenceError(
            f"{self.directory.name}: {what} at step {self._step} of {self._total} or at most "
            f"{_CHECK_EVERY} steps before; {last}. Lower the learning rate "
            "(--set optimizer.lr=...) or clip gradients"
        )

    def _validate(self) -> str:
        """Measure the deployed model on held-out images; a line for the person watching."""
        self._check_weights()
        self.method.share(self._mesh)
        model = self.method.deployed()
        # The first process measures what all go by.
        scores = self._ranks.gather(self._scores(model) if self._ranks.first else {})[0]
        line = self._line()
        self._log({**line, **scores})
        known = {"selected_epoch": self._step / self._loader.steps_per_epoch, **scores}
        known |= {name: value for name, value in line.items() if name.startswith(_MIX)}
        for rule in self.config.train.selection:
            if self._is_better(rule, scores):
                self._selected[rule] = known
                if self._ranks.first:
                    state = recorded_state(model)
                    for name, value in state.items():
                        state[name] = value.detach().cpu()
                    checkpoint.save(weights_path(self.config, self.directory, rule), state)
        return f"val clean {100 * scores['val_clean']:.1f} pgd {100 * scores['val_pgd']:.1f}"

    def _is_better(self, rule: Selection, scores: Mapping[str, float]) -> bool:
        """Whether this checkpoint takes the place of the one that ``rule`` has chosen so far."""
        if rule == "last":
            return True
        # A method that is not itself before the end is taken as it ends.
        ending = self._step == self._total and rule not in self._selected
        if not (ending or self.method.selectable((self._step - 1) / self._total)):
            return False
        clean, robust = scores["val_clean"], scores["val_pgd"]
        if rule == "best":
            score = [robust, clean]
        else:
            score = [float(clean >= self.config.train.selection_floor), clean + robust]
        if rule in self._best and score <= self._best[rule]:
            return False
        self._best[rule] = score
        return True

    def _scores(self, model: nn.Module) -> dict[str, float]:
        train, device, split = self.config.train, self.device, self.data.val
        indices = sample(len(split), train.validation_images, seed=0)
        size = max(256, train.batch_size)
        clean = clean_outcomes(model, split, indices, batch_size=size, device=device)
        robust = pgd_outcomes(
            model, split, indices, train.validation_threat, seed=0, batch_size=size, device=device
        )
        return {
            "val_clean": float(clean.double().mean()),
            "val_pgd": float(robust.double().mean()),
        }

    def _line(self) -> dict[str, float]:
        """Mean losses since the last line, and where training stands."""
        # The last update was made at this progress; ratios and rates in the log are those it used.
        progress = (self._step - 1) / self._total
        line = {
            "epoch": self._step / self._loader.steps_per_epoch,
            "progress": self._step / self._total,
            "step": self._step,
            "seconds": round(self._seconds, 3),
            "gradient_passes": self._passes,
            **self._mean_losses(),
            **self.method.diagnostics(progress),
        }
        self._losses, self._summed = {}, {}
        return line

    def _mean_losses(self) -> dict[str, float]:
        return {name: total / images for name, (total, images) in self._all_losses().items()}

    def _all_losses(self) -> dict[str, tuple[float, int]]:
        """The sums of losses over all processes and their images, in the order of the learners."""
        sums: dict[str, tuple[float, int]] = {}
        own = {name: (float(sum_), self._summed[name]) for name, sum_ in self._losses.items()}
        for part in self._ranks.gather(own):
            for name, (value, images) in part.items():
                total, known = sums.get(name, (0.0, 0))
                # a process that resumed may know of less of another's learner
                sums[name] = total + value, max(known, images)
        first = [f"loss/{name}" for name in self.method.learners]
        return {name: sums[name] for name in dict.fromkeys([*first, *sums]) if name in sums}

    def _holds(self, name: str) -> bool:
        """Whether this process goes on with a loss's sum over all processes."""
        learner = self.method.learners.get(name.removeprefix("loss/"))
        if learner is None:
            return self._ranks.first
        return learner.here and self._mesh.data.position == 0

    def _log(self, line: dict[str, float]) -> None:
        if not self._ranks.first:
            return
        try:
            with open(self.directory / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self._tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                with SummaryWriter(str(self.directory / "tensorboard")) as writer:
                    for name, value in line.items():
                        writer.add_scalar(name, value, self._step)
        except OSError as error:
            raise BenchmarkError(
                f"cannot write to {self.directory}: {error.strerror or error}; free some space, "
                "then run the same command again to go on"
            ) from error

    def _save(self) -> None:
        """Write the checkpoint; a diverged state never replaces a good one."""
        self._check_losses()
        self._check_weights()
        self.method.share(self._mesh)
        self._random.share(self._mesh, self._own)
        losses = self._all_losses()
        if not self._ranks.first:
            return
        state: dict[str, Any] = {
            "config": self.config.hash,
            "data": self.data.fingerprint,
            "method": self.method.state_dict(),
            "random": self._random.state_dict(),
            "step": self._step,
            "images": self._images,
            "passes": self._passes,
            "seconds": self._seconds,
            "losses": losses,
            "first": self._first,
            "best": self._best,
            "selected": self._selected,
        }
        path = self.directory / "checkpoint.pt"
        checkpoint.rotate(path)
        checkpoint.save(path, state)

    def _resume(self) -> None:
        path = self.directory / "checkpoint.pt"
        metrics = self.directory / "metrics.jsonl"
        if not path.exists() and not checkpoint.previous(path).exists():
            if self._ranks.first:
                metrics.unlink(missing_ok=True)
            self._ranks.gather(None)  # all have looked before the first writes
            return
        state, damage = checkpoint.load_last_good(path)
        if damage:
            self._reporter.say(f"  {damage}. Going on from the checkpoint before it")
        if state.get("config") != self.config.hash:
            raise CheckpointError(
                f"{path} belongs to another configuration ({state.get('config')}); delete the "
                "run's folder to train it from the start"
            )
        check_same_data(state.get("data"), self.data, path)
        try:
            self.method.load_state_dict(state["method"])
            self._random.load_state_dict(state["random"])
            here = parse(_Position, {key: state.get(key) for key in _Position.model_fields})
            if here.step > self._total:
                raise ValueError(f"it is of step {here.step} of {self._total}")
            self._step, self._images, self._passes = here.step, here.images, here.passes
            self._seconds, self._best, self._selected = here.seconds, here.best, here.selected
            # Sums over all processes, whatever their number was.
            self._losses = {
                name: torch.tensor(total if self._holds(name) else 0.0, device=self.device)
                for name, (total, _) in here.losses.items()
            }
            self._summed = {name: images for name, (_, images) in here.losses.items()}
            self._first = here.first
        # A method may stumble over whatever it does not know.
        except Exception as error:
            raise CheckpointError(
                f"{path} was made by another version or on another kind of device "
                f"({type(error).__name__}: {str(error).splitlines()[0]}); go on there, or delete "
                "the run's folder to train it from the start"
            ) from error
        self._ranks.gather(None)  # all have read before the first writes
        if self._ranks.first:
            _drop_later_lines(metrics, self._step)
        if 0 < self._step < self._total:
            self._reporter.say(f"  resuming at step {self._step} of {self._total}")

    def _finish(self) -> None:
        model = self.method.deployed()
        if self._ranks.first:
            self._write_summary(model)
        self._ranks.gather(None)  # the record is there before anyone goes on

    def _write_summary(self, model: nn.Module) -> None:
        train = self.config.train
        rule, *others = train.selection
        chosen = {name: _selected_record(known) for name, known in self._selected.items()}
        missed = [
            name
            for name in train.selection
            if name == "best-sum" and chosen[name]["val_clean"] < train.selection_floor
        ]
        if missed:
            self._reporter.say(
                f"  no checkpoint reached train.selection_floor = {train.selection_floor:g}, clean "
                "accuracy on held-out images: best-sum took the largest clean + PGD of all"
            )
        write_json(
            self.directory / "training.json",
            {
                "data": self.data.fingerprint,
                "steps": self._step,
                "epochs": self._step / self._loader.steps_per_epoch,
                "images": self._images,
                "seconds": round(self._seconds, 3),
                "processes": self._mesh.record(),
                "gradient_passes": self._passes,
                "passes_per_image": self.method.passes,
                "inference_passes": self.method.inference_passes,
                "checkpoint_rule": rule,
                **chosen[rule],
                **({"also": {name: chosen[name] for name in others}} if others else {}),
                **(
                    {"selection_floor": train.selection_floor, "floor_missed": bool(missed)}
                    if "best-sum" in train.selection
                    else {}
                ),
                "parameters": sum(p.numel() for p in model.parameters()),
                "train_images": len(self.data.train),
                "val_images": len(self.data.val),
            },
        )


def _selected_record(known: Mapping[str, float]) -> dict[str, Any]:
    """What is recorded of a chosen checkpoint; with its mixing ratios, if the method has any."""
    mixing = {k.removeprefix(_MIX): v for k, v in known.items() if k.startswith(_MIX)}
    record: dict[str, Any] = {k: v for k, v in known.items() if not k.startswith(_MIX)}
    return record | ({"mixing": mixing} if mixing else {})


def weights_path(config: CellConfig, directory: Path, rule: Selection) -> Path:
    """The weights that ``rule`` chose: ``deployed.pt`` for the first rule of the configuration."""
    first = rule == config.train.selection[0]
    return directory / ("deployed.pt" if first else f"deployed-{rule}.pt")


def record_directories(config: CellConfig, directory: Path) -> dict[Selection, Path]:
    """By rule of selection, where the evaluation of its checkpoint is kept: the run's folder for
    the first, ``deployed-RULE`` in it for the others, so that none replaces another's figures."""
    first, *others = config.train.selection
    return {first: directory} | {rule: directory / f"deployed-{rule}" for rule in others}


def check_same_data(recorded: object, data: Dataset, path: Path) -> None:
    """Raise CheckpointError if what ``path`` records was not made with ``data``."""
    if recorded is not None and recorded != data.fingerprint:
        raise CheckpointError(
            f"{path} was made with other images ({recorded}) than those now found "
            f"({data.fingerprint}, {data.source}); restore the data, or choose another --out"
        )


def _drop_later_lines(path: Path, step: int) -> None:
    """Cut a metrics file back to what was known at ``step``; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    write_text(path, "".join(line + "\n" for line in kept))


class _Flag:
    """True once a signal came: its number."""

    def __init__(self) -> None:
        self.number = 0

    def __bool__(self) -> bool:
        return bool(self.number)


@contextmanager
def _interruptible(quiet: bool) -> Iterator[_Flag]:
    """Turn the first SIGINT or SIGTERM into a flag; the second acts as usual."""
    flag = _Flag()
    previous: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: object) -> None:
        flag.number = number
        restore()
        if not quiet:  # unbuffered: the signal may have come in the middle of a print
            os.write(2, b"\nstopping once a checkpoint is written; again to stop at once\n")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread: signals are somebody else's business
        previous.clear()
    try:
        yield flag
    finally:
        restore()


def load_deployed(
    config: CellConfig,
    data: Dataset,
    directory: Path,
    device: torch.device,
    rule: Selection | None = None,
) -> nn.Module:
    """The deployed model of a trained cell, in eval mode; that of the first rule of selection, or
    of another.

    If its file is missing or damaged and the last step was the selected one, the weights are
    taken from the training checkpoint, with a warning.

    Raises:
        CheckpointError: missing or damaged, or not of this method's shape.
    """
    rule = rule or config.train.selection[0]
    path = weights_path(config, directory, rule)
    method = build_method(config, data, device)
    try:
        state = checkpoint.load(path)
    except CheckpointError:
        if not _load_last_step(method, directory, rule):
            raise
        warnings.warn(
            f"{path} is missing or damaged; the same weights are taken from checkpoint.pt",
            stacklevel=2,
        )
        return method.deployed().to(device).eval()
    model = method.deployed()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the method: {error}") from error
    return model.to(device).eval()


def _load_last_step(method: Method, directory: Path, rule: Selection) -> bool:
    """Bring ``method`` to the end of its training, if ``rule`` chose that and it is there."""
    done = read_training(directory)
    chosen = done if rule == done.get("checkpoint_rule") else done.get("also", {}).get(rule, {})
    if chosen.get("selected_epoch") != done.get("epochs"):
        return False
    try:
        state = checkpoint.load(directory / "checkpoint.pt")
    except CheckpointError:
        return False
    if state["step"] != done.get("steps"):
        return False
    method.load_state_dict(state["method"])
    return True
