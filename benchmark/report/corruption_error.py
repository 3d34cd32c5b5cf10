"""Mean corruption error: errors under corruption relative to those of a reference network.

Hendrycks & Dietterich, 1903.12261, section 4.3. The user gives the errors of the reference network
(AlexNet in the paper); without them there is no mCE. All errors are fractions, while published mCE
are in per cent.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import DataError
from benchmark.core.registry import did_you_mean
from benchmark.data.corruptions import CORRUPTIONS

LEVELS = (1, 2, 3, 4, 5)
COLUMNS = ("corruption", "severity", "error")
CLEAN = "clean"  # the row, severity 0, of the error on clean images

# Error, a fraction, of each corruption at severities 1..5.
Errors = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class Reference:
    """Errors of the reference network; ``clean`` is None if the file does not say it."""

    errors: Errors
    clean: float | None


def corruption_errors(errors: Errors, reference: Reference) -> dict[str, float]:
    """CE_c = sum_s E_{s,c} / sum_s E^ref_{s,c} for each of the 15 corruptions; 1 is the reference.

    Raises:
        DataError: ``errors`` lacks a corruption or a severity.
    """
    _check_complete(errors, "the model's errors")
    return {name: _sum(errors[name]) / _sum(reference.errors[name]) for name in CORRUPTIONS}


def mean_corruption_error(errors: Errors, reference: Reference) -> float:
    """mCE, the mean of ``corruption_errors`` over corruptions."""
    return _mean(corruption_errors(errors, reference))


def relative_corruption_errors(
    errors: Errors, clean: float, reference: Reference
) -> dict[str, float]:
    """CE_c of the increases over the clean error: sum_s (E_{s,c} - E_clean), divided by the same
    sum of the reference.

    Args:
        clean: the model's error on clean images.

    Raises:
        DataError: as ``corruption_errors``; the reference has no clean error, or a corruption does
            not raise it.
    """
    _check_complete(errors, "the model's errors")
    if reference.clean is None:
        raise DataError(
            f"the reference has no error on clean images; add the row {CLEAN},0,<error> to its file"
        )
    rises = {}
    for name in CORRUPTIONS:
        known = _sum(reference.errors[name]) - len(LEVELS) * reference.clean
        if known <= 0:
            raise DataError(
                f"{name} does not raise the reference's error above its {reference.clean:g} on "
                "clean images, so no relative error can be computed; correct the reference file"
            )
        rises[name] = (_sum(errors[name]) - len(LEVELS) * clean) / known
    return rises


def relative_mce(errors: Errors, clean: float, reference: Reference) -> float:
    """Relative mCE, the mean of ``relative_corruption_errors`` over corruptions."""
    return _mean(relative_corruption_errors(errors, clean, reference))


def read_reference(path: Path) -> Reference:
    """The errors of a reference network from a CSV file with columns corruption, severity, error.

    One row for each of the 15 corruptions at each of the severities 1..5, and optionally
    ``clean,0,<error>``. Errors are fractions in (0, 1].

    Raises:
        DataError: missing file or columns, an unknown, repeated or missing row, an error that is
            no fraction.
    """
    errors: dict[str, dict[int, float]] = {}
    for line, row in enumerate(_rows(path), start=2):
        name, level, error = _entry(f"{path.name}, line {line}", row)
        if level in errors.setdefault(name, {}):
            raise DataError(f"{path.name} has {name} {level} twice; remove one of the rows")
        errors[name][level] = error
    clean = errors.pop(CLEAN, {}).get(0)
    _check_complete(errors, path.name)
    return Reference(errors, clean)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path.name} has no column {missing[0]!r}; the first line must be "
                    f"{','.join(COLUMNS)}"
                )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the reference errors {path} cannot be read ({error}); give a CSV file with columns "
            f"{', '.join(COLUMNS)}"
        ) from error


def _entry(where: str, row: Mapping[str, str | None]) -> tuple[str, int, float]:
    name, level, error = ((row[column] or "").strip() for column in COLUMNS)
    if name != CLEAN and name not in CORRUPTIONS:
        raise DataError(f"{where}: unknown corruption {name!r}; {did_you_mean(name, CORRUPTIONS)}")
    levels = (0,) if name == CLEAN else LEVELS
    if level not in map(str, levels):
        raise DataError(
            f"{where}: severity {level!r} of {name}; it must be {levels[0]} to {levels[-1]}"
        )
    try:
        value = float(error)
    except ValueError as problem:
        raise DataError(f"{where}: error {error!r} is no number; write e.g. 0.25") from problem
    if not 0 < value <= 1:
        raise DataError(
            f"{where}: error {error} is not in (0, 1]; errors are fractions, 25 % is 0.25"
        )
    return name, int(level), value


def _check_complete(errors: Errors, where: str) -> None:
    for name in CORRUPTIONS:
        for level in LEVELS:
            if level not in errors.get(name, {}):
                raise DataError(
                    f"{where} lacks {name} at severity {level}; the mCE needs all "
                    f"{len(CORRUPTIONS)} corruptions at all {len(LEVELS)} severities"
                )


def _sum(by_level: Mapping[int, float]) -> float:
    return sum(by_level[level] for level in LEVELS)


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
