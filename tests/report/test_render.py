"""The report as a whole: its files, that they repeat, and that rendering only reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from synthetic_records import CORRUPTIONS, ELEVEN, write_suite

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import plots, published, render, training_plots
from benchmark.report.curves import curve_of
from benchmark.report.figures import WIDTH, contrast, figure, mark_trial
from benchmark.report.labels import spread
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise
from benchmark.report.trade_off import pareto

PLOTS = ("tradeoff", "differences", "cost", "curves", "mixing", "corruptions", "published")


def test_every_file_is_written(rendered: Path) -> None:
    expected = {"report.md", "table.md", "table.csv", "table.tex", "published.md", "corruptions.md"}
    expected.add("differences.md")
    expected |= {f"{name}.{suffix}" for name in PLOTS for suffix in ("png", "pdf", "svg")}
    assert {p.name for p in rendered.iterdir()} == expected


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_not_blank(rendered: Path, name: str) -> None:
    image = imread(rendered / f"{name}.png")[..., :3]
    assert image.shape[1] == pytest.approx(WIDTH * 200, abs=1)
    assert (image.min(axis=2) < 0.9).mean() > 0.01
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    pdf = (rendered / f"{name}.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    # Publishers refuse Type 3 fonts; a page's font dictionaries are not compressed.
    assert b"/Type3" not in pdf
    assert b"/TrueType" in pdf or b"/Type0" in pdf
    assert "<text" in (rendered / f"{name}.svg").read_text()


def test_rendering_twice_gives_equal_files_and_touches_no_record(
    small_out: Path, rendered: Path, tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in small_out.rglob("*")}
    render(small_out, tmp_path / "again")
    assert {p: p.stat().st_mtime_ns for p in small_out.rglob("*")} == before
    for path in rendered.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_rendering_imports_no_torch(small_out: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmark.report import render; "
        "render(Path(sys.argv[1]), Path(sys.argv[2]), html=True); "
        "sys.exit(any(m.split('.')[0] == 'torch' for m in sys.modules))"
    )
    environment = {**os.environ, "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", code, str(small_out), str(tmp_path)]
    assert subprocess.run(command, env=environment, timeout=700).returncode == 0


def test_published_figures_never_enter_our_tables(rendered: Path) -> None:
    for name in ("table.csv", "table.md", "table.tex"):
        text = (rendered / name).read_text()
        assert "RobustBench" not in text
        assert "MAIR" not in text
    text = (rendered / "published.md").read_text()
    assert "Harry24k/MAIR" in text
    assert "cifar100" not in text
    assert "generalist-d" not in text


def test_digits_have_no_published_figure(tmp_path: Path) -> None:
    methods = {m: ELEVEN[m] for m in ("pgd-at", "joint")}
    write_suite(tmp_path, methods, n=50, n_aa=20, dataset="digits", corruptions=())
    target = tmp_path / "report"
    target.mkdir()
    (target / "published.png").write_bytes(b"from an earlier run")
    index = render(tmp_path).files[0]
    assert index == target / "report.md"
    assert "None exist" in (target / "published.md").read_text()
    assert not (target / "published.png").exists()
    assert not (target / "mixing.png").exists()
    assert "published.png" not in index.read_text()


def test_a_trial_run_says_so_on_its_plots(small_study: Study) -> None:
    """Protects: a plot of a run with --limit, shown without the table that warns."""
    fig = plots.tradeoff(small_study)
    assert fig is not None
    mark_trial(fig, 200)
    assert fig.get_suptitle() == "limit = 200: a trial run, not a result"
    mark_trial(other := figure(2.0)[0], None)
    assert not other.get_suptitle()


def test_the_published_csvs_are_found_in_the_checkout() -> None:
    names = {p.name for p in published.published_dir().glob("*.csv")}
    assert "published_reference.csv" in names


def test_links_of_the_index_exist(rendered: Path) -> None:
    text = (rendered / "report.md").read_text()
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert links
    for link in links:
        assert (rendered / link).exists(), link


def test_a_target_that_cannot_be_written_is_one_clear_error(
    small_out: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match="cannot write"):
        render(small_out, tmp_path / "file")


def test_the_curve_of_a_cut_run_is_averaged_over_common_epochs(small: SuiteRecord) -> None:
    assert len(small.of("pgd-at")[1].curves) == 29
    line = curve_of(small, "pgd-at", "val_clean")
    assert line is not None
    assert line.epochs == tuple(range(1, 30))


def test_labels_of_eleven_methods_do_not_overlap(tmp_path: Path) -> None:
    write_suite(tmp_path, n=400, n_aa=200, corruptions=())
    fig = plots.tradeoff(summarise(read_suite(tmp_path)))
    assert fig is not None
    renderer = fig.canvas.get_renderer()  # type: ignore[attr-defined]
    for ax in fig.axes:
        boxes = [t.get_window_extent(renderer) for t in ax.texts if t.get_text()]
        assert len(boxes) == 11
        assert sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]) == 0
        assert min(contrast(text.get_color(), "white") for text in ax.texts) >= 4.5


def test_letters_stand_out_in_lines_and_cells(small_study: Study) -> None:
    lines, cells = training_plots.curves(small_study), plots.corruptions(small_study)
    assert lines is not None
    assert cells is not None
    named = [text for ax in lines.axes for text in ax.texts]
    assert min(contrast(text.get_color(), "white") for text in named) >= 4.5
    heat: Any = cells.axes[0]
    shades = heat.collections[0].get_facecolors()
    assert len(heat.texts) == len(shades)
    assert min(map(contrast, (t.get_color() for t in heat.texts), shades)) >= 4.5


def test_the_pareto_front_by_hand() -> None:
    assert pareto([(1, 5), (2, 4), (2, 3), (3, 4), (0, 1)]) == [0, 3]


def test_spread_moves_labels_as_little_as_needed() -> None:
    assert spread([0.0, 10.0], 1.0, -50, 50) == [0.0, 10.0]
    assert spread([5.0, 5.0, 5.0], 2.0, -50, 50) == [3.0, 5.0, 7.0]
    assert spread([5.0, 5.0, 0.0], 2.0, 0, 5) == [3.0, 5.0, 0.0]
    assert spread([0.0, 0.0, 9.0], 2.0, 0, 9) == [0.0, 2.0, 9.0]


def test_corruptions_one_by_one_and_mce(tmp_path: Path) -> None:
    """The table against the records, and mCE against a reference whose errors are all 0.5."""
    out = write_suite(tmp_path / "out", {"pgd-at": ELEVEN["pgd-at"]}, corruptions=CORRUPTIONS)
    record = json.loads(next(out.glob("cells/*/evaluation.json")).read_text())
    found = record["metrics"]["corruptions"]["detail"]["per_corruption"]
    lines = [f"{name},{level},0.5" for name in CORRUPTIONS for level in range(1, 6)]
    reference = tmp_path / "alexnet.csv"
    reference.write_text("\n".join(["corruption,severity,error", *lines]))
    render(out, tmp_path / "report", reference)
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in (tmp_path / "report" / "corruptions.md").read_text().splitlines()
        if len(cells := line.split("|")) == 4
    }
    for name, accuracies in found.items():
        assert rows[name.replace("_", " ")] == f"{100 * sum(accuracies) / 5:.1f}"
    errors = [(5 - sum(accuracies)) / 2.5 for accuracies in found.values()]
    assert rows["mCE"] == f"{100 * sum(errors) / 15:.1f}"
    assert "relative mCE" not in rows, "it needs the reference's clean error"


def test_the_relative_mce_takes_the_clean_error_of_the_corrupted_images(tmp_path: Path) -> None:
    """Protects: a rise above the clean error of other images. Half of the images were corrupted, and
    all of those are right when clean."""
    out = write_suite(tmp_path / "out", {"pgd-at": ELEVEN["pgd-at"]}, corruptions=CORRUPTIONS)
    (cell,) = out.glob("cells/*")
    frame = pd.read_parquet(cell / "outcomes.parquet")
    frame.loc[:499, "clean"] = True
    frame.loc[500:, "clean"] = False
    record = json.loads((cell / "evaluation.json").read_text())
    record["metrics"]["clean"] |= {"correct": 500, "mean": 0.5}
    record["metrics"]["corruptions"] |= {"n": 500}
    for name in (c for c in frame.columns if c.startswith("corruptions/")):
        frame.loc[500:, name] = pd.NA
    frame.to_parquet(cell / "outcomes.parquet")
    (cell / "evaluation.json").write_text(json.dumps(record))
    lines = ["clean,0,0.1"]
    lines += [f"{name},{level},0.5" for name in CORRUPTIONS for level in range(1, 6)]
    reference = tmp_path / "alexnet.csv"
    reference.write_text("\n".join(["corruption,severity,error", *lines]))
    render(out, tmp_path / "report", reference)
    text = (tmp_path / "report" / "corruptions.md").read_text()
    found = record["metrics"]["corruptions"]["detail"]["per_corruption"]
    # no clean error: the rise is the whole error, and that of the reference 0.5 - 0.1
    wanted = 100 * sum((5 - sum(v)) / 2 for v in found.values()) / 15
    assert re.search(rf"relative mCE +\| +{wanted:.1f} \|", text)
