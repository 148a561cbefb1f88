"""A page in headless Chromium: nothing is asked for or complained of, tables sort, the slider moves, it fits a phone.

Without playwright or a browser these are skipped, but where the environment variable CI is set they fail.
"""

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import page_store
import pytest
from page_store import COLOURS, EVIL, L1, SG
from PIL import Image

from sgbench.report import page

Page = Any  # of playwright, which need not be installed

RGB = tuple[int, int, int]

WIDTHS = (360, 768, 1280)


def _lacking(what: str) -> NoReturn:
    reason = f"{what} is not installed; the page is not tried in a browser"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _lacking("playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        _lacking("Chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Path:
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGBENCH_CACHE", str(folder / "cache"))
        packed = page_store.test_set(folder / "HR")
    store = page_store.made(folder / "store", packed)
    target = folder / "report.html"
    target.write_text(page.render(page_store.content(store, packed)), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def opened(browser: Any, file: Path) -> Iterator[tuple[Page, list[str], list[str]]]:
    """A tab with the page, what its console said, and what it asked for."""
    tab = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light").new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    yield tab, said, asked
    tab.context.close()


@pytest.fixture
def tab(opened: tuple[Page, list[str], list[str]]) -> Page:
    """The page as it was when it was opened."""
    tab = opened[0]
    tab.emulate_media(color_scheme="light", media="screen")
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.reload()
    return tab


def shot(tab: Page) -> np.ndarray:
    """Return the pixels of the two images as they lie over each other."""
    return np.array(Image.open(io.BytesIO(tab.locator("#viewer-pair").screenshot())).convert("RGB"))


def colours(tab: Page, *shares: float) -> list[RGB]:
    """Return the colours at some shares of the width, near the top of the images, where the handle is not."""
    pixels = shot(tab)
    row = pixels[len(pixels) // 8]
    return [tuple(int(part) for part in row[int(share * len(row))]) for share in shares]


def near(a: RGB, b: RGB) -> bool:
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= 3


def column(table: Any, at: int) -> list[str]:
    """Return the texts of a column from top to bottom; a cell that spans rows counts once."""
    return [text.strip() for text in table.locator(f"tbody tr > :nth-child({at + 1})").all_inner_texts()]


# Tables


def test_numbers_sort_as_numbers_both_ways_and_then_return(tab: Page) -> None:
    table = tab.locator("#runs table")
    head = table.locator("thead th", has_text="training")
    before = column(table, 8)
    head.get_by_role("button").click()
    assert column(table, 8)[:9] == [*["1:02:03"] * 3, *["2:04:06"] * 3, *["3:06:09"] * 3]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert column(table, 8)[0] == "4:08:12"
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert column(table, 8) == before
    assert head.get_attribute("aria-sort") is None


def test_words_sort_by_keyboard(tab: Page) -> None:
    table = tab.locator("#runs table")
    button = table.locator("thead th", has_text="loss").get_by_role("button")
    button.focus()
    tab.keyboard.press("Enter")
    assert column(table, 2) == sorted([EVIL] * 3 + [L1] * 4 + [SG] * 3)
    tab.keyboard.press("Space")
    assert column(table, 2) == sorted([EVIL] * 3 + [L1] * 4 + [SG] * 3, reverse=True)


def test_one_column_at_a_time_is_sorted_by(tab: Page) -> None:
    table = tab.locator("#runs table")
    for name in ("seed", "loss"):
        table.locator("thead th", has_text=name).get_by_role("button").click()
    assert table.locator("[aria-sort]").all_inner_texts() == ["loss"]


def test_cells_that_span_rows_are_told_apart_before_rows_move(tab: Page) -> None:
    table = tab.locator("#scores table").last
    assert table.locator("tbody [rowspan]").count()
    table.locator("thead th", has_text="lpips_alex").get_by_role("button").click()
    assert not table.locator("tbody [rowspan]").count()
    assert set(column(table, 0)) == {"Photos"}
    assert column(table, 2)[0] == SG
    values = [float(text[:6]) for text in column(table, 4)]
    assert values == sorted(values)


def test_what_is_no_number_stands_last_both_ways(tab: Page) -> None:
    table = tab.locator("#runs table")
    button = table.locator("thead th", has_text="steps/s").get_by_role("button")
    for first in ("9.5", "11.5"):
        button.click()
        assert (column(table, 9)[0], column(table, 9)[-1]) == (first, "–")


def test_differences_sort_by_their_sign(tab: Page) -> None:
    table = tab.locator("#statistics table").first
    table.locator("thead th", has_text="difference").get_by_role("button").click()
    values = [float(text.replace("−", "-")) for text in column(table, 5)]
    assert values == sorted(values)


# Images


def test_each_side_of_the_slider_shows_its_own_image(tab: Page) -> None:
    left, right = colours(tab, 0.1, 0.9)
    assert near(left, COLOURS[L1])
    assert near(right, COLOURS[SG])


def test_the_slider_follows_the_mouse(tab: Page) -> None:
    tab.locator("#viewer-pair").scroll_into_view_if_needed()
    box = tab.locator("#viewer-pair").bounding_box()
    y = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] * 0.5, y)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    tab.mouse.up()
    assert float(tab.locator("#viewer-slider").input_value()) == pytest.approx(80, abs=2)
    inside, outside = colours(tab, 0.7, 0.9)
    assert near(inside, COLOURS[L1])
    assert near(outside, COLOURS[SG])


def test_the_slider_follows_the_keyboard_and_says_where_it_is(tab: Page) -> None:
    slider = tab.get_by_role("slider")
    slider.focus()
    tab.keyboard.press("Home")
    assert near(*colours(tab, 0.5), COLOURS[SG])
    tab.keyboard.press("End")
    assert near(*colours(tab, 0.5), COLOURS[L1])
    tab.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "99% edsr-tiny · l1 · seed 0, 1% edsr-tiny · l1 + 1.0*sg · seed 0"


def test_other_images_and_sides_can_be_chosen(tab: Page) -> None:
    tab.locator("#viewer-left").select_option(label=f"edsr-tiny · {EVIL} · seed 0")
    tab.locator("#viewer-right").select_option(label="HR")
    assert near(*colours(tab, 0.1), COLOURS[EVIL])
    tab.locator("#viewer-image").select_option(label="noise10")
    assert tab.locator("#viewer-left-image").get_attribute("alt") == f"noise10: edsr-tiny · {EVIL} · seed 0"
    assert tab.locator("#viewer-right-name").inner_text() == "HR"
    assert not near(*colours(tab, 0.9), COLOURS[SG])


def test_the_better_score_of_an_image_is_bold_on_its_side(tab: Page) -> None:
    rows = tab.locator("#viewer-scores tbody tr")
    assert rows.first.locator("th").inner_text() == "lpips_alex ↓"
    assert rows.first.locator("td").nth(1).get_attribute("class") == "best"
    tab.locator("#viewer-right").select_option(label="HR")
    assert rows.first.locator("td").nth(1).inner_text() == "–"
    assert not rows.locator(".best").count()


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_size_is_so_many_pixels_of_the_screen_for_one_of_the_image(tab: Page, factor: int) -> None:
    tab.get_by_label(f"×{factor}").check()
    box = tab.locator("#viewer-left-image").bounding_box()
    assert (box["height"], box["width"]) == tuple(factor * side for side in page_store.SIZE)
    assert tab.locator("#viewer-left-image").evaluate("each => getComputedStyle(each).imageRendering") == "pixelated"


# The page


def test_a_page_needs_no_script_but_for_sorting_and_comparing(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert "needs JavaScript" in tab.locator("noscript").text_content()
    assert not tab.locator("#viewer").is_visible()
    assert tab.locator("#runs tbody tr").count() == 10
    context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_is_never_wider_than_the_screen(tab: Page, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 800})
    tab.get_by_label("×4").check()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_first_column_stays_when_a_table_is_moved(tab: Page) -> None:
    tab.set_viewport_size({"width": 360, "height": 800})
    box = tab.locator("#runs .scroll")
    head = box.locator("tbody th").first
    before = head.bounding_box()["x"]
    box.evaluate("each => { each.scrollLeft = 300 }")
    assert box.evaluate("each => each.scrollLeft") == 300
    assert head.bounding_box()["x"] == before


def test_the_dark_is_dark_and_figures_stay_on_white(tab: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(ground) == "rgb(255, 255, 255)"
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(ground) == "rgb(20, 23, 27)"
    card = tab.locator("figure .scroll").first
    assert card.evaluate("each => getComputedStyle(each).backgroundColor") == "rgb(255, 255, 255)"


def test_on_paper_there_are_no_controls_and_no_table_is_cut(tab: Page) -> None:
    tab.emulate_media(media="print", color_scheme="dark")
    for hidden in ("nav", ".controls", "#viewer-slider"):
        assert not tab.locator(hidden).is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    link = tab.locator(".note a")
    assert link.evaluate("each => getComputedStyle(each).color === getComputedStyle(each.parentElement).color")
    tab.set_viewport_size({"width": 680, "height": 1000})  # of A4 between its margins
    wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"
    assert tab.evaluate(wide) == 0


def test_what_a_page_is_made_of_is_in_order(tab: Page) -> None:
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    assert tab.locator("h1").count() == 1
    assert tab.evaluate("[...document.images].filter(image => !image.alt).length") == 0
    assert tab.evaluate("[...document.images].every(image => image.complete || image.loading === 'lazy')")


def test_the_first_key_leads_past_the_head(tab: Page) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the summary"
    assert tab.locator(".skip").bounding_box()["x"] >= 0


def test_nothing_was_asked_for_but_the_page_and_nothing_complained_of(
    opened: tuple[Page, list[str], list[str]], file: Path
) -> None:
    _, said, asked = opened
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
