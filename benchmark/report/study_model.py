"""The model of a study: everything that a report says, with nothing left to compute.

``summarise`` makes it once from the records. The renderers (Markdown, LaTeX and CSV, plots, page)
read it and nothing else. Accuracies are fractions unless a docstring says per cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from benchmark.records.statistics import Interval

# Behind a method's name: a reliability check found something, and the runs are under-trained.
DOUBTFUL, UNDERTRAINED = "[!]", "[u]"

Mark = Literal["best", "tied", ""]


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One metric of one method over its evaluated seeds.

    Attributes:
        seeds: runs that were measured by this metric, of all that were evaluated (``of``).
        n: test images; the fewest where runs differ.
        interval: for new images (and, with several runs, new seeds); None if there is no figure.
            Its ends are not a number where a figure has none.
        sd: sample standard deviation over seeds; None with fewer than two.
        these: of an estimate, the interval for these test images, which leaves out how they were
            chosen; None for all other figures.
        most: the largest n of the column.
        by_seed: the accuracy of each run.
        mark: "best" if the interval of the best mean of the column overlaps no other's, "tied" if
            it does; "" for all other methods.
    """

    method: str
    metric: str
    seeds: int
    n: int
    interval: Interval | None
    sd: float | None
    of: int = 0
    these: Interval | None = None
    most: int = 0
    by_seed: tuple[float, ...] = ()
    mark: Mark = ""

    @property
    def partial(self) -> str:
        """ "1 of 3 seeds", "n = 50": what of a figure is less than its row or column says."""
        seeds = f"{self.seeds} of {self.of} seeds" if 0 < self.seeds < self.of else ""
        images = f"n = {self.n}" if 0 < self.n < self.most else ""
        return ", ".join(filter(None, (seeds, images)))


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: the metric's name, or ``WEAKER_on_REFERENCE``.
        title: its heading.
        on_images_of: for a weaker attack on the images of a reference attack, the names of the
            two; None for a metric as it was measured.
        ball: norm and radius of the attack, as they are written; None for no attack.
        main: clean accuracy, an attack in the ball of the study's first one, or a union: what is
            shown where there is no room for all columns.
    """

    key: str
    title: str
    higher_is_better: bool
    on_images_of: tuple[str, str] | None = None
    main: bool = False
    ball: tuple[str, str] | None = None


@dataclass(frozen=True)
class Cost:
    """A column of costs: method to figure, None where it is unknown."""

    key: Literal["training", "inference", "memory"]
    heading: str
    values: Mapping[str, float | None]
    digits: int


@dataclass(frozen=True)
class Family:
    """Methods drawn alike: name, colour and matplotlib's marker."""

    name: str
    colour: str
    marker: str


@dataclass(frozen=True)
class Row:
    """A method: its family, its runs, what is held against it, and its figures by column.

    Attributes:
        planned, evaluated: numbers of runs.
        doubts: what the reliability checks found in its runs.
        undertrained: why nothing is concluded from it; "" if it was trained long enough.
    """

    method: str
    family: Family
    planned: int
    evaluated: int
    doubts: tuple[str, ...]
    undertrained: str
    summaries: Mapping[str, Summary]

    @property
    def name(self) -> str:
        """The method, marked [!] and [u] where that is due."""
        doubtful = f" {DOUBTFUL}" if self.doubts else ""
        return self.method + doubtful + (f" {UNDERTRAINED}" if self.undertrained else "")

    @property
    def seeds(self) -> str:
        """ "3", or "2/3" where a planned run has no result."""
        complete = self.evaluated == self.planned
        return str(self.evaluated) if complete else f"{self.evaluated}/{self.planned}"


@dataclass(frozen=True)
class Table:
    """The comparison table: a row per method in order of presentation."""

    columns: tuple[Column, ...]
    costs: tuple[Cost, ...]
    rows: tuple[Row, ...]

    @cached_property
    def summaries(self) -> tuple[Summary, ...]:
        """All figures, row by row."""
        return tuple(row.summaries[column.key] for row in self.rows for column in self.columns)

    def row(self, method: str) -> Row:
        return next(row for row in self.rows if row.method == method)


# --- words ----------------------------------------------------------------------------------------

# What a score measures: one metric of that role, or the sum of several.
Score = Literal["clean", "attack", "union", "sum"]
# Whether the leader is really ahead of the next. "sure": by a test; "unsure": it may be chance;
# "level": equal in print; "withheld": one of the two is under-trained; "untested": no shared
# outcomes to test on; "alone": there is no next.
Certainty = Literal["sure", "unsure", "level", "withheld", "untested", "alone"]


