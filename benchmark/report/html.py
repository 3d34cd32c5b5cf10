"""The report as one HTML page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.records.study import CellRecord, SuiteRecord, nested
from benchmark.report import (
    charts,
    classes,
    findings,
    gallery,
    page,
    plots,
    published,
    tables,
    training,
)


def page_text(suite: SuiteRecord) -> str:
    """report.html.

    Raises:
        BenchmarkError: a damaged gallery or file of published figures.
    """
    environment = Environment(
        loader=PackageLoader("benchmark.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_asset(name) for name in ("d3.min.js", "plot.umd.min.js", "page.js")]
    text: str = environment.get_template("page.html").render(
        suite=suite,
        heading=tables.heading(suite),
        findings=findings.find(suite),
        nothing=findings.NOTHING,
        line_title=findings.LINE_TITLE,
        line_head=findings.LINE_HEAD,
        limit=tables.limit_line(suite),
        table=table(suite),
        notes=tables.notes(suite),
        families=charts.families(suite),
        learner_colours=plots.LEARNER_COLOURS,
        captions=page.CAPTIONS,
        charts=charts.charts(suite),
        layers=charts.layers(suite),
        heats=charts.heats(suite),
        per_class=charts.per_class(suite),
        gallery=pictures(suite),
        published=_published(suite),
        facts=page.facts(suite),
        runs_head=page.RUNS_HEAD,
        runs=page.run_rows(suite),
        commands=commands(suite),
        configurations=configurations(suite),
        scripts=scripts,
        # What may run is what is written here: markup that slipped into a record may not.
        script_sources=" ".join(f"'sha256-{_sha256(script)}'" for script in scripts),
        style=_asset("page.css"),
        licences=[_asset(name) for name in ("d3.LICENSE", "plot.LICENSE")],
    )
    return text


def _asset(name: str) -> str:
    return (resources.files("benchmark.report") / "assets" / name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


# --- table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A cell of the table: what sorts it, what is read, and the finer print below.

    Attributes:
        mark: "best" or "tied" as in the other tables, or "".
    """

    key: float | None
    text: str
    interval: str = ""
    seeds: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A method: its marks, its family, and a value per column.

    Attributes:
        undertrained: why nothing is concluded from it; "" if it was trained long enough.
    """

    method: str
    findings: tuple[str, ...]
    undertrained: str
    family: plots.Family
    seeds: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Table:
    """The comparison table. ``columns``: heading and, for metrics, "n = 1,000"."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


def table(suite: SuiteRecord) -> Table:
    """The figures of table.md, with what a browser needs to sort and filter them."""
    summaries, shown = tables.summarise(suite), tables.columns(suite)
    marks = tables.marks(suite, summaries)
    costs = tables.cost_columns(suite)
    columns = [
        (heading, charts.images(summaries[x, m].n for x in suite.methods))
        for m, heading in shown.items()
    ]
    rows = []
    for method in suite.methods:
        planned, done = len(suite.of(method)), len(suite.evaluated(method))
        values = [_value(suite, summaries[method, m], marks[m].get(method, "")) for m in shown]
        values += [Value(_number(cells[method]), cells[method]) for _, cells in costs]
        rows.append(
            Row(
                method=method,
                findings=tuple(
                    dict.fromkeys(f"{n}: {t}" for c in suite.of(method) for n, t in c.findings)
                ),
                undertrained=training.all_undertrained(suite).get(method, ""),
                family=plots.family_of(suite, method),
                seeds=str(done) if done == planned else f"{done}/{planned}",
                values=tuple(values),
            )
        )
    return Table((*columns, *((name, "") for name, _ in costs)), tuple(rows))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _value(suite: SuiteRecord, summary: tables.Summary, mark: str) -> Value:
    found = summary.interval
    if found is None:
        return Value(None, "missing")
    cells = suite.evaluated(summary.method, summary.metric)
    seeds = [tables.percent(v) for c in cells if (v := c.accuracy(summary.metric)) is not None]
    return Value(
        key=found.value,
        text=tables.score_text(summary),
        interval=tables.interval_text(summary),
        seeds=" · ".join(seeds) if len(seeds) > 1 else "",
        mark=mark,
    )


# --- gallery --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """An image in a data URI, and what is said below and, for those who cannot see it, of it."""

    uri: str
    text: str
    alt: str
    right: bool | None = None


