"""The leaderboard: several studies and networks of one's own beside published figures.

One entry is the accuracy of a network, or of a method over its seeds, under one attack. Ours are
measured by this suite; published ones are copied and were measured by others. They stand in one
table, told apart in every row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.core.errors import BenchmarkError
from benchmark.records.files import RunFiles, SuiteFiles
from benchmark.records.study import CellRecord, SuiteRecord, nested, read_suite
from benchmark.report.metric_roles import clean_metric, corruption_metrics, is_union, title
from benchmark.report.provenance import portable
from benchmark.report.published_figures import PublishedFigure, attack_of, published_figures
from benchmark.report.study_model import Row, Summary
from benchmark.report.summary import table_of
from benchmark.report.texts import interval_text
from benchmark.report.training_data import training_data
from benchmark.report.undertrained import all_undertrained


@dataclass(frozen=True)
class LeaderboardEntry:
    """A row of the leaderboard.

    Attributes:
        ours: measured by this suite; published otherwise.
        origin: the study's folder, or who published it.
        parameters: of the network; None if unknown. ``derived``: from the architecture's name.
        extra: trained on further data, "yes", "no" or "" where that is unknown.
        norm, eps: of the attack; "" for corruptions and unions.
        estimate: the robust accuracy is an estimate.
        clean, robust: in per cent, with their intervals as text, "" where there is none.
        images, seeds: of the robust accuracy; 0 where unknown.
        notes: what a reader must know.
    """

    name: str
    ours: bool
    origin: str
    dataset: str
    architecture: str
    parameters: int | None
    derived: bool
    extra: str
    norm: str
    eps: str
    attack: str
    estimate: bool
    clean: float | None
    clean_interval: str
    robust: float
    robust_interval: str
    images: int
    seeds: int
    notes: tuple[str, ...]


def leaderboard(folders: Sequence[Path]) -> list[LeaderboardEntry]:
    """All entries, ours first.

    Args:
        folders: of studies, of runs and of networks of one's own, or folders that hold such.

    Raises:
        BenchmarkError: a folder that holds nothing of the kind, or damaged records.
    """
    ours = [
        entry
        for folder in folders
        for study in _records_in(Path(folder))
        for entry in _of_study(read_suite(study))
    ]
    return [*ours, *(_published(figure) for figure in published_figures())]


def _records_in(folder: Path) -> list[Path]:
    """The folder itself if it is a record, else the records in it and in its folders."""
    found = _holds_record(folder)
    if found:
        return [folder]
    children = sorted(p for p in folder.glob("*") if p.is_dir())
    inside = [
        path
        for child in children
        for path in ([child] if _holds_record(child) else sorted(child.glob("*")))
        if _holds_record(path)
    ]
    if not inside:
        raise BenchmarkError(
            f"{folder} holds no suite, no run and no evaluated network; give the folder of a study "
            "(with suite.json), of a run, or one that evaluate-model wrote"
        )
    return inside


def _holds_record(folder: Path) -> bool:
    run = RunFiles(folder)
    return any(path.exists() for path in (SuiteFiles(folder).plan, run.configuration, run.model))


# --- ours -----------------------------------------------------------------------------------------


def _of_study(suite: SuiteRecord) -> Iterator[LeaderboardEntry]:
    table = table_of(suite, all_undertrained(suite))
    clean = clean_metric(suite)
    for row in table.rows:
        cells = suite.evaluated(row.method)
        if not cells:
            continue
        for metric in suite.metrics():
            summary = row.summaries[metric]
            if _shown(suite, metric) and summary.interval is not None:
                yield _own(suite, row, cells, metric, summary, row.summaries.get(clean))


def _shown(suite: SuiteRecord, metric: str) -> bool:
    """Whether a metric is a robust accuracy of the first checkpoint, measured or estimated."""
    entry = suite.entry(metric)
    attacked = entry["role"] == "attack" and entry["form"] != "screening"
    return (attacked and not entry.get("checkpoint")) or metric in corruption_metrics(suite)


def _own(
    suite: SuiteRecord,
    row: Row,
    cells: Sequence[CellRecord],
    metric: str,
    robust: Summary,
    clean: Summary | None,
) -> LeaderboardEntry:
    entry, config = suite.entry(metric), cells[0].config
    assert robust.interval is not None
    norm, eps = entry["ball"] or ("", "")
    known = clean.interval if clean else None
    parameters = next((p for c in cells if (p := c.training.get("parameters"))), None)
    return LeaderboardEntry(
        name=row.name,
        ours=True,
        origin=portable(suite.path),
        dataset=suite.dataset + (" (a part)" if suite.limit is not None else ""),
        architecture=_architecture(config.get("model")),
        parameters=parameters,
        derived=False,
        extra=""
        if not cells[0].training
        else "yes"
        if nested(config, "dataset", "extra")
        else "no",
        norm=str(norm),
        eps=str(eps),
        attack=_attack(suite, metric),
        estimate=entry["form"] == "estimate",
        clean=100 * known.value if known else None,
        clean_interval=interval_text(clean) if clean and known else "",
        robust=100 * robust.interval.value,
        robust_interval=interval_text(robust),
        images=robust.n,
        seeds=robust.seeds,
        notes=_notes(row, robust, cells),
    )


def _attack(suite: SuiteRecord, metric: str) -> str:
    if is_union(suite, metric):
        return title(suite, metric)
    return attack_of(suite.entry(metric)) or title(suite, metric)


def _architecture(model: object) -> str:
    """ "small-resnet, width 32"; a model of one's own by its factory."""
    if not isinstance(model, dict):
        return str(model or "")
    width = model.get("width")
    return f"{model.get('name', '')}, width {width}" if width else str(model.get("name", ""))


