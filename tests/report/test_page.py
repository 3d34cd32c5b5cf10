"""The page as a file: what is in it, what is left out, and where its figures come from."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_entries import FUNCTION
from synthetic_records import ELEVEN, write_suite

from benchmark.core.errors import BenchmarkError
from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import gallery, heat_maps, render, training_plots, write
from benchmark.report.chart_data import chart_data, colours
from benchmark.report.page import report_html, table_rows
from benchmark.report.study_model import Study
from benchmark.report.summarise import summarise
from benchmark.report.texts import percent

ASSETS = resources.files("benchmark.report") / "assets"


def write_gallery(cell: Path, model: str = "beef") -> dict[str, np.ndarray]:
    """A gallery as an evaluation leaves it: three images of 4 x 4, the second one fooled."""
    rng = np.random.default_rng(0)
    clean = rng.integers(20, 200, (3, 3, 4, 4), dtype=np.uint8)
    arrays = {
        "index": np.array([0, 1, 2]),
        "label": np.array([0, 1, 2]),
        "clean": clean,
        "adversarial": clean + rng.integers(0, 8, clean.shape, dtype=np.uint8),
        "clean_prediction": np.array([0, 1, 5]),
        "adversarial_prediction": np.array([0, 7, 5]),
    }
    about = {
        "attack": "pgd20_linf", "title": "PGD-20", "ball": ["linf", "8/255"], "stride": 1,
        "model": model, "data": "f00d",
    }  # fmt: skip
    np.savez_compressed(cell / "gallery.npz", about=np.array(json.dumps(about)), **arrays)
    return arrays


@pytest.fixture
def out(tmp_path: Path) -> Path:
    methods = {m: ELEVEN[m] for m in ("pgd-at", "generalist-d")}
    return write_suite(tmp_path / "out", methods, seeds=(0, 1), n=200, n_aa=100)


def test_every_figure_of_the_table_is_on_the_page(small_study: Study) -> None:
    """The page and table.md say the same, missing cells included; neither computes on its own."""
    for row, cells in table_rows(small_study):
        for summary, cell in zip(row.summaries.values(), cells, strict=False):
            wanted = percent(summary.interval.value) if summary.interval else "missing"
            assert cell.text.split()[0] == wanted
    text = report_html(small_study)
    for line in small_study.notes:
        assert line.split("<")[0][:60].replace("&", "&amp;") in text
    assert "limit = 200" in text


def test_learners_look_alike_on_the_page_and_in_the_plot(small_study: Study) -> None:
    """Protects: the page gave colours in alphabetical order, the plot in that of the recipe."""
    reversed_ = {
        method: {kind: dict(reversed(curves.items())) for kind, curves in found.items()}
        for method, found in small_study.mixing.items()
    }
    study = replace(small_study, mixing=reversed_)
    fig = training_plots.mixing(study)
    assert fig is not None
    drawn = {h.get_label(): h.get_color() for h in fig.legends[0].legend_handles}  # type: ignore[union-attr]
    shades = colours(study)
    learners = chart_data(study)["learners"]
    assert {name: shades[look["colour"]] for name, look in learners.items()} == drawn
    assert list(drawn) == ["natural", "linf"]


def test_equal_records_give_equal_pages_and_an_old_one_is_renewed(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for once, the page stays in step with the tables beside it."""
    monkeypatch.setattr(write, "PLOTS", {})
    target = tmp_path / "report"
    assert not any(path.suffix == ".html" for path in render(out, target).files)
    page = next(path for path in render(out, target, html=True).files if path.suffix == ".html")
    first = page.read_bytes()
    page.write_text("old")
    render(out, target)
    assert page.read_bytes() == first


def test_only_what_was_written_here_may_run(small_study: Study) -> None:
    """The policy lists the scripts' hashes, and nothing is fetched from anywhere."""
    text = report_html(small_study)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1].replace("&#39;", "'")
    assert "unsafe-inline" not in policy[1].split("style-src")[0]
    assert len(re.findall(r"<script>", text)) == policy[1].count("sha256-") == 4
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", text)


