"""Figures that papers and repositories published, always beside ours and never among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import SuiteRecord
from benchmark.report.tables import markdown_table

# File name to heading.
TABLES = {
    "published_reference.csv": "Adversarial training, single threat model",
    "published_multinorm.csv": "Several norms",
    "robustbench_leaderboard.csv": "RobustBench leaderboard",
}


def published_dir() -> Path:
    """The published CSV files: package data in a wheel, else results/published of the checkout.

    Raises:
        BenchmarkError: neither exists.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "published", here.parents[1] / "results" / "published"):
        if folder.is_dir():
            return folder
    raise BenchmarkError(
        "the published figures are not installed; reinstall generalist-bench or run in its checkout"
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def read_published(dataset: str) -> dict[str, pd.DataFrame]:
    """File name to its rows on ``dataset``, every value as written; files without a row left out.

    Raises:
        BenchmarkError: a damaged file.
    """
    found = {}
    for name, frame in _read_all().items():
        rows = frame[frame["dataset"].map(_plain) == _plain(dataset)]
        if len(rows):
            found[name] = rows.reset_index(drop=True)
    return found


def _read_all() -> dict[str, pd.DataFrame]:
    """File name to all its rows, every value as written.

    Raises:
        BenchmarkError: a damaged file.
    """
    found = {}
    for name in TABLES:
        path = published_dir() / name
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            frame["dataset"]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError) as error:
            raise BenchmarkError(f"{path} is damaged ({error})") from error
        found[name] = frame
    return found


@dataclass(frozen=True)
class Layer:
    """Published points of one kind, on one data set, under one attack.

    Attributes:
        metric: ours that measures the same, e.g. ``aa_linf``.
        points: clean and robust accuracy in per cent, a name, and what a reader must know.
    """

    source: str
    dataset: str
    threat: str
    metric: str
    points: tuple[tuple[float, float, str, str], ...]


# RobustBench's threat models, and the metric of ours that is the same.
_BOARDS = {"Linf": "aa_linf", "L2": "aa_l2", "corruptions": "corruptions"}


def layers() -> list[Layer]:
    """Every published pair of clean and robust accuracy, on any data set, by source and attack.

    Raises:
        BenchmarkError: a damaged file.
    """
    tables = _read_all()
    found: list[Layer] = []
    board = tables.get("robustbench_leaderboard.csv")
    if board is not None:
        for (dataset, threat), rows in board.groupby(["dataset", "threat_model"], sort=False):
            metric, notes = _BOARDS[str(threat)], []
            for _, row in rows.iterrows():
                extra = {"True": "extra data", "False": "no extra data"}.get(row["extra_data"], "")
                doubt = "marked unreliable there" if row["unreliable"] == "True" else ""
                eps = f"eps {row['eps']}" if row["eps"] and metric != "corruptions" else ""
                notes.append(_note(row["architecture"], eps, extra, row["venue"], doubt))
            found += _layer(
                "RobustBench", dataset, threat, metric, rows, "autoattack_acc", "model", notes
            )
    reference = tables.get("published_reference.csv")
    if reference is not None:
        reference = reference[reference["source_repo"] != "RobustBench/robustbench"]
        for (dataset, norm), rows in reference.groupby(["dataset", "norm"], sort=False):
            notes = [
                _note(row["arch"], f"eps {row['eps'] or 'not stated'}", row["source_repo"])
                for _, row in rows.iterrows()
            ]
            for column in ("aa", "pgd20"):
                metric = f"{column}_{str(norm).lower()}"
                found += _layer("Papers", dataset, norm, metric, rows, column, "method", notes)
    return found


def same(layer: Layer, dataset: str) -> bool:
    """Whether the layer is on ``dataset``, however that is spelt."""
    return _plain(layer.dataset) == _plain(dataset)


def _note(*parts: str) -> str:
    return ", ".join(part.replace("<br>", " ") for part in parts if part)


