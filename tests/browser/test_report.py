"""The report in a real browser: quiet, offline, in bounds, readable by day and by night, and accessible."""

from __future__ import annotations

import io
import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from clearhead.render import fragment, save
from render.attention_examples import ATTENTIONS, short
from render.comparison_examples import COMPARISONS, edited
from render.comparison_examples import looked as looked_at_twice
from render.drawn_examples import GENERATIONS, PICTURES, captioned, continuation, digit, patches, pixels, translation
from render.examples import ALL, leaking, pair, review
from render.judged_examples import JUDGED, averaged, eighteen
from render.report_examples import REPORTS, classifier, many
from render.unclaimed_examples import MAPS, ROWS, cam, features, heat, looked, rollout

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra `test`: pip install 'clearhead[test]'")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SCHEMES = ["light", "dark"]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
HALF = {"width": 700, "height": 900}

DRAWN = {**PICTURES, **GENERATIONS, **MAPS, **ROWS, **ATTENTIONS, **REPORTS, **COMPARISONS, **JUDGED}
EVERYTHING = {**ALL, **DRAWN}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: sudo apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens maps as a page; at the end nothing may have been said or asked for."""
    contexts, said, asked = [], [], []

    def open_(maps, *, viewport=DESK, scheme="light", **options):
        path = save(maps, tmp_path / "report.html")
        return visit(path, viewport, scheme, **options)

    def visit(path: Path, viewport, scheme, **options):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        return tab

    open_.visit = visit
    yield open_
    for context in contexts:
        context.close()
    assert said == []
    asked = [url for url in asked if not url.startswith("data:image/png;base64,")]
    assert [url for url in asked if not url.startswith("file:")] == []
    assert len(asked) == len(contexts)


def width(tab):
    return tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")


def unfold(tab):
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_nothing_sticks_out_sideways(opened, name, viewport):
    tab = opened([EVERYTHING[name]()], viewport=viewport)
    unfold(tab)
    inner, outer = width(tab)
    assert inner <= outer


def test_no_number_over_a_token_sticks_out_of_a_phone(opened):
    tab = opened([pair()], viewport=PHONE)
    for token in tab.query_selector_all(".token"):
        token.focus()
        inner, outer = width(tab)
        assert inner <= outer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_light_and_dark_look_as_they_say(opened, scheme, tmp_path):
    tab = opened([review()], scheme=scheme)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]
    assert len(tab.screenshot(full_page=True)) > 20_000


def test_print_is_light(opened):
    tab = opened([review()], scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_pointing_at_a_token_shows_its_number(opened):
    tab = opened([review()], java_script_enabled=False)
    token = tab.locator(".token", has_text="beautiful")
    tip = token.locator(".tip")
    assert not tip.is_visible()
    token.hover()
    assert tip.is_visible()
    assert tip.inner_text().strip() == "+1.204"


def test_the_keyboard_reaches_the_tokens(opened):
    tab = opened([review()])
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className").startswith("token")
    assert tab.locator(".tip:visible").count() == 1


def test_a_copied_text_is_the_text(opened):
    tab = opened([review()])
    assert tab.locator(".tokens").inner_text() == f"[CLS] {review().texts['input']} [SEP]"


def test_texts_do_not_run(opened):
    tab = opened([ALL["adversarial"](), DRAWN["hostile_picture"](), DRAWN["hostile_generation"]()])
    assert tab.locator("script, img, iframe, object, link, [onmouseover], [onerror]").count() == 0
    assert tab.locator("b").count() == 5  # the numbers of the squares


def test_the_index_leads_to_the_maps(opened):
    tab = opened([review(), pair(), leaking()])
    tab.locator(".index a").nth(2).click()
    assert tab.url.endswith("#explanation-3")
    assert tab.locator("#explanation-3").bounding_box()["y"] < DESK["height"] / 2


def test_bars_begin_and_end_where_their_numbers_say(opened):
    tab = opened([leaking()])
    boxes = [each.bounding_box() for each in tab.query_selector_all(".steps > li:not(.for, .against) .bar")]
    base, units, total = boxes[0], boxes[1], boxes[-1]
    scale = base["width"] / 0.25
    assert units["width"] / scale == pytest.approx(2.38, abs=0.02)
    assert total["width"] / scale == pytest.approx(2.03, abs=0.02)
    assert units["x"] + units["width"] == pytest.approx(base["x"] + base["width"], abs=1)


@pytest.mark.parametrize("theme", SCHEMES)
def test_a_fragment_follows_the_notebook_and_not_the_system(opened, theme, tmp_path):
    path = tmp_path / "notebook.html"
    light = "true" if theme == "light" else "false"
    head = "<!doctype html><html lang='en'><title>n</title><p id='own'>own</p>"
    path.write_text(f"{head}<div data-jp-theme-light='{light}'>{fragment([review()])}</div>", encoding="utf-8")
    tab = opened.visit(path, DESK, "dark" if theme == "light" else "light")
    ground = tab.evaluate("getComputedStyle(document.querySelector('.clearhead')).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[theme]
    assert tab.evaluate("getComputedStyle(document.querySelector('#own')).margin") == "16px 0px"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["review", "pair", "leaking", "long", "adversarial", *DRAWN, "all"])
def test_axe_finds_nothing(opened, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `test`")
    maps = [make() for make in EVERYTHING.values()] if name == "all" else [EVERYTHING[name]()]
    # The page forbids scripts, so the examiner needs a way round.
    tab = opened(maps, scheme=scheme, bypass_csp=True)
    unfold(tab)
    violations = axe.Axe().run(tab).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []


# ---- pictures ------------------------------------------------------------------------------------------------------


def test_the_picture_and_its_relevance_stand_side_by_side_and_below_each_other_on_a_phone(opened):
    for viewport, beside in ((DESK, True), (PHONE, False)):
        seen, heat = (
            opened([patches()], viewport=viewport).locator(f"figure.{name} > *:first-child").bounding_box()
            for name in ("seen", "heat")
        )
        assert (seen["y"] == pytest.approx(heat["y"], abs=2)) is beside
        assert seen["width"] == pytest.approx(heat["width"], abs=1)
        assert seen["height"] == pytest.approx(seen["width"], abs=1)
        assert seen["width"] > 300


def test_a_small_picture_is_large_and_crisp(opened):
    tab = opened([digit()])
    image = tab.locator("figure.seen img")
    assert image.bounding_box()["width"] > 300
    assert image.evaluate("e => [e.naturalWidth, getComputedStyle(e).imageRendering]") == [8, "pixelated"]


def test_cells_cover_the_picture_where_their_boxes_say(opened):
    tab = opened([captioned()])
    whole = tab.locator("figure.heat svg").bounding_box()
    cell = tab.locator(".cell").nth(4 * 7 + 5).bounding_box()  # row 5, column 6
    assert cell["x"] - whole["x"] == pytest.approx(whole["width"] * 5 / 7, abs=1)
    assert cell["y"] - whole["y"] == pytest.approx(whole["height"] * 4 / 7, abs=1)
    assert cell["width"] == pytest.approx(whole["width"] / 7, abs=1)


def pixel(locator, across, down):
    """The colour of the screen at a share of an element's width and height."""
    from PIL import Image

    image = Image.open(io.BytesIO(locator.screenshot())).convert("RGB")
    return image.getpixel((int(image.width * across), int(image.height * down)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("make", [patches, lambda: pixels(112)])
def test_the_strongest_part_is_blue_on_the_screen(opened, make, scheme):
    tab = opened([make()], scheme=scheme)
    red, _, blue = pixel(tab.locator("figure.heat svg"), 0.645, 0.625)
    assert blue > red + 60


# ---- shares and scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_heat_map_has_no_edges_on_the_screen(opened, scheme):
    tab = opened([features()], scheme=scheme)
    whole = tab.locator("figure.heat svg")
    tab.evaluate("document.querySelectorAll('.under, .rank').forEach(each => each.remove())")
    channel = 0 if scheme == "light" else 2  # blue takes red from white, and brings blue to black
    line = [pixel(whole, share / 200, 0.5)[channel] for share in range(10, 190, 2)]  # across the middle of the largest
    assert max(line) - min(line) > 40
    assert max(abs(b - a) for a, b in pairwise(line)) < 0.15 * (max(line) - min(line))
    assert 0.45 < (10 + 2 * _extreme(line, scheme)) / 200 < 0.55


def _extreme(line, scheme):
    """Where the channel is farthest from the ground."""
    return line.index(min(line) if scheme == "light" else max(line))


def test_the_parts_of_a_heat_map_can_be_pointed_at(opened):
    tab = opened([heat()])
    part = tab.locator(".cell.bare").nth(8 * 14 + 9)
    part.hover()
    assert part.evaluate("e => getComputedStyle(e).strokeWidth") == "2px"
    assert part.locator("title").text_content() == "row 9, column 10: 2.790"


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_the_figures_of_a_cross_check_stand_on_their_scales(opened, viewport):
    tab = opened([rollout()], viewport=viewport)
    for gauge, share in zip(tab.query_selector_all(".gauge"), (0.855, 0.6), strict=True):
        whole, point = gauge.bounding_box(), gauge.query_selector(".point").bounding_box()
        assert (point["x"] - whole["x"]) / whole["width"] == pytest.approx(share, abs=0.01)
    chance = tab.locator(".by-chance").first.bounding_box()
    whole = tab.locator(".gauge").first.bounding_box()
    assert chance["width"] / whole["width"] == pytest.approx(0.43, abs=0.01)


def test_the_verdict_of_a_cross_check_is_heard(opened):
    told = opened([cam()]).locator(".check").aria_snapshot()
    assert 'group "Cross-check"' in told
    assert "Agrees with lrp no better than chance" in told
    assert "−0.12" in told
    assert "agrees in 3" not in told
    assert "Agrees in 3 of 5 rows" in opened([looked()]).locator(".check").aria_snapshot()


# ---- attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sharp_head_is_darker_where_it_looks_and_bare_elsewhere(opened, scheme):
    made = short()
    tab = opened([made], scheme=scheme)
    table = made["encoder"].layer(0).head(3)
    query, key = divmod(int(table.argmax()), 17)
    frame = tab.locator(".heads .cell").nth(3)
    frame.scroll_into_view_if_needed()
    where = ((key + 0.5) / 17, (query + 0.5) / 17)
    red, _, blue = pixel(frame, *where)
    assert blue > red + 60
    assert frame.locator("title").text_content().startswith("layer 0, head 3: entropy ")


# ---- generations ---------------------------------------------------------------------------------------------------


def test_the_matrix_scrolls_in_its_own_place_and_keeps_its_row_labels(opened):
    tab = opened([continuation()])
    place = tab.locator(".matrix .scroll")
    label = place.locator("tbody th").first
    assert place.evaluate("e => e.scrollWidth > e.clientWidth")
    before = label.bounding_box()["x"]
    place.focus()
    for _ in range(50):  # scrolling is smooth, so it takes its time
        tab.keyboard.press("ArrowRight")
        tab.wait_for_timeout(50)
        if place.evaluate("e => e.scrollLeft") > 100:
            break
    assert place.evaluate("e => e.scrollLeft") > 100
    assert label.bounding_box()["x"] == pytest.approx(before, abs=30)
    inner, outer = width(tab)
    assert inner <= outer


def test_pointing_at_a_square_shows_its_number(opened):
    tab = opened([translation()], java_script_enabled=False)
    square = tab.locator(".matrix tbody tr").nth(1).locator("td").nth(1)
    number = square.locator("b")
    assert number.evaluate("e => getComputedStyle(e).opacity") == "0"
    square.hover()
    assert number.evaluate("e => getComputedStyle(e).opacity") == "1"
    assert number.inner_text() == "+1.920"


def test_a_reader_of_screens_hears_the_matrix(opened):
    told = opened([translation()]).locator(".matrix table").aria_snapshot()
    assert 'rowheader "Haus"' in told
    assert 'cell "+1.920"' in told
    assert 'columnheader "house"' in told


def test_rows_unfold_without_scripts(opened):
    tab = opened([translation()], java_script_enabled=False)
    row = tab.locator("details.row").nth(1)
    assert not row.locator(".tokens").first.is_visible()
    row.locator("summary").click()
    assert row.locator(".tokens").first.inner_text() == "the house is small ."


# ---- heads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_squares_are_as_deep_as_their_shares(opened, scheme):
    tab = opened([classifier()], scheme=scheme)
    squares = tab.locator(".importances tbody td")
    grounds = squares.evaluate_all("all => all.map(e => getComputedStyle(e).backgroundColor)")
    best, worst = classifier().importance.argmax(), classifier().importance.argmin()
    assert grounds[best] == {"light": "rgb(111, 168, 238)", "dark": "rgb(42, 98, 179)"}[scheme]
    assert grounds[worst] in ("rgba(0, 0, 0, 0)", {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme])


def test_a_wide_table_scrolls_in_its_own_box_with_its_layers_in_sight(opened):
    tab = opened([many()], viewport=PHONE)
    place = tab.locator(".importances .scroll")
    place.evaluate("e => { e.scrollLeft = 400 }")
    assert place.evaluate("e => e.scrollLeft") == 400
    assert tab.locator(".importances tbody th").first.bounding_box()["x"] < 60
    inner, outer = width(tab)
    assert inner <= outer


def test_lines_lie_where_their_numbers_say(opened):
    tab = opened([classifier()])
    area = tab.locator(".plot .area").bounding_box()
    share = tab.locator(".plot .shares span").nth(2).bounding_box()
    assert share["x"] + share["width"] / 2 == pytest.approx(area["x"] + area["width"] / 2, abs=1)
    end = tab.locator(".plot .line.first").evaluate(
        "e => { const p = e.getPointAtLength(0), m = e.getScreenCTM(); return [p.x * m.a + m.e, p.y * m.d + m.f] }"
    )
    assert end[0] == pytest.approx(area["x"], abs=1)
    first = classifier().curves[0].metric[0]
    top = tab.evaluate("document.querySelector('.plot .area').getBoundingClientRect().top")
    assert end[1] - top == pytest.approx(area["height"] * (1.0 - first) / 0.5, abs=1)


# ---- the examiners -------------------------------------------------------------------------------------------------


def test_axe_would_find_a_fault(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the extra `test`")
    tab = opened([review()], bypass_csp=True)
    tab.evaluate("document.querySelector('.model').style.color = '#cccccc'")
    assert [each["id"] for each in axe.Axe().run(tab).response["violations"]] == ["color-contrast"]


def test_what_sticks_out_would_be_found(opened):
    tab = opened([review()], viewport=PHONE)
    tab.evaluate("document.querySelector('.model').style.width = '400px'")
    inner, outer = width(tab)
    assert inner > outer


# ---- comparisons ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_what_shares_a_slot_stands_in_one_column_and_rows_are_level(opened, viewport):
    tab = opened([edited()], viewport=viewport, java_script_enabled=False)
    tops = {"a": set(), "b": set()}
    for slot in tab.locator(".slots > .slot").all():
        a, b = (slot.locator(f".{side}").bounding_box() for side in "ab")
        assert a["x"] == pytest.approx(b["x"], abs=0.5)
        assert a["width"] == pytest.approx(b["width"], abs=0.5)
        assert b["y"] >= a["y"] + a["height"] - 1
        tops["a"].add(round(a["y"]))
        tops["b"].add(round(b["y"]))
    lines = len(tops["a"])
    assert lines == len(tops["b"])
    assert (lines > 1) == (viewport is PHONE)


def test_what_was_removed_and_inserted_differs_by_more_than_colour(opened):
    tab = opened([edited()])

    def decoration(selector):
        return tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).textDecorationLine")

    assert decoration(".slots del") == "line-through"
    assert decoration(".slots ins") == "underline"
    assert decoration(".slots .replaced .token") == "none"
    assert tab.locator(".slots .none").count() == 4


def test_two_pictures_and_their_shares_stand_side_by_side(opened):
    tab = opened([looked_at_twice()])
    boxes = [each.bounding_box() for each in tab.locator(".pictures.three > figure > *:first-child").all()]
    assert len(boxes) == 3
    assert all(first["x"] + first["width"] < second["x"] for first, second in pairwise(boxes))
    assert len({round(box["y"]) for box in boxes}) == 1
    assert len({round(box["width"]) for box in boxes}) == 1


# ---- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [eighteen, averaged])
def test_no_table_of_verdicts_scrolls_at_half_a_screen(opened, make):
    tab = opened([make()], viewport=HALF)
    beyond = tab.locator(".judgement .scroll:visible").evaluate_all(
        "all => all.map(e => e.scrollWidth - e.clientWidth)"
    )
    assert len(beyond) >= 3
    assert max(beyond) <= 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_may_be_chance_is_hatched_and_what_is_not_is_filled(opened, scheme):
    tab = opened([eighteen()], scheme=scheme)
    look = "all => all.map(e => [getComputedStyle(e).backgroundImage, getComputedStyle(e).backgroundColor])"
    clear = "rgba(0, 0, 0, 0)"
    for image, colour in tab.locator(".agreements .matched td.hatched").evaluate_all(look):
        assert "repeating-linear-gradient" in image
        assert colour == clear
    filled = tab.locator(".agreements .matched td.p16").evaluate_all(look)
    assert filled
    assert all(image == "none" and colour != clear for image, colour in filled)


def test_a_verdict_is_heard_with_its_word(opened):
    told = opened([averaged()]).locator(".rulings").aria_snapshot()
    assert "trust" in told
    assert "do not use" in told
    assert "★" not in opened([averaged()]).locator(".removed").first.aria_snapshot().split("row ")[2]
