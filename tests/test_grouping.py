"""Words, sentences and spans of a map: sums of its units, so that the books stay as they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clearhead import RelevanceMap, Target, Unit
from clearhead.errors import UsageError
from clearhead.maps import LedgerEntry

TEXT = "Dr. Who came. He left at once! Going home"
PIECES = ["Dr", ".", "Who", "came", ".", "He", "left", "at", "once", "!", "Go", "ing", "home"]
WORDS = [0, 0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 7, 8]
OTHER = "今天好。走吧"


def units_of(text: str, pieces: list[str], words: list[int], *, first: int = 0, **about: Any) -> list[Unit]:
    """Units at the places where the pieces stand in the text, between two special ones."""
    edge = {"special": True, "start": 0, "end": 0, **about}
    found, at = [Unit(index=first, text="[CLS]", **edge)], 0
    for piece, word in zip(pieces, words, strict=True):
        start = text.index(piece, at)
        at = start + len(piece)
        found.append(Unit(index=first + len(found), text=piece, start=start, end=at, word=word, **about))
    return [*found, Unit(index=first + len(found), text="[SEP]", **edge)]


def made(units: list[Unit], texts: dict[str, str], **changes: Any) -> RelevanceMap:
    relevance = np.random.default_rng(0).normal(size=len(units))
    fields = {
        "method": "lrp",
        "model": "toy",
        "task": "text-classification",
        "target": Target(kind="class", label="positive", index=1),
        "value": float(relevance.sum()) + 1e-3,
        "ledger": (LedgerEntry(cause="bias", module="a", operation="linear", relevance=0.1, returned=True),),
        "warnings": ("a note",),
    }
    return RelevanceMap(units=tuple(units), relevance=relevance, texts=texts, **{**fields, **changes})


@pytest.fixture
def one() -> RelevanceMap:
    return made(units_of(TEXT, PIECES, WORDS), {"input": TEXT})


@pytest.fixture
def two() -> RelevanceMap:
    """Two streams, whose words and sentences count from 0 each."""
    first = units_of(TEXT, PIECES, WORDS, stream="text")
    second = units_of(OTHER, list(OTHER), list(range(len(OTHER))), first=len(first), stream="text_pair")
    return made([*first, *second], {"text": TEXT, "text_pair": OTHER})


def summed(found: RelevanceMap, starts: dict[str, list[int]]) -> list[float]:
    """The sums by hand: a visible unit goes to the last group of its stream that starts at or before it."""
    sums: dict[Any, float] = {}
    for n, (unit, relevance) in enumerate(zip(found.units, found.relevance, strict=True)):
        held = max(s for s in starts[unit.stream] if s <= unit.start)
        key = ("alone", n) if unit.special else (unit.stream, held)
        sums[key] = sums.get(key, 0.0) + float(relevance)
    return list(sums.values())


def same_books(found: RelevanceMap, before: RelevanceMap) -> None:
    assert found.relevance.sum() == pytest.approx(before.relevance.sum(), rel=1e-12)
    assert found.conservation_error == pytest.approx(before.conservation_error, rel=1e-6)
    for name in ("value", "base_value", "ledger", "target", "texts", "warnings", "method", "model", "task", "recipe"):
        assert getattr(found, name) == getattr(before, name), name
    assert [unit.index for unit in found.units] == list(range(len(found.units)))


# ---- words ----------------------------------------------------------------------------------------------------------


def test_words_are_sums_of_their_tokens(one: RelevanceMap) -> None:
    found = one.words()
    expected = "Dr. Who came. He left at once! Going home".split()
    assert [unit.text for unit in found.units] == ["[CLS]", *expected, "[SEP]"]
    np.testing.assert_allclose(found.relevance, summed(one, {"input": [TEXT.index(word) for word in expected]}))
    same_books(found, one)
    for unit in found.units:
        assert unit.special or TEXT[unit.start : unit.end] == unit.text


def test_words_of_two_streams_are_never_joined(two: RelevanceMap) -> None:
    found = two.words()
    assert found.streams == ("text", "text_pair")
    assert [unit.text for unit in found.units if unit.stream == "text_pair"] == ["[CLS]", *OTHER, "[SEP]"]
    for stream in two.streams:
        before = two.relevance[[unit.stream == stream for unit in two.units]].sum()
        assert found.relevance[[unit.stream == stream for unit in found.units]].sum() == pytest.approx(before)
    same_books(found, two)


def test_units_without_a_word_stay_as_they_are() -> None:
    plain = made([Unit(index=n, text=str(n)) for n in range(4)], {})
    np.testing.assert_array_equal(plain.words().relevance, plain.relevance)
    assert plain.words().units == plain.units
    boxes = [Unit(index=n, text=f"patch {n}", stream="image", box=(n, 0, n + 1, 1)) for n in range(4)]
    assert made(boxes, {}).words().units == tuple(boxes)


def test_words_of_words_are_the_same(one: RelevanceMap) -> None:
    assert one.words().words().units == one.words().units


def test_without_the_text_a_word_is_its_tokens_joined() -> None:
    bare = made(units_of(TEXT, PIECES, WORDS), {})
    assert [unit.text for unit in bare.words().units][1:-1] == TEXT.split()


# ---- sentences ------------------------------------------------------------------------------------------------------


def test_sentences_are_sums_of_their_tokens(one: RelevanceMap) -> None:
    found = one.sentences()
    assert [unit.text for unit in found.units] == ["[CLS]", "Dr. Who came.", "He left at once!", "Going home", "[SEP]"]
    starts = [0, TEXT.index("He"), TEXT.index("Going")]
    np.testing.assert_allclose(found.relevance, summed(one, {"input": starts}))
    same_books(found, one)


def test_sentences_of_two_streams_are_never_joined(two: RelevanceMap) -> None:
    found = two.sentences()
    assert [unit.text for unit in found.units if unit.stream == "text_pair"] == ["[CLS]", "今天好。", "走吧", "[SEP]"]
    starts = {"text": [0, TEXT.index("He"), TEXT.index("Going")], "text_pair": [0, OTHER.index("走")]}
    np.testing.assert_allclose(found.relevance, summed(two, starts))
    same_books(found, two)


def test_sentences_of_words_are_sentences(one: RelevanceMap) -> None:
    np.testing.assert_allclose(one.words().sentences().relevance, one.sentences().relevance)
    assert [unit.text for unit in one.words().sentences().units] == [unit.text for unit in one.sentences().units]


def test_a_token_that_carries_the_space_before_it_goes_to_its_own_sentence() -> None:
    """Byte-level tokenisers count the space as part of the word behind it."""
    pieces = ["One", ".", " He", " left", "."]
    text = "".join(pieces)
    units, at = [], 0
    for n, piece in enumerate(pieces):
        units.append(Unit(index=n, text=piece, start=at, end=at + len(piece), word=n))
        at += len(piece)
    whole = made(units, {"input": text})
    found = whole.sentences()
    np.testing.assert_allclose(found.relevance, [whole.relevance[:2].sum(), whole.relevance[2:].sum()])
    assert [unit.text.strip() for unit in found.units] == ["One.", "He left."]
    by_span = whole.spans([(0, 5), (5, len(text))])
    np.testing.assert_allclose(by_span.relevance, found.relevance)


def test_an_image_beside_a_text_stays_in_patches(one: RelevanceMap) -> None:
    patches = [Unit(index=n, text=f"patch {n}", stream="image", box=(n * 4, 0, n * 4 + 4, 4)) for n in range(3)]
    both = made([*patches, *units_of(TEXT, PIECES, WORDS, first=3, stream="text")], {"text": TEXT})
    for found in (both.words(), both.sentences(), both.spans([(0, 13)])):
        assert found.units[:3] == tuple(patches)
        np.testing.assert_array_equal(found.relevance[:3], both.relevance[:3])
        same_books(found, both)


# ---- spans ----------------------------------------------------------------------------------------------------------


def test_spans_are_sums_and_the_rest_stays(one: RelevanceMap) -> None:
    first, last = TEXT.index("He left"), TEXT.index("!") + 1
    found = one.spans([(0, 7), (first, last)])
    middle = ["came", "."]
    expected = ["[CLS]", "Dr. Who", *middle, "He left at once!", "Go", "ing", "home", "[SEP]"]
    assert [unit.text for unit in found.units] == expected
    starts = sorted({0, first, *(unit.start for unit in one.units if 7 < unit.start < first or unit.start >= last)})
    np.testing.assert_allclose(found.relevance, summed(one, {"input": starts}))
    same_books(found, one)


def test_spans_in_any_order_and_as_lists(one: RelevanceMap) -> None:
    forward = one.spans([(0, 7), (14, 30)])
    for spans in ([(14, 30), (0, 7)], [[0, 7], [14, 30]]):
        found = one.spans(spans)
        assert [unit.text for unit in found.units] == [unit.text for unit in forward.units]
        np.testing.assert_array_equal(found.relevance, forward.relevance)


def test_a_span_within_a_token_takes_the_whole_token(one: RelevanceMap) -> None:
    at = TEXT.index("came")
    found = one.spans([(at + 1, at + 2)])
    assert [unit.text for unit in found.units] == [unit.text for unit in one.units]
    np.testing.assert_array_equal(found.relevance, one.relevance)


def test_spans_of_one_of_two_streams(two: RelevanceMap) -> None:
    found = two.spans([(0, 3)], stream="text_pair")
    assert [unit.text for unit in found.units if unit.stream == "text_pair"] == ["[CLS]", "今天好", *"。走吧", "[SEP]"]
    assert [unit.text for unit in found.units if unit.stream == "text"] == ["[CLS]", *PIECES, "[SEP]"]
    same_books(found, two)


def test_two_streams_need_a_name(two: RelevanceMap) -> None:
    with pytest.raises(UsageError, match="`stream` must be one of text, text_pair; found None"):
        two.spans([(0, 3)])
    with pytest.raises(UsageError, match="found 'input'"):
        two.spans([(0, 3)], stream="input")


@pytest.mark.parametrize(
    ("spans", "told"),
    [
        ([(0, 5), (4, 9)], r"belongs to one span; 'Who' .*\(0, 5\) and \(4, 9\)"),
        ([(0, 2), (0, 2)], r"'Dr'"),
        ([(500, 600)], r"holds at least one unit; \(500, 600\).*characters"),
        ([(3, 3)], r"\(3, 3\)"),
        ([(1, 1)], r"\(1, 1\)"),  # in the middle of a token
        ([(9, 5)], r"\(9, 5\)"),
        ([(3, 4)], r"\(3, 4\)"),  # only a space
    ],
)
def test_spans_that_cannot_be(one: RelevanceMap, spans: list[tuple[int, int]], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        one.spans(spans)


def test_a_map_without_texts_has_no_spans() -> None:
    with pytest.raises(UsageError, match="no stream of this map is a text"):
        made([Unit(index=0, text="0")], {}).spans([(0, 1)])


# ---- other names ----------------------------------------------------------------------------------------------------


def test_renaming_keeps_the_numbers(one: RelevanceMap) -> None:
    units = [Unit(index=n, text=f"unit {n}") for n in range(len(one.units))]
    found = one.renamed(units)
    assert found.units == tuple(units)
    np.testing.assert_array_equal(found.relevance, one.relevance)
    with pytest.raises(UsageError, match="one relevance per unit"):
        one.renamed(units[1:])
