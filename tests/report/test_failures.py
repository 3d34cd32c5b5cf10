"""The report names the signatures of failure found in its runs."""

from __future__ import annotations

from pathlib import Path

from benchmark.records.study import read_suite
from benchmark.report.markdown import findings_md
from benchmark.report.summarise import summarise

RESULTS = Path(__file__).parents[2] / "results"


def test_failures_are_named_with_evidence_and_remedy() -> None:
    words = findings_md(summarise(read_suite(RESULTS / "cifar10-cpu-overfit")).findings)
    assert (
        "pgd-at: robust overfitting in 3 of 3 runs. Seed 0: validation PGD accuracy was 22.4 % at "
        "epoch 24 and is 14.6 % at epoch 128, 3.2 standard errors less. To change: deploy the best"
    ) in words
    assert "trades: robust overfitting" not in words
