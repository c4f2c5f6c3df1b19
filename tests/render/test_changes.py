"""Comparisons drawn: both texts slot by slot, shares that add up, and nothing but texts from texts."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from clearhead import render
from clearhead.render import figure_changes
from clearhead.render.changes import KEPT, Fold, changes
from clearhead.render.figure import figure, image
from clearhead.render.html import fragment, page
from render.comparison_examples import COMPARISONS, alike, busy, edited, hostile, leaks, lengthy, looked, one_word, wide
from render.test_html import Reader, classes, number


@pytest.fixture(params=COMPARISONS)
def found(request):
    return COMPARISONS[request.param]()


def shown(comparison, width=80, **console):
    file = io.StringIO()
    render.show([comparison], Console(file=file, width=width, **console))
    return file.getvalue()


# ---- the scene -----------------------------------------------------------------------------------------------------


def test_every_slot_is_in_the_scene_with_both_sides(found):
    drawing = changes(found)
    every = [each for lane in drawing.lanes for each in lane.changes]
    assert [each.kind for each in every] == [slot.kind for slot in found.slots]
    assert [(bool(each.a), bool(each.b)) for each in every] == [(bool(s.a), bool(s.b)) for s in found.slots]
    assert [each.amount.value for each in every] == found.relevance.tolist()


def test_values_and_difference_add_up_as_they_are_shown(found):
    drawing = changes(found)
    a, b = (float(each.shown) for each in drawing.values)
    assert float(drawing.difference.shown) == pytest.approx(a - b, abs=1e-9)


def test_differing_slots_come_by_their_share():
    order = [each.labels for each in changes(edited()).differing]
    assert order[:3] == [("bad", "fine"), ("un", "good"), ("watch", "")]


def test_pieces_of_words_stand_together_where_both_texts_have_them():
    joined = [each.joined for each in changes(edited()).lanes[0].changes]
    assert joined == [False, False, False, True, True, False, False, True, False, False, False]


def test_long_stretches_of_the_same_are_left_out_and_counted():
    (lane,) = changes(lengthy()).lanes
    folds = [each for each in lane.line if isinstance(each, Fold)]
    assert lane.folded
    assert [each.count for each in folds] == [128 - 2 * KEPT] * 2
    assert len(lane.line) == 1 + 4 * KEPT + 2
    assert not changes(edited()).lanes[0].folded


def test_gaps_are_a_line_of_their_own():
    drawing = changes(edited())
    lines = {drawing.wording(step): step.amount.value for step in drawing.books.steps}
    assert lines["gaps, which are no unit’s"] == pytest.approx(0.2)
    assert "and what the gaps changed" in drawing.verdict.reason
    assert drawing.verdict.passes


def test_a_comparison_that_leaks_says_so():
    drawing = changes(leaks())
    assert drawing.verdict.state == "booked"
    assert [name for name, _ in drawing.layers] == ["model.layers.0", "model.layers.1", "head"]
    assert [amount.value for _, amount in drawing.layers] == [0.25, -0.375, 0.0625]


def test_a_gap_that_nothing_explains_is_open():
    found = one_word()
    assert changes(replace(found, map=replace(found.map, value=9.0))).verdict.state == "open"


# ---- html ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in COMPARISONS if name not in ("lengthy_comparison", "compared_pictures")]
)
def test_both_texts_can_be_read_along_their_rows(name):
    found = COMPARISONS[name]()
    reader = Reader(page([found]))
    drawing = changes(found)
    rows = {row: [e["text"] for e in reader.of(row, inside="slots") if "none" not in classes(e)] for row in "ab"}
    for row in "ab":
        if not drawing.differing and row == "b":
            assert rows["b"] == []
            continue
        assert rows[row] == [
            side.text for each in drawing.lanes[0].changes if (side := each.a if row == "a" else each.b)
        ]


def test_each_difference_has_its_share_below_and_what_is_the_same_has_none(found):
    if found.map.pictures:
        return
    reader = Reader(page([found]))
    shares = [float(number(each)) for each in reader.of("share")]
    assert shares == pytest.approx([float(found.relevance[n]) for n in found.differing], abs=6e-4)


def test_what_is_gone_and_what_is_new_are_marked_as_such():
    source = page([edited()])
    assert re.findall(r"<del[^>]*token[^>]*>([^<]+)</del>", source) == ["watch", "able"]
    assert re.findall(r"<ins[^>]*token[^>]*>([^<]+)</ins>", source) == ["is", "n"]
    reader = Reader(source)
    assert len(reader.of("none", inside="slots")) == 4
    kinds = [next(iter(classes(e) & {"replaced", "removed", "inserted"}), None) for e in reader.of("slot")]
    assert [kind for kind in kinds if kind] == ["replaced", "removed", "removed", "inserted", "inserted", "replaced"]


def test_the_heading_is_one_sentence():
    reader = Reader(page([one_word()]))
    (title,) = reader.of("title")
    assert " ".join(title["text"].split()) == "positive against negative: +2.310 → −1.870 (difference 4.180)"


def test_the_numbers_of_the_bars_are_the_shares_that_differ(found):
    reader = Reader(page([found]))
    numbers = [float(number(each)) for each in reader.of("number", inside="changes")]
    assert sorted(numbers) == pytest.approx(sorted(float(found.relevance[n]) for n in found.differing), abs=6e-4)


def test_a_page_of_the_same_says_that_nothing_differs():
    reader = Reader(page([alike()]))
    assert reader.of("share") == reader.of("changes") == []
    assert "Nothing leaked in any layer." in page([alike()])
    assert "nothing differs" in page([alike()])


def test_leaks_are_listed_layer_by_layer():
    source = page([leaks()])
    assert "Nothing leaked" not in source
    for name in ("model.layers.0", "model.layers.1", "head"):
        assert f'<span class="label">{name}</span>' in source


def test_texts_are_taken_for_texts():
    reader = Reader(fragment([hostile()]))
    assert {each["tag"] for each in reader.found} <= set(
        "style div article header h3 h4 p bdi span ol ul li section details summary dl dt dd del ins strong".split()
    )
    assert not [a for a in reader.attributes if a[1].startswith("on") or a[1] in ("src", "href")]


def test_pictures_stand_side_by_side():
    reader = Reader(page([looked()]))
    images = [e["attributes"]["src"] for e in reader.found if e["tag"] == "img"]
    assert images == [looked().map.pictures["image"], looked().other_pictures["image"]]
    assert len(reader.of("heat")) == 1


def test_a_picture_that_may_not_be_shown_is_left_out_with_a_warning():
    found = replace(looked(), other_pictures={"image": "https://example.org/x.png"})
    source = page([found])
    assert "example.org" not in source
    assert "image of B: the picture is left out" in source


# ---- terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal(found, width):
    for line in shown(found, width).splitlines():
        assert cell_len(line) <= width


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("make", [edited, wide])
def test_slots_lie_in_the_same_columns(make, width):
    """Each share begins where its slot does, in A, in B and below."""
    drawing = changes(make())
    lines = shown(make(), width).splitlines()
    above = [n for n, line in enumerate(lines) if line.startswith("  A ")]
    shares = [f"{each.amount.shown}" for each in drawing.lanes[0].changes if each.differs]
    met = []
    for n in above:
        assert lines[n + 1].startswith("  B ")
        below = lines[n + 2] if n + 2 < len(lines) else ""
        for share in re.finditer(r"[+-]\d+\.\d+", below):
            met.append(share.group())
            at = cell_len(below[: share.start()])
            for row in lines[n : n + 2]:
                before, own = _cut(row, at)
                assert before.endswith(" ")
                assert own[:1].strip()
    assert met == shares


def _cut(line, columns):
    """A line before and from a column on."""
    for n in range(len(line) + 1):
        if cell_len(line[:n]) >= columns:
            return line[:n], line[n:]
    return line, ""


def test_the_terminal_says_what_the_page_says():
    text = shown(edited())
    assert text.startswith("positive against negative: +1.500 → +4.737 (difference -3.237)")
    for said in ("only in A watch", "only in B is", "bad → fine", "gaps, which are no unit’s", "Nothing leaked"):
        assert said in text
    assert re.search(r"B \[CLS\] the good +·+ +·+", text)


def test_a_plain_console_gets_plain_letters():
    text = shown(one_word(), legacy_windows=False, safe_box=True, force_terminal=False, color_system=None)
    assert "gripping" in text
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render.show([edited()], Console(file=file, width=80))
    file.flush()
    plain = file.buffer.getvalue().decode("ascii")
    assert "+1.500 -> +4.737" in plain
    assert "bad -> fine" in plain


def test_many_bars_are_summed_up():
    text = shown(busy())
    rest = sorted((float(each) for each in busy().relevance), key=abs)[:-24]
    assert f"36 others, together {sum(rest):+.3f}" in text


def test_what_a_says_is_clear_and_what_b_repeats_is_dim():
    text = shown(one_word(), force_terminal=True, color_system="truecolor", legacy_windows=False)
    a, b = (next(line for line in text.splitlines() if f"{name} " in line and "film" in line) for name in "AB")
    film = re.compile("\x1b\\[2m[^\x1b]*film")
    assert not film.search(a)
    assert film.search(b)


def test_leaks_have_a_table():
    text = shown(leaks())
    assert re.search(r"model\.layers\.1 +-0\.375", text)
    assert "Nothing leaked" not in text


def test_pictures_in_the_terminal():
    text = shown(looked(), width=120, force_terminal=True, color_system="truecolor", legacy_windows=False)
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in text.splitlines()]
    assert any(re.search(r"A +B +shares over A", line) for line in lines)
    assert any(re.fullmatch(r" *▀+ {4}▀+ {4}▀+", line.rstrip()) for line in lines)


# ---- figure --------------------------------------------------------------------------------------------------------


def test_every_comparison_has_a_figure(found):
    _, axes = figure(found)
    drawing = changes(found)
    assert len(axes) == (3 if drawing.lanes[0].pictured else 1) + bool(drawing.differing) + 1
    assert image(found, "svg") == image(found, "svg")


def test_a_figure_shows_both_sides_and_the_shares():
    _, axes = figure(edited())
    words = [text.get_text() for text in axes[0].texts]
    for said in ("un", "good", "watch", "bad", "fine", "−2.000", "A", "B"):
        assert said in words
    assert words.count("film") == 2
    assert len(axes[0].patches) == 12  # two boxes per slot that differs


def test_lines_of_a_figure_hold_what_fits():
    (lane,) = changes(wide()).lanes
    for line in figure_changes._lines(lane):
        at, last = line[-1]
        assert at + figure_changes._wide(last) <= figure_changes.ACROSS
