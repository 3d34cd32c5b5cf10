"""Fronts: settings of a method that trade clean for robust accuracy, compared as a whole.

A single setting says little about a method with a hyper-parameter for the trade-off: another
setting of a rival may be better on both axes. So a suite names *fronts* (``SuiteConfig.fronts``),
each with the labels of its settings.

**The hull.** Every mixture of the accuracies of two networks can be reached by choosing one of the
two at random for each image (an attack that fools a mixture has to fool at least one of them, so
the robust accuracy is no lower than the mixture of the two). Therefore a front is the upper concave
hull of its points.

**Distance of a point from a front**: Euclidean, to the nearest point of the hull; positive if the
front does not reach the point. Interval and p are those of a paired contrast over images and seeds
(``statistics.paired_contrast``), with the hull's facet taken as fixed (delta method). Hulls are
maxima of noisy figures, so the hull of a rival is a little too high; this error works against the
method that is tested.

**Hypervolume**: the area that a front's own points dominate above a reference point (moocore; no
hull). Its interval, and that of a difference of two, comes from a paired bootstrap over images and
seeds. Of k seeds, k - 1 are drawn each time, which corrects for the fact that a bootstrap of few
seeds underestimates their spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from benchmark.records.statistics import Interval, Paired, holm
from benchmark.records.study import SuiteRecord
from benchmark.report.families import GENERALIST, family_of
from benchmark.report.metric_roles import clean_metric, main_attacks, title
from benchmark.report.paired import (
    ALPHA,
    VISIBLE,
    contrast_of,
    p_text,
    points,
    shared_outcomes,
    shared_seeds,
)
from benchmark.report.study_model import Front, FrontCell, FrontPlane
from benchmark.report.texts import percent
from benchmark.report.trade_off import pareto

RESAMPLES = 2000
_LEVEL = 0.95
# Half of the last printed digit of an area: 0.05 squared percentage points.
_VISIBLE_AREA = 5e-6
# Resamples that are computed at once: a weight for each of them and each image is held.
_CHUNK = 200

Plane = tuple[float, float]


def front_planes(suite: SuiteRecord, undertrained: Collection[str]) -> tuple[FrontPlane, ...]:
    """The fronts of a suite under each main attack, without methods in ``undertrained``."""
    return tuple(each_plane(suite, undertrained))


def each_plane(suite: SuiteRecord, undertrained: Collection[str]) -> Iterator[FrontPlane]:
    """The same, each computed when it is asked for, which takes a bootstrap."""
    planes = (_plane(suite, metric, undertrained) for metric in main_attacks(suite))
    return (plane for plane in planes if plane is not None)


@dataclass(frozen=True)
class _Measured:
    """Outcomes of labels that share images and seeds: (labels, 2, seeds, images), clean first."""

    labels: tuple[str, ...]
    outcomes: np.ndarray

    @property
    def seeds(self) -> int:
        return int(self.outcomes.shape[2])

    @property
    def n(self) -> int:
        return int(self.outcomes.shape[3])

    def accuracies(self) -> np.ndarray:
        """Means over images: (labels, 2, seeds)."""
        return np.asarray(self.outcomes.mean(axis=3))

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """Means over resampled images and seeds: (RESAMPLES, labels, 2)."""
        flat = self.outcomes.reshape(-1, self.n).astype(np.float32)
        parts = []
        for _ in range(RESAMPLES // _CHUNK):
            weights = rng.multinomial(self.n, np.full(self.n, 1 / self.n), size=_CHUNK)
            parts.append(weights.astype(np.float32) @ flat.T / self.n)
        means = np.concatenate(parts).reshape(-1, len(self.labels), 2, self.seeds)
        if self.seeds == 1:
            return np.asarray(means[..., 0])
        drawn = rng.integers(self.seeds, size=(len(means), self.seeds - 1))
        index = drawn[:, None, None, :]
        return np.asarray(np.take_along_axis(means, index, axis=3).mean(axis=3))


def _plane(suite: SuiteRecord, metric: str, undertrained: Collection[str]) -> FrontPlane | None:
    """Fronts under one attack; None without two that have a point."""
    clean = clean_metric(suite)

    def usable(label: str) -> bool:
        return label not in undertrained and all(suite.evaluated(label, m) for m in (clean, metric))

    members = {
        name: found
        for name, labels in suite.fronts.items()
        if (found := tuple(label for label in labels if usable(label)))
    }
    labels = tuple(dict.fromkeys(label for found in members.values() for label in found))
    columns = [(label, m) for label in labels for m in (clean, metric)]
    if len(members) < 2 or not (seeds := shared_seeds(suite, columns)):
        return None
    outcomes = shared_outcomes(suite, columns)
    if outcomes is None:
        return None
    stacked = np.stack(outcomes).reshape(len(labels), 2, *outcomes[0].shape)
    measured = _Measured(labels, stacked)
    by_seed = measured.accuracies()
    at = {label: i for i, label in enumerate(labels)}
    means = by_seed.mean(axis=2)
    # Below the worst of all points, in whole per cent, so that every point dominates some area.
    reference = (
        math.floor(100 * float(means[:, 0].min()) - 1e-9) / 100,
        math.floor(100 * float(means[:, 1].min()) - 1e-9) / 100,
    )
    resampled = measured.resampled(np.random.default_rng(0))
    volumes = {
        name: np.array([_volume(draw, reference) for draw in resampled[:, [at[x] for x in found]]])
        for name, found in members.items()
    }
    fronts = []
    for name, found in members.items():
        index = [at[label] for label in found]
        xy = [(float(x), float(y)) for x, y in means[index]]
        value = _volume(means[index], reference)
        fronts.append(
            Front(
                name=name,
                family=family_of([c for label in found for c in suite.of(label)]),
                points=tuple(zip(found, xy, strict=True)),
                hull=_vertices(means[index]),
                band=band([_vertices(by_seed[index, :, j]) for j in range(measured.seeds)]),
                hypervolume=Interval(value, *_ends(volumes[name], value)),
            )
        )
    rivals = [front for front in fronts if front.family != GENERALIST]
    own = [front for front in fronts if front.family == GENERALIST]
    return FrontPlane(
        metric=metric,
        title=title(suite, metric),
        n=measured.n,
        seeds=tuple(seeds),
        reference=reference,
        fronts=tuple(fronts),
        differences=_differences(own, rivals, volumes),
        distances=_distances(own, rivals, measured, at),
    )


def _vertices(accuracies: np.ndarray) -> tuple[Plane, ...]:
    """The hull of points, an array (points, 2)."""
    xy = [(float(x), float(y)) for x, y in accuracies]
    return tuple(xy[i] for i in hull(xy))


def band(hulls: Sequence[Sequence[Plane]]) -> tuple[tuple[float, float, float], ...]:
    """(clean, lowest, highest robust accuracy) of several hulls, at every vertex within the range
    that all of them reach, and at its ends; () for fewer than two hulls or without such a range.

    Args:
        hulls: each with its vertices by rising clean accuracy.
    """
    if len(hulls) < 2:
        return ()
    first, last = max(one[0][0] for one in hulls), min(one[-1][0] for one in hulls)
    if first >= last:
        return ()
    corners = {x for one in hulls for x, _ in one if first < x < last}
    at = sorted({first, last, *corners})
    lines = np.array([np.interp(at, [x for x, _ in one], [y for _, y in one]) for one in hulls])
    ends = zip(at, lines.min(axis=0), lines.max(axis=0), strict=True)
    return tuple((x, float(low), float(high)) for x, low, high in ends)


def _volume(found: np.ndarray, reference: Plane) -> float:
    """Hypervolume of points (clean, robust); those below the reference dominate nothing."""
    return float(moocore.hypervolume(found, ref=np.array(reference), maximise=True))


def _ends(draws: np.ndarray, value: float) -> Plane:
    low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return min(float(low), value), max(float(high), value)


def hull(found: Sequence[Plane]) -> list[int]:
    """Indices of the upper concave hull of points, by rising clean accuracy.

    It goes from the point with the highest robust accuracy to that with the highest clean accuracy,
    without points that a mixture of two others dominates.
    """
    kept: list[int] = []
    for i in pareto(found):
        while len(kept) > 1 and _below(found[kept[-2]], found[kept[-1]], found[i]):
            kept.pop()
        kept.append(i)
    return kept


def _below(a: Plane, b: Plane, c: Plane) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) >= 0


@dataclass(frozen=True)
class Nearest:
    """The nearest point of a hull, as shares of its vertices.

    Attributes:
        normal: unit vector to the upper right, along which the distance is taken.
        beyond: the point is beyond an end of the hull, where it cannot be compared.
    """

    distance: float
    shares: Mapping[int, float]
    normal: Plane
    beyond: bool


def nearest(point: Plane, vertices: Sequence[Plane]) -> Nearest:
    """The hull's point nearest to ``point``; the hull is ordered by rising clean accuracy."""
    g = np.array(point)
    v = np.array(vertices)
    found: list[Nearest] = []
    for i in range(len(v) - 1):
        along = v[i + 1] - v[i]
        normal = np.array([-along[1], along[0]]) / float(np.hypot(*along))
        t = float((g - v[i]) @ along / (along @ along))
        if 0 <= t <= 1:
            signed = float(normal @ (g - v[i]))
            found.append(Nearest(signed, {i: 1 - t, i + 1: t}, (normal[0], normal[1]), False))
    for i in range(len(v)):
        gap = g - v[i]
        length = float(np.hypot(*gap))
        inside = bool((gap <= 0).all())
        sign = -1.0 if inside else 1.0
        # Better on one axis than the front's best on it, and no better on the other.
        end = (i == len(v) - 1 and gap[0] > 0 >= gap[1]) or (i == 0 and gap[1] > 0 >= gap[0])
        normal = sign * gap / length if length else np.array([math.sqrt(0.5)] * 2)
        found.append(Nearest(sign * length, {i: 1.0}, (normal[0], normal[1]), bool(end)))
    return min(found, key=lambda item: abs(item.distance))


