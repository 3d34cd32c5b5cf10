"""The index of a report: words, table, plots and where every figure comes from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmark.core.files import write_text
from benchmark.records.keys import weights
from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import corruptions, findings, plots, published, tables, training

CAPTIONS = {
    "tradeoff": "Clean against robust accuracy, both on the same n images. Bars are 95 % "
    "intervals; the dashed line joins the methods that no other beats on both axes (by their "
    "means).",
    "curves": "Accuracy on held-out validation images during training: mean over seeds, band from "
    "lowest to highest seed.",
    "mixing": "Weight of each learner in the mix, and its L2 distance from the global learner; "
    "mean over seeds, band from lowest to highest.",
    "corruptions": "Accuracy (%) under each corruption, mean over severities and seeds: "
    "[corruptions.md](corruptions.md).",
    "published": "Published figures and ours, on separate axes. See [published.md](published.md).",
}


def write_report(
    out: Path,
    target: Path,
    reference: Path | None = None,
    html: bool = False,
    beside: Sequence[Path] = (),
) -> list[Path]:
    """Read the records in ``out`` and ``beside``; write all files of the report to ``target``."""
    suite = read_suite(out, beside)
    texts = {
        "table.md": tables.markdown_text(suite),
        "table.csv": tables.csv_text(suite),
        "table.tex": tables.latex_text(suite),
        "corruptions.md": corruptions.markdown_text(suite, reference),
        "published.md": published.markdown_text(suite),
    }
    written = []
    for name, text in texts.items():
        if not text:
            (target / name).unlink(missing_ok=True)
            continue
        write_text(target / name, text)
        written.append(target / name)
    drawn = []
    for name, fig in _figures(suite):
        if fig is None:
            for suffix in (".png", ".pdf"):
                (target / f"{name}{suffix}").unlink(missing_ok=True)
        else:
            plots.mark_trial(fig, suite.limit)
            written += plots.save(fig, target / name)
            drawn.append(name)
    index = target / "report.md"
    write_text(index, page_text(suite, drawn))
    browsable = target / "report.html"
    if html or browsable.exists():  # an old page beside new tables would mislead
        from benchmark.report import html as html_page  # which renders what is defined here

        write_text(browsable, html_page.page_text(suite))
        written.append(browsable)
    return [index, *written]


def _figures(suite: SuiteRecord) -> Iterator[tuple[str, Figure | None]]:
    yield "tradeoff", plots.tradeoff(suite)
    yield "curves", plots.curves(suite)
    yield "mixing", plots.mixing(suite)
    yield "corruptions", plots.corruptions(suite)
    yield "published", plots.published(suite, published.scatter(suite.dataset))


def page_text(suite: SuiteRecord, drawn: list[str]) -> str:
    """report.md: findings, the table, the plots, provenance."""
    head, _, body = tables.markdown_text(suite).partition("\n\n")
    parts = [head + "\n"]
    if suite.description:
        parts.append(suite.description.strip() + "\n")
    parts += ["## In words\n", findings.words(suite), "## Table\n", body]
    parts.append("Files: [table.md](table.md), [table.csv](table.csv), [table.tex](table.tex).\n")
    if drawn:
        parts.append("## Plots\n")
        for name in drawn:
            parts.append(f"![{name}]({name}.png)\n\n{CAPTIONS[name]} ([PDF]({name}.pdf))\n")
    parts += [
        "## Published figures\n",
        _published_line(suite),
        "## Provenance\n",
        provenance(suite),
    ]
    return "\n".join(parts)


def _published_line(suite: SuiteRecord) -> str:
    if published.read_published(suite.dataset):
        return "Kept apart from the figures above: [published.md](published.md).\n"
    return f"None exist for {suite.dataset or 'this data set'} ([published.md](published.md)).\n"


def facts(suite: SuiteRecord) -> dict[str, str]:
    """Versions, hardware and data of the runs, by name; different ones are all given."""
    found = {
        name: list(
            dict.fromkeys(t for c in suite.cells if (t := _environment(c.environment, name)))
        )
        for name in ("versions", "device", "processor", "threads", "git")
    }
    found["data"] = list(
        dict.fromkeys(
            ", ".join(
                f"{k} {'; '.join(map(str, v)) if isinstance(v, list) else v}"
                for k, v in d.items()
                if v is not None and k != "classes"
            )
            for c in suite.cells
            if isinstance(d := c.evaluation.get("dataset"), Mapping)
        )
    )
    found["same configuration, other weights"] = training.twins(suite)
    return {name: " | ".join(values) for name, values in found.items() if values}


RUNS_HEAD = ["Method", "Seed", "State", "Trained on", "Config hash", "Model hash", "Record"]


def run_rows(suite: SuiteRecord) -> list[list[str]]:
    """One row per cell, in the order of ``RUNS_HEAD``."""
    return [
        [c.label, str(c.seed), c.status, training.trained_on(c), c.config_hash or "-",
         ", ".join(weights(c.evaluation)) or "-", f"cells/{c.slug}"]
        for c in suite.cells
    ]  # fmt: skip


def render_command(suite: SuiteRecord) -> str:
    """What renders this report again."""
    folders = (suite.path, *suite.beside)
    return " ".join(["generalist-bench report", *(shlex.quote(portable(p)) for p in folders)])


def provenance(suite: SuiteRecord) -> str:
    """Versions, data, and one line per cell with its state and configuration hash."""
    lines = [f"- {name}: {text}" for name, text in facts(suite).items()]
    lines.append(f"- render again: `{render_command(suite)}` (reads records only)")
    table = tables.markdown_table(RUNS_HEAD, run_rows(suite), text_columns=len(RUNS_HEAD))
    return "\n".join(lines) + "\n\n" + table


def portable(path: Path) -> str:
    """``path`` as it was given, or its name alone: a report is no place for a machine's folders."""
    return path.name if path.is_absolute() else str(path)


# Shown on lines of their own, or different in every run and so of no use in a summary.
_NOT_VERSIONS = {
    "device",
    "processor",
    "threads",
    "git",
    "date",
}


def _environment(environment: Mapping[str, Any], name: str) -> str:
    """One entry of environment.json as text; ``versions`` are those of all packages."""
    if name == "versions":
        return ", ".join(f"{k} {v}" for k, v in environment.items() if k not in _NOT_VERSIONS)
    value = environment.get(name)
    return "" if value is None else str(value)
