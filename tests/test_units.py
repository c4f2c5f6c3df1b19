"""Words and sentences of a text, in scripts with and without spaces; spans that share characters."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.units import Unit, begins_word, holder, sentences

# Each row is one text, cut by hand where its sentences end.
CUT = [
    ["One. ", "Two. ", "Three."],
    ["Really?! ", "Yes."],
    ["Wait... ", "what? ", "Well… ", "fine."],
    ['He said "Go." ', "Then he left."],
    ["It ended (at last.) ", "Next one."],
    ["It costs 3.5 euros at example.org today. ", "Fine."],
    ["no stop at the end"],
    ["the first line\n", "the second line"],
    ["a heading\n\n", "a paragraph. ", "Its end."],
    ["one line\r\n", "another"],
    ["  leading space. ", "Trailing space.  "],
    ["\n\nblank lines first"],
    # abbreviations and initials
    ["Dr. Who came. ", "He left!"],
    ["J. K. Rowling wrote it. ", "Good."],
    ["Mr. and Mrs. Smith (Prof. Smith to you) came. ", "They sat."],
    ["See Fig. 3, No. 4, e.g. this, i.e. that. ", "Next."],
    ["Das ist z.B. gut bzw. schlecht. ", "Ende."],
    ["A. \n", "B."],
    ["He chose plan B.\n", "It worked."],
    ["It is U.S. law. ", "Next."],
    # scripts whose stops need no space behind them
    ["今天天气很好。", "我们去公园吧！", "好的"],
    ["「はい。」", "と言った。", "終わり。"],
    ["北京是首都。", "It is big. ", "是吗？"],
]


@pytest.mark.parametrize("parts", CUT, ids="".join)
def test_a_text_falls_into_its_sentences(parts: list[str]) -> None:
    text = "".join(parts)
    assert [text[first:last] for first, last in sentences(text)] == parts


@given(st.text(alphabet="ab A.!?…。！\n\t\"')」Dr12", max_size=60))
def test_sentences_join_without_gaps_and_none_is_blank(text: str) -> None:
    found = sentences(text)
    assert found[0][0] == 0
    assert found[-1][1] == len(text)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(found))
    if len(found) > 1:
        assert all(text[first:last].strip() for first, last in found)


def test_no_text_is_one_empty_sentence() -> None:
    assert sentences("") == [(0, 0)]


# ---- words ----------------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """What `begins_word` makes of a text of which every visible character is a token."""
    found: list[str] = []
    before = 0
    for start, letter in enumerate(text):
        if letter.isspace():
            continue
        if not found or begins_word(text, before, start):
            found.append("")
        found[-1] += letter
        before = start + 1
    return found


@pytest.mark.parametrize(
    "text",
    [
        "New York is big",
        "tabs\tand\nlines\r\nand\u00a0hard\u3000spaces",
        "don't well-known 3.14",
        "  leading and trailing  ",
        "привет мир",
        "한국어 문장",
        "cafe\u0301 au lait",
    ],
)
def test_words_are_what_white_space_parts(text: str) -> None:
    assert words(text) == text.split()


@pytest.mark.parametrize(
    "text", ["北京是首都", "ひらがな", "カタカナ", "ไทย", "ລາວ", "မြန်မာ", "ខ្មែរ", "\U00020000\U00020001"]
)
def test_scripts_without_spaces_have_a_word_per_token(text: str) -> None:
    """A mark that belongs to the letter before it comes in the same token, so letters with their marks are tokens."""
    tokens: list[str] = []
    for letter in text:
        if tokens and unicodedata.category(letter).startswith("M"):
            tokens[-1] += letter
        else:
            tokens.append(letter)
    at = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
    assert len(at) > 1
    assert all(begins_word(text, start, start) for start in at[1:])


@pytest.mark.parametrize("text", ["going", "don't", "straße", "한국", "привет", "سلام", "שלום", "ab12"])
def test_other_scripts_go_on_until_a_space(text: str) -> None:
    assert not any(begins_word(text, n, n) for n in range(1, len(text)))


def test_a_word_ends_where_the_script_changes() -> None:
    assert words("我用Python写") == ["我", "用", "Python", "写"]


def test_a_token_that_carries_its_space_begins_a_word() -> None:
    assert begins_word("to go", 2, 2)


# ---- spans ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda pair: (pair[0], sum(pair))), max_size=6),
    st.integers(0, 12),
    st.integers(0, 6),
)
def test_a_span_holds_what_it_shares_a_character_with(spans: list[tuple[int, int]], start: int, length: int) -> None:
    mine = set(range(start, start + length)) or {start}
    expected = [n for n, (first, last) in enumerate(spans) if mine & set(range(first, last))]
    assert holder(spans, start, start + length) == expected


def test_an_end_is_outside() -> None:
    assert holder([(0, 4), (4, 9)], 4, 6) == [1]
    assert holder([(0, 4), (4, 9)], 9, 10) == []


def test_a_unit_cannot_be_changed() -> None:
    unit = Unit(index=0, text="fine")
    with pytest.raises(AttributeError):
        unit.text = "bad"
    assert (unit.stream, unit.special, unit.start, unit.end, unit.word, unit.box) == ("input", False) + (None,) * 4
