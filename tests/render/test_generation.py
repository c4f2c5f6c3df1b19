"""Generations: the matrix is the relevance, rows add up as they are shown, and every text stays a text."""

from __future__ import annotations

import io
import re
from decimal import Decimal

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from clearhead import render
from clearhead.generations import GenerationMap
from clearhead.render import colours, fragment
from clearhead.render.generation import generation
from clearhead.render.html import page
from render.drawn_examples import (
    EVIL,
    GENERATIONS,
    continuation,
    described,
    hostile_generation,
    odd_rows,
    patches,
    translation,
    unbalanced,
)
from render.examples import BREAKOUT, review
from render.test_html import ALLOWED, Reader, classes, number

MORE = set("table thead tbody tr th td b figure figcaption img svg image rect g text".split())


def shown(maps, width=80, **console):
    file = io.StringIO()
    render.show(maps, Console(file=file, width=width, **console))
    return file.getvalue()


@pytest.fixture(params=GENERATIONS)
def found(request):
    return GENERATIONS[request.param]()


def table(reader, name):
    """The rows of the table in a section: the cells of each."""
    rows = [e for e in reader.found if e["tag"] == "tr" and any(name in classes(up) for up in e["inside"])]
    return [[e for e in reader.found if e["tag"] in {"td", "th"} and e["inside"][-1] is row] for row in rows]


# ---- the matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(GENERATIONS) - {"described"}))  # where a picture shares a column
def test_the_squares_are_the_relevance(name):
    found = GENERATIONS[name]()
    drawing = generation(found)
    matrix = [[np.nan if s is None else s.amount.value for s in line.squares] for line in drawing.lines]
    assert np.array_equal(np.array(matrix, dtype=float), found.relevance, equal_nan=True)


@pytest.mark.parametrize("make", [translation, lambda: continuation(8, 30), unbalanced])
def test_the_table_shows_each_number_and_leaves_unseen_blank(make):
    found = make()
    (_, heads, *rows) = table(Reader(page([found])), "matrix")
    assert [number(each) for each in heads[1:]] == [unit.text for unit in found.units]
    for cells, line in zip(rows, found.relevance, strict=True):
        for cell, relevance in zip(cells[1:], line, strict=True):
            assert ("unseen" in classes(cell)) is bool(np.isnan(relevance))
            if np.isnan(relevance):
                assert number(cell) == ""
            else:
                assert float(number(cell)) == pytest.approx(relevance, abs=6e-4)


def test_each_row_has_a_colour_scale_of_its_own():
    found = translation()
    for cells, line in zip(table(Reader(page([found])), "matrix")[2:], found.relevance, strict=True):
        steps = [next((c for c in classes(cell) if re.fullmatch(r"[pm]\d+|zero", c)), None) for cell in cells[1:]]
        largest = np.nanmax(np.abs(line))
        for step, relevance in zip(steps, line, strict=True):
            level = None if np.isnan(relevance) else colours.level(relevance / largest)
            expected = None if level is None else f"{'p' if level > 0 else 'm'}{abs(level)}" if level else "zero"
            assert step == expected
        assert {"p20", "m20"} & set(steps)
    assert "full colour: the row’s largest" in page([found])


def test_groups_span_their_columns():
    (heads, _, *rows) = table(Reader(page([translation()])), "matrix")
    assert [(number(e), e["attributes"]["colspan"]) for e in heads[1:]] == [("encoder", "5"), ("decoder", "5")]
    assert [n for n, cell in enumerate(rows[0][1:]) if "first" in classes(cell)] == [5]


def test_headers_are_headers():
    (groups, heads, *rows) = table(Reader(page([translation()])), "matrix")
    assert {e["attributes"]["scope"] for e in groups[1:]} == {"colgroup"}
    assert {e["attributes"]["scope"] for e in heads} == {"col"}
    assert {row[0]["attributes"]["scope"] for row in rows} == {"row"}
    regions = [e["attributes"] for e in Reader(page([translation()])).of("scroll")]
    assert all(e["tabindex"] == "0" and e["role"] == "group" and e["aria-label"] for e in regions)


def test_the_parts_of_a_picture_share_a_column():
    found = described()
    drawing = generation(found)
    assert [column.label for column in drawing.columns] == ["196 parts", "a", "red"]
    for line, row in zip(drawing.lines, found, strict=True):
        assert line.squares[0].amount.value == pytest.approx(float(row.relevance[:196].sum()))
    assert drawing.lines[1].squares[0].intensity == 1.0
    assert drawing.lines[1].most == ("196 parts", drawing.lines[1].squares[0].amount)
    reader = Reader(page([found]))
    assert len(reader.of("thumbnail")) == 3
    assert not reader.of("cell")


