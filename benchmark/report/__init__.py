"""Reports: tables, plots and words rendered from records. Nothing here trains or attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["render"]


def render(
    out: Path,
    target: Path | None = None,
    corruption_reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
) -> list[Path]:
    """Write the report of the suite in ``out`` and return the files, the index first.

    Equal records give equal files. A plot whose data are absent is not written, and an older one
    under its name is removed.

    Args:
        out: folder with suite.json and cells/.
        target: where to write; OUT/report if None.
        corruption_reference: CSV of a reference network's errors, for the mean corruption error.
        html: also write report.html; one that is there is always renewed.
        beside: folders of runs and of models of one's own whose rows stand with the suite's.

    Raises:
        BenchmarkError: no records, a damaged record or reference, or a folder that cannot be
            written.
    """
    # Start-up time: matplotlib and pandas take a second; `import benchmark.report` must not.
    from benchmark.report.page import write_report  # noqa: PLC0415

    folder = Path(target) if target is not None else Path(out) / "report"
    return write_report(Path(out), folder, corruption_reference, html, beside)