def _distances(
    own: Sequence[Front], rivals: Sequence[Front], measured: _Measured, at: Mapping[str, int]
) -> Mapping[tuple[str, str], FrontCell]:
    """(label of a Generalist, rival front) to its distance; p is adjusted (Holm) over all."""
    results: dict[tuple[str, str], Paired | None] = {}
    for front in own:
        for label, point in front.points:
            for rival in rivals:
                results[label, rival.name] = _distance(label, point, rival, measured, at)
    tested = {key: found for key, found in results.items() if found is not None}
    adjusted = dict(zip(tested, holm([found.p for found in tested.values()]), strict=True))
    return {
        key: FrontCell(None, 1.0)
        if found is None
        else FrontCell(Interval(found.value, found.low, found.high), adjusted[key])
        for key, found in results.items()
    }


def _distance(
    label: str, point: Plane, rival: Front, measured: _Measured, at: Mapping[str, int]
) -> Paired | None:
    names = {xy: name for name, xy in rival.points}
    place = nearest(point, rival.hull)
    if place.beyond:
        return None
    weights = {(label, axis): place.normal[axis] for axis in range(2)}
    for i, share in place.shares.items():
        for axis in range(2):
            key = names[rival.hull[i]], axis
            weights[key] = weights.get(key, 0.0) - share * place.normal[axis]
    parts = [measured.outcomes[at[name], axis].astype(float) for name, axis in weights]
    return contrast_of(list(weights.values()), parts).result


