"""Weights & Biases, online or (``WANDB_MODE=offline``) as files in the run's folder."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from benchmark.loggers.logger import End, LoggedRun, Logger


class WeightsAndBiases(Logger):
    """One run of the project that is called as the suite (or as WANDB_PROJECT says), grouped by
    method. Figures of the evaluation are its summary.

    Its identity is kept, so a training that goes on is the same run. Offline, every process leaves
    a folder of its own; ``wandb sync`` puts those of one identity together.
    """

    package = "wandb"
    install = "generalist-bench[wandb]"

    def __init__(self, run: LoggedRun) -> None:
        import wandb  # noqa: PLC0415 - an optional extra

        offline = wandb.setup().settings.mode in ("offline", "dryrun")
        self.id = run.id or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.suite,
            group=run.method,
            name=run.name,
            id=self.id,
            # an offline run has nothing to look up; wandb would warn of it
            resume=None if offline else "allow",
            dir=str(run.folder),
            config=dict(run.config),
            # beside a run that the caller may have open
            reinit="create_new",
            settings=wandb.Settings(
                silent=offline or run.quiet, quiet=True, console="off", disable_git=True
            ),
        )
        if offline:
            self.place = f"wandb sync {self._run.settings.sync_dir} uploads it"
        else:
            self.place = self._run.url or ""
        # Its own count of calls would not go on where a killed process was.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def line(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def close(self, end: End) -> None:
        self._run.finish(exit_code=0 if end == "finished" else 1)
