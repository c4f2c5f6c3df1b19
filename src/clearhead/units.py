"""Units: what relevance is given to, and how a text falls into words and sentences. Nothing here knows torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Box = tuple[int, int, int, int]
Span = tuple[int, int]

# Scripts that write no spaces between words: a token is the nearest thing to a word there.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)
_STOPS = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)\s*|[。！？]+[」』）”]*|\n\s*")
_ABBREVIATIONS = r"(?:[A-Za-z]\.)*[A-Z] Dr Mr Mrs Ms Prof St Jr Sr vs cf ca e\.g i\.e No Fig Nr bzw z\.B".split()
_ABBREVIATION = re.compile(rf"(?:^|[\s(])(?:{'|'.join(_ABBREVIATIONS)})\.$")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One thing relevance is given to: a token, a word, a patch of an image, a position.

    `start` and `end` are character offsets into the stream's text (equal for special tokens); `word` counts the
    words of its stream, None for special tokens. A part of an image has a `box` instead: left, top, right and bottom
    in pixels of the stream's picture.
    """

    index: int
    text: str
    stream: str = "input"
    special: bool = False
    start: int | None = None
    end: int | None = None
    word: int | None = None
    box: Box | None = None


def begins_word(text: str, before: int, start: int) -> bool:
    """Whether a token that begins at `start`, behind one that ends at `before`, begins a word of its own.

    It does after white space, and in scripts that are written without any.

    >>> begins_word("New York", 3, 4), begins_word("北京", 1, 1), begins_word("going", 2, 2)
    (True, True, False)
    """
    between = text[before : start + 1]
    return any(letter.isspace() for letter in between) or bool(_UNSPACED.search(text[max(0, before - 1) : start + 1]))


def sentences(text: str) -> list[Span]:
    """The sentences of a text as character offsets that join without gaps.

    A sentence ends at a stop before white space, at a full-width stop, or at a line's end; usual abbreviations and
    initials do not end one.

    >>> sentences("Dr. Who came. He left!")
    [(0, 14), (14, 22)]
    """
    found, first = [], 0
    for stop in _STOPS.finditer(text):
        held = text[first : stop.end()].rstrip()
        if "\n" not in stop.group() and _ABBREVIATION.search(held):
            continue
        if held and text[stop.end() :].strip():
            found.append((first, stop.end()))
            first = stop.end()
    return [*found, (first, len(text))]


def holder(spans: Iterable[Span], start: int, end: int) -> list[int]:
    """The numbers of the spans that share a character with `start` to `end`; for an empty stretch, that hold it.

    >>> holder([(0, 4), (4, 9)], 2, 6)
    [0, 1]
    """
    last = max(end, start + 1)
    return [n for n, (first, stop) in enumerate(spans) if first < stop and first < last and start < stop]
