"""The report as one HTML page that needs nothing else: no network, no file beside it."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from benchmark.report.captions import CAPTIONS
from benchmark.report.chart_data import chart_data, colours
from benchmark.report.families import families
from benchmark.report.front_tables import front_tables, how_to_read_fronts
from benchmark.report.study_model import HeatMap, Row, Study, Summary
from benchmark.report.texts import (
    NOTHING,
    cost_text,
    images,
    interval_text,
    line_heading,
    mixing_seeds,
    percent,
    score_text,
)
from benchmark.report.verdict import verdict


def report_html(study: Study) -> str:
    """report.html."""
    columns, charts, heats = table_columns(study), chart_data(study), heat_maps(study)
    return rendered(
        "page.html",
        ("d3.min.js", "plot.umd.min.js", "table.js", "page.js"),
        study=study,
        answer=verdict(study),
        seeds=seeds_text(study.seeds),
        several_seeds=len(study.seeds) > 1,
        warnings=[w for w in study.findings.warnings if w not in study.limit_warning],
        nothing=NOTHING,
        line_heading=line_heading(study.findings),
        folds=_folds(study, charts, heats),
        columns=columns,
        further=not all(column.main for column in columns),
        rows=table_rows(study),
        families=families(study.table),
        colours=colours(study),
        captions=CAPTIONS,
        mixing_seeds={method: mixing_seeds(found) for method, found in study.mixing.items()},
        fronts=[(p, front_tables(p), how_to_read_fronts(p)) for p in study.fronts],
        charts=charts,
        heats=heats,
        licences=[_asset(name) for name in ("d3.LICENSE", "plot.LICENSE")],
    )


def rendered(template: str, script_files: Sequence[str], **values: object) -> str:
    """A page of ``assets/`` with its scripts and style inside."""
    environment = Environment(
        loader=PackageLoader("benchmark.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_asset(name) for name in script_files]
    text: str = environment.get_template(template).render(
        scripts=scripts,
        # What may run is what is written here: markup that slipped into a record may not.
        script_sources=" ".join(f"'sha256-{_sha256(script)}'" for script in scripts),
        style=_asset("page.css"),
        **values,
    )
    return text


def seeds_text(seeds: Sequence[int]) -> str:
    """ "1 (seed 0)", "3 (seeds 0, 1, 2)"."""
    word = "seed" if len(seeds) == 1 else "seeds"
    return f"{len(seeds)} ({word} {', '.join(map(str, seeds))})" if seeds else "0"


def _folds(
    study: Study, charts: Mapping[str, Any], heats: Sequence[HeatMap]
) -> list[tuple[str, str]]:
    """Anchor and short name of the sections that are folded at first, where they have content."""
    found = {
        ("tests", "Tests"): True,
        ("notes", "Notes"): True,
        ("fronts", "Fronts"): bool(study.fronts),
        ("differences", "Differences"): bool(charts["differences"]),
        ("ranks", "Ranks"): bool(charts["ranks"]),
        ("unions", "Unions"): bool(charts["unions"]),
        ("cost", "Cost"): bool(charts["cost"]),
        ("radii", "Eps"): bool(charts["radii"]),
        ("curves", "Training"): bool(charts["curves"]),
        ("mixing", "Mixing"): bool(charts["mixing"]),
        **{(heat.key, heat.title): True for heat in heats},
        ("classes", "Classes"): bool(study.by_class),
        ("gallery", "Gallery"): study.gallery is not None,
        ("published", "Published"): bool(study.published.tables),
        ("provenance", "Provenance"): True,
    }
    return [name for name, there in found.items() if there]


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


@dataclass(frozen=True)
class PageColumn:
    """A column of the table.

    Attributes:
        n: "n = 1,000" for metrics, or "".
        main: shown at first, beside the plot; the others when all are asked for.
        cost: left out on a narrow screen until all are asked for.
    """

    name: str
    n: str
    main: bool
    cost: bool = False

    @property
    def classes(self) -> str:
        """Of its cells."""
        return (" further" if not self.main else "") + (" narrow-off" if self.cost else "")


def table_columns(study: Study) -> list[PageColumn]:
    """The columns after the method and its seeds."""
    table = study.table
    metrics = [
        PageColumn(c.title, images(row.summaries[c.key].n for row in table.rows), c.main)
        for c in table.columns
    ]
    costs = [PageColumn(cost.heading, "", i == 0, True) for i, cost in enumerate(table.costs)]
    return [*metrics, *costs]


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
