"""The books in the scene add up, as numbers and as they are shown, and tokens read as the text did."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from clearhead.maps import LedgerEntry, Recipe
from clearhead.render.books import Axis
from clearhead.render.scene import scene
from clearhead.units import Unit
from render.examples import ALL, leaking, long, made, open_books, pair, review


@pytest.fixture(params=ALL)
def found(request):
    return ALL[request.param]()


def test_the_books_add_up(found):
    books = scene(found).books
    assert math.fsum(step.amount.value for step in books.steps) == pytest.approx(found.value, abs=1e-12)
    fixed = [Decimal(step.amount.shown) for step in books.steps if "e" not in step.amount.shown]
    assert sum(fixed) == Decimal(books.value.shown)


def test_the_lines_are_what_the_map_says(found):
    books = scene(found).books
    by_kind = {kind: math.fsum(s.amount.value for s in books.steps if s.kind == kind) for kind in ("base", "units")}
    assert by_kind["base"] == found.base_value
    assert by_kind["units"] == pytest.approx(float(np.sum(found.relevance)), abs=1e-12)
    kept = {}
    for entry in found.ledger:
        if not entry.returned:
            kept[entry.cause] = kept.get(entry.cause, 0) + entry.relevance
    assert {s.label: s.amount.value for s in books.steps if s.kind == "sink"} == pytest.approx(kept)
    assert abs(books.steps[-1].amount.value) == pytest.approx(found.residual * abs(found.value), abs=1e-12)


def test_every_step_begins_where_the_last_one_ended(found):
    at = 0.0
    for step in scene(found).books.steps:
        assert step.start == at
        assert step.end == pytest.approx(step.start + step.amount.value, abs=1e-12)
        at = step.end
    assert at == pytest.approx(found.value, abs=1e-12)


def test_parts_add_up_to_their_line(found):
    for step in scene(found).books.steps:
        if step.parts:
            assert sum(Decimal(part.amount.shown) for part in step.parts) == Decimal(step.amount.shown)
            assert [part.kind for part in step.parts] == ["for", "against"]
            assert step.parts[-1].end == pytest.approx(step.end, abs=1e-12)


def test_every_leak_is_there_once_and_sorted(found):
    books = scene(found).books
    for causes, returned in ((books.sinks, False), (books.returned, True)):
        listed = [leak for cause in causes for leak in cause.leaks]
        entries = [entry for entry in found.ledger if entry.returned is returned]
        assert sorted(leak.amount.value for leak in listed) == sorted(entry.relevance for entry in entries)
        for cause in causes:
            sizes = [abs(leak.amount.value) for leak in cause.leaks]
            assert sizes == sorted(sizes, reverse=True)
            assert math.fsum(leak.amount.value for leak in cause.leaks) == pytest.approx(cause.amount.value)


def test_intensity_is_relevance_by_the_largest(found):
    tokens = scene(found).tokens
    largest = np.abs(found.relevance).max()
    assert [t.intensity for t in tokens] == pytest.approx((found.relevance / largest).tolist())
    assert max(abs(t.intensity) for t in tokens) == 1


def test_a_text_reads_as_it_was_written():
    read = "".join(("" if t.joined else " ") + t.text for t in scene(review()).tokens if not t.special).strip()
    assert read == review().texts["input"]


def test_pieces_without_offsets_are_joined_by_their_marks():
    tokens = scene(made(["grip", "##ping", "Ġfilm", "##", "▁it"], [1.0, 2, 3, 4, 5])).tokens
    assert [(t.text, t.joined) for t in tokens] == [
        ("grip", False), ("ping", True), ("film", False), ("##", False), ("it", False),
    ]  # fmt: skip
    assert tokens[1].label == "##ping"


def test_specials_and_streams_are_never_joined():
    units = [
        Unit(index=0, text="[CLS]", special=True, start=0, end=0),
        Unit(index=1, text="a", start=0, end=1),
        Unit(index=2, text="b", stream="other", start=1, end=2),
        Unit(index=3, text=" c", stream="other", start=2, end=4),
    ]
    found = replace(made(["x"], [4.0]), units=tuple(units), relevance=np.ones(4))
    assert [t.joined for t in scene(found).tokens] == [False] * 4


def test_repeated_tokens_have_their_place():
    named = [token.name for token in scene(made("the cat the".split(), [1.0, 2, 3])).tokens]
    assert named == ["the 1", "cat", "the 3"]


@pytest.mark.parametrize(("map_", "state"), [(review(), "conserves"), (leaking(), "booked"), (open_books(), "open")])
def test_the_verdict_says_how_far_the_books_balance(map_, state):
    verdict = scene(map_).verdict
    assert verdict.state == state
    assert verdict.passes is (state == "conserves")


def test_the_threshold_comes_from_the_recipe():
    def passes(threshold):
        return scene(made(["a"], [1.0], value=1.01, recipe=Recipe(settings={"threshold": threshold}))).verdict.passes

    assert passes(0.1)
    assert not passes(1e-4)
    assert not passes(None)


def test_streams_have_their_own_sums_and_places():
    drawing = scene(pair())
    assert [s.name for s in drawing.streams] == ["text", "text_pair"]
    assert [drawing.wording(s) for s in drawing.books.units] == ["text: 12 units", "text_pair: 13 units"]
    assert all(s.tokens[0].place == 1 for s in drawing.streams)
    assert drawing.excerpt.startswith("She sat on the bank and watched the river. / She sat in")


def test_of_many_the_largest_are_chosen_in_reading_order():
    stream = scene(long()).streams[0]
    shown, others = stream.chosen(24)
    assert len(shown) == 24
    assert len(others) == 96
    assert min(abs(t.intensity) for t in shown) >= max(abs(t.intensity) for t in others)
    assert [t.place for t in shown] == sorted(t.place for t in shown)
    assert stream.chosen(119)[1] == []


@pytest.mark.parametrize(
    "odd",
    [
        made([], []),
        made(["a", "b"], [0.0, 0.0]),
        made(["a"], [float("nan")]),
        made(["a"], [float("inf")]),
        made(["a", "b"], [1e-12, -3e-13]),
        made(["a"], [1.0], value=0.0),
        made(["a"], [1.0], ledger=(LedgerEntry(cause="", module="", operation="", relevance=1.0, returned=False),)),
    ],
    ids=["empty", "zero", "nan", "inf", "tiny", "value 0", "nameless"],
)
def test_odd_maps_have_a_scene(odd):
    drawing = scene(odd)
    assert len(drawing.tokens) == len(odd.units)
    assert all(0 <= drawing.books.axis.at(step.end) <= 1 for step in drawing.books.steps)


@pytest.mark.parametrize(("numbers", "low", "high"), [([1, 2], 0, 2), ([-3, -1], -3, 0), ([-1, 4], -1, 4), ([], 0, 1)])
def test_an_axis_holds_zero_and_has_a_length(numbers, low, high):
    axis = Axis.over([*numbers, float("nan")])
    assert (axis.low, axis.high) == (low, high)
    assert (axis.at(low), axis.at(high), axis.at(high + 99)) == (0, 1, 1)
    assert axis.at(float("nan")) == axis.at(0)
