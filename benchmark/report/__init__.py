"""Reports: tables, plots and words rendered from records. Nothing here trains or attacks.

``summarise`` computes the model of a study once; the renderers (``markdown``, ``latex`` and
``tables`` for CSV, ``page``, the plots) read that model, and ``write`` writes what they make.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from benchmark.report.study_model import Study

__all__ = ["Rendered", "render"]


class Rendered(NamedTuple):
    """A report: the model of the study, and the files, the index first."""

    study: Study
    files: list[Path]


def render(
    out: Path,
    target: Path | None = None,
    corruption_reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
    intervals_in_cells: bool = False,
) -> Rendered:
    """Write the report of the suite in ``out``.

    Equal records give equal files. A plot whose data are absent is not written, and an older one
    under its name is removed.

    Args:
        out: folder with suite.json and cells/.
        target: where to write; OUT/report if None.
        corruption_reference: CSV of a reference network's errors, for the mean corruption error.
        html: also write report.html; one that is there is always renewed.
        beside: folders of runs and of models of one's own whose rows stand with the suite's.
        intervals_in_cells: table.tex has each interval below its figure, not in rows of their own.

    Raises:
        BenchmarkError: no records, a damaged record or reference, or a folder that cannot be
            written.
    """
    # Start-up time: matplotlib and pandas take a second; `import benchmark.report` must not.
    from benchmark.records.study import read_suite  # noqa: PLC0415
    from benchmark.report.summarise import summarise  # noqa: PLC0415
    from benchmark.report.write import write_report  # noqa: PLC0415

    study = summarise(read_suite(Path(out), beside), corruption_reference)
    folder = Path(target) if target is not None else Path(out) / "report"
    return Rendered(study, write_report(study, folder, html, intervals_in_cells))
