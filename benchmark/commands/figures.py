"""The recorded figures, in the form that the command line prints."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.errors import BenchmarkError
from benchmark.records import earlier
from benchmark.records.files import RunFiles
from benchmark.records.schema import read_evaluation
from benchmark.records.statistics import Interval, population_interval, wilson

# By run or model, then by metric; see ``read_figures``.
Figures = dict[str, dict[str, Any]]


@dataclass
class AskedFigures:
    """What a command measured: the figures that were asked for, and the folder of each record."""

    figures: Figures = field(default_factory=dict)
    records: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str, folder: Path, metrics: Sequence[str]) -> None:
        """The figures of ``metrics`` in the record in ``folder``, under ``name``."""
        self.figures[name] = read_figures(folder, metrics)
        self.records[name] = folder


def figures_of(weights: str, metrics: Mapping[str, Any], files: RunFiles) -> dict[str, Any]:
    """Those entries of a run's record that were measured on ``weights``.

    Raises:
        BenchmarkError: there is none.
    """
    own = {name: entry for name, entry in metrics.items() if entry["model"] == weights}
    if not own:
        raise BenchmarkError(
            f"{files.evaluation} is of other weights than {files.deployed.name}; evaluate the run "
            "again"
        )
    return own


def read_figures(folder: Path, only: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """The figures of each metric in the record in ``folder``.

    Args:
        only: names of metrics; None for all recorded ones.

    Returns:
        By metric: ``mean``, ``n``, ``correct`` (None for means over several outcomes), the 95 %
        interval ``low`` to ``high``, ``settings`` as text, ``findings`` of the reliability checks
        (name and text), ``warnings`` of AutoAttack, and ``earlier``: figures with the same name
        that this one replaced, with the reason.
    """
    record = read_evaluation(folder)
    metrics, limit = record["metrics"], record["dataset"]["limit"]
    findings = record["reliability"]["findings"]
    before = [kept for kept in earlier.listed(folder) if kept["entry"]["key"] not in
              {entry["key"] for entry in metrics.values()}]  # fmt: skip
    return {
        name: {
            **_figure(entry, limit),
            "findings": [
                {"name": found["name"], "text": found["text"]}
                for found in findings
                if found["function"] == entry["function"]
            ],
            "warnings": list(entry["detail"].get("warnings", ())),
            "earlier": [
                {
                    **_figure(kept["entry"], kept["dataset"]["limit"]),
                    "reason": _reason(kept["entry"], entry),
                }
                for kept in before
                if kept["name"] == name
            ],
        }
        for name, entry in metrics.items()
        if only is None or name in only
    }


def _figure(entry: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {
        "mean": entry["mean"],
        "n": entry["n"],
        "correct": entry["correct"],
        **_ends(entry),
        "settings": (_settings(entry) + (f" limit={limit} (a trial run)" if limit else "")).strip(),
    }


def _reason(one: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    """Why a figure is not the present one."""
    for key, what in (("data", "other images"), ("model", "other weights"),
                      ("function", "another function of the same weights")):  # fmt: skip
        if one[key] != present[key]:
            return what
    return "other settings"


def _ends(entry: Mapping[str, Any]) -> dict[str, float]:
    """The 95 % interval; for an estimate, those for these test images and for new images. A figure
    that is not a share of images has none."""
    detail = entry["detail"]
    if entry["outcomes"] == "none":
        return {}
    if "low" not in detail:
        interval = wilson(entry["mean"] * entry["n"], entry["n"])
        return {"low": interval.low, "high": interval.high}
    own = Interval(entry["mean"], detail["low"], detail["high"])
    wide = population_interval(own, entry["n"])
    return {
        "low": own.low,
        "high": own.high,
        "population_low": wide.low,
        "population_high": wide.high,
    }


def _settings(entry: Mapping[str, Any]) -> str:
    detail = entry["detail"]
    known = {**detail, **detail.get("threat", {})}
    keys = ["norm", "eps", "step", "steps", "version", "source"]
    keys += ["precision"] if detail.get("precision", "fp32") != "fp32" else []
    text = " ".join(f"{key}={known[key]}" for key in keys if key in known)
    if entry["form"] == "estimate":
        low, high, wide_low, wide_high = (100 * end for end in _ends(entry).values())
        text += (
            f" ESTIMATE [{wide_low:.1f}, {wide_high:.1f}] for new images, [{low:.1f}, {high:.1f}] "
            f"for these, {detail['attacked']} of {detail['survivors']} survivors attacked "
            f"({detail['interval']})"
        )
    return text