# ---- the books -----------------------------------------------------------------------------------------------------


def test_rows_add_up_as_they_are_shown(found):
    for line, row in zip(generation(found).lines, found, strict=True):
        amounts = [each.shown for each in (*line.sums, line.rest)]
        if np.isfinite(row.relevance).all():
            assert sum(map(Decimal, amounts)) == Decimal(line.value.shown)
            assert line.value.value == row.value


@pytest.mark.parametrize("make", [translation, lambda: continuation(8, 30), unbalanced])
def test_the_table_of_sums_adds_up(make):
    found = make()
    heads, *rows = table(Reader(page([found])), "sums")
    names = [number(each) for each in heads]
    score = names.index("= score")
    for cells, row in zip(rows, found, strict=True):
        assert number(cells[0]) == row.target.label.strip()
        assert sum(Decimal(number(e)) for e in cells[1:score]) == Decimal(number(cells[score]))
        assert float(number(cells[score])) == pytest.approx(row.value, abs=6e-4)
    for n, name in enumerate(found.streams):
        sums = [float(number(cells[1 + n])) for cells in rows]
        assert sums == pytest.approx(found.stream(name).tolist(), abs=1.1e-3)
    assert ("+ rest" in names) is (make is unbalanced)


def test_the_verdict_is_that_of_the_worst_row():
    good, bad = generation(translation()), generation(unbalanced())
    assert good.verdict.passes
    assert good.verdict.words == "The books balance in every row"
    assert not bad.verdict.passes
    assert "In 1 of 2 rows" in bad.verdict.reason
    assert bad.worst == "so"
    assert [line.balanced for line in bad.lines] == [False, True]
    reader = Reader(page([unbalanced()]))
    assert len([e for e in reader.of("fault") if "error" in classes(e)]) == 1
    assert "only with what leaked" in reader.of("verdict")[0]["text"]


def test_every_row_can_be_unfolded(found):
    reader = Reader(page([found]))
    rows = [e for e in reader.of("row") if e["tag"] == "details"]
    assert len(rows) == len(found)
    for row, line in zip(rows, generation(found).lines, strict=True):
        assert line.token in row["text"]
        tokens = [e for e in reader.of("token") if any(up is row for up in e["inside"])]
        assert len(tokens) == len([unit for unit in found[line.place - 1].units if unit.box is None])
        total = [e for e in reader.of("total") if any(up is row for up in e["inside"])]
        assert len(total) == 1


# ---- texts ---------------------------------------------------------------------------------------------------------


def test_what_was_read_and_produced_stands_on_top():
    drawing = generation(translation())
    assert drawing.texts == (("encoder", "the house is small."), ("decoder", "Das Haus ist klein."))
    assert drawing.heading == "Das Haus ist klein."
    assert drawing.excerpt == "the house is small."
    assert [e["text"] for e in Reader(page([translation()])).of("whole")] == [text for _, text in drawing.texts]


@pytest.mark.parametrize(
    ("labels", "text"),
    [(["Das", "Haus"], "Das Haus"), ([" a", " b", "c"], "a bc"), (["▁Das", "▁Ha", "us"], "Das Haus"), (["a\n"], "a↵")],
)
def test_without_a_text_the_tokens_make_one(labels, text):
    rows = translation().rows[: len(labels)]
    found = [
        type(row)(**{**vars(row), "texts": {}, "target": type(row.target)(kind="token", label=label)})
        for row, label in zip(rows, labels, strict=True)
    ]
    assert generation(GenerationMap(rows=tuple(found))).texts == (("produced", text),)


def test_texts_from_outside_are_never_more_than_texts():
    for source in (page([hostile_generation()]), fragment([hostile_generation()])):
        reader = Reader(source)
        assert {each["tag"] for each in reader.found} <= ALLOWED | MORE
        assert not [name for _, name, _ in reader.attributes if name.startswith("on") or name in ("src", "srcdoc")]
        assert "<script" not in source.lower()
        assert "<img" not in source.lower()
        assert "49" not in "".join(e["text"] for e in reader.of("matrix"))
        text = "".join(e["text"] for e in reader.of("generation"))
        assert text.count(BREAKOUT) > 8
        assert "\u202e" not in source
        assert "\x1b" not in source


