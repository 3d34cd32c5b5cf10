"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from benchmark.loggers.logger import End, LoggedRun, Logger


class TensorBoard(Logger):
    """Scalars, and the configuration as a text. ``tensorboard --logdir`` of a study's folder shows
    all its runs, each by the name of its folder."""

    package = "tensorboard"
    install = "generalist-bench[tensorboard]"

    def __init__(self, run: LoggedRun) -> None:
        # an optional extra
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        # A second process adds a file to the folder, and both are shown as one run.
        self.id = "tensorboard"
        self.place = f"tensorboard --logdir {run.folder.parent}"
        self._writer = SummaryWriter(str(run.folder / self.id))
        if run.id is None:
            text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
            self._writer.add_text("config", f"```yaml\n{text}```", 0)

    def line(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.line(step, values)

    def close(self, end: End) -> None:
        self._writer.close()