def test_the_libraries_are_those_of_the_readme() -> None:
    """Files of others stay as they were published, under the licence beside them."""
    readme = (ASSETS / "README.md").read_text()
    for name in ("d3.min.js", "plot.umd.min.js"):
        found = hashlib.sha256((ASSETS / name).read_bytes()).hexdigest()
        assert f"`{found}`" in next(line for line in readme.splitlines() if f"`{name}`" in line)
        licence = (ASSETS / f"{name.split('.')[0]}.LICENSE").read_text()
        assert "Permission to use, copy, modify" in licence


def test_classes_are_those_of_the_outcomes(small: SuiteRecord) -> None:
    """Per-class accuracy against a plain count; images that were not attacked do not count."""
    means, counts = heat_maps.class_means(small, "aa_linf")
    wanted = []
    for cell in small.evaluated("pgd-at", "aa_linf"):
        frame = pd.read_parquet(cell.path / "outcomes.parquet")
        right = frame[(frame["label"] == 3) & frame["aa_linf"].notna()]["aa_linf"]
        wanted.append(float(right.sum()) / len(right))
        assert counts[3] == len(right) == 10
    assert means.loc["pgd-at", 3] == pytest.approx(np.mean(wanted))


def test_of_many_classes_the_ends_are_shown() -> None:
    """A thousand columns are no heat map."""
    means = pd.DataFrame(np.arange(50.0)[None] / 50, columns=range(50))
    shown, cut = heat_maps.lowest_and_highest(means)
    assert cut
    assert list(shown.columns) == [*range(10), *range(40, 50)]
    assert not heat_maps.lowest_and_highest(means[range(20)])[1]


def test_a_gallery_is_shown_with_what_the_model_said(out: Path) -> None:
    """Images are the record's own pixels; older weights' images are not shown."""
    first, second = sorted((out / "cells").glob("*-s0"))
    arrays = write_gallery(first)
    write_gallery(second, model="an older one")
    study = summarise(read_suite(out))
    found = study.gallery
    assert found is not None
    assert [name for name, _, _ in found.methods] == ["generalist-d"]
    assert found.without == ("pgd-at",)
    assert [p.text for p in found.methods[0][1]] == ["0", "1 → 7", "5"]
    assert [p.right for p in found.methods[0][1]] == [True, False, False]
    assert gallery.data_uri(arrays["clean"][0]) == found.clean[0].uri
    text = report_html(study)
    assert found.methods[0][1][1].uri in text
    assert "No images on record for pgd-at" in text


def test_without_galleries_there_is_no_section(out: Path) -> None:
    """No heading over nothing; a damaged file is one clear error."""
    assert 'id="gallery"' not in report_html(summarise(read_suite(out)))
    cell = next((out / "cells").iterdir())
    (cell / "gallery.npz").write_bytes(b"PK")
    with pytest.raises(BenchmarkError, match=r"gallery\.npz is damaged"):
        summarise(read_suite(out))


def test_a_perturbation_is_grey_where_nothing_changed(out: Path) -> None:
    """The scaled perturbation: 128 is none, the largest change of an image has full contrast."""
    cell = next((out / "cells").glob("*-s0"))
    arrays = write_gallery(cell)
    read = next(c for c in read_suite(out).cells if c.path == cell)
    found = gallery.read_images(read)
    assert found is not None
    change = arrays["adversarial"].astype(int) - arrays["clean"]
    assert (found.perturbation[change == 0] == 128).all()
    assert found.perturbation.max(axis=(1, 2, 3)).tolist() == [255, 255, 255]


def test_doubtful_runs_are_marked(out: Path) -> None:
    """A finding of the reliability checks is beside the method's name and in the notes."""
    cell = next((out / "cells").glob("pgd-at*-s0"))
    path = cell / "evaluation.json"
    record = json.loads(path.read_text())
    finding = {"name": "random", "text": "two passes differ", "function": FUNCTION}
    record["reliability"]["findings"] = [finding]
    path.write_text(json.dumps(record))
    text = report_html(summarise(read_suite(out)))
    assert text.count("doubtful: random: two passes differ") == 1
    assert "<li class=finding>[!] random: two passes differ" in text


def test_a_suite_without_results_still_has_a_page(out: Path) -> None:
    """A page of a suite that has only begun says what is missing."""
    for cell in (out / "cells").iterdir():
        shutil.rmtree(cell)
    text = report_html(summarise(read_suite(out)))
    assert "No cell has been evaluated yet." in text
    assert "Missing 4 of 4 cells" in text
