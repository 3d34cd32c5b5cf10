"""The report as one HTML page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.report.captions import CAPTIONS
from benchmark.report.chart_data import chart_data
from benchmark.report.families import LEARNER_COLOURS, families
from benchmark.report.study_model import HeatMap, Row, Study, Summary
from benchmark.report.texts import (
    NOTHING,
    cost_text,
    images,
    interval_text,
    line_heading,
    percent,
    score_text,
)


def report_html(study: Study) -> str:
    """report.html."""
    environment = Environment(
        loader=PackageLoader("benchmark.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_asset(name) for name in ("d3.min.js", "plot.umd.min.js", "page.js")]
    text: str = environment.get_template("page.html").render(
        study=study,
        nothing=NOTHING,
        line_heading=line_heading(study.findings),
        columns=table_columns(study),
        rows=table_rows(study),
        families=families(study.table),
        learner_colours=LEARNER_COLOURS,
        captions=CAPTIONS,
        charts=chart_data(study),
        heats=heat_maps(study),
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


@dataclass(frozen=True)
class PageCell:
    """A cell of the table: what sorts it, what is read, and the finer print below.

    Attributes:
        mark: "best" or "tied" as in the other tables, or "".
    """

    key: float | None
    text: str
    interval: str = ""
    seeds: str = ""
    mark: str = ""


def table_columns(study: Study) -> list[tuple[str, str]]:
    """Heading and, for metrics, "n = 1,000"."""
    table = study.table
    return [
        *(
            (column.title, images(row.summaries[column.key].n for row in table.rows))
            for column in table.columns
        ),
        *((cost.heading, "") for cost in table.costs),
    ]


def table_rows(study: Study) -> list[tuple[Row, list[PageCell]]]:
    """Each method with its cells: the figures of table.md, with what a browser sorts them by."""
    found = []
    for row in study.table.rows:
        cells = [_cell(row.summaries[column.key]) for column in study.table.columns]
        for cost in study.table.costs:
            text = cost_text(cost, row.method)
            cells.append(PageCell(None if cost.values[row.method] is None else float(text), text))
        found.append((row, cells))
    return found


def _cell(summary: Summary) -> PageCell:
    if summary.interval is None:
        return PageCell(None, "missing")
    seeds = " · ".join(map(percent, summary.by_seed)) if summary.seeds > 1 else ""
    return PageCell(
        key=summary.interval.value,
        text=score_text(summary),
        interval=interval_text(summary),
        seeds=seeds,
        mark=summary.mark,
    )


def heat_maps(study: Study) -> list[HeatMap]:
    """Across norms, across networks, and corruption by corruption; those whose data are absent are
    left out."""
    found = [heat for heat in (study.across_norms, study.transfer) if heat]
    for table in study.corruptions:
        by_method = zip(*(values for _, values in table.rows), table.mean, strict=True)
        rows = tuple(
            (method, tuple(None if math.isnan(v) else v for v in values))
            for method, values in zip(table.methods, by_method, strict=True)
        )
        names = tuple(name.replace("_", " ") for name, _ in table.rows)
        caption = "Accuracy (%) under each corruption, mean over severities and seeds."
        found.append(HeatMap(table.metric, table.title, (*names, "mean"), rows, caption))
    return found