@dataclass(frozen=True)
class Lead:
    """Who has the highest score, and how far ahead of the next it is.

    Attributes:
        score: in words, e.g. "PGD-20 accuracy".
        metrics: what the score is made of; the one metric, unless ``kind`` is "sum".
        first, value: the leader and its score.
        second: the next; "" if there is none.
        margin: by how much the leader is ahead on the images and seeds that both have, with its
            95 % interval, which is as wide as the choice of the leader among all methods demands;
            None where nothing was tested.
        n, seeds: that both have; 0 where nothing was tested.
        withheld: which of the two are under-trained.
        sentence: all of this in words, with the test.
    """

    score: str
    kind: Score
    metrics: tuple[str, ...]
    first: str
    value: float
    second: str
    certainty: Certainty
    margin: Interval | None
    n: int
    seeds: int
    withheld: tuple[str, ...]
    sentence: str


@dataclass(frozen=True)
class Findings:
    """What the figures say, sentence by sentence.

    Attributes:
        warnings: what should stop a reader.
        leads: who is ahead in each score; empty if nothing has been evaluated.
        line: Generalist methods against the trade-off line, or their fronts against others'.
        caveats: how to read the tests.
        fronts: ``line`` is about fronts.
    """

    warnings: tuple[str, ...]
    leads: tuple[Lead, ...]
    line: tuple[str, ...]
    caveats: tuple[str, ...]
    fronts: bool = False

    @property
    def leaders(self) -> tuple[str, ...]:
        """The leads in words."""
        return tuple(lead.sentence for lead in self.leads)


# --- plots ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A method in the clean-versus-robust plane; both accuracies are of the same n images.

    Attributes:
        seeds: (seed, clean, robust) of each run that has both.
    """

    method: str
    clean: Interval
    robust: Interval
    n: int
    seeds: tuple[tuple[int, float, float], ...]

    @property
    def per_cent(self) -> tuple[float, float]:
        """Clean and robust accuracy in per cent."""
        return 100 * self.clean.value, 100 * self.robust.value


@dataclass(frozen=True)
class TradeOff:
    """Clean accuracy against that by ``metric``.

    Attributes:
        main: whether the words are about this metric, so that the plots show it.
        front: methods that no other beats on both axes, by rising clean accuracy; without
            under-trained ones.
        outlier: the method whose robust accuracy alone would take more than half of the axis.
    """

    metric: str
    title: str
    main: bool
    points: tuple[Point, ...]
    front: tuple[str, ...]
    outlier: str | None

    @property
    def images(self) -> tuple[int, ...]:
        """The numbers of images of its points, each once."""
        return tuple(sorted({point.n for point in self.points}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The numbers of seeds of its points, each once."""
        return tuple(sorted({len(point.seeds) for point in self.points}))


@dataclass(frozen=True)
class TradeOffs:
    """All trade-offs.

    Attributes:
        of: by metric.
        first: the metric that a page shows first; None if there is none.
        beside_published: the metric whose trade-off stands beside published l_inf figures.
    """

    of: Mapping[str, TradeOff]
    first: str | None
    beside_published: str | None

    @property
    def main(self) -> tuple[TradeOff, ...]:
        """Those that the plots show: of main attacks, with points."""
        return tuple(one for one in self.of.values() if one.main and one.points)


@dataclass(frozen=True)
class Front:
    """Settings of one method that trade clean for robust accuracy; see ``report.fronts``.

    Attributes:
        points: (label, (clean, robust)) of each setting, means over the shared seeds.
        hull: the vertices of the upper concave hull, by rising clean accuracy.
        band: (clean, lowest robust, highest robust) of the hulls of single seeds, where the hulls
            of all seeds reach; () for one seed.
        hypervolume: the area that the points dominate above the plane's reference point.
    """

    name: str
    family: Family
    points: tuple[tuple[str, tuple[float, float]], ...]
    hull: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...]
    hypervolume: Interval


@dataclass(frozen=True)
class FrontCell:
    """A difference with its interval and adjusted p; no interval where nothing can be compared."""

    interval: Interval | None
    p: float