def test_styles_hold_numbers_only(found):
    allowed = re.compile(r"(--zero:[\d.]+%|left:[\d.]+%;width:[\d.]+%)")
    for tag, name, value in Reader(page([found])).attributes:
        if name == "style":
            assert allowed.fullmatch(value), tag


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_large_pages_stay_light():
    assert len(page([continuation(64, 100)])) < 1_000_000
    assert len(page([continuation(32, 100)])) < 500_000


def test_an_index_of_all_kinds_reads_well():
    reader = Reader(page([review(), patches(), translation(), unbalanced()]))
    entries = [e for e in reader.found if e["tag"] == "a"]
    said = [" ".join(e["text"].split()) for e in entries]
    assert said == [
        "text-classification positive against negative 2.207 "
        "A gripping, beautiful film, if not quite as moving as the b… The books balance",
        "image-classification pomegranate 2.280 image, 196 parts of a picture The books balance",
        "translation Das Haus ist klein. 5 tokens the house is small. The books balance in every row",
        "image-classification so well 2 tokens The books balance in every row only with what leaked",
    ]
    assert len([e for e in reader.found if e["tag"] == "article"]) == 4
    ranks = [int(e["tag"][1]) for e in reader.found if re.fullmatch(r"h[1-6]", e["tag"])]
    assert ranks[:3] == [1, 2, 3]


def test_a_fragment_has_no_ids():
    assert not re.search(r"\bid=", fragment([translation(), patches()]))
    assert translation()._repr_html_() == fragment([translation()])


def test_odd_numbers_have_a_place():
    source = page([odd_rows()])
    assert "nan" in source
    assert "inf" in source
    assert generation(odd_rows()).lines[0].most is None


def test_the_same_generation_gives_the_same_page(found):
    assert page([found]) == page([GenerationMap.from_dict(found.to_dict())])


# ---- terminal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_nothing_is_wider_than_the_terminal(found, width, colour):
    text = shown([found], width, force_terminal=bool(colour), color_system=colour)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in plain
    for line in plain.splitlines():
        assert cell_len(line) <= width


def test_each_token_has_its_sums_and_its_largest():
    lines = [line.strip() for line in shown([translation()], 60).splitlines()]
    at = lines.index("klein = 2.950 = 2.450 encoder + 0.500 decoder")
    assert lines[at + 1] == "small +2.400   ist +0.320   house -0.310"
    assert "! " not in "".join(lines)
    worst = shown([unbalanced()], 60)
    assert re.search(r"so = -2\.030 = -2\.380 input \+ 0\.350 rest +!", worst)


def test_signs_stand_for_colours_where_there_are_none():
    lines = shown([translation()], 80).splitlines()
    row = next(line for line in lines if line.strip().startswith("klein") and "=" not in line)
    assert row.rstrip().endswith("..--..##.. ......++")


def test_a_matrix_that_does_not_fit_is_left_out():
    assert "100 units do not fit here" in shown([continuation()], 80)
    assert "do not fit here" not in shown([continuation(4, 30)], 60)


# ---- figures and data ----------------------------------------------------------------------------------------------


def test_figures_hold_matrix_sums_and_scale(found):
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    _, (matrix, sums, _) = figure.figure(found)
    drawing = generation(found)
    seen = sum(square is not None for line in drawing.lines for square in line.squares)
    assert len(matrix.collections[0].get_paths()) == seen
    words = [text.get_text().replace("−", "-") for text in sums.texts]
    per_line = len(drawing.groups) + 1 + drawing.leftover  # the same number of words in the heading and in each row
    assert words[2 * per_line - 1 :: per_line] == [line.value.shown for line in drawing.lines]
    assert figure.image(found, "svg") == figure.image(found, "svg")


def test_hostile_labels_are_no_mathematics_in_figures():
    figure = pytest.importorskip("clearhead.render.figure", reason="needs matplotlib")
    assert b"<img" not in figure.image(hostile_generation(), "svg")
    assert EVIL.encode() not in figure.image(hostile_generation(), "svg")


@pytest.mark.parametrize("suffix", [".json", ".html", ".png", ".svg"])
def test_every_kind_of_file_is_written(found, suffix, tmp_path):
    path = render.save([found], tmp_path / f"generation{suffix}")
    assert path.stat().st_size > 500


def test_mixed_lists_are_saved(tmp_path):
    path = render.save([review(), translation(), patches()], tmp_path / "all.html")
    assert path.read_text(encoding="utf-8").count("<article") == 3
    assert "Das Haus" in shown([review(), translation()])
