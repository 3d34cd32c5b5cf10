"""The page in a real browser: what a reader does with it, and that it needs nothing else."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, chromium

from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import published
from benchmark.report.page import report_html
from benchmark.report.summarise import summarise

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = ("quick", "cifar10-cpu")
DOTS = "#tradeoff-chart g.methods > *"
THEIRS = "#tradeoff-chart g.published > *"

pytestmark = pytest.mark.skipif(
    not (RESULTS / "quick").is_dir(), reason="the recorded studies are not beside the tests"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in STUDIES:
        text = report_html(summarise(read_suite(RESULTS / name)))
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in STUDIES}


@pytest.fixture(scope="module")
def suite() -> SuiteRecord:
    return read_suite(RESULTS / "cifar10-cpu")


@pytest.fixture
def page(browser: Browser, pages: dict[str, Path]) -> Browser:
    """The page of cifar10-cpu, freshly opened on a wide screen."""
    browser.resize(1280)
    browser.open(pages["cifar10-cpu"])
    return browser


def column(page: Browser, number: int) -> list[str]:
    return page.texts(f"#results tbody tr > :nth-child({number})")


def methods(page: Browser) -> list[str]:
    return page.texts("#results tbody th .method")


def tip(page: Browser) -> str:
    return " ".join(page.texts("#tradeoff-chart g[aria-label=tip] text tspan"))


@pytest.mark.parametrize("name", STUDIES)
def test_it_stands_alone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """One file below 5 MB: no request, no complaint on the console, every chart drawn."""
    assert pages[name].stat().st_size < 5_000_000
    browser.resize(1280)
    browser.open(pages[name])
    figures = browser.all("figure.chart")
    assert len(figures) > 3
    assert all(figure.find_elements("css selector", "svg") for figure in figures)
    assert browser.all("figure[data-curve] g.mean path"), "lines, not axes alone"
    assert browser.requests() == []
    assert browser.complaints() == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_phone_scrolls_down_only(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """Nothing is wider than a narrow screen; tables scroll within their own frame."""
    browser.resize(360, mobile=True)
    browser.open(pages[name])
    assert browser.js("document.documentElement.scrollWidth") <= 360
    assert browser.js("document.querySelector('#tradeoff-chart svg').clientWidth") <= 360
    assert browser.complaints() == []


def test_a_click_on_a_heading_sorts(page: Browser, suite: SuiteRecord) -> None:
    """Numbers from the highest, words from A, a second click the other way; aria-sort says it."""
    rows = summarise(suite).table.rows
    means = {row.method: row.summaries["clean"].interval.value for row in rows}  # type: ignore[union-attr]
    wanted = sorted(suite.methods, key=lambda method: -means[method])
    assert methods(page) == list(suite.methods)
    heads = page.all("#results thead th")
    button = "#results thead th:nth-child({}) button"
    page.click(button.format(3))
    assert methods(page) == wanted
    assert heads[2].get_attribute("aria-sort") == "descending"
    page.click(button.format(3))
    assert methods(page) == wanted[::-1]
    page.click(button.format(1))
    assert methods(page) == sorted(suite.methods)
    assert [h.get_attribute("aria-sort") for h in heads[:3]] == ["ascending", "none", "none"]


def test_the_keyboard_sorts_and_points(page: Browser) -> None:
    """A heading answers Enter; a point that has the focus shows its figures."""
    from selenium.webdriver.common.keys import Keys

    button = page.one("#results thead th:nth-child(4) button")
    button.send_keys(Keys.ENTER)
    head = page.one("#results thead th:nth-child(4)")
    assert head.get_attribute("aria-sort") == "descending"
    dots = page.all(DOTS)
    assert [d.get_attribute("tabindex") for d in dots] == ["0"] + ["-1"] * (len(dots) - 1)
    page.js("arguments[0].focus()", dots[0])
    dots[0].send_keys(Keys.ARROW_RIGHT)
    name = dots[1].get_attribute("aria-label").split(",")[0]
    assert page.until(lambda: name in tip(page))
    assert page.js("document.activeElement === arguments[0]", dots[1])


def test_a_filter_narrows_table_and_charts(page: Browser, suite: SuiteRecord) -> None:
    """Words and families are left out of the table, the trade-off plot and the curves alike."""
    page.one("#filter").send_keys("generalist")
    wanted = [m for m in suite.methods if m.startswith("generalist")]
    assert methods(page) == wanted
    assert len(page.all(DOTS)) == len(wanted)
    assert len(page.all("figure[data-curve=val_clean] g.mean path")) == len(wanted)
    assert f"{len(wanted)} of {len(suite.methods)}" in page.one("#status").text
    page.one("#filter").clear()
    page.js("document.querySelector('#filter').dispatchEvent(new Event('input'))")
    page.click('label:has([data-family-filter="Generalist"])')
    assert methods(page) == [m for m in suite.methods if m not in wanted]


def test_hovering_shows_the_figures_of_the_table(page: Browser, suite: SuiteRecord) -> None:
    """The tip of a point carries the mean and the interval of its cell."""
    from selenium.webdriver import ActionChains

    dot = page.all(DOTS)[list(suite.methods).index("trades")]
    page.show(dot)
    ActionChains(page.driver).move_to_element(dot).perform()
    shown = page.until(lambda: "trades" in tip(page) and tip(page))
    row = page.texts('#results tr[data-method="trades"] td:nth-child(3)')[0]
    value, interval = re.match(r"([\d.]+).*(\[.*?\])", row).groups()  # type: ignore[union-attr]
    assert f"Clean {value} %" in shown
    assert interval in shown


def test_published_figures_are_layers_of_their_own(page: Browser) -> None:
    """Off at first, other marks, offered for the attack they measure only; all 236 can be seen."""
    from selenium.webdriver.support.ui import Select

    select = Select(page.one("#metric"))
    seen = 0
    for metric in ("aa_linf", "aa_l2", "corruptions"):
        select.select_by_value(metric)
        assert not page.all(THEIRS)
        own = len(page.all(DOTS))
        offered = [label for label in page.all("#layers label") if label.is_displayed()]
        assert offered
        for label in offered:
            if "RobustBench" in label.text:
                page.show(label)
                label.click()
        seen += len(page.all(THEIRS))
        assert len(page.all(DOTS)) == own, "ours are neither more nor fewer"
        assert "not ours" in page.one("#legend-layers").text
    assert seen == 236
    select.select_by_value("pgd20_l2")
    assert not page.all(THEIRS), "AutoAttack's figures are on no other axis"


def test_layers_of_our_own_figures_switch(page: Browser) -> None:
    """Intervals, front, names and seeds come and go."""
    for key, selector in (
        ("bars", "g.intervals path"),
        ("front", "g.front path"),
        ("names", "g.names text"),
        ("seeds", "g.seeds > *"),
    ):
        before = len(page.all(f"#tradeoff-chart {selector}"))
        page.click(f'label:has([data-show="{key}"])')
        after = len(page.all(f"#tradeoff-chart {selector}"))
        assert (before > 0) == (key != "seeds"), key
        assert (after > 0) == (key == "seeds"), key


def test_themes_switch(page: Browser) -> None:
    """The switch wins over the system's preference, which the page follows until then."""

    def background() -> str:
        return str(page.js("getComputedStyle(document.body).backgroundColor"))

    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    white, black = "rgb(255, 255, 255)", "rgb(20, 23, 28)"
    assert background() == white
    page.click("label:has([value=dark])")
    assert background() == black
    page.click("label:has([value=auto])")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert background() == black
    page.click("label:has([value=light])")
    assert background() == white
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_classes_switch_and_hashes_copy(page: Browser) -> None:
    """One metric by class at a time; a copy button answers with what it copied."""
    page.click('label:has([name="class-metric"][value="pgd20_linf"])')
    shown = [b for b in page.all("[data-class-metric]") if b.is_displayed()]
    assert [b.get_attribute("data-class-metric") for b in shown] == ["pgd20_linf"]
    page.click(".command .copy")
    page.until(lambda: page.one(".command .copy").text == "Copied")


