"""A generation as a drawing needs it: a matrix with a row per produced token, whose sums as shown add up row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import accumulate, zip_longest
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from clearhead.render.books import Axis
from clearhead.render.scene import Scene, State, Stream, Token, Verdict, beginning, scene, verdict
from clearhead.render.texts import Amount, Digits, begins, ratio, relative, token, visible

if TYPE_CHECKING:
    from clearhead.generations import GenerationMap
    from clearhead.maps import RelevanceMap

LONGEST = 4_000  # characters of a text above the matrix

_WORDS: dict[State, str] = {
    "conserves": "The books balance in every row",
    "booked": "The books balance in every row only with what leaked",
    "open": "The books do not balance in every row",
}


@dataclass(frozen=True, kw_only=True)
class Square:
    """One cell of the matrix; its intensity is relative to the largest cell of its row."""

    amount: Amount
    intensity: float


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column stands for: one unit, or all `count` parts of a picture together."""

    label: str
    special: bool
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Group:
    """The columns of one stream."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One produced token: its squares, fewer than there are columns where units were still to come.

    `most` is the label and amount of the largest square. The `sums` of the streams and the `rest` (base value, leaks,
    gap) add up to the value, also as they are shown.
    """

    place: int
    token: str
    squares: tuple[Square | None, ...]
    sums: tuple[Amount, ...]
    rest: Amount
    value: Amount
    most: tuple[str, Amount] | None
    drawing: Scene

    @property
    def balanced(self) -> bool:
        """Whether the books of this row balance."""
        return self.drawing.verdict.passes

    def largest(self, count: int) -> list[Token]:
        """The units that counted most for this token."""
        return sorted(self.drawing.tokens, key=lambda each: -abs(each.intensity))[:count]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Everything there is to draw about a generation; all numbers have the same `digits`."""

    kind: ClassVar[str] = "generation"

    produced: str
    texts: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    lines: tuple[Line, ...]
    method: str
    model: str
    task: str
    digits: Digits
    axis: Axis
    verdict: Verdict
    worst: str
    warnings: tuple[str, ...]

    @property
    def first(self) -> Scene:
        """The first row, for what all rows share."""
        return self.lines[0].drawing

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all groups."""
        return tuple(column for group in self.groups for column in group.columns)

    @property
    def edges(self) -> frozenset[int]:
        """The columns, from 0, at which a stream but the first begins."""
        return frozenset(accumulate(len(group.columns) for group in self.groups[:-1]))

    @property
    def leftover(self) -> bool:
        """Whether any row has a rest that can be seen."""
        return any(line.rest.as_shown != 0 for line in self.lines)

    @property
    def heading(self) -> str:
        """What was produced, in a few words."""
        return beginning(self.produced)

    @property
    def figure(self) -> str:
        """The number that belongs to the heading."""
        return f"{len(self.lines)} token{'' if len(self.lines) == 1 else 's'}"

    @property
    def excerpt(self) -> str:
        """The beginning of what was read."""
        return " / ".join(beginning(text) for name, text in self.texts if text != self.produced)


def generation(found: GenerationMap) -> Generation:
    """The scene of a generation."""
    digits = Digits.of([each for row in found for each in (row.value, row.base_value, *map(float, row.relevance))])
    drawings = [scene(row, digits) for row in found]
    widest = max(drawings, key=lambda each: len(each.tokens))
    groups = tuple(_group(stream) for stream in widest.streams)
    lines = tuple(_line(n, row, each, groups) for n, (row, each) in enumerate(zip(found, drawings, strict=True), 1))
    texts, produced = _texts(found)
    worst = max(found, key=lambda row: row.conservation_error)
    return Generation(
        produced=produced,
        texts=texts,
        groups=groups,
        lines=lines,
        method=visible(found.method),
        model=visible(found.model),
        task=visible(found.task),
        digits=digits,
        axis=Axis.over(each.value for line in lines for each in line.sums),
        verdict=_verdict(found, drawings),
        worst=token(worst.target.label),
        warnings=tuple(dict.fromkeys(warning for each in drawings for warning in each.warnings)),
    )


def _group(stream: Stream) -> Group:
    """The columns of a stream; the parts of a picture share the first of them."""
    folded = (Column(label=f"{len(stream.parts):,} parts", special=False, count=len(stream.parts)),)
    words = tuple(Column(label=each.label, special=each.special) for each in stream.words)
    return Group(name=stream.name, columns=(*folded, *words) if stream.parts else words)