@dataclass(frozen=True)
class FrontPlane:
    """All fronts in the plane of clean accuracy and that under one attack.

    Attributes:
        n, seeds: images and seeds that all points share.
        reference: (clean, robust) of the hypervolume.
        differences: (Generalist front, rival front) to the difference of their hypervolumes.
        distances: (label of a Generalist, rival front) to the signed distance.
    """

    metric: str
    title: str
    n: int
    seeds: tuple[int, ...]
    reference: tuple[float, float]
    fronts: tuple[Front, ...]
    differences: Mapping[tuple[str, str], FrontCell]
    distances: Mapping[tuple[str, str], FrontCell]

    @property
    def where(self) -> str:
        """ "n = 10,000, 3 seeds"."""
        seeds = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        return f"n = {self.n:,}, {seeds}"


@dataclass(frozen=True)
class SeedCurve:
    """A quantity by epoch: mean, lowest and highest over the seeds that reached the epoch.

    Attributes:
        seeds: epochs and values of each seed.
    """

    epochs: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]]


@dataclass(frozen=True)
class RadiusCurves:
    """Accuracy against the radius of the attack, by one metric.

    Attributes:
        metric: its name in the records; its figure in the table is the area below the curve.
        title: its heading.
        norm: of the attack.
        radii: ascending, as they are written; the first is 0, clean accuracy.
        positions: the same as numbers, in units of 1/255 where ``unit`` says so.
        lines: method to the accuracy at each radius, with its 95 % interval as in the table.
    """

    metric: str
    title: str
    norm: str
    radii: tuple[str, ...]
    positions: tuple[float, ...]
    unit: Literal["", "1/255"]
    lines: Mapping[str, tuple[Interval, ...]]

    @property
    def axis(self) -> str:
        """The label of the radii's axis."""
        return ", ".join(filter(None, (f"eps ({self.norm}", self.unit))) + ")"


@dataclass(frozen=True)
class Difference:
    """A method's score less that of the reference, with its interval and adjusted p."""

    method: str
    interval: Interval
    p: float


@dataclass(frozen=True)
class _OfScore:
    """What is told of one score: in words, and the metrics that it is made of."""

    score: str
    metrics: tuple[str, ...]

    @property
    def heading(self) -> str:
        """The score, as headings begin."""
        return self.score[0].upper() + self.score[1:]


@dataclass(frozen=True)
class Differences(_OfScore):
    """How far each method is from a reference method in one score.

    Attributes:
        where: "n = 10,000, 3 seeds", shared by each pair; several where pairs differ.
        rows: in the order of the table, without the reference.
    """

    reference: str
    where: str
    rows: tuple[Difference, ...]


@dataclass(frozen=True)
class MethodRanks(_OfScore):
    """Mean ranks of methods in one score over seeds; rank 1 is the best.

    Attributes:
        n, seeds: images and seeds that all methods share; each seed ranks the methods once. Of
            ranks over studies (``report.study_ranks``), ``seeds`` counts studies and n is 0.
        mean: method to its mean rank, the best first.
        friedman: p of Friedman's test that all methods rank alike.
        pairs: p of Nemenyi's test for each two methods.
        groups: the largest sets of methods that the test does not tell apart, each the best first.
    """

    n: int
    seeds: int
    mean: Mapping[str, float]
    friedman: float
    pairs: Mapping[tuple[str, str], float]
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class UnionBars:
    """A union of attacks and the attacks that it consists of: keys of the table's columns."""

    key: str
    title: str
    parts: tuple[tuple[str, str], ...]


