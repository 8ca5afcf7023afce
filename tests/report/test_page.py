"""The page in Chromium: on a screen and a phone, light and dark, without network."""

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mue_check.catalog import write_report
from tests.report.conftest import make_full

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mue_check[browser]'")
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCREENS = [(1400, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: the one on the PATH, or playwright's own."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drifts that pass, fail and are unresolved; another rule; laws; a control."""
    made = make_full(tmp_path_factory.mktemp("pages") / "study")
    made.ask(made.side(32), made.side(64, 0.1), axis="capacity")
    made.ask(made.side(32), made.side(64, 0.1, diverges_from=-99.0), axis="depth")
    replace(made, rule="a_rule_with_a_name_that_is_rather_long").ask(
        made.side(32), made.side(64, 0.9), axis="capacity", expected=""
    )
    write_report(made.root)
    return Path(made.root)


@pytest.fixture
def show(browser: Any, study: Path) -> Iterator[Callable[..., Any]]:
    """The page on a screen of that width and scheme. It fails on an error of a script, and on any request."""
    contexts, errors = [], []

    def shown(width: int = 1400, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.extend([request.url] * request.url.startswith("http")))
        page.goto((study / "report.html").as_uri())
        return page

    yield shown
    for context in contexts:
        context.close()
    assert not errors


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_it_fits_the_screen_and_shows_its_figures(show: Callable[..., Any], width: int, scheme: str) -> None:
    page = show(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").inner_text().startswith("FAIL Learning rate transfers on 1 of 3 axes")
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # what unpacks all figures
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    # a figure has the page's background
    background, drawn = page.evaluate("""async () => {
        const image = document.querySelector(".strip img"), canvas = document.createElement("canvas");
        await image.decode();
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const pixel = context.getImageData(2, 2, 1, 1).data.slice(0, 3);
        return [getComputedStyle(document.body).backgroundColor, `rgb(${pixel.join(", ")})`];
    }""")
    assert drawn == background
    assert drawn == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 26)"}[scheme]


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_axe_finds_nothing(show: Callable[..., Any], width: int, scheme: str) -> None:
    axe = importlib.util.find_spec("axe_playwright_python")
    if axe is None or axe.origin is None:
        pytest.skip("needs axe: pip install 'mue_check[browser]'")
    page = show(width, scheme)
    page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
    page.evaluate(Path(axe.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 20


@pytest.mark.parametrize("width", [1400, 390])
def test_verdicts_and_headers_stay_in_sight(show: Callable[..., Any], width: int) -> None:
    page = show(width)
    table = page.locator("#drift .scroll")
    table.scroll_into_view_if_needed()
    box = table.locator("td.verdict").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    page.evaluate("document.querySelector('#drift tbody tr:last-child').scrollIntoView({block: 'center'})")
    assert table.locator("th.verdict").bounding_box()["y"] >= 0
    assert page.locator(".tools").bounding_box()["y"] == 0


def test_failures_are_linked(show: Callable[..., Any]) -> None:
    page = show()
    page.locator("#failures a").first.click()
    assert page.url.endswith("#axis-width")
    top = page.locator("#axis-width").bounding_box()["y"]
    assert page.locator(".tools").bounding_box()["height"] <= top < 200


def test_rows_sort_and_filter_with_their_notes(show: Callable[..., Any]) -> None:
    page = show()
    rows = page.locator("#drift tbody tr:not(.note):visible")
    verdicts = page.locator("#drift td.verdict:visible")
    total = rows.count()
    page.locator("#drift th.verdict button").click()
    assert verdicts.all_inner_texts() == sorted(verdicts.all_inner_texts(), key=["FAIL", "PASS"].index)
    assert page.locator("#drift th.verdict").get_attribute("aria-sort") == "ascending"
    page.locator("#drift th.verdict button").click()
    assert verdicts.first.inner_text() == "PASS"
    note = page.locator("#drift tr.note", has_text="every value diverged")
    assert "depth" in note.evaluate("row => row.previousElementSibling.textContent")
    page.get_by_label("Filter rows by words").fill("rather_long")
    assert rows.count() == 1 < total
    shown = page.locator("main tr:not(.note):visible td:first-child:not(.strip td)").count()
    assert page.locator("output").inner_text().startswith(f"{shown} of ")
    page.get_by_label("Filter rows by words").fill("")
    page.get_by_label("Filter rows by verdict").select_option("PASS")
    assert set(verdicts.all_inner_texts()) == {"PASS"}
    assert page.locator(".strip:visible h3").count() == page.locator(".strip[data-verdict=PASS]").count()


def test_it_is_small_and_quick(show: Callable[..., Any], study: Path) -> None:
    assert (study / "report.html").stat().st_size < 200_000
    began = time.monotonic()
    show()
    assert time.monotonic() - began < 5  # one second on a free machine