def _line(place: int, row: RelevanceMap, drawing: Scene, groups: Sequence[Group]) -> Line:
    squares: list[Square | None] = []
    for group, stream in zip_longest(groups, drawing.streams):  # the units of a row are the first of those of the last
        held = _squares(stream, drawing) if stream else []
        squares += [*held, *[None] * (len(group.columns) - len(held))]
    squares, most = _scaled(squares, [column.label for group in groups for column in group.columns])
    totals = [stream.total for stream in drawing.streams]
    sums = (*totals, *[drawing.digits.amount(0.0)] * (len(groups) - len(totals)))
    return Line(
        place=place,
        token=token(row.target.label),
        squares=tuple(squares),
        sums=sums,
        rest=_rest(row, drawing, sums),
        value=drawing.value,
        most=most,
        drawing=drawing,
    )


def _squares(stream: Stream, drawing: Scene) -> list[Square]:
    """The squares of a stream, still without intensity; the parts of a picture share one."""
    folded = [drawing.digits.sum(each.amount for each in stream.parts)] if stream.parts else []
    return [Square(amount=each, intensity=0.0) for each in (*folded, *(each.amount for each in stream.words))]


def _scaled(
    squares: list[Square | None], labels: Sequence[str]
) -> tuple[list[Square | None], tuple[str, Amount] | None]:
    """The squares with their intensity in the row, and the label and amount of the largest."""
    known = [(abs(each.amount.value), n) for n, each in enumerate(squares) if each and isfinite(each.amount.value)]
    largest, where = max(known, key=lambda pair: pair[0], default=(0.0, 0))
    if not largest:
        return squares, None
    chosen = squares[where]
    scaled = [
        replace(each, intensity=each.amount.value / largest) if each and isfinite(each.amount.value) else each
        for each in squares
    ]
    return scaled, (labels[where], chosen.amount) if chosen else None


def _rest(row: RelevanceMap, drawing: Scene, sums: Sequence[Amount]) -> Amount:
    """What the value has beside the streams, so that the line adds up as it is shown."""
    exact = row.value - sum(each.value for each in sums)
    if drawing.digits.decimals is None or not all(_is_number(each.shown) for each in (*sums, drawing.value)):
        return drawing.digits.amount(exact)
    shown = Decimal(drawing.value.shown) - sum(Decimal(each.shown) for each in sums)
    return Amount(exact, drawing.digits.amount(float(shown)).shown)


def _is_number(shown: str) -> bool:
    return Decimal(shown).is_finite()


def _texts(found: GenerationMap) -> tuple[tuple[tuple[str, str], ...], str]:
    """What was read and produced by stream, and what was produced: the text of the stream that grows, or the tokens."""
    named = {name: text for name, text in found.texts.items() if text.strip()}
    widest = max(found, key=lambda row: len(row.units))
    grows = len({len(row.units) for row in found}) > 1
    others = [name for name in named if name not in found.streams]
    own = widest.units[-1].stream if grows else others[-1] if others else ""
    if own in named:
        produced = named.pop(own)
    else:
        own, produced = "produced", _joined(found.tokens)
    produced = _line_of(produced)
    return (*((visible(name), _line_of(text)) for name, text in named.items()), (visible(own), produced)), produced


def _joined(labels: Sequence[str]) -> str:
    """Tokens as a text: with spaces where their own marks say so, or between all where there are no marks."""
    marked = any(begins(label) for label in labels)
    return "".join((" " if begins(label) or not marked else "") + token(label) for label in labels).strip()


def _line_of(text: str) -> str:
    return visible(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _verdict(found: GenerationMap, drawings: Sequence[Scene]) -> Verdict:
    """The verdict of the worst row, in the words of all."""
    order: tuple[State, ...] = ("conserves", "booked", "open")
    state = max((each.verdict.state for each in drawings), key=order.index)
    failing = sum(not each.verdict.passes for each in drawings)
    rows = f"{len(drawings)} row{'' if len(drawings) == 1 else 's'}"
    reason = "The units of each row add up to the score of its token."
    if state != "conserves":
        reason = f"In {failing} of {rows} the units alone do not add up to the score of the token."
    return Verdict(
        state=state,
        words=_WORDS[state],
        reason=reason,
        passes=not failing,
        threshold=verdict(found.rows[0]).threshold,
        conservation_error=relative(found.conservation_error),
        residual=relative(found.residual),
        cancellation=ratio(max(row.cancellation for row in found)),
    )