# --- sections -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CorruptionTable:
    """Accuracy corruption by corruption, mean over severities and seeds.

    Attributes:
        metric: its name in the records.
        title: its heading.
        methods: those that were measured by it.
        rows: corruption and the accuracies of ``methods``; not a number where one is missing.
        mean: over corruptions, by method.
        errors: further rows against a reference network, e.g. "mCE".
        notes: how to read it.
    """

    metric: str
    title: str
    methods: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    mean: tuple[float, ...]
    errors: tuple[tuple[str, tuple[float, ...]], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class HeatMap:
    """Rows of (name, values in [0, 1] or None), darker where higher.

    Attributes:
        notes: one short text per column, "" for none; empty if no column has one.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        """The lower end of the colour scale."""
        return min((v for _, row in self.rows for v in row if v is not None), default=0.0)

    @property
    def high(self) -> float:
        """The upper end of the colour scale."""
        return max((v for _, row in self.rows for v in row if v is not None), default=1.0)

    @property
    def upright(self) -> bool:
        """Whether the columns' names are written upwards: many, and long."""
        return len(self.columns) > 8 and max(map(len, self.columns)) > 4

    def shade(self, value: float) -> int:
        """Where a value lies on the colour scale, 0 to 100."""
        return round(100 * (value - self.low) / max(self.high - self.low, 1e-9))


@dataclass(frozen=True)
class Picture:
    """An image in a data URI, what is said below it, and what is said to those who cannot see it.

    Attributes:
        right: whether the attacked image was classified right; None for other pictures.
    """

    uri: str
    text: str
    alt: str
    right: bool | None = None


@dataclass(frozen=True)
class Gallery:
    """The clean images once, then attacked images and perturbations of each method.

    Attributes:
        methods: name, attacked images, perturbations.
        without: methods whose records have no images.
    """

    caption: str
    clean: tuple[Picture, ...]
    methods: tuple[tuple[str, tuple[Picture, ...], tuple[Picture, ...]], ...]
    without: tuple[str, ...]


@dataclass(frozen=True)
class PublishedTable:
    """The rows of a published file on the study's data set, every value as written."""

    file: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PublishedLayer:
    """Published points of one source, on the study's data set, under an attack of the study.

    Attributes:
        threat: norm and radius of that attack, e.g. "linf, eps 8/255"; "" for corruptions.
        metric: the study's, which measures the same.
        points: clean and robust accuracy in per cent, a name, and what a reader must know.
    """

    source: str
    dataset: str
    threat: str
    metric: str
    points: tuple[tuple[float, float, str, str], ...]


@dataclass(frozen=True)
class Published:
    """What others published.

    Attributes:
        tables: of the study's data set.
        points: (clean, AutoAttack, "yes", "no" or "unstated" for extra data) under l_inf 8/255 on
            the study's data set, in per cent, each model once.
    """

    tables: tuple[PublishedTable, ...]
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from.

    Attributes:
        facts: versions, hardware and data of the runs, by name.
        runs_head, runs: a table with one row per run.
        render_command: what renders this report again.
        commands: (what, command) of what leads to these figures and beyond.
        configurations: (method, hash, JSON) of each method's first run on record.
    """

    facts: Mapping[str, str]
    runs_head: tuple[str, ...]
    runs: tuple[tuple[str, ...], ...]
    render_command: str
    commands: tuple[tuple[str, str], ...]
    configurations: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Study:
    """A study as its report shows it.

    Attributes:
        limit: the number of images that a trial run was restricted to; None for a whole run.
        limit_warning: a sentence about ``limit``; "" for a whole run.
        planned, evaluated: numbers of runs.
        notes: how to read the table, one statement per line.
        curves: "val_clean", "val_pgd" and "gap_pgd" (PGD on training images less "val_pgd")
            to method to curve; those that no run has are absent.
        mixing: method to "mix" and "distance" to learner to curve; methods that mix alone.
        layers: published points on the study's data set under the same attacks.
    """

    name: str
    title: str
    description: str
    dataset: str
    model: str
    seeds: tuple[int, ...]
    limit: int | None
    limit_warning: str
    planned: int
    evaluated: int
    table: Table
    notes: tuple[str, ...]
    findings: Findings
    trade_offs: TradeOffs
    fronts: tuple[FrontPlane, ...]
    differences: tuple[Differences, ...]
    ranks: tuple[MethodRanks, ...]
    unions: tuple[UnionBars, ...]
    curves: Mapping[str, Mapping[str, SeedCurve]]
    mixing: Mapping[str, Mapping[str, Mapping[str, SeedCurve]]]
    radii: tuple[RadiusCurves, ...]
    corruptions: tuple[CorruptionTable, ...]
    across_norms: HeatMap | None
    transfer: HeatMap | None
    by_class: tuple[HeatMap, ...]
    gallery: Gallery | None
    published: Published
    layers: tuple[PublishedLayer, ...]
    provenance: Provenance

    @property
    def passes(self) -> Mapping[str, float]:
        """Method to its gradient passes in training, where they are known; empty if none differ."""
        costs = next((cost.values for cost in self.table.costs if cost.key == "training"), {})
        known = {method: value for method, value in costs.items() if value}
        return known if len(set(known.values())) > 1 else {}

    @property
    def heading(self) -> str:
        """ "title: data set, model"."""
        where = ", ".join(part for part in (self.dataset, self.model) if part)
        return f"{self.title}: {where}" if where else self.title
