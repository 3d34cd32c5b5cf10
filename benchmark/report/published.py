"""Figures that papers and repositories published, always beside ours and never among them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmark.core.errors import BenchmarkError
from benchmark.report.records import SuiteRecord
from benchmark.report.tables import markdown_table

# File name to heading.
_TABLES = {
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
    for name in _TABLES:
        path = published_dir() / name
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            rows = frame[frame["dataset"].map(_plain) == _plain(dataset)]
        except FileNotFoundError:
            continue
        except (ValueError, KeyError) as error:
            raise BenchmarkError(f"{path} is damaged ({error})") from error
        if len(rows):
            found[name] = rows.reset_index(drop=True)
    return found


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
        lines.append(f"## {_TABLES[name]}\n")
        if name == "robustbench_leaderboard.csv":
            lines.append(
                "Source of every row: RobustBench/robustbench, model_info/ (`model` is the file).\n"
            )
        shown = frame.drop(columns="dataset")
        shown = shown[[c for c in shown.columns if (shown[c] != "").any()]]
        shown = shown.map(lambda text: text.replace("<br>", " "))
        head = [str(c) for c in shown.columns]
        lines.append(markdown_table(head, shown.to_numpy().tolist(), text_columns=len(head)))
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
