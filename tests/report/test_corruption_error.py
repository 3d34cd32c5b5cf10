"""mCE and relative mCE against numbers by hand, and a reference file checked row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.core.errors import DataError
from benchmark.data.corruptions import CORRUPTIONS
from benchmark.report.corruption_error import (
    Reference,
    corruption_errors,
    mean_corruption_error,
    read_reference,
    relative_corruption_errors,
    relative_mce,
)


def ramp(first: float, step: float) -> dict[int, float]:
    """Errors of severities 1..5."""
    return {level: first + step * (level - 1) for level in range(1, 6)}


def everywhere(levels: dict[int, float], **others: dict[int, float]) -> dict[str, dict[int, float]]:
    return dict.fromkeys(CORRUPTIONS, levels) | others


# Sums over severities: 2.0, but 3.5 for fog; of the model 1.0, but 0.7 for fog and 2.5 for snow.
REFERENCE = Reference(everywhere(ramp(0.2, 0.1), fog=ramp(0.5, 0.1)), clean=0.1)
MODEL = everywhere(ramp(0.1, 0.05), fog=ramp(0.14, 0.0), snow=ramp(0.3, 0.1))


def test_corruption_errors_by_hand() -> None:
    """Sums over severities are divided, not the errors severity by severity."""
    found = corruption_errors(MODEL, REFERENCE)
    assert list(found) == list(CORRUPTIONS)
    assert found["fog"] == pytest.approx(0.7 / 3.5)
    assert found["snow"] == pytest.approx(2.5 / 2.0)
    assert found["contrast"] == pytest.approx(1.0 / 2.0)
    assert mean_corruption_error(MODEL, REFERENCE) == pytest.approx((0.2 + 1.25 + 13 * 0.5) / 15)
    assert mean_corruption_error(REFERENCE.errors, REFERENCE) == pytest.approx(1.0)


def test_relative_errors_by_hand() -> None:
    """Clean errors 0.05 and 0.1 are subtracted at each of the five severities."""
    found = relative_corruption_errors(MODEL, 0.05, REFERENCE)
    assert found["fog"] == pytest.approx((0.7 - 0.25) / (3.5 - 0.5))
    assert found["snow"] == pytest.approx((2.5 - 0.25) / (2.0 - 0.5))
    assert found["contrast"] == pytest.approx((1.0 - 0.25) / (2.0 - 0.5))
    expected = (0.15 + 1.5 + 13 * 0.5) / 15
    assert relative_mce(MODEL, 0.05, REFERENCE) == pytest.approx(expected)


def test_what_cannot_be_computed() -> None:
    """A model measured on part of the corruptions has no mCE, nor has a flat reference."""
    partial = {name: levels for name, levels in MODEL.items() if name != "frost"}
    with pytest.raises(DataError, match="lacks frost at severity 1"):
        mean_corruption_error(partial, REFERENCE)
    with pytest.raises(DataError, match="lacks gaussian_noise at severity 1"):
        mean_corruption_error({name: {5: 0.5} for name in CORRUPTIONS}, REFERENCE)
    with pytest.raises(DataError, match="add the row clean,0"):
        relative_mce(MODEL, 0.05, Reference(REFERENCE.errors, None))
    with pytest.raises(DataError, match="does not raise the reference's error"):
        relative_mce(MODEL, 0.05, Reference(REFERENCE.errors, 0.4))


def lines() -> list[str]:
    rows = [
        f"{name},{level},{error!r}"
        for name, levels in REFERENCE.errors.items()
        for level, error in levels.items()
    ]
    return ["corruption,severity,error", *rows]


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def test_reference_file(tmp_path: Path) -> None:
    """Values come back to the last digit, rows in any order, with or without the clean error."""
    rows = lines()
    without = read_reference(write(tmp_path / "alexnet.csv", rows))
    assert (without.errors, without.clean) == (REFERENCE.errors, None)
    mixed = [rows[0], *reversed(rows[1:]), "clean,0,0.1"]
    assert read_reference(write(tmp_path / "alexnet.csv", mixed)) == REFERENCE


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("corruption,severity,error", "corruption,level,error", "no column 'severity'"),
        ("fog,3,0.7", "fog,3,70", "errors are fractions"),
        ("fog,3,0.7", "fog,3,0", "errors are fractions"),
        ("fog,3,0.7", "fog,3,nan", "errors are fractions"),
        ("fog,3,0.7", "fog,3,", "is no number"),
        ("fog,3,0.7", "fog,3", "is no number"),
        ("fog,3,0.7", "fog,6,0.7", "severity '6'"),
        ("fog,3,0.7", "clean,3,0.7", "severity '3' of clean"),
        ("fog,3,0.7", "fogg,3,0.7", "did you mean 'fog'"),
        ("fog,3,0.7", "fog,4,0.7", "has fog 4 twice"),
        ("fog,3,0.7\n", "", "lacks fog at severity 3"),
    ],
)
def test_bad_reference_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    """A percent, a slip or a gap would make an mCE that looks right."""
    text = "\n".join(lines()) + "\n"
    assert text.count(old) == 1
    path = tmp_path / "alexnet.csv"
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_reference(path)


def test_missing_reference_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_reference(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_reference(tmp_path / "binary.csv")
