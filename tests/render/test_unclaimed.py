"""Shares and scores: no books are claimed, the cross-check is drawn as it is, and heat maps are smooth."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from clearhead.generations import GenerationMap
from clearhead.maps import RelevanceMap
from clearhead.render import colours, fragment, paint
from clearhead.render.agreement import VERDICTS, cross_check, others, tally
from clearhead.render.drawings import drawing
from clearhead.render.generation import generation
from clearhead.render.html import page
from clearhead.render.scene import scene
from render.drawn_examples import patches, translation
from render.examples import BREAKOUT, review
from render.test_colours import ratio
from render.test_generation import MORE, table
from render.test_html import ALLOWED, Reader, classes, number
from render.test_pictures import image_stream, shown, unpacked
from render.unclaimed_examples import (
    BLIND,
    EVIL,
    LAYER,
    MAPS,
    ROWS,
    SENTENCE,
    WORDS,
    cam,
    cams,
    checked,
    described_shares,
    features,
    few,
    heat,
    hostile,
    hostile_rows,
    looked,
    mixed,
    plain,
    rollout,
    scored,
    seen_and_read,
    towers,
)

EVERYTHING = {**MAPS, **ROWS}
BOOKS = re.compile(r"conservation|residual(?! path)|cancellation|unaccounted|books (do not )?balance", re.IGNORECASE)


@pytest.fixture(params=MAPS)
def found(request):
    return MAPS[request.param]()


@pytest.fixture(params=ROWS)
def rows(request):
    return ROWS[request.param]()


def body(source):
    return next(each["text"] for each in Reader(source).found if each["tag"] == "main")


# ---- no books ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(EVERYTHING) - {"mixed"}))
def test_nothing_is_said_of_books(name):
    found = EVERYTHING[name]()
    reader = Reader(page([found]))
    assert not BOOKS.search(body(page([found])))
    assert not BOOKS.search(shown([found], 120))
    for name in ("audit", "steps", "balanced", "leaks", "fault"):
        assert not reader.of(name)
    assert drawing(found).verdict.state == "unclaimed"
    assert drawing(found).verdict.passes


def test_shares_and_scores_are_told_apart_by_what_they_are():
    assert scene(rollout()).verdict.sentence == (
        "Shares of attention: they add up to 1.000, not to the explained value."
    )
    assert scene(cam()).verdict.sentence == "Scores: they rank units and add up to nothing in particular."
    assert scene(review()).verdict.sentence.startswith("The books balance. The units add up")


@pytest.mark.parametrize(
    ("relevance", "measure", "positive"),
    [
        ([0.25, 0.75], "shares", True),
        ([0.25, 0.7509], "shares", True),
        ([0.25, 0.7511], "scores", True),
        ([1.25, -0.25], "scores", False),
        ([0.0, 0.0], "scores", True),
        ([float("nan"), 1.0], "scores", False),
        ([float("inf"), 1.0], "scores", True),
    ],
)
def test_what_makes_shares(relevance, measure, positive):
    drawn = scene(plain(relevance=relevance))
    assert (drawn.measure, drawn.positive) == (measure, positive)
    assert page([plain(relevance=relevance)])
    assert shown([plain(relevance=relevance)])


def test_the_value_is_shown_with_digits_of_its_own(found):
    assert number(Reader(page([found])).of("value")[0]) == scene(found).value.shown
    assert f" = {scene(found).value.shown}" in " ".join(shown([found], 400).split())
    assert scene(plain()).value.shown == "3.250"
    assert scene(plain(value=12345.678)).digits == scene(plain()).digits


def test_numbers_that_are_never_negative_have_no_sign_and_one_colour():
    for make in (rollout, heat, towers):
        reader = Reader(page([make()]))
        assert not [e for e in reader.of("number") if number(e).startswith("+")]
        steps = {c for e in reader.found for c in classes(e) if re.fullmatch(r"m\d+", c)}
        assert not steps
        assert "speaks" not in body(page([make()]))
    assert {"m20", "p20"} <= {c for e in Reader(page([cam()])).of() for c in classes(e)}
    assert "negative −4.455" in " ".join(body(page([cam()])).split())


def test_shares_of_streams_add_up_as_they_are_shown():
    for make in (towers, seen_and_read):
        drawn = scene(make())
        assert sum(Decimal(stream.total.shown) for stream in drawn.streams) == 1
        for stream in drawn.streams:
            assert f"{stream.name} {stream.total.shown}" in shown([make()], 100)
    assert [stream.total for stream in scene(scored(towers())).streams] == [None, None]


def test_scores_that_are_not_listed_are_not_summed():
    text = Reader(page([heat()])).of("more")[0]["text"]
    listed = [float(number(e)) for e in Reader(page([heat()])).of("number", inside="bars")]
    assert text.strip().startswith("172 others, none beyond 0.338")
    assert max(listed[24:]) == pytest.approx(0.338, abs=5e-4)
    assert "together" not in shown([heat()])
    assert "none beyond" in shown([heat()])


def test_notes_are_there_and_are_no_warnings():
    reader = Reader(page([rollout()]))
    assert [" ".join(e["text"].split()) for e in reader.of("notes")] == [BLIND]
    assert not reader.of("warnings")
    assert BLIND in " ".join(shown([rollout()]).split())
    assert " ".join(Reader(page([looked()])).of("notes")[0]["text"].split()) == BLIND  # once for all rows
    assert LAYER in page([cam()])
    assert "a note" in page([replace(review(), notes=("a note",))])


def test_the_index_and_the_foot_say_it_calmly():
    reader = Reader(page([rollout(), cam(), looked()]))
    said = [" ".join(e["text"].split()) for e in reader.of("plain")]
    assert [each.split(" · ") for each in said] == [
        [rollout().method, "Shares of attention"],
        [cam().method, "Scores"],
        [looked().method, "Shares of attention"],
    ]
    assert "Balanced books" not in page([rollout(), cam()])
    assert "Balanced books" in page([rollout(), review()])


# ---- the cross-check -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", WORDS)
def test_a_cross_check_is_a_verdict_two_figures_and_a_sentence(verdict):
    found = replace(rollout(), cross_check=checked(verdict))
    check = scene(found).check
    reader = Reader(page([found]))
    (panel,) = reader.of("check")
    text = " ".join(panel["text"].split())
    assert VERDICTS[verdict] in classes(panel)
    assert check.heading in text
    assert all(word in check.heading.lower() for word in verdict.split()[:2])
    assert "lrp" in check.heading
    assert SENTENCE in text
    assert SENTENCE in " ".join(shown([found]).split())
    assert check.heading in shown([found])
    assert len(reader.of("point")) == (0 if verdict == "too few units to say" else 2)
    assert not [e for e in reader.of("pairs") if "spearman" in e["text"]]


def test_the_figures_stand_where_their_numbers_say():
    reader = Reader(page([rollout()]))
    points, chances = ([e["attributes"]["style"] for e in reader.of(name)] for name in ("point", "by-chance"))
    assert points == ["left:85.500%;width:0.000%", "left:60.000%;width:0.000%"]
    assert chances == ["left:28.500%;width:43.000%", "left:20.000%;width:0.000%"]
    assert [number(e) for e in reader.of("number", inside="gauges")] == ["0.71", "3 of 5"]
    assert "rank agreement 0.71 (chance: within ±0.43), top 5 in common 3 of 5 (chance: 1.0)" in shown([rollout()], 100)


@pytest.mark.parametrize(
    "odd",
    [
        {"against": "x"},
        {"kept": "yes", "ratio": 0.5},
        checked("agrees", verdict="splendid"),
        checked("agrees", verdict=["agrees"]),
        checked("agrees", spearman="<b>0.7</b>"),
        checked("agrees", spearman=float("nan")),
        checked("agrees", units=True),
        checked("agrees", sentence=7),
        checked("agrees", against=None),
    ],
    ids=range(9),
)
def test_a_mapping_of_another_form_is_drawn_as_pairs(odd):
    found = replace(review(), cross_check=odd)
    reader = Reader(page([found]))
    assert scene(found).check is None
    assert not reader.of("check")
    text = reader.of("made")[0]["text"]
    for key, value in odd.items():
        assert key in text
        assert str(value).lower() in text.lower()


def test_what_a_cross_check_says_beside_its_figures_is_kept():
    assert others(checked(more="this")) == {"more": "this"}
    assert "this" in Reader(page([replace(rollout(), cross_check=checked(more="this"))])).of("made")[0]["text"]
    assert others(None) == others([1]) == {}
    assert cross_check([1]) is cross_check(None) is None


@pytest.mark.parametrize("missing", ["spearman", "spearman_chance", "top_k", "top_k_overlap", "chance", "units"])
@pytest.mark.parametrize("how", ["none", "absent"])
def test_any_figure_may_be_missing(missing, how):
    data = checked(**{missing: None})
    if how == "absent":
        del data[missing]
    found = replace(rollout(), cross_check=data)
    assert scene(found).check.line.startswith("Agrees with lrp")
    assert "None" not in body(page([found])) + shown([found]) + scene(found).check.line


@pytest.mark.parametrize(("value", "shows"), [(0.6, "3 of 5"), (0.5, "2.5 of 5"), (1.0, "5 of 5"), (0.0, "0 of 5")])
def test_an_overlap_is_a_number_of_units(value, shows):
    assert cross_check(checked(top_k_overlap=value)).gauges[1].shown == shows
    assert cross_check(checked(top_k_overlap=value, top_k=None)).gauges[1].shown == f"{value:.2f}"


def test_figures_beyond_their_scale_stay_on_it():
    reader = Reader(page([replace(rollout(), cross_check=checked(spearman=7.0, chance=-3.0))]))
    for each in (*reader.of("point"), *reader.of("by-chance")):
        left = float(re.search(r"left:([\d.]+)%", each["attributes"]["style"])[1])
        assert 0 <= left <= 100


def test_the_verdicts_of_rows_are_counted():
    check = generation(looked()).checks
    assert check.words == "agrees in 3 of 5 rows, weakly related in 1, no better than chance in 1"
    assert check.state == "agree"
    assert check.sentences == (SENTENCE,)
    assert check.ranks == "Rank agreement from -0.12 to 0.71, median 0.71."
    assert "in 1 of 2 rows" in tally([None, cross_check(checked("no better than chance"))]).words
    assert tally([None, None]) is None
    text = body(page([looked()]))
    assert text.count(SENTENCE) == 1
    assert "Agrees in 3 of 5 rows" in text
    assert shown([looked()], 120).count("Attention says where") == 1
    assert "agrees in 3 of 5 rows" in shown([looked()], 120)
    marked = [number(e) for e in Reader(page([cams()])).of("checked")]
    assert marked == ["agrees", "agrees", "", "agrees", "weakly related"]


def test_the_bar_of_verdicts_is_as_wide_as_their_counts():
    spans = [e["attributes"]["style"] for e in Reader(page([looked()])).found if e["inside"][-1:] and
             "shares" in classes(e["inside"][-1])]  # fmt: skip
    assert spans == [
        "left:0.000%;width:60.000%", "left:60.000%;width:20.000%", "left:80.000%;width:20.000%",
    ]  # fmt: skip


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("state", ["agree", "weak", "chance", "unknown"])
def test_the_colours_of_agreement_can_be_read(state, dark):
    assert ratio(colours.calm(state, dark=dark), colours.palette(dark=dark).ground) >= 4.5


# ---- generations ---------------------------------------------------------------------------------------------------


def test_the_shares_of_each_row_add_up_as_they_are_shown():
    for make in (looked, described_shares):
        heads, *lines = table(Reader(page([make()])), "sums")
        at = [number(e) for e in heads].index("= all")
        for cells, row in zip(lines, make(), strict=True):
            assert sum(Decimal(number(e)) for e in cells[1:at]) == Decimal(number(cells[at])) == 1
            assert float(number(cells[at + 1])) == pytest.approx(row.value, abs=6e-4)


def test_scores_have_no_sums():
    heads = [number(e) for e in table(Reader(page([cams()])), "sums")[0]]
    assert heads == ["produced", "token’s score", "largest score", "cross-check"]
    assert "encoder +" not in shown([cams()], 120)


def test_a_picture_of_scores_is_folded_into_its_largest():
    rows = tuple(scored(row) for row in described_shares())
    drawn = generation(GenerationMap(rows=rows))
    assert drawn.columns[0].label == "largest of 196 parts"
    for line, row in zip(drawn.lines, rows, strict=True):
        assert line.squares[0].amount.value == row.relevance[:196].max()


def test_rows_of_different_kinds_claim_nothing():
    drawn = generation(mixed())
    assert drawn.measure == "scores"
    assert "Scores: they rank the units of each row" in drawn.verdict.sentence
    assert page([mixed()])
    assert generation(translation()).verdict.claimed


# ---- heat maps -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [heat, features, seen_and_read])
def test_a_heat_map_is_mixed_between_the_middles_of_its_parts(make):
    stream = image_stream(make())
    cells = paint.raster(stream) / stream.reach
    mixed_ = paint.dots(stream)
    by_pillow = Image.fromarray(cells.astype(np.float32)).resize(mixed_.shape[::-1], Image.Resampling.BILINEAR)
    assert stream.smooth
    assert max(mixed_.shape) == paint.SMOOTH
    assert np.abs(mixed_ - np.asarray(by_pillow)).max() < 2e-6
    dots = np.asarray(unpacked(paint.overlay(stream)))
    assert np.abs(dots[..., 3] - 255 * colours.COVER * mixed_).max() <= 0.51
    steps = np.abs(np.diff(dots[..., 3].astype(int), axis=1)).max()
    assert steps < 0.12 * dots[..., 3].max()


def test_relevance_and_signed_scores_keep_their_cells():
    for found in (patches(), scored(patches())):
        assert not image_stream(found).smooth
        assert len([e for e in Reader(page([found])).of("cell") if "bare" not in classes(e)]) == 196


def test_the_parts_of_a_heat_map_can_still_be_pointed_at():
    reader = Reader(page([heat()]))
    cells = reader.of("cell", "bare")
    assert len(cells) == 196
    assert cells[8 * 14 + 9]["text"] == "row 9, column 10: 2.790"
    (image,) = reader.of("mixed")
    assert image["attributes"]["href"].startswith("data:image/png;base64,")
    label = next(e["attributes"]["aria-label"] for e in reader.found if e["tag"] == "svg")
    assert label.startswith("Scores of 196 parts of the picture in 14 rows and 14 columns. Largest: row 9, column 10")
    assert "%" not in label
    assert "% of all shares lie" in page([seen_and_read()])
    assert sorted(e["text"] for e in reader.of("rank") if e["tag"] == "g") == list("12345")
    assert len(page([heat()])) < 200_000


# ---- every output --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [hostile, hostile_rows])
def test_texts_from_outside_are_never_more_than_texts(make):
    for source in (page([make()]), fragment([make()])):
        reader = Reader(source)
        assert {each["tag"] for each in reader.found} <= ALLOWED | MORE
        assert not [name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcdoc")]
        assert "<script" not in source.lower()
        assert "\x1b" not in source
        assert BREAKOUT in reader.of("check")[0]["text"]
        assert EVIL[:20] in reader.of("notes")[0]["text"]
    text = shown([make()], 120, force_terminal=True, color_system="truecolor")
    assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "[red]evil[/red]" in text


@pytest.mark.parametrize("name", EVERYTHING)
def test_styles_hold_numbers_only(name):
    allowed = re.compile(r"(--zero:[\d.]+%|left:[\d.]+%;width:[\d.]+%)")
    for tag, key, value in Reader(page([EVERYTHING[name]()])).attributes:
        if key == "style":
            assert allowed.fullmatch(value), tag


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colour", [None, "truecolor"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_the_terminal_stays_in_its_width(name, colour, width):
    text = shown([EVERYTHING[name]()], width, force_terminal=bool(colour), color_system=colour)
    for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
        assert cell_len(line) <= width


def test_a_saved_map_is_drawn_as_it_was(found, tmp_path):
    again = RelevanceMap.load(found.save(tmp_path / "map.json"))
    assert page([again]) == page([found])


def test_a_saved_generation_is_drawn_as_it_was(rows, tmp_path):
    again = GenerationMap.load(rows.save(tmp_path / "rows.json"))
    assert page([again]) == page([rows])


def said(figure):
    return [text.get_text().replace("\n", " ") for axes in figure.axes for text in axes.texts]


@pytest.mark.parametrize("name", EVERYTHING)
def test_figures_say_it_in_a_line(name):
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    found = EVERYTHING[name]()
    drawn, _ = figure.figure(found)
    written = " ".join([*said(drawn), *(text.get_text().replace("\n", " ") for text in drawn.texts)])
    assert " ".join(drawing(found).verdict.sentence.split()) in written
    assert not BOOKS.search(written)
    assert figure.image(found, "svg") == figure.image(found, "svg")


def test_the_line_of_a_figure_has_verdict_and_figures():
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    line = "Agrees with lrp: rank agreement 0.71 (chance: within ±0.43), top 5 in common 3 of 5 (chance: 1.0)"
    assert any(line in text for text in said(figure.figure(rollout())[0]))
    assert any("Too few units to say" in text for text in said(figure.figure(few())[0]))
    drawn, axes = figure.figure(heat())
    assert axes[1].images[-1].get_array().shape == (224, 224, 4)
    drawn.draw_without_rendering()
    for text in axes[-1].texts:
        assert text.get_window_extent().x1 <= drawn.bbox.x1
