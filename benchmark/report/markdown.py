"""The report as Markdown: report.md with its table, corruptions and published figures."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from benchmark.report.captions import CAPTIONS
from benchmark.report.front_tables import front_tables, how_to_read_fronts
from benchmark.report.paired import p_text, points
from benchmark.report.study_model import (
    CorruptionTable,
    Findings,
    FrontPlane,
    Provenance,
    RadiusCurves,
    Study,
)
from benchmark.report.tables import interval_cells, score_cells
from benchmark.report.texts import (
    NOTHING,
    images,
    interval_text,
    line_heading,
    percent,
    score_text,
)
from benchmark.report.verdict import verdict


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1
) -> str:
    """A GitHub table, padded so that it also reads as plain text; later columns to the right."""
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in [head, *rows]]
    sides = ["left" if i < text_columns else "right" for i in range(len(head))]
    # texts as they stand: "007" and "26.0" are no numbers to be written anew
    text = tabulate(cells[1:], cells[0], "pipe", disable_numparse=True, colalign=sides)
    return text + "\n"


def report_md(study: Study, plots: Sequence[str]) -> str:
    """report.md: the answer, findings, the table, the plots, provenance.

    Args:
        plots: the names of those that were drawn.
    """
    head, _, body = table_md(study).partition("\n\n")
    parts = [head + "\n"]
    if study.evaluated:
        parts.append(f"**{verdict(study)}**\n")
    if study.description:
        parts.append(study.description.strip() + "\n")
    parts += ["## In words\n", findings_md(study.findings), "## Table\n", body]
    parts.append("Files: [table.md](table.md), [table.csv](table.csv), [table.tex](table.tex).\n")
    if plots:
        parts.append("## Plots\n")
        for name in plots:
            files = f"[PDF]({name}.pdf), [SVG]({name}.svg)"
            parts.append(f"![{name}]({name}.png)\n\n{CAPTIONS[name]} ({files})\n")
    where = "[published.md](published.md)"
    parts += [
        "## Published figures\n",
        f"Kept apart from the figures above: {where}.\n"
        if study.published.tables
        else f"None exist for {study.dataset or 'this data set'} ({where}).\n",
        "## Provenance\n",
        provenance_md(study.provenance),
    ]
    return "\n".join(parts)


def table_md(study: Study) -> str:
    """table.md: means, intervals, notes."""
    scores = score_cells(
        study,
        escape=lambda text: text,
        emphasis={"best": lambda t: f"**{t}**", "tied": lambda t: f"*{t}*"},
        plus_minus="±",
    )
    parts = [*_head(study, study.heading), markdown_table(scores.head, scores.rows)]
    if study.table.columns:
        intervals = interval_cells(study, escape=lambda text: text)
        parts += ["95 % intervals\n", markdown_table(intervals.head, intervals.rows)]
    parts.append("\n".join(f"- {line}" for line in study.notes) + "\n")
    return "\n".join(parts)


def _head(study: Study, heading: str) -> list[str]:
    """A heading, and the warning that a part of the data was used."""
    warning = [f"> **{study.limit_warning}**\n"] if study.limit_warning else []
    return [f"# {heading}\n", *warning]


def findings_md(found: Findings) -> str:
    """The findings: warnings, leaders, the trade-off line, how to read them."""
    parts = []
    if found.warnings:
        parts.append("\n".join(f"> **Warning.** {w}\n>" for w in found.warnings)[:-2])
    if not found.leaders:
        parts.append(NOTHING)
        return "\n\n".join(parts) + "\n"
    parts.append(" ".join(found.leaders))
    if found.line:
        parts.append(
            f"{'. '.join(line_heading(found))}\n\n" + "\n".join(f"- {s}" for s in found.line)
        )
    parts.append(" ".join(found.caveats))
    return "\n\n".join(parts) + "\n"


def provenance_md(provenance: Provenance) -> str:
    """Versions, data, and one line per run with its state and hashes."""
    lines = [f"- {name}: {text}" for name, text in provenance.facts.items()]
    lines.append(f"- render again: `{provenance.render_command}` (reads records only)")
    head = provenance.runs_head
    table = markdown_table(head, provenance.runs, text_columns=len(head))
    return "\n".join(lines) + "\n\n" + table


def corruptions_md(study: Study) -> str:
    """corruptions.md: accuracy by corruption and method; "" if no run was measured on them."""
    return "\n".join(_corruptions(study, table) for table in study.corruptions)


def _corruptions(study: Study, table: CorruptionTable) -> str:
    rows = [
        *((name.replace("_", " "), values) for name, values in table.rows),
        ("mean", table.mean),
        *table.errors,
    ]
    head = ["Corruption", *(study.table.row(method).name for method in table.methods)]
    parts = [
        *_head(study, f"{table.title}. {study.heading}"),
        markdown_table(head, [[name, *map(percent, values)] for name, values in rows]),
    ]
    return "\n".join([*parts, *(f"- {note}" for note in table.notes)]) + "\n"


def fronts_md(study: Study) -> str:
    """fronts.md: the settings of each front, their areas, distances; "" if the suite names none."""
    return "\n".join(_front_plane(study, plane) for plane in study.fronts)


def _front_plane(study: Study, plane: FrontPlane) -> str:
    parts = _head(study, f"Fronts, clean/{plane.title}. {study.heading}")
    for table in front_tables(plane):
        body = markdown_table(table.head, table.rows, table.text_columns)
        parts += [f"## {table.name}\n", body]
    parts.append("".join(f"- {line}\n" for line in how_to_read_fronts(plane)))
    return "\n".join(parts)


def differences_md(study: Study) -> str:
    """differences.md: how far each method is from the reference; "" if nothing can be compared."""
    if not study.differences:
        return ""
    parts = _head(study, f"Differences from {study.differences[0].reference}. {study.heading}")
    for one in study.differences:
        rows = [
            [row.method, points(row.interval.value),
             f"[{points(row.interval.low)}, {points(row.interval.high)}]", p_text(row.p)]
            for row in one.rows
        ]  # fmt: skip
        head = ["Method", f"Points above {one.reference}", "95 % interval", "p"]
        parts += [
            f"## {one.heading}, {one.where}\n", markdown_table(head, rows)
        ]  # fmt: skip
    parts.append(
        "- Paired on the same images and seeds; intervals cover the choice of both (with one seed, "
        "of the images alone).\n- p is adjusted after Holm over all differences on this page."
    )
    return "\n".join(parts) + "\n"


def radii_md(study: Study) -> str:
    """radii.md: accuracy by radius of the attack and method, and the area below each curve; "" if
    no run was attacked at several radii."""
    return "\n".join(_radii(study, curves) for curves in study.radii)


def _radii(study: Study, curves: RadiusCurves) -> str:
    rows = []
    for method, line in curves.lines.items():
        row = study.table.row(method)
        below = row.summaries[curves.metric]
        figures = [percent(interval.value) for interval in line]
        rows.append([row.name, *figures, f"{score_text(below)} {interval_text(below)}"])
    n = images(study.table.row(m).summaries[curves.metric].n for m in curves.lines)
    parts = [
        *_head(study, f"{curves.title}. {study.heading}"),
        markdown_table(["Method", *(f"eps {r}" for r in curves.radii), "Area"], rows),
        f"- Accuracy (%) under attack at each radius ({curves.norm}), mean over seeds, {n}.",
        f"- Area: mean accuracy over eps from 0 to {curves.radii[-1]}, with its 95 % interval.",
    ]
    return "\n".join(parts) + "\n"


def published_md(study: Study) -> str:
    """published.md: what others report on the study's data set, with the source of each row."""
    lines = [f"# Published figures: {study.dataset or 'unknown data set'}\n"]
    if not study.published.tables:
        lines.append(
            f"None exist: no published figure in this collection is on {study.dataset or 'it'}.\n"
        )
        return "\n".join(lines)
    lines.append(
        "Copied from papers and repositories, not measured here. Architectures, budgets, attacks "
        "and checkpoint rules differ between rows and from this suite, so no row is comparable "
        "with ours without reading its source. Per cent; empty = not stated.\n"
    )
    for table in study.published.tables:
        lines.append(f"## {table.title}\n")
        if table.file == "robustbench_leaderboard.csv":
            lines.append(
                "Source of every row: RobustBench/robustbench, model_info/ (`model` is the file).\n"
            )
        lines.append(markdown_table(table.columns, table.rows, text_columns=len(table.columns)))
        lines.append(f"File: results/published/{table.file}\n")
    return "\n".join(lines)
