"""The HTML report in a real browser: it renders, it answers, it fetches nothing."""

import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from icediag.reports.html import render_html
from tests.report_cases import NAMES, all_cases

#: Set where a browser must be there, as in .ci/run: what cannot run is then no skip but a failure.
REQUIRED = os.environ.get("ICEDIAG_BROWSER") == "required"
playwright: Any
if REQUIRED:
    playwright = importlib.import_module("playwright.sync_api")
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

#: Text on a background, by the WCAG 2.2, 1.4.3; large text may have less.
CONTRAST, LARGE_CONTRAST = 4.5, 3.0

LOWEST_CONTRASTS = """() => {
  const channels = (text) => {
    const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const seen = new Set();
  for (const element of document.querySelectorAll("body *:not(svg *):not(script):not(style)")) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!words.length || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const key = `${style.color}|${back}|${style.fontSize}|${style.fontWeight}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const [a, b] = [light(channels(style.color).slice(0, 3)), light(back.slice(0, 3))];
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, large, words[0].textContent.trim().slice(0, 60)]);
  }
  return found;
}"""


@dataclass
class Tab:
    """A page with all that it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


def _executable() -> str | None:
    """A browser of the system's, where playwright has none of its own."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    return None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        own = Path(started.chromium.executable_path)
        system = None if own.is_file() else _executable()
        if not own.is_file() and system is None:
            reason = "no Chromium: neither playwright's own nor one of the system's"
            pytest.fail(reason) if REQUIRED else pytest.skip(reason)
        # The sandbox of a browser needs rights that a container has not; the pages are ours.
        with started.chromium.launch(executable_path=system, args=["--no-sandbox"]) as launched:
            yield launched


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, case in all_cases().items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(render_html(*case), encoding="utf-8")
    return found


@pytest.fixture
def opened(browser: Any, reports: dict[str, Path]) -> Iterator[Any]:
    contexts = []

    def open_(name: str, *, width: int = 1280, scheme: str = "light") -> Tab:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        tab = Tab(context.new_page())
        tab.page.on("console", lambda message: tab.said.append(message.text))
        tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.page.on("dialog", lambda dialog: tab.said.append(dialog.message))
        tab.page.on("request", lambda request: tab.asked.append(request.url))
        tab.page.goto(reports[name].as_uri())
        return tab

    yield open_
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_it_renders_and_fetches_nothing(opened: Any, name: str, width: int, scheme: str) -> None:
    tab = opened(name, width=width, scheme=scheme)
    page = tab.page
    assert page.locator("h1").is_visible()
    assert page.locator("h1").bounding_box()["y"] < 500
    # Wide tables scroll by themselves, never the page.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in tab.asked if url.startswith("file:")]) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out(opened: Any, scheme: str) -> None:
    for name in ("case", "timed"):
        page = opened(name, scheme=scheme).page
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        found = page.evaluate(LOWEST_CONTRASTS)
        assert len(found) > 10
        poor = [one for one in found if one[0] < (LARGE_CONTRAST if one[1] else CONTRAST)]
        assert poor == []


def test_findings_are_filtered(opened: Any) -> None:
    tab = opened("case")
    page = tab.page
    findings = page.locator(".finding")
    every = findings.count()
    assert every > 3
    shown = page.locator(".finding:visible")
    assert shown.count() == every
    page.locator("#search").fill("n02 Dom_Encoder")
    fitting = "one => /n02/i.test(one.textContent) && /dom_encoder/i.test(one.textContent)"
    count = page.evaluate(f"[...document.querySelectorAll('.finding')].filter({fitting}).length")
    assert 0 < count < every
    assert shown.count() == count
    assert page.locator("#shown").inner_text() == f"{count} of {every} shown"
    page.locator("#search").fill("no such words")
    assert shown.count() == 0
    page.locator("#search").fill("")
    errors = page.locator(".finding.error").count()
    page.locator("input[value=error]").uncheck()
    assert shown.count() == every - errors
    assert page.locator(".finding.error:visible").count() == 0
    page.locator("input[value=error]").check()
    assert shown.count() == every
    assert tab.said == []


def test_stages_open_by_click_and_by_key(opened: Any) -> None:
    page = opened("case").page
    visible = page.locator(".stage-details:visible")
    assert visible.count() == 1
    links = page.locator("a.stage")
    assert links.count() > 8
    # What is wrong is shown first.
    assert page.locator(".finding .at a").first.inner_text() in visible.locator("h3").inner_text()
    links.nth(0).click()
    assert "dataset item" in visible.inner_text()
    links.nth(0).focus()
    page.keyboard.press("ArrowDown")
    assert "collate" in visible.locator("h3").inner_text()
    page.keyboard.press("Enter")
    assert visible.count() == 1
    link = page.locator(".finding .at a").first
    name = link.inner_text()
    link.click()
    assert name in visible.locator("h3").inner_text()


def test_it_is_read_with_the_keyboard_and_aloud(opened: Any) -> None:
    page = opened("case").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('svg[role=img], section, nav, input, button')]"
        ".filter((one) => !one.getAttribute('aria-label') && !one.getAttribute('aria-labelledby')"
        " && !one.textContent.trim() && !one.closest('label')).map((one) => one.outerHTML)"
    )
    assert nameless == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_colours_are_chosen(opened: Any) -> None:
    page = opened("clean", scheme="light").page
    background = "getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) == first
    page.locator("#theme").click()
    assert page.evaluate(background) != first
    assert "dark" in page.locator("#theme").get_attribute("aria-label")


def test_it_is_printed_whole(opened: Any) -> None:
    page = opened("case").page
    text = page.pdf(format="A4")
    assert text.startswith(b"%PDF") and len(text) > 20_000
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator(".top").is_visible() and not page.locator("#filters").is_visible()
    wrong = page.locator(".stage-details:is(.error, .warning, .note)")
    assert wrong.count() > 2
    assert all(wrong.nth(i).is_visible() for i in range(wrong.count()))
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_without_scripts_nothing_is_lost(browser: Any, reports: dict[str, Path]) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(reports["case"].as_uri())
        stages = page.locator(".stage-details")
        assert stages.count() > 8
        assert page.locator(".stage-details:visible").count() == stages.count()
        assert page.locator(".finding:visible").count() == page.locator(".finding").count()
