"""A generation as a drawing needs it: a matrix with a row per produced token, whose sums as shown add up row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import accumulate, zip_longest
from math import isfinite
from typing import TYPE_CHECKING, ClassVar

from clearhead.render.agreement import Tally, tally
from clearhead.render.books import Axis
from clearhead.render.scene import Scene, Stream, Token, beginning, scene
from clearhead.render.texts import Amount, Digits, begins, ratio, relative, token, visible
from clearhead.render.verdicts import SCORES, SHARES, Measure, State, Verdict, measure, positive, verdict

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
    gap) add up to the `whole`, also as they are shown: the value, or of shares all of them. Scores have no sums.
    """

    place: int
    token: str
    squares: tuple[Square | None, ...]
    sums: tuple[Amount, ...]
    rest: Amount
    whole: Amount | None
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
    measure: Measure
    positive: bool
    verdict: Verdict
    worst: str
    checks: Tally | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def sums(self) -> tuple[str, ...]:
        """The names of the sums of each line."""
        return () if self.measure == "scores" else tuple(group.name for group in self.groups)

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
    kind = _measure(found)
    digits, worth = _digits(found, kind)
    drawings = [scene(row, digits, worth) for row in found]
    widest = max(drawings, key=lambda each: len(each.tokens))
    groups = tuple(_group(stream, kind) for stream in widest.streams)
    made = [_line(n, row, each, groups, kind) for n, (row, each) in enumerate(zip(found, drawings, strict=True), 1)]
    lines = tuple(made)
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
        measure=kind,
        positive=all(positive(row) for row in found),
        verdict=_verdict(found, drawings) if kind == "relevance" else _unclaimed(kind),
        worst=token(worst.target.label),
        checks=tally([each.check for each in drawings]),
        notes=tuple(dict.fromkeys(note for each in drawings for note in each.notes)),
        warnings=tuple(dict.fromkeys(warning for each in drawings for warning in each.warnings)),
    )


def _measure(found: GenerationMap) -> Measure:
    """What all rows are; scores, where they are not the same."""
    kinds = {measure(row) for row in found}
    return kinds.pop() if len(kinds) == 1 else "scores"


def _digits(found: GenerationMap, kind: Measure) -> tuple[Digits, Digits]:
    """How the numbers of all rows are written, and their values: alike, where values are sums of the numbers."""
    amounts = [float(each) for row in found for each in row.relevance]
    values = [each for row in found for each in (row.value, row.base_value)]
    if kind == "relevance":
        return (both := Digits.of([*values, *amounts])), both
    return replace(Digits.of(amounts), signed=not all(positive(row) for row in found)), Digits.of(values)


def _group(stream: Stream, kind: Measure) -> Group:
    """The columns of a stream; the parts of a picture share the first of them."""
    label = f"{'largest of ' if kind == 'scores' else ''}{len(stream.parts):,} parts"
    folded = (Column(label=label, special=False, count=len(stream.parts)),)
    words = tuple(Column(label=each.label, special=each.special) for each in stream.words)
    return Group(name=stream.name, columns=(*folded, *words) if stream.parts else words)


def _line(place: int, row: RelevanceMap, drawing: Scene, groups: Sequence[Group], kind: Measure) -> Line:
    squares: list[Square | None] = []
    for group, stream in zip_longest(groups, drawing.streams):  # the units of a row are the first of those of the last
        held = _squares(stream, drawing, kind) if stream else []
        squares += [*held, *[None] * (len(group.columns) - len(held))]
    squares, most = _scaled(squares, [column.label for group in groups for column in group.columns])
    whole = _whole(row, drawing, kind)
    totals = [stream.total for stream in drawing.streams if stream.total]
    sums = (*totals, *[drawing.digits.amount(0.0)] * (len(groups) - len(totals))) if whole else ()
    return Line(
        place=place,
        token=token(row.target.label),
        squares=tuple(squares),
        sums=sums,
        rest=_rest(whole, drawing, sums) if whole else drawing.digits.amount(0.0),
        whole=whole,
        value=drawing.value,
        most=most,
        drawing=drawing,
    )


def _whole(row: RelevanceMap, drawing: Scene, kind: Measure) -> Amount | None:
    """What the sums of a line add up to."""
    if kind == "scores":
        return None
    return drawing.value if kind == "relevance" else drawing.digits.amount(float(row.relevance.sum()))


def _squares(stream: Stream, drawing: Scene, kind: Measure) -> list[Square]:
    """The squares of a stream, still without intensity; the parts of a picture share one."""
    parts = [each.amount for each in stream.parts]
    folded = [_largest(parts) if kind == "scores" else drawing.digits.sum(parts)] if parts else []
    return [Square(amount=each, intensity=0.0) for each in (*folded, *(each.amount for each in stream.words))]


def _largest(amounts: Sequence[Amount]) -> Amount:
    return max(amounts, key=lambda each: abs(each.value) if isfinite(each.value) else -1.0)


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


def _rest(whole: Amount, drawing: Scene, sums: Sequence[Amount]) -> Amount:
    """What the whole has beside the streams, so that the line adds up as it is shown."""
    exact = whole.value - sum(each.value for each in sums)
    if drawing.digits.decimals is None or not all(_is_number(each.shown) for each in (*sums, whole)):
        return drawing.digits.amount(exact)
    shown = Decimal(whole.shown) - sum(Decimal(each.shown) for each in sums)
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


def _unclaimed(kind: Measure) -> Verdict:
    """What the numbers of all rows are, where they claim no books."""
    if kind == "shares":
        reason = "those of each row add up to 1.000, not to the score of its token."
        return Verdict(state="unclaimed", words=SHARES, reason=reason)
    reason = "they rank the units of each row and add up to nothing in particular."
    return Verdict(state="unclaimed", words=SCORES, reason=reason)


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