def _differences(
    own: Sequence[Front], rivals: Sequence[Front], volumes: Mapping[str, np.ndarray]
) -> Mapping[tuple[str, str], FrontCell]:
    """(Generalist front, rival front) to the difference of hypervolumes; p is adjusted (Holm)."""
    found: dict[tuple[str, str], tuple[Interval, float]] = {}
    for front in own:
        for rival in rivals:
            value = front.hypervolume.value - rival.hypervolume.value
            draws = volumes[front.name] - volumes[rival.name]
            tail = min(np.sum(draws <= 0), np.sum(draws >= 0))
            p = min(1.0, 2 * float(tail + 1) / (len(draws) + 1))
            found[front.name, rival.name] = Interval(value, *_ends(draws, value)), p
    adjusted = holm([p for _, p in found.values()])
    return {
        key: FrontCell(interval, p)
        for (key, (interval, _)), p in zip(found.items(), adjusted, strict=True)
    }


def front_sentences(planes: Sequence[FrontPlane]) -> list[str]:
    """For each plane and Generalist front, a comparison with the best rival front."""
    sentences = []
    for plane in planes:
        rivals = [front for front in plane.fronts if front.family != GENERALIST]
        for front in plane.fronts:
            if front.family != GENERALIST or not rivals:
                continue
            best = max(rivals, key=lambda rival: rival.hypervolume.value)
            cell = plane.differences[front.name, best.name]
            assert cell.interval is not None
            verdict = _larger_or_smaller(cell)
            ends = f"[{area(cell.interval.low)}, {area(cell.interval.high)}]"
            sentences.append(
                f"{front.name}, clean/{plane.title}: its front {verdict} the best rival front, "
                f"{best.name} (hypervolume {area(front.hypervolume.value)} and "
                f"{area(best.hypervolume.value)}, difference {area(cell.interval.value)} {ends}, "
                f"{p_text(cell.p)}). {_counts(plane, front, best)} ({plane.where})."
            )
    return sentences


