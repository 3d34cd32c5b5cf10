"""Two runs, metric by metric, on the images that both were measured on. Reads records only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.core.errors import BenchmarkError
from benchmark.evaluation.keys import images_of
from benchmark.evaluation.statistics import holm, mcnemar_exact, paired_bootstrap, required_n
from benchmark.report.findings import ALPHA
from benchmark.report.records import CellRecord, outcome_matrices, read_cell


@dataclass(frozen=True)
class Row:
    """One metric of two runs on the same images.

    Attributes:
        n: images that both runs were measured on.
        first, second: accuracies on those, in [0, 1].
        difference, low, high: first minus second with its 95 % bootstrap interval over images.
        only_first, only_second: images that one run alone has right.
        p: exact McNemar test, adjusted after Holm over the metrics of the comparison.
        verdict: in words, with the n that a difference of this size would need.
    """

    metric: str
    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float
    verdict: str


def read_run(path: Path) -> CellRecord:
    """An evaluated run, or the evaluation of a model of one's own.

    Raises:
        BenchmarkError: no record, or one without outcomes.
    """
    cell = read_cell(path)
    if cell.status != "evaluated" or cell.outcomes is None:
        raise BenchmarkError(f"{path} holds no evaluated run; see run and evaluate")
    return cell


def compare(first: Path, second: Path) -> list[Row]:
    """The metrics that both runs hold with one outcome per image.

    Raises:
        BenchmarkError: a run without records, other test images, or no metric in common.
    """
    a, b = read_run(first), read_run(second)
    if images_of(a.evaluation) != images_of(b.evaluation):
        raise BenchmarkError(f"{first} and {second} were evaluated on different test images")
    found: list[tuple[str, Any, Any]] = []
    for metric in a.metrics:
        if metric not in b.metrics or a.metrics[metric].get("kind") == "autoattack-estimate":
            continue  # a sample of the survivors is no sample of the images
        if _settings(a, metric) != _settings(b, metric):
            raise BenchmarkError(
                f"{metric} was measured under other settings in {first} than in {second}"
            )
        matrices = outcome_matrices([([a], metric), ([b], metric)])
        if matrices is None:  # a mean over several outcomes per image
            continue
        one, other = (matrix[0] for matrix in matrices)
        both = ~(one != one) & ~(other != other)  # NaN: not attacked
        if both.any():
            found.append((metric, one[both], other[both]))
    if not found:
        raise BenchmarkError(f"{first} and {second} have no metric in common")
    tests = [mcnemar_exact(one, other) for _, one, other in found]
    adjusted = holm([test.p for test in tests])
    rows = []
    for (metric, one, other), test, p in zip(found, tests, adjusted, strict=True):
        spread = paired_bootstrap(one, other)
        rows.append(
            Row(
                metric=metric,
                n=test.n,
                first=float(one.mean()),
                second=float(other.mean()),
                difference=test.difference,
                low=spread.low,
                high=spread.high,
                only_first=test.only_a,
                only_second=test.only_b,
                p=p,
                verdict=_verdict(p, test.difference, test.only_a + test.only_b, test.n),
            )
        )
    return rows


def _settings(cell: CellRecord, metric: str) -> dict[str, Any]:
    detail = dict(cell.metrics[metric].get("detail") or {})
    if "attacks" in detail:  # older records do not say it
        detail.setdefault("precision", "fp32")
    # What came out, and where it was computed, is no setting.
    kept = ("norm", "eps", "version", "attacks", "precision", "threat", "loss", "momentum",
            "restarts", "start", "grid", "of")  # fmt: skip
    return {key: detail[key] for key in kept if key in detail}


def _verdict(p: float, difference: float, discordant: int, n: int) -> str:
    if p <= ALPHA:
        return "first is better" if difference > 0 else "second is better"
    text = f"no difference detected at n = {n}"
    if difference:
        text += f", would need n = {required_n(difference, discordant / n):,}"
    return text


def as_records(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [asdict(row) for row in rows]