def _notes(row: Row, robust: Summary, cells: Sequence[CellRecord]) -> tuple[str, ...]:
    data = dict.fromkeys(
        note for c in cells for note in nested(c.evaluation, "dataset", "notes") or ()
    )
    found = [
        *(f"doubtful: {doubt}" for doubt in row.doubts),
        f"under-trained: {row.undertrained}" if row.undertrained else "",
        robust.partial,
        training_data(cells[0]),
        *data,
    ]
    return tuple(filter(None, found))


# --- published ------------------------------------------------------------------------------------


def _published(figure: PublishedFigure) -> LeaderboardEntry:
    parameters = parameters_of(figure.architecture) if "cifar" in figure.dataset else None
    return LeaderboardEntry(
        name=figure.name,
        ours=False,
        origin=figure.origin,
        dataset=figure.dataset,
        architecture=figure.architecture,
        parameters=parameters,
        derived=parameters is not None,
        extra=figure.extra,
        norm=figure.norm,
        eps=figure.eps,
        attack=figure.attack,
        estimate=False,
        clean=figure.clean,
        clean_interval="",
        robust=figure.robust,
        robust_interval="",
        images=0,
        seeds=0,
        notes=(figure.note,) if figure.note else (),
    )


def parameters_of(architecture: str) -> int | None:
    """The number of parameters that a name of a network for CIFAR-10 stands for; None for others.

    Wide ResNets are counted by the layers of 1605.07146; ResNets of 18 layers have those of
    1512.03385 with a stem for small images.
    """
    name = architecture.replace(" ", "")
    if re.fullmatch(r"(PreAct)?ResNet-?18", name):
        return 11_172_170 if name.startswith("PreAct") else 11_173_962
    wide = re.fullmatch(r"(?:WideResNet|WRN)-(\d+)-(\d+)", name)
    if wide is None or (int(wide[1]) - 4) % 6:
        return None
    blocks, width = (int(wide[1]) - 4) // 6, int(wide[2])
    total, before = 3 * 16 * 9, 16
    for planes in (16 * width, 32 * width, 64 * width):
        for _ in range(blocks):
            total += 2 * before + 9 * before * planes + 2 * planes + 9 * planes * planes
            total += before * planes if before != planes else 0
            before = planes
    return total + 2 * before + 10 * before + 10


# --- what the page offers -------------------------------------------------------------------------

# Upper end in millions of parameters, and how it reads.
SIZES = ((1, "below 1 million"), (15, "1 to 15 million"), (50, "15 to 50 million"))


def size_class(parameters: int | None) -> str:
    """The range of sizes that a network falls in, in words."""
    if parameters is None:
        return "unknown"
    millions = parameters / 1e6
    return next((name for end, name in SIZES if millions < end), "50 million and more")