def told(cell: FrontCell, visible: float = VISIBLE) -> bool:
    """Whether a difference is more than noise, and ``visible`` in the printed digits."""
    return cell.interval is not None and cell.p <= ALPHA and abs(cell.interval.value) >= visible


def _larger_or_smaller(cell: FrontCell) -> str:
    assert cell.interval is not None
    if cell.p > ALPHA:
        return "does not differ detectably from"
    larger = "more" if cell.interval.value > 0 else "less"
    return f"dominates {larger} area than"


def _counts(plane: FrontPlane, front: Front, rival: Front) -> str:
    """How many of the points are above, below and near the rival's front."""
    cells = [plane.distances[label, rival.name] for label, _ in front.points]
    values = [c.interval.value for c in cells if c.interval is not None and told(c)]
    above, below = sum(d > 0 for d in values), sum(d < 0 for d in values)
    beyond = sum(c.interval is None for c in cells)
    parts = [f"{above} above that front", f"{below} below it"]
    parts.append(f"{len(cells) - above - below - beyond} not detectably different from it")
    if beyond:
        parts.append(f"{beyond} beyond its ends")
    return f"Of its {len(cells)} settings, {', '.join(parts[:-1])} and {parts[-1]}"


def area(value: float) -> str:
    """A hypervolume of fractions in squared percentage points, with its sign."""
    return f"{1e4 * value:.1f}".replace("-", "−")


def difference_text(cell: FrontCell) -> str:
    """ "4.1 [1.0, 7.2] *"."""
    return _cell_text(cell, area, _VISIBLE_AREA)


def distance_text(cell: FrontCell) -> str:
    """ "0.8 [0.2, 1.4] *", "beyond its end"."""
    return _cell_text(cell, points, VISIBLE)


def _cell_text(cell: FrontCell, written: Callable[[float], str], visible: float) -> str:
    if cell.interval is None:
        return "beyond its end"
    value, low, high = (
        written(v) for v in (cell.interval.value, cell.interval.low, cell.interval.high)
    )
    return f"{value} [{low}, {high}]" + (" *" if told(cell, visible) else "")


def accuracy_text(point: Plane) -> str:
    """ "52.1 / 12.3"."""
    return f"{percent(point[0])} / {percent(point[1])}"