def test_it_prints(page: Browser) -> None:
    """Several pages with text, without the controls, in light colours even from the dark theme."""
    page.click("label:has([value=dark])")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 30
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    drawn = b"".join(_inflated(stream) for stream in streams)
    assert drawn.count(b" Tj") + drawn.count(b" TJ") > 100
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.one("#metric").is_displayed()
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_a_hostile_record_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    """Markup in a label is text everywhere, charts and tips included."""
    from synthetic_records import ELEVEN, write_suite

    evil = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
    slug = "evil"
    write_suite(tmp_path / "out", {slug: ELEVEN["generalist-d"], "pgd-at": ELEVEN["pgd-at"]}, n=60)
    for path in (tmp_path / "out").rglob("*.json"):
        path.write_text(path.read_text().replace(f'"{slug}"', f'"{evil}"'))
    suite = read_suite(tmp_path / "out")
    assert evil in suite.methods
    page = tmp_path / "evil.html"
    page.write_text(report_html(summarise(suite)), encoding="utf-8")
    browser.resize(1280)
    browser.open(page)
    assert evil in methods(browser)
    assert any(evil in t for t in browser.texts("#tradeoff-chart g.names text"))
    assert browser.js("document.title").startswith("Synthetic suite")
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert browser.complaints() == []


def test_an_empty_suite_opens(browser: Browser, tmp_path: Path) -> None:
    """A page without any figure complains of nothing."""
    from synthetic_records import ELEVEN, write_suite

    write_suite(tmp_path, {"pgd-at": ELEVEN["pgd-at"]}, missing=[("pgd-at", 0)])
    page = tmp_path / "empty.html"
    page.write_text(report_html(summarise(read_suite(tmp_path))), encoding="utf-8")
    browser.open(page)
    assert "No cell has been evaluated yet" in browser.one("#words").text
    assert browser.complaints() == []


def test_every_layer_keeps_its_source_apart() -> None:
    """All 236 leaderboard entries are there once, and no layer mixes data sets or attacks."""
    layers = published.layers()
    board = [layer for layer in layers if layer.source == "RobustBench"]
    assert sum(len(layer.points) for layer in board) == 236
    keys = [(layer.source, layer.dataset, layer.threat, layer.metric) for layer in layers]
    assert len(set(keys)) == len(keys)
    assert all(np.isfinite(point[:2]).all() for layer in layers for point in layer.points)
