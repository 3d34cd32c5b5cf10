"""All files of a report, from the model of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from benchmark.core.files import write_text
from benchmark.report import comparison_plots, plots, training_plots
from benchmark.report.figures import FORMATS, mark_trial, save
from benchmark.report.latex import table_tex
from benchmark.report.markdown import (
    corruptions_md,
    differences_md,
    fronts_md,
    published_md,
    radii_md,
    report_md,
    table_md,
)
from benchmark.report.page import report_html
from benchmark.report.study_model import Study
from benchmark.report.tables import csv_text

# A text that is empty is not written, and neither is a plot whose data are absent.
TEXTS: dict[str, Callable[[Study], str]] = {
    "table.md": table_md,
    "table.csv": csv_text,
    "table.tex": table_tex,
    "fronts.md": fronts_md,
    "differences.md": differences_md,
    "radii.md": radii_md,
    "corruptions.md": corruptions_md,
    "published.md": published_md,
}
PLOTS: dict[str, Callable[[Study], Figure | None]] = {
    "tradeoff": plots.tradeoff,
    "fronts": plots.fronts,
    "differences": comparison_plots.differences,
    "ranks": comparison_plots.ranks,
    "unions": comparison_plots.unions,
    "cost": comparison_plots.cost,
    "curves": training_plots.curves,
    "mixing": training_plots.mixing,
    "radii": plots.radii,
    "corruptions": plots.corruptions,
    "published": plots.published,
}


def write_report(
    study: Study, target: Path, html: bool = False, intervals_in_cells: bool = False
) -> list[Path]:
    """Write all files of the report to ``target``; returns them, the index first.

    What is not written is removed, if it is there from an earlier report.

    Args:
        intervals_in_cells: table.tex has each interval below its figure.
    """
    written = []
    texts = {**TEXTS, "table.tex": lambda study: table_tex(study, intervals_in_cells)}
    for name, text_of in texts.items():
        if text := text_of(study):
            write_text(target / name, text)
            written.append(target / name)
        else:
            (target / name).unlink(missing_ok=True)
    drawn = []
    for name, draw in PLOTS.items():
        fig = draw(study)
        if fig is None:
            for suffix in FORMATS:
                (target / f"{name}{suffix}").unlink(missing_ok=True)
        else:
            mark_trial(fig, study.limit)
            written += save(fig, target / name)
            drawn.append(name)
    index = target / "report.md"
    write_text(index, report_md(study, drawn))
    page = target / "report.html"
    if html or page.exists():  # an old page beside new tables would mislead
        write_text(page, report_html(study))
        written.append(page)
    return [index, *written]
