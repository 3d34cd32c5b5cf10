"""Figures that papers and repositories published, always beside ours and never among them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.report.study_model import Published, PublishedTable

# File name to heading.
TABLES = {
    "published_reference.csv": "Adversarial training, single threat model",
    "published_multinorm.csv": "Several norms",
    "robustbench_leaderboard.csv": "RobustBench leaderboard",
}


def published_on(dataset: str) -> Published:
    """What others published on ``dataset``.

    Raises:
        BenchmarkError: a damaged file, or none installed.
    """
    return Published(
        tables=tuple(_table(name, frame) for name, frame in read_published(dataset).items()),
        points=tuple(
            (float(clean), float(robust), str(extra))
            for clean, robust, extra in scatter(dataset).itertuples(index=False)
        ),
    )


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


def plain(name: str) -> str:
    """A data set's name, however it is spelt."""
    return "".join(c for c in name.lower() if c.isalnum())


def read_published(dataset: str) -> dict[str, pd.DataFrame]:
    """File name to its rows on ``dataset``, every value as written; files without a row left out.

    Raises:
        BenchmarkError: a damaged file.
    """
    found = {}
    for name, frame in read_all().items():
        rows = frame[frame["dataset"].map(plain) == plain(dataset)]
        if len(rows):
            found[name] = rows.reset_index(drop=True)
    return found


def read_all() -> dict[str, pd.DataFrame]:
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


def _table(name: str, frame: pd.DataFrame) -> PublishedTable:
    """Without the data set, and without columns that are empty."""
    shown = frame.drop(columns="dataset")
    shown = shown[[c for c in shown.columns if (shown[c] != "").any()]]
    rows = shown.map(lambda text: text.replace("<br>", " ")).to_numpy().tolist()
    return PublishedTable(
        name, TABLES[name], tuple(map(str, shown.columns)), tuple(map(tuple, rows))
    )


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
