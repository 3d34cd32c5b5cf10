"""From records to the model of a study: every figure of a report is computed here, once."""

from __future__ import annotations

from pathlib import Path

from benchmark.records.study import SuiteRecord
from benchmark.report.corruptions import corruption_tables
from benchmark.report.curves import mixing_curves, validation_curves
from benchmark.report.differences import differences
from benchmark.report.findings import findings_of
from benchmark.report.fronts import front_planes
from benchmark.report.gallery import gallery_of
from benchmark.report.heat_maps import across_norms, by_class, transfer
from benchmark.report.notes import limit_warning, notes
from benchmark.report.provenance import provenance_of
from benchmark.report.published import published_on
from benchmark.report.published_figures import layers_beside
from benchmark.report.radii import radius_curves
from benchmark.report.ranks import mean_ranks
from benchmark.report.study_model import Study
from benchmark.report.summary import table_of
from benchmark.report.trade_off import trade_offs_of
from benchmark.report.undertrained import all_undertrained
from benchmark.report.unions import unions


def summarise(suite: SuiteRecord, corruption_reference: Path | None = None) -> Study:
    """The model of a study.

    Args:
        corruption_reference: CSV of a reference network's errors, for the mean corruption error.

    Raises:
        BenchmarkError: a damaged gallery, reference or file of published figures.
    """
    undertrained = all_undertrained(suite)
    table = table_of(suite, undertrained)
    fronts = front_planes(suite, undertrained)
    return Study(
        name=suite.name,
        title=suite.title,
        description=suite.description,
        dataset=suite.dataset,
        model=suite.model,
        seeds=suite.seeds,
        limit=suite.limit,
        limit_warning=limit_warning(suite),
        planned=len(suite.cells),
        evaluated=len(suite.cells) - len(suite.missing()),
        table=table,
        notes=notes(suite, table),
        findings=findings_of(suite, undertrained, fronts),
        trade_offs=trade_offs_of(suite, table, undertrained),
        fronts=fronts,
        differences=differences(suite, undertrained),
        ranks=mean_ranks(suite, undertrained),
        unions=unions(suite),
        curves=validation_curves(suite),
        mixing=mixing_curves(suite),
        radii=radius_curves(suite),
        corruptions=corruption_tables(suite, undertrained, corruption_reference),
        across_norms=across_norms(suite, table),
        transfer=transfer(suite, table),
        by_class=by_class(suite),
        gallery=gallery_of(suite),
        published=published_on(suite.dataset),
        layers=layers_beside(suite),
        provenance=provenance_of(suite),
    )
