"""The training loop of one cell."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmark.config.suite import CellConfig
from benchmark.core.errors import ConfigError
from benchmark.core.memory import PeakMemory
from benchmark.core.method import Batch
from benchmark.core.progress import Progress
from benchmark.core.ranks import ALONE, Ranks
from benchmark.data.dataset import Dataset
from benchmark.data.loader import train_loader
from benchmark.training.build import (
    build_method,
    cell_length,
    connect_processes,
    measure_crafting,
)
from benchmark.training.divergence import CHECK_EVERY, check_losses, check_weights
from benchmark.training.interruption import interruptible
from benchmark.training.log import Follow, Log, next_line, validation_scores, write_summary
from benchmark.training.losses import LossSums
from benchmark.training.memory import update_within_memory
from benchmark.training.random_state import RandomState
from benchmark.training.selection import save_deployed, select, weights_path
from benchmark.training.snapshots import save_snapshot, snapshot_steps
from benchmark.training.state import TrainingState, resume, save
from benchmark.training.trained import TrainedWeights
from benchmark.training.views import ModelPrecision
from benchmark.training.watch import Watch

# Seconds between checkpoints, so a killed run loses no more. Every validation writes one too.
_CHECKPOINT_SECONDS = 60.0


class Trainer:
    """Trains one cell in ``directory``; call ``run``.

    Several processes (``ranks``) may train it together: each makes a trainer with the same
    arguments and runs it, and only the first writes files.

    It writes ``metrics.jsonl`` (a line per epoch and per validation), ``checkpoint.pt`` (to resume;
    the previous one is kept too, in case the newer is damaged), ``deployed.pt`` (state dict of the
    deployed model at the selected checkpoint; ``deployed-RULE.pt`` for every further rule of
    selection), ``snapshots/`` (networks during training, if asked for) and, at the end,
    ``training.json``, whose existence means that training is over.

    Args:
        directory: the run's folder. Runs that its method learns from are in folders next to it.
        follow: told of every line of the log; of several processes, only in the first.
        learner_groups: how many groups of processes share the learners; None chooses a fast layout.

    Raises:
        ConfigError: TF32 off CUDA; see ``training_length``, ``core.mesh.layout`` and
            ``TrainedWeights``.
    """

    def __init__(
        self,
        config: CellConfig,
        data: Dataset,
        directory: Path,
        *,
        device: torch.device,
        progress: Progress | None = None,
        follow: Follow | None = None,
        ranks: Ranks = ALONE,
        learner_groups: int | None = None,
    ) -> None:
        if config.train.precision == "tf32" and device.type != "cuda":
            raise ConfigError(f"train.precision = tf32 is for CUDA devices, not for {device.type}")
        self.config, self.data, self.directory, self.device = config, data, directory, device
        self._reporter = progress or Progress(quiet=True)
        self._precision = ModelPrecision(config.train.precision, device)
        self._ranks = ranks
        self._mesh = connect_processes(config, data, device, ranks, learner_groups)
        # It seeds torch's global generator, so it must come before the method is built.
        random = RandomState(config.seed, device, self._mesh.data)
        self._loader = train_loader(
            data.train,
            config.train.batch_size,
            seed=config.seed,
            crop=config.dataset.crop,
            flip=config.dataset.flip,
            device=device,
            axis=self._mesh.data,
            extra=data.extra,
        )
        length = cell_length(config, len(data.train))
        load = TrainedWeights(config.needs, directory.parent)
        self.method = build_method(
            config,
            data,
            device,
            length=length,
            generators=random.generator,
            mesh=self._mesh,
            load=load,
            precision=self._precision,
        )
        losses = LossSums(self.method, self._mesh, device)
        self.state = TrainingState(self.method, random, losses, length, load.used)
        self._log = Log(directory, writes=ranks.first, follow=follow)
        self._watch = Watch(config.train, data)
        points = config.train.validations
        self._validate_at = {max(1, round(length.steps * i / points)) for i in range(1, points + 1)}
        kept = snapshot_steps(config.train.snapshots, length.steps)
        # By the step after which networks are kept, the one before it; 0 before the first.
        self._snapshot_at = dict(zip(kept, [0, *kept], strict=False))

    def run(self) -> None:
        """Train from the start, or from the last checkpoint, to the end.

        Raises:
            DivergenceError: a loss that is not finite, or has exploded.
            DeviceMemoryError: a step does not fit into the device's memory.
            CheckpointError: a checkpoint that is damaged or belongs to another configuration.
            KeyboardInterrupt: after SIGINT or SIGTERM, once a checkpoint is written; the argument
                is the number of the signal.
        """
        state = self.state
        resume(state, self.directory, self.config, self.data, self._mesh, self._reporter)
        self._watch.take_up(self._log.cut_back(state.step))
        self._choose_crafting()
        self._peak = PeakMemory(self.device)
        last_saved = time.monotonic()
        name = f"train {self.directory.name}"
        with (
            interruptible(quiet=self._reporter.quiet) as interruption,
            self._reporter.task(name, state.length.steps, state.step) as task,
        ):
            for batch in self._batches():
                self._update(batch)
                if state.step in self._snapshot_at:
                    self._keep()
                validated = state.step in self._validate_at
                note = self._validate() if validated else ""
                if not validated and state.step % state.length.steps_per_epoch == 0:
                    self._log.write(next_line(state))
                due = time.monotonic() - last_saved > _CHECKPOINT_SECONDS
                # One process may get a signal, or reach the time of a checkpoint, before the
                # others; but all must stop or save at the same step.
                stop, save_now = self._ranks.any(bool(interruption), validated or due)
                if stop or save_now:
                    self._save()
                    last_saved = time.monotonic()
                if stop:
                    # If this process has no signal number, another process got the signal.
                    raise KeyboardInterrupt(interruption.number or signal.SIGTERM)
                task.advance(1, note)
        self._finish()

    def _choose_crafting(self) -> None:
        """Compile the networks for crafting, or do not; a training that resumes goes on as before.

        Raises:
            ConfigError: ``train.crafting`` is ``compiled``, and the network cannot be compiled.
        """
        wanted = self.config.train.crafting
        if wanted == "eager":
            return
        if self.state.crafting is None:
            first = (
                measure_crafting(self.config, self.data, self.device) if self._ranks.first else {}
            )
            found = self._ranks.gather(first)[0]
            if wanted == "compiled" and "failure" in found:
                raise ConfigError(
                    f"train.crafting = compiled: the network cannot be compiled here "
                    f"({found['failure']}); set it to eager or fastest"
                )
            # the record says what is done, whichever was faster
            self.state.crafting = {**found, "chosen": wanted} if wanted == "compiled" else found
        found = self.state.crafting
        self._precision.compiled = found["chosen"] == "compiled"
        times = ", ".join(f"{key}: {value}" for key, value in found.items() if key != "chosen")
        self._reporter.say(
            f"  training images are crafted on the {found['chosen']} network ({times})"
        )

    def _batches(self) -> Iterator[Batch]:
        """The batches from the current step to the last."""
        while not self.state.ended:
            epoch, start = divmod(self.state.step, self._loader.steps_per_epoch)
            for batch in self._loader.epoch(epoch, start=start):
                if self.state.ended:
                    return
                yield batch

    def _update(self, batch: Batch) -> None:
        """One step of the method, and its losses."""
        state, started = self.state, time.monotonic()
        with self._precision.kernels():
            losses = update_within_memory(
                self.method,
                batch,
                state.step / state.length.steps,
                mesh=self._mesh,
                accumulate=self.config.train.accumulate,
            )
        state.losses.add(losses)
        images = self._mesh.data.total
        state.images += images
        state.passes += images * self.method.passes_at(state.step)
        state.step += 1
        if state.step == 1 or state.step % CHECK_EVERY == 0 or state.step in self._validate_at:
            check_losses(state, self.directory)
        state.seconds += time.monotonic() - started

    def _keep(self) -> None:
        """Keep the networks as they are now."""
        self.method.share(self._mesh)
        deployed, since = self.method.deployed(), self._snapshot_at[self.state.step]
        if self._ranks.first:
            save_snapshot(self.state, deployed, self.directory, since)

    def _validate(self) -> str:
        """Measure the deployed model on held-out images. Returns a text for the progress line."""
        check_weights(self.state, self.directory, self._mesh)
        self.method.share(self._mesh)
        model, train = self.method.deployed(), self.config.train
        # Only the first process measures; all select by its scores.
        first = self._ranks.first
        measured = validation_scores(model, self.data, train, self.device) if first else {}
        scores = self._ranks.gather(measured)[0]
        line = next_line(self.state)
        self._log.write({**line, **scores})
        for warning in self._watch.see({**line, **scores}) if first else ():
            self._reporter.say(f"  WARNING, {self.directory.name}: {warning}")
        for rule in select(train, self.state, line, scores):
            if first:
                save_deployed(model, weights_path(self.config, self.directory, rule))
        return f"val clean {100 * scores['val_clean']:.1f} pgd {100 * scores['val_pgd']:.1f}"

    def _save(self) -> None:
        """Write the checkpoint; a diverged state never replaces a good one."""
        check_losses(self.state, self.directory)
        check_weights(self.state, self.directory, self._mesh)
        save(self.state, self.directory, self.config, self.data, self._mesh)

    def _finish(self) -> None:
        """Write the record of a training that is over."""
        peaks = self._ranks.gather(self._peak.bytes)
        known = [peak for peak in peaks if peak is not None]
        model, train = self.method.deployed(), self.config.train
        if self._ranks.first:
            write_summary(
                self.directory,
                self.state,
                model,
                train,
                self.data,
                self._mesh.record(),
                self._watch.raised,
                max(known) if len(known) == len(peaks) else None,
                self._reporter,
            )
        self._ranks.gather(None)  # no process continues before the record is written
