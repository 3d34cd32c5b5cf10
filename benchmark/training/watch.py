"""Live warnings: every validation checks for signatures of failure; each is reported once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmark.config.suite import TrainConfig
from benchmark.data.dataset import Dataset
from benchmark.diagnosis.live import LIVE
from benchmark.diagnosis.signature import Line, RunHistory, Unjudged


class Watch:
    """Checks the lines of a run's log as they are written; see ``diagnosis.live``.

    Attributes:
        raised: name, epoch and text of the warnings so far, in the form of the record.
    """

    def __init__(self, train: TrainConfig, data: Dataset) -> None:
        self._images = min(train.validation_images, len(data.val))
        self._classes = data.num_classes
        self._lines: list[Line] = []
        self.raised: list[dict[str, Any]] = []

    def take_up(self, lines: Sequence[Line]) -> None:
        """Take the lines of a training that is resumed: their warnings are already reported."""
        for line in lines:
            self.see(line)

    def see(self, line: Line) -> list[str]:
        """The new warnings of ``line``, as sentences."""
        self._lines.append(line)
        if "val_pgd" not in line:
            return []
        run = RunHistory(self._lines, self._images, self._classes)
        known = {warning["name"] for warning in self.raised}
        new = []
        for signature in LIVE:
            if signature.name in known:
                continue
            try:
                evidence = signature.judge(run)
            except Unjudged:
                continue
            if evidence:
                warning = {"name": signature.name, "epoch": line["epoch"], "text": evidence}
                self.raised.append(warning)
                new.append(f"{signature.name}: {evidence}; {signature.remedy}")
        return new
