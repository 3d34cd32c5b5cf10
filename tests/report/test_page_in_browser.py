"""The page in a real browser: what a reader does with it, and that it needs nothing else."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from made_entries import made
from synthetic_records import ELEVEN, write_suite

from benchmark.records.study import SuiteRecord, read_suite
from benchmark.report import fronts
from benchmark.report.leaderboard import leaderboard, parameters_of
from benchmark.report.leaderboard_page import leaderboard_html
from benchmark.report.page import report_html
from benchmark.report.published_figures import published_figures, same_eps
from benchmark.report.summarise import summarise
from benchmark.report.verdict import verdict

RESULTS = Path(__file__).parents[2] / "results"
STUDIES = ("quick", "cifar10-cpu")
DOTS = "#tradeoff-chart g.methods > *"
THEIRS = "#tradeoff-chart g.published > *"
WIDTHS = (1440, 1024, 390)
# What is cut off: wider than the screen, or than its own frame; the frame of a table may scroll
# where there is no room for all columns.
CUT = """[...document.querySelectorAll("body *")]
    .filter(e => e.checkVisibility() && !e.closest("svg, .unseen, .skip, select"))
    .filter(e => {
      const box = e.getBoundingClientRect();
      const beyond = !e.closest(".scroll > *") && (box.right > innerWidth + 1 || box.left < -1);
      const inside = getComputedStyle(e).overflowX !== "visible" && e.scrollWidth > e.clientWidth + 1;
      return box.width && (beyond || (inside && !e.matches("input, pre")));
    })
    .map(e => e.getAttribute("aria-label") || e.tagName + "." + e.className)"""
# What of a chart lies outside its frame: names, marks, axes.
OUTSIDE = """[...document.querySelectorAll("figure.chart svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text, path, rect, line")]
    .filter(e => !e.closest("[aria-label=tip], defs"))
    .filter(e => {
      const box = e.getBoundingClientRect();
      return box.width && (box.left < frame.left - 2 || box.right > frame.right + 2
        || box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
    })
    .map(e => `${svg.getAttribute("aria-label")}: ${e.tagName} ${e.textContent}`);
})"""
# Choices that are wider than their field; 18 px are the arrow's.
TIGHT = """(() => {
  const pen = document.createElement("canvas").getContext("2d");
  return [...document.querySelectorAll("select")].filter(e => {
    const { font, paddingLeft, paddingRight } = getComputedStyle(e);
    pen.font = font;
    const words = pen.measureText(e.selectedOptions[0].text).width;
    return words + parseFloat(paddingLeft) + parseFloat(paddingRight) + 18 > e.clientWidth;
  }).map(e => e.selectedOptions[0].text);
})()"""
# The lowest contrast of the texts that are seen, by WCAG's formula: colours are painted onto a
# canvas, which turns every notation into what is on the screen.
CONTRAST = """(() => {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = getComputedStyle(document.body).backgroundColor;
  const below = (e) => {
    const found = [];
    for (let at = e; at; at = at.parentElement) found.unshift(getComputedStyle(at).backgroundColor);
    return [page, ...found];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const words = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!words || !e.checkVisibility() || e.closest(".unseen, .skip, script, option")) continue;
    const style = getComputedStyle(e);
    const drawn = e.ownerSVGElement ? style.fill : style.color;
    if (drawn === "none") continue;
    const under = below(e.ownerSVGElement ?? e);
    const [a, b] = [light(paint([...under, drawn])), light(paint(under))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, e.tagName + "." + (e.className.baseVal ?? e.className) + ": " + e.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()"""

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
    board = leaderboard_html(leaderboard([RESULTS / "cifar10-cpu-norms", RESULTS / "resnet2b"]))
    (folder / "leaderboard.html").write_text(board, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in (*STUDIES, "leaderboard")}


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


def unfold(page: Browser) -> None:
    """Open all sections, and wait until their charts are drawn."""
    page.js("document.querySelectorAll('details').forEach(part => { part.open = true })")
    empty = (
        "[...document.querySelectorAll('figure.chart')].filter(f => !f.querySelector('svg')).length"
    )
    page.until(lambda: page.js(empty) == 0)


def in_dark(page: Browser, dark: bool) -> None:
    features = [{"name": "prefers-color-scheme", "value": "dark"}] if dark else []
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


@pytest.mark.parametrize("name", STUDIES)
def test_it_stands_alone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    """One file below 5 MB: no request, no complaint on the console, every chart drawn."""
    assert pages[name].stat().st_size < 5_000_000
    browser.resize(1280)
    browser.open(pages[name])
    unfold(browser)
    figures = browser.all("figure.chart")
    assert len(figures) > 3
    assert all(figure.find_elements("css selector", "svg") for figure in figures)
    assert browser.all("figure[data-curve] g.mean path"), "lines, not axes alone"
    assert browser.requests() == []
    assert browser.complaints() == []


def test_the_first_screen_gives_the_answer(page: Browser, suite: SuiteRecord) -> None:
    """One sentence, the plot and the table without scrolling; all else is folded until asked for."""
    page.resize(1440)
    assert page.one(".answer").text == verdict(summarise(suite))
    for selector in (".answer", "#tradeoff-chart svg", "#results tbody tr:nth-child(5)"):
        assert (
            page.js("document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
            < 900
        )
    folds = page.all("main > section > details.fold")
    assert len(folds) >= 8
    assert not any(fold.get_attribute("open") for fold in folds)
    assert "3 (seeds 0, 1, 2)" in page.one(".meta").text
    # The sections' names stay in view, and lead to a section that opens.
    page.click('nav.top a[href="#provenance"]')
    page.until(lambda: page.js("scrollY") > 300)
    assert page.one("#provenance details").get_attribute("open")
    assert page.js("document.querySelector('nav.top').getBoundingClientRect().top") == 0


@pytest.mark.parametrize("name", [*STUDIES, "leaderboard"])
def test_nothing_is_cut_off_and_all_text_is_legible(
    browser: Browser, pages: dict[str, Path], name: str
) -> None:
    """At three widths; on a phone, tables beyond the first may scroll within their own frame. Text
    has a contrast of 4.5 in both themes, heat maps and names in plots included."""
    browser.resize(1440)
    browser.open(pages[name])
    if name != "leaderboard":
        unfold(browser)
    for width in WIDTHS:
        browser.resize(width, mobile=width == 390)
        browser.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert browser.js("document.documentElement.scrollWidth") <= width
        assert browser.js(OUTSIDE) == [], width
        scrolls = {"Gallery", "Corruptions", "Runs"} if width == 390 else set()
        published = {"Adversarial training, single threat model", "Several norms", "PRE.",
                     "RobustBench leaderboard"}  # fmt: skip
        assert set(browser.js(CUT)) <= scrolls | published, width
        assert browser.js(TIGHT) == [], width
    for dark in (False, True):
        in_dark(browser, dark)
        found: list[tuple[float, str]] = browser.js(CONTRAST)
        assert len(found) > 100
        assert found[0][0] >= 4.5, (dark, found[:8])
    in_dark(browser, False)
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
    unfold(page)
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
    """Off at first, other marks, and only of the same data set under the same attack: 99 entries of
    the leaderboard for CIFAR-10 under l_inf 8/255, none of other boards."""
    from selenium.webdriver.support.ui import Select

    page.js("document.querySelector('.options').open = true")
    select = Select(page.one("#metric"))
    own = {o.get_attribute("value") for o in select.options}
    assert {label.get_attribute("data-metric") for label in page.all("#layers label")} <= own
    select.select_by_value("aa_linf")
    assert not page.all(THEIRS)
    before = len(page.all(DOTS))
    (label,) = [
        x for x in page.all("#layers label") if "RobustBench" in x.text and x.is_displayed()
    ]
    assert "cifar10, linf, eps 8/255" in label.text
    page.show(label)
    label.click()
    assert len(page.all(THEIRS)) == 99
    assert len(page.all(DOTS)) == before, "ours are neither more nor fewer"
    assert "not ours" in page.one("#legend-layers").text
    select.select_by_value("pgd20_l2")
    assert not page.all(THEIRS), "AutoAttack's figures are on no other axis"


def test_layers_of_our_own_figures_switch(page: Browser) -> None:
    """Intervals, front, names and seeds come and go."""
    page.js("document.querySelector('.options').open = true")
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
    unfold(page)
    page.click('label:has([name="class-metric"][value="pgd20_linf"])')
    shown = [b for b in page.all("[data-class-metric]") if b.is_displayed()]
    assert [b.get_attribute("data-class-metric") for b in shown] == ["pgd20_linf"]
    page.click(".command .copy")
    page.until(lambda: page.one(".command .copy").text == "Copied")


def test_it_prints(page: Browser) -> None:
    """Several pages with text, without the controls, in light colours even from the dark theme; all
    sections are open on paper and folded again after it. No row stays alone on a page."""
    page.click("label:has([value=dark])")
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    pdf = base64.b64decode(printed["data"])
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 30
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.S)
    drawn = b"".join(_inflated(stream) for stream in streams)
    assert drawn.count(b" Tj") + drawn.count(b" TJ") > 100
    assert not page.all("details.fold[open]")
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.one("#metric").is_displayed()
    kept = "getComputedStyle(document.querySelector(arguments[0])).break{}"
    rows = "#results tbody tr:nth-{}child(2)"
    assert page.js(kept.format("After"), rows.format("")) == "avoid"
    assert page.js(kept.format("Before"), rows.format("last-")) == "avoid"
    assert page.js(kept.format("Inside"), rows.format("")) == "avoid"
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def _inflated(stream: bytes) -> bytes:
    try:
        return zlib.decompress(stream)
    except zlib.error:
        return b""


def test_methods_are_compared(browser: Browser, page: Browser, tmp_path: Path) -> None:
    """Differences, ranks and cost of three seeds, then a union's bars: one mark for each method,
    filled where the model is sure; tips by keyboard; the filter; nothing outside its chart."""
    study = summarise(read_suite(RESULTS / "cifar10-cpu"))
    unfold(page)
    for number, one in enumerate(study.differences):
        marks = page.all(f"figure[data-difference='{number}'] g.methods > *")
        hollow = ["page" in (mark.get_attribute("fill") or "") for mark in marks]
        assert hollow == [row.p > 0.05 for row in one.rows]
    for number, ranked in enumerate(study.ranks):
        figure = f"figure[data-rank='{number}']"
        assert page.texts(f"{figure} g[aria-label='y-axis tick label'] text") == [*ranked.mean]
        assert len(page.all(f"{figure} g.alike path")) == len(ranked.groups)
    points = [p for p in study.trade_offs.main[0].points if p.method in study.passes]
    assert len(page.all("figure[data-cost='0'] g.methods > *")) == len(points)
    _pointed_at(page, "figure[data-difference='0']", study.differences[0].rows[0].method)

    norms = summarise(read_suite(RESULTS / "cifar10-cpu-norms"))
    (tmp_path / "norms.html").write_text(report_html(norms), encoding="utf-8")
    browser.open(tmp_path / "norms.html")
    unfold(browser)
    assert len(browser.all("figure[data-union] g.attack rect")) == 3 * len(norms.table.rows)
    assert len(browser.all("figure[data-union] g.methods rect")) == len(norms.table.rows)
    fills = browser.js(
        "[...document.querySelectorAll('svg[data-bar] rect')].map(e => e.getAttribute('fill'))"
    )
    assert fills == ["url(#bar-0)", "url(#bar-1)", "url(#bar-2)", "var(--text)"]
    shown = _pointed_at(browser, "figure[data-union]", norms.table.rows[0].method)
    assert "AutoAttack l1" in shown
    assert "Union" in shown
    for width in WIDTHS:
        browser.resize(width, mobile=width == 390)
        browser.js("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert browser.js(OUTSIDE) == [], width
    browser.js("document.querySelector('#filter').value = 'msd'")
    browser.js("document.querySelector('#filter').dispatchEvent(new Event('input'))")
    for kind in ("difference", "union", "cost"):
        assert len(browser.all(f"figure[data-{kind}='0'] g.methods > *")) == 1
    assert browser.complaints() == []


def _pointed_at(page: Browser, figure: str, method: str) -> str:
    """What is shown once the first mark of a chart has the focus."""
    mark = page.all(f"{figure} g.methods > *")[0]
    page.show(mark)
    page.js("arguments[0].focus()", mark)
    tip_of = f"{figure} g[aria-label=tip] text tspan"
    page.until(lambda: method in " ".join(page.texts(tip_of)))
    return " ".join(page.texts(tip_of))


def test_a_hostile_record_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    """Markup in a label is text everywhere, charts and tips included."""
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
    write_suite(tmp_path, {"pgd-at": ELEVEN["pgd-at"]}, missing=[("pgd-at", 0)])
    page = tmp_path / "empty.html"
    page.write_text(report_html(summarise(read_suite(tmp_path))), encoding="utf-8")
    browser.open(page)
    assert "No cell has been evaluated yet" in browser.one(".answer").text
    assert browser.complaints() == []


def test_a_tie_is_not_bold(page: Browser) -> None:
    """Bold is what no other reaches; the highest among overlapping ones is italic and no more."""
    style = "getComputedStyle(document.querySelector(arguments[0])).{}"
    tied = "#results .tied .value"
    assert page.js(style.format("fontWeight"), tied) == "400"
    assert page.js(style.format("fontStyle"), tied) == "italic"


# --- fronts and radii -----------------------------------------------------------------------------

THREAT = {"norm": "linf", "eps": "8/255", "step": "2/255", "steps": 20}
FRONTS = {"AT": ["pgd-at", "trades", "joint"], "Generalist": ["generalist-d", "generalist-t"]}


def test_fronts_and_radii_are_drawn(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture and tables of each front; a curve per method over the radii, whose tip has the
    figure, and which follows the filter."""
    from selenium.webdriver import ActionChains

    monkeypatch.setattr(fronts, "RESAMPLES", 200)
    methods = {m: ELEVEN[m] for m in ("pgd-at", "trades", "joint", "generalist-d", "generalist-t")}
    write_suite(tmp_path, methods, seeds=(0, 1), n=200, n_aa=100, corruptions=(), spread=0.005)
    plan = json.loads((tmp_path / "suite.json").read_text())
    (tmp_path / "suite.json").write_text(json.dumps({**plan, "fronts": FRONTS}))
    for cell in tmp_path.glob("cells/*"):
        _attack_at_radii(cell)
    study = summarise(read_suite(tmp_path))
    page = tmp_path / "page.html"
    page.write_text(report_html(study), encoding="utf-8")
    browser.resize(1440)
    browser.open(page)
    unfold(browser)

    planes = browser.all("figure[data-front]")
    assert len(planes) == len(study.fronts) == 2
    heads = [head.replace("\N{NO-BREAK SPACE}", " ") for head in browser.texts("#fronts h3")]
    assert heads[0] == "Clean and PGD-20 accuracy (ℓ∞, eps 8/255), n = 200, 2 seeds"
    assert browser.texts("#radii figcaption") == [
        "Area PGD-20: accuracy under attack (%), n = 200, 2 seeds"
    ]
    assert len(planes[0].find_elements("css selector", "g.settings > *")) == 5
    assert len(planes[0].find_elements("css selector", "g.hull path")) == 2
    bands = sum(bool(front.band) for front in study.fronts[0].fronts)
    assert len(planes[0].find_elements("css selector", "g.bands path")) == bands > 0
    tables = browser.texts("#fronts table td")
    for front in study.fronts[0].fronts:
        assert front.name in tables
        assert any(label in cell for label, _ in front.points for cell in tables)

    lines = "figure[data-radii=curve20_linf] g.mean path"
    assert len(browser.all(lines)) == 5
    assert "eps (linf, 1/255)" in browser.texts("figure[data-radii] svg text")
    looks = {(line.get_attribute("stroke"), line.get_attribute("stroke-dasharray"))
             for line in (e.find_element("xpath", "..") for e in browser.all(lines))}  # fmt: skip
    assert len(looks) == 5, "no two are alike"
    chart = browser.one("figure[data-radii=curve20_linf] svg")
    browser.show(chart)
    ActionChains(browser.driver).move_to_element(browser.all(lines)[0]).perform()
    shown = "figure[data-radii] g[aria-label=tip] text tspan"
    assert browser.until(lambda: "95 %" in " ".join(browser.texts(shown)))
    browser.one("#filter").send_keys("generalist")
    assert len(browser.all(lines)) == 2
    assert browser.complaints() == []


def _attack_at_radii(cell: Path) -> None:
    """A curve over radii in the record of a run."""
    import pandas as pd

    record = json.loads((cell / "evaluation.json").read_text())
    frame = pd.read_parquet(cell / "outcomes.parquet")
    accuracies = {"4/255": 0.6, "8/255": 0.4, "16/255": 0.2}
    for radius, accuracy in accuracies.items():
        frame[f"curve20_linf/{radius}"] = frame.index < 200 * accuracy
    detail: dict[str, Any] = {
        "threat": THREAT, "radii": [*accuracies], "clean": 0.8, "accuracies": [*accuracies.values()],
    }  # fmt: skip
    settings = {"kind": "curve", "threat": THREAT, "factors": [0.5, 1, 2]}
    record["metrics"]["curve20_linf"] = made(settings, detail, n=200, mean=0.5)
    (cell / "evaluation.json").write_text(json.dumps(record))
    frame.to_parquet(cell / "outcomes.parquet")


# --- the leaderboard ------------------------------------------------------------------------------


def test_the_leaderboard_sorts_filters_and_tells_ours_apart(
    browser: Browser, pages: dict[str, Path]
) -> None:
    """One data set, norm, eps and attack at first; ranks follow the sorted column and the filters."""
    from selenium.webdriver.support.ui import Select

    browser.resize(1440)
    browser.open(pages["leaderboard"])
    assert browser.requests() == []
    row = "#board tbody tr:not(.filtered)"

    def column(number: int) -> list[float]:
        keys = browser.js(
            f"[...document.querySelectorAll('{row} > :nth-child({number})')].map(c => c.dataset.key)"
        )
        return [float(key) for key in keys if key]

    def select(key: str) -> Any:
        return Select(browser.one(f"select[data-filter={key}]"))

    first = {"dataset": "cifar10", "norm": "linf", "eps": "8/255", "attack": "AutoAttack"}
    for key, value in first.items():
        assert select(key).first_selected_option.get_attribute("value") == value
        assert {e.get_attribute(f"data-{key}") for e in browser.all(row)} == {value}
    assert column(12) == sorted(column(12), reverse=True)
    assert "ranked by Robust (%)" in browser.one("#shown").text
    kinds = [e.get_attribute("data-whose") for e in browser.all(row)]
    assert kinds.count("ours") == 13
    assert kinds.count("published") > 99
    background = "getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    assert browser.js(background, f"{row}.ours") != browser.js(background, f"{row}.published")
    assert all(e.text == "ours" for e in browser.all(f"{row}.ours .whose"))

    browser.click("#board thead th:nth-child(11) button")
    assert column(11) == sorted(column(11), reverse=True)
    browser.click("#board thead th:nth-child(6) button")
    browser.click("#board thead th:nth-child(6) button")
    assert column(6) == sorted(column(6))
    select("whose").select_by_value("ours")
    assert len(browser.all(row)) == 13
    browser.click("#everything")
    select("extra").select_by_value("yes")
    assert {e.get_attribute("data-extra") for e in browser.all(row)} == {"yes"}
    browser.click("#everything")
    select("size").select_by_value("50 million and more")
    assert min(column(6)) >= 50e6
    browser.one("#search").send_keys("Bartoldson")
    assert 0 < len(browser.all(row)) < 5
    assert browser.complaints() == []


def test_what_is_published_is_counted_and_compared_by_attack() -> None:
    """All 236 entries of the leaderboard are there once; radii are compared as numbers; sizes are
    those of the networks that are built here."""
    figures = published_figures()
    assert sum(figure.source == "RobustBench" for figure in figures) == 236
    assert {figure.norm for figure in figures} == {"linf", "l2", "l1", ""}
    assert same_eps("0.031", "8/255")
    assert same_eps("0.50", "1/2")
    assert not same_eps("0.5", "128/255")
    assert not same_eps("", "8/255")
    wanted = {"WideResNet-28-10": 36_479_194, "WRN-34-10": 46_160_474, "WideResNet-70-16": 266_796_506,
              "ResNet-18": 11_173_962, "WideResNet-34-R": None, "XCiT-L12": None}  # fmt: skip
    assert {name: parameters_of(name) for name in wanted} == wanted