def _layer(
    source: str,
    dataset: object,
    threat: object,
    metric: str,
    rows: pd.DataFrame,
    column: str,
    name: str,
    notes: list[str],
) -> list[Layer]:
    """The layer of the rows that state both figures, if there are any."""
    clean_column = "clean_acc" if source == "RobustBench" else "clean"
    clean = pd.to_numeric(rows[clean_column], errors="coerce")
    robust = pd.to_numeric(rows[column], errors="coerce")
    points = tuple(
        (float(x), float(y), str(label), note)
        for x, y, label, note in zip(clean, robust, rows[name], notes, strict=True)
        if pd.notna(x) and pd.notna(y)
    )
    return [Layer(source, str(dataset), str(threat), metric, points)] if points else []


def grid(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as shown: without the data set, and without columns that are empty."""
    shown = frame.drop(columns="dataset")
    shown = shown[[c for c in shown.columns if (shown[c] != "").any()]]
    rows: list[list[str]] = shown.map(lambda text: text.replace("<br>", " ")).to_numpy().tolist()
    return [str(c) for c in shown.columns], rows


def markdown_text(suite: SuiteRecord) -> str:
    """published.md: what others report on the suite's data set, with the source of each row."""
    tables = read_published(suite.dataset)
    lines = [f"# Published figures: {suite.dataset or 'unknown data set'}\n"]
    if not tables:
        lines.append(
            f"None exist: no published figure in this collection is on {suite.dataset or 'it'}.\n"
        )
        return "\n".join(lines)
    lines.append(
        "Copied from papers and repositories, not measured here. Architectures, budgets, attacks "
        "and checkpoint rules differ between rows and from this suite, so no row is comparable "
        "with ours without reading its source. Per cent; empty = not stated.\n"
    )
    for name, frame in tables.items():
        lines.append(f"## {TABLES[name]}\n")
        if name == "robustbench_leaderboard.csv":
            lines.append(
                "Source of every row: RobustBench/robustbench, model_info/ (`model` is the file).\n"
            )
        head, rows = grid(frame)
        lines.append(markdown_table(head, rows, text_columns=len(head)))
        lines.append(f"File: results/published/{name}\n")
    return "\n".join(lines)


def scatter(dataset: str) -> pd.DataFrame:
    """Published (clean, aa, extra_data) under l_inf 8/255 on ``dataset``, each model once.

    ``extra_data`` is "yes", "no" or "unstated". The leaderboard's 0.031 is the older spelling of
    8/255 and is kept.
    """
    parts = []
    tables = read_published(dataset)
    board = tables.get("robustbench_leaderboard.csv")
    if board is not None:
        rows = board[(board["threat_model"] == "Linf") & board["eps"].isin(["8/255", "0.031"])]
        parts.append(
            pd.DataFrame(
                {
                    "clean": pd.to_numeric(rows["clean_acc"], errors="coerce"),
                    "aa": pd.to_numeric(rows["autoattack_acc"], errors="coerce"),
                    "extra_data": rows["extra_data"].map({"True": "yes", "False": "no"}),
                }
            )
        )
    reference = tables.get("published_reference.csv")
    if reference is not None:
        rows = reference[
            (reference["norm"] == "Linf")
            & reference["eps"].isin(["8/255", "0.031"])
            & (reference["source_repo"] != "RobustBench/robustbench")
        ]
        parts.append(
            pd.DataFrame(
                {
                    "clean": pd.to_numeric(rows["clean"], errors="coerce"),
                    "aa": pd.to_numeric(rows["aa"], errors="coerce"),
                    "extra_data": rows["extra_data"],
                }
            )
        )
    if not parts:
        return pd.DataFrame(columns=["clean", "aa", "extra_data"])
    frame = pd.concat(parts, ignore_index=True)
    frame["extra_data"] = frame["extra_data"].where(
        frame["extra_data"].isin(["yes", "no"]), "unstated"
    )
    # undefended models have no robustness and would squeeze the rest into a corner
    return frame.dropna(subset=["clean", "aa"]).query("aa >= 5").reset_index(drop=True)
