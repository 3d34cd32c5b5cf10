"""``load``: reads the records of runs, for tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.core.registry import did_you_mean
from benchmark.records.study import CellRecord, SuiteRecord, read_suite
from benchmark.report.compare import as_records, compare
from benchmark.report.fronts import front_planes, hull
from benchmark.report.plots import draw_tradeoff
from benchmark.report.study_model import Study as Model
from benchmark.report.study_model import TradeOff
from benchmark.report.summarise import summarise
from benchmark.report.tables import numbers
from benchmark.report.undertrained import all_undertrained

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Study:
    """A study that was read by ``load``. Accuracies are in [0, 1].

    Attributes:
        record: all runs, with their configurations, curves and outcomes.
    """

    def __init__(self, record: SuiteRecord) -> None:
        self.record = record

    @property
    def methods(self) -> list[str]:
        """The names of the rows of the tables."""
        return list(self.record.methods)

    @cached_property
    def _model(self) -> Model:
        return summarise(self.record)

    def table(self) -> pd.DataFrame:
        """A row per method and metric; numbers are numbers, not text.

        Columns: ``method``, ``metric``, ``value`` with its 95 % interval ``low`` to ``high`` over
        images and seeds (NaN if there is none), ``sd`` over seeds, ``seeds``, ``n`` images,
        ``mark`` (best, tied or empty), ``note`` (doubts about a figure), ``settings``.

        Raises:
            BenchmarkError: nothing has been evaluated.
        """
        if not self._model.evaluated:
            raise BenchmarkError(
                f"no run in {self.record.path} has been evaluated; call the run's evaluate, or: "
                f"generalist-bench evaluate {self.record.path}"
            )
        return numbers(self._model, self.record)

    def compare(self, first: str, second: str) -> pd.DataFrame:
        """Two methods on the same images: paired differences and exact tests, seed by seed.

        Columns: ``seed``, ``metric``, ``n`` shared images, accuracies ``first`` and ``second``,
        ``difference`` with its 95 % bootstrap interval ``low`` to ``high``, numbers of images that
        only one method classifies correctly (``only_first``, ``only_second``), ``p`` (exact McNemar
        test, adjusted by Holm's method over the metrics of a seed) and ``verdict``.

        Raises:
            BenchmarkError: an unknown method, or two methods without a common seed or metric.
        """
        one, other = self._runs(first), self._runs(second)
        shared = [seed for seed in one if seed in other]
        if not shared:
            raise BenchmarkError(f"{first} and {second} have no evaluated seed in common")
        rows: list[dict[str, Any]] = []
        for seed in shared:
            found = compare(one[seed].path, other[seed].path)
            rows += [{"seed": seed, **row} for row in as_records(found)]
        return pd.DataFrame(rows)

    def front(
        self, fronts: Mapping[str, Sequence[str]] | None = None, *, metric: str | None = None
    ) -> pd.DataFrame:
        """The trade-off between clean and robust accuracy, and which methods are on the front.

        ``fronts`` maps a name to the labels of several settings of one method, such as one per beta
        of TRADES; a suite can name fronts too. Then fronts are compared as a whole: the table has a
        row per setting, and the hypervolume of the front with its 95 % interval, in units of
        accuracy squared. Without fronts, all methods are one front, and there is no hypervolume.

        Columns: ``front``, ``method``, ``clean``, ``robust``, ``on_hull`` (no mixture of two others
        is better in both), ``hypervolume``, ``hypervolume_low``, ``hypervolume_high``.

        Args:
            metric: metric of the robust accuracy; default: the first main attack.

        Raises:
            BenchmarkError: an unknown label or metric, or a single front.
        """
        named = self.record.fronts if fronts is None else fronts
        if not named:
            one = self._trade_off(metric)
            points = [(point.clean.value, point.robust.value) for point in one.points]
            kept = set(hull(points))
            return _rows(
                ("all", point.method, xy, i in kept, (float("nan"),) * 3)
                for i, (point, xy) in enumerate(zip(one.points, points, strict=True))
            )
        for label in (label for labels in named.values() for label in labels):
            self._known(label)
        record = replace(self.record, fronts={name: tuple(found) for name, found in named.items()})
        planes = {plane.metric: plane for plane in front_planes(record, all_undertrained(record))}
        if not planes:
            raise BenchmarkError(
                "no two fronts share seeds and images; name two or more, of evaluated methods"
            )
        plane = planes[next(iter(planes)) if metric is None else self._metric(metric, planes)]
        return _rows(
            (
                front.name,
                method,
                xy,
                xy in front.hull,
                (front.hypervolume.value, front.hypervolume.low, front.hypervolume.high),
            )
            for front in plane.fronts
            for method, xy in front.points
        )

    def plot_tradeoff(self, ax: Axes | None = None, *, metric: str | None = None) -> Axes:
        """Clean against robust accuracy, with 95 % intervals and the Pareto front.

        Args:
            ax: axes to draw on; default: those of a new figure.
            metric: metric of the robust accuracy; default: the first main attack.

        Returns:
            The axes.

        Raises:
            BenchmarkError: nothing has been evaluated, or an unknown metric.
        """
        one = self._trade_off(metric)
        if ax is None:
            _, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
        draw_tradeoff(ax, self._model, one)
        return ax

    def __repr__(self) -> str:
        return f"<Study {self.record.name}: {', '.join(self.methods)}>"

    def _repr_html_(self) -> str:
        if not self._model.evaluated:
            return f"<p>{self.record.name}: nothing has been evaluated yet</p>"
        table = self.table()
        wide = table.assign(value=(100 * table["value"]).round(1))
        wide = wide.pivot(index="method", columns="metric", values="value")
        order = [m for m in dict.fromkeys(table["metric"]) if m in wide]
        html: str = wide.loc[list(dict.fromkeys(table["method"])), order].to_html()
        return html

    def _known(self, label: str) -> None:
        if label not in self.record.methods:
            raise BenchmarkError(
                f"unknown method {label!r}; {did_you_mean(label, self.record.methods)}"
            )

    def _runs(self, label: str) -> dict[int, CellRecord]:
        self._known(label)
        return {cell.seed: cell for cell in self.record.evaluated(label)}

    def _metric(self, metric: str, known: Mapping[str, Any]) -> str:
        if metric not in known:
            raise BenchmarkError(f"unknown metric {metric!r}; {did_you_mean(metric, known)}")
        return metric

    def _trade_off(self, metric: str | None) -> TradeOff:
        found = {name: one for name, one in self._model.trade_offs.of.items() if one.points}
        if not found:
            raise BenchmarkError("no method has both clean and robust accuracy; evaluate first")
        if metric is None:
            metric = next((name for name, one in found.items() if one.main), next(iter(found)))
        return found[self._metric(metric, found)]


def _rows(found: Any) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "front": front,
                "method": method,
                "clean": xy[0],
                "robust": xy[1],
                "on_hull": on_hull,
                "hypervolume": volume[0],
                "hypervolume_low": volume[1],
                "hypervolume_high": volume[2],
            }
            for front, method, xy, on_hull, volume in found
        ]
    )


def load(path: str | Path, *beside: str | Path) -> Study:
    """Read a study: a folder of ``train`` or of ``generalist-bench run``, or the folder of one run.

    Args:
        path: the folder.
        beside: further folders of runs, or of networks that ``evaluate`` wrote with ``out``; their
            rows are added. All must have the same test images.

    Raises:
        BenchmarkError: a record is missing or damaged.

    >>> import tempfile
    >>> import generalist_bench as gb
    >>> out = tempfile.mkdtemp()
    >>> small = {"train": {"batch_size": 32}, "dataset": {"limit": 64}}
    >>> for method in ("natural", "pgd-at"):
    ...     run = gb.train(method, "digits", "small-resnet", epochs=1, settings=small, out=out,
    ...                    quiet=True)
    ...     result = run.evaluate(metrics=["clean", "pgd20_linf"], quiet=True)
    >>> study = gb.load(out)
    >>> study.table()["method"].to_list()
    ['natural', 'natural', 'pgd-at', 'pgd-at']
    >>> study.compare("natural", "pgd-at")["metric"].to_list()
    ['clean', 'pgd20_linf']
    """
    return Study(read_suite(Path(path), [Path(other) for other in beside]))