@dataclass(frozen=True)
class Pictures:
    """The gallery: the clean images once, then two rows for each method.

    Attributes:
        methods: name, adversarial images, perturbations.
        without: methods whose records have no gallery.
    """

    caption: str
    clean: tuple[Picture, ...]
    methods: tuple[tuple[str, tuple[Picture, ...], tuple[Picture, ...]], ...]
    without: tuple[str, ...]


def pictures(suite: SuiteRecord) -> Pictures | None:
    """The galleries of each method's first seed that has one; None if no record has one."""
    found: dict[str, tuple[CellRecord, gallery.Gallery]] = {}
    for method in suite.methods:
        for cell in suite.evaluated(method):
            if (one := gallery.read_gallery(cell)) is not None:
                found[method] = (cell, one)
                break
    if not found:
        return None
    first = next(iter(found.values()))[1]
    # clean images are shown once, so all must show the same
    found = {m: f for m, f in found.items() if f[1].index.tolist() == first.index.tolist()}
    names = classes.class_names(suite)

    def name(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    clean = tuple(
        Picture(gallery.data_uri(image), name(int(label)), f"test image {i}: {name(int(label))}")
        for image, label, i in zip(first.clean, first.label, first.index, strict=True)
    )
    rows = []
    for method, (_, one) in found.items():
        attacked, changes = [], []
        for k, (image, change) in enumerate(zip(one.adversarial, one.perturbation, strict=True)):
            label = int(one.label[k])
            before, after = int(one.clean_prediction[k]), int(one.adversarial_prediction[k])
            text = name(after) if before == after else f"{name(before)} → {name(after)}"
            alt = f"{method}, {name(label)} attacked: {name(before)} before, {name(after)} after"
            attacked.append(Picture(gallery.data_uri(image), text, alt, after == label))
            changes.append(Picture(gallery.data_uri(change), "", f"{method}: the perturbation"))
        rows.append((method, tuple(attacked), tuple(changes)))
    return Pictures(
        caption=_gallery_caption(first, {cell.seed for cell, _ in found.values()}),
        clean=clean,
        methods=tuple(rows),
        without=tuple(m for m in suite.methods if m not in found),
    )


def _gallery_caption(one: gallery.Gallery, seeds: set[int]) -> str:
    (norm, eps), stride = one.about["ball"], int(one.about["stride"])
    return (
        f"The first test image of each class shown, whatever became of it; seed "
        f"{' or '.join(map(str, sorted(seeds)))}, {one.about['title']} "
        f"({charts.NORMS.get(norm, norm)}, eps {eps}). Below each "
        "image what the model says, before → after the attack where that differs. In a "
        "perturbation grey is no change, and the largest change has full contrast."
        + (f" Every {stride}th pixel is shown." if stride > 1 else "")
    )


# --- provenance -----------------------------------------------------------------------------------


def _published(suite: SuiteRecord) -> list[tuple[str, list[str], list[list[str]]]]:
    """(heading, columns, rows) of what is published on the suite's data set."""
    found = []
    for name, frame in published.read_published(suite.dataset).items():
        head, rows = published.grid(frame)
        heads = [column.replace("_", " ") for column in head]
        found.append((published.TABLES[name], heads, rows))
    return found


def commands(suite: SuiteRecord) -> list[tuple[str, str]]:
    """(what, command) of what leads to these figures and beyond."""
    found = [("Render this page again", f"{page.render_command(suite)} --html")]
    config: Mapping[str, Any] = next((c.config for c in suite.cells if c.config), {})
    run = f"generalist-bench run {shlex.quote(suite.name)}"
    if suite.dataset != "digits":
        run += " --data-root DIR"
    precision = nested(config, "train", "precision")
    if precision not in (None, "fp32"):
        run += f" --precision {shlex.quote(str(precision))}"
    if suite.limit is not None:
        run += f" --limit {suite.limit}"
    found.append(("Run the suite", run))
    done = [c for c in suite.cells if c.status == "evaluated"]
    if len(done) > 1:
        folders = [f"{page.portable(suite.path)}/cells/{c.slug}" for c in done[:2]]
        pair = " ".join(map(shlex.quote, folders))
        found.append(("Compare two runs on the same images", f"generalist-bench compare {pair}"))
    return found


def configurations(suite: SuiteRecord) -> list[tuple[str, str, str]]:
    """(method, hash, JSON) of each method's first run on record."""
    found = []
    for method in suite.methods:
        cell = next((c for c in suite.of(method) if c.config), None)
        if cell is not None:
            found.append((method, cell.config_hash, json.dumps(cell.config, indent=1)))
    return found
