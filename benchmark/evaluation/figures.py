"""The figures of one folder: they are read before an evaluation and written after each metric."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmark.core.errors import BenchmarkError
from benchmark.core.files import write_frame
from benchmark.data.dataset import Dataset
from benchmark.evaluation import reliability
from benchmark.metrics.metric import Measured, Metric
from benchmark.records import earlier
from benchmark.records.files import RunFiles
from benchmark.records.keys import images_of
from benchmark.records.outcomes import columns_of, computed_from, read_outcomes, set_columns
from benchmark.records.schema import read_evaluation, write_evaluation


class Figures:
    """``evaluation.json`` and ``outcomes.parquet`` of a folder, on the test images of a data set.

    Attributes:
        directory: the folder.
        record: the content of ``evaluation.json``.
        outcomes: of all metrics, a row per test image.
        others: record and table of other test images that the folder holds; None if there are none.
    """

    def __init__(self, directory: Path, data: Dataset, images_hash: str, limit: int | None) -> None:
        """Read what is there.

        Raises:
            BenchmarkError: a damaged record.
        """
        self.directory = directory
        self.others: tuple[dict[str, Any], pd.DataFrame] | None = None
        test = data.test
        self.outcomes = pd.DataFrame(
            {"index": np.arange(len(test)), "label": test.labels.numpy()}
        ).set_index("index")
        self.record: dict[str, Any] = {
            "metrics": {},
            "dataset": {
                "name": data.name,
                "fingerprint": data.fingerprint,
                "images_hash": images_hash,
                "source": data.source,
                "split": "test",
                "images": len(test),
                "size": test.image_size,
                "classes": list(data.classes),
                "notes": list(data.notes),
                "limit": limit,
            },
            "functions": {},
            "reliability": {"images": 0, "checked": [], "findings": []},
        }
        # The probes of earlier functions: asked for again, they must be known again.
        for kept in earlier.listed(directory):
            self.record["functions"] |= kept["functions"]
        self._read(images_hash)

    def _read(self, images_hash: str) -> None:
        files = RunFiles(self.directory)
        if not (files.evaluation.exists() and files.outcomes.exists()):
            return
        known = read_evaluation(self.directory)
        found = read_outcomes(files.outcomes, known["metrics"])
        self.record["functions"] |= known["functions"]
        if images_of(known) != images_hash:
            self.others = known, found
            return
        if not self._of_these_images(found.reset_index()):
            raise BenchmarkError(
                f"{files.outcomes} is damaged (it lists other images); delete it to evaluate again"
            )
        self.record |= {"metrics": known["metrics"], "reliability": known["reliability"]}
        self.outcomes = found

    def _of_these_images(self, frame: pd.DataFrame) -> bool:
        same = np.array_equal(frame["index"], self.outcomes.index)
        return same and np.array_equal(frame["label"], self.outcomes["label"])

    def set_aside(self, of: Mapping[str, str]) -> str:
        """Move figures that were measured on other images, weights or code out of the record.

        Args:
            of: hashes of the weights ("model") and their function ("function").

        Returns:
            A sentence about it; "" if there was nothing.
        """
        if self.others is not None:
            record, outcomes = self.others
            names, what = list(record["metrics"]), "other test images"
        else:
            record, outcomes = self.record, self.outcomes
            names = [
                name
                for name, entry in record["metrics"].items()
                if (entry["model"], entry["function"]) != (of["model"], of["function"])
            ]
            others = {record["metrics"][name]["model"] for name in names} != {of["model"]}
            what = "other weights" if others else "another function of the same weights"
        if not names:
            return ""
        for name in names:
            key = record["metrics"][name]["key"]
            move(RunFiles(self.directory).adversarial(name), earlier.examples(self.directory, key))
        _take_out(self.directory, names, record, outcomes)
        if self.others is None:
            write_evaluation(self.directory, self.record)
        figures = "1 figure is" if len(names) == 1 else f"{len(names)} figures are"
        name = self.directory.name
        return (
            f"{name}: {figures} of {what}, kept in {name}/{RunFiles(self.directory).earlier.name}; "
            "measuring again"
        )

    def earlier(self, key: str, *, with_examples: bool) -> earlier.Kept | None:
        """The replaced figure with ``key``, if it was measured on these images.

        Args:
            with_examples: only if its adversarial examples are there too.
        """
        kept = earlier.find(self.directory, key)
        if kept is None or (with_examples and not earlier.examples(self.directory, key).exists()):
            return None
        if kept.entry["outcomes"] != "own" and not self._of_these_images(kept.frame):
            return None
        return kept

    def put(self, metric: Metric, measured: Measured, entry: dict[str, Any]) -> list[str]:
        """Write the record with ``entry`` for a metric; then its unfinished work can be removed.

        Returns:
            Warnings: see ``compare``.
        """
        if metric.name in self.record["metrics"]:
            gone = [metric.name, *computed_from(metric.name, self.record["metrics"])]
            _take_out(self.directory, gone, self.record, self.outcomes)
            # killed before the new table is there, the record lists nothing that it lacks
            write_evaluation(self.directory, self.record)
        self.record["metrics"][metric.name] = entry
        files, frame, said = RunFiles(self.directory), measured.frame, []
        if frame is None:
            set_columns(self.outcomes, metric.name, measured.indices, measured.outcomes)
            said = self.compare()
        else:  # on other images than the test split's
            write_frame(files.own_outcomes(metric.name), frame)
        write_frame(files.outcomes, self.outcomes.reset_index())
        write_evaluation(self.directory, self.record)
        shutil.rmtree(metric.journal(self.directory), ignore_errors=True)
        return said

    def compare(self) -> list[str]:
        """Update the findings that come from comparing the metrics of one network.

        Returns:
            A warning for each new one.
        """
        checks = self.record["reliability"]
        known = checks["findings"]
        found, said = [], []
        for function in checks["checked"]:
            own = {k: e for k, e in self.record["metrics"].items() if e["function"] == function}
            for finding in reliability.across(own, self.outcomes):
                found.append(finding.of(function))
                if found[-1] not in known:
                    said.append(f"{self.directory.name}: warning, {finding.name}: {finding.text}")
        kept = [finding for finding in known if finding["name"] not in reliability.ACROSS]
        checks["findings"] = kept + found
        return said


def _take_out(
    directory: Path, names: Sequence[str], record: dict[str, Any], outcomes: pd.DataFrame
) -> None:
    """Move figures from the record to ``earlier/``; the caller writes the record."""
    for name in names:
        entry = record["metrics"][name]
        columns = columns_of(outcomes, name)
        if entry["outcomes"] == "own":
            path = RunFiles(directory).own_outcomes(name)
            frame = read_outcomes(path, {name: entry}).reset_index()
        else:
            frame = outcomes[["label", *columns]].reset_index()
        functions = {k: v for k, v in record["functions"].items() if k == entry["function"]}
        earlier.keep(directory, earlier.Kept(name, entry, record["dataset"], functions, frame))
        del record["metrics"][name]
        for column in columns:
            del outcomes[column]


def move(source: Path, target: Path) -> None:
    """``source`` becomes ``target``, if it is there."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)


def measured_of(kept: earlier.Kept, name: str) -> Measured:
    """A figure of before, in the form of one that was just measured."""
    entry, frame = kept.entry, kept.frame
    own = entry["outcomes"] == "own"
    return Measured(
        indices=torch.arange(len(frame)),
        value=entry["mean"],
        outcomes={column: frame[column].array for column in columns_of(frame, name)},
        correct=entry["correct"],
        frame=frame if own else None,
    )
