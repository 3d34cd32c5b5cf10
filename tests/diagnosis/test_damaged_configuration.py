"""A configuration that somebody has changed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_records import write_suite

from benchmark.core.errors import BenchmarkError
from benchmark.diagnosis.diagnose import diagnose
from benchmark.records.study import read_cell


@pytest.mark.parametrize(
    "threat",
    [{"norm": "linf", "eps": {}}, {"norm": "linf", "eps": "8/0"}, {"norm": [], "eps": None}],
)
def test_a_threat_that_is_none_is_damage(tmp_path: Path, threat: dict[str, Any]) -> None:
    figures = ("pgd-at", 0.8, 0.5, 0.4, 11.0)
    write_suite(tmp_path, {"pgd-at": figures}, n=50, n_aa=20, corruptions=())
    (cell,) = tmp_path.glob("cells/*")
    content = json.loads((cell / "config.json").read_text())
    content["config"]["train"]["validation_threat"] = threat
    (cell / "config.json").write_text(json.dumps(content))
    with pytest.raises(BenchmarkError, match="config.json is damaged") as caught:
        diagnose(read_cell(cell))
    assert str(cell) in str(caught.value)
