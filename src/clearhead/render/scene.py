"""A map as a drawing needs it: plain data, harmless texts, numbers as they are shown, and books that add up.

Every output draws from the scene alone, so that all of them say the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from clearhead.render.agreement import CrossCheck, cross_check, others
from clearhead.render.books import Axis, Books, Step, books
from clearhead.render.pictures import MANY, Cell, Picture, placed, seen
from clearhead.render.texts import Amount, Digits, begins, continues, piece, token, visible
from clearhead.render.verdicts import Measure, Verdict, measure, positive, verdict
from clearhead.rulebook import implied

if TYPE_CHECKING:
    from clearhead.maps import RelevanceMap
    from clearhead.units import Unit

EXCERPT = 60  # characters of each stream
MARKED = 5  # parts of a picture that are marked with their rank


@dataclass(frozen=True, kw_only=True)
class Token:
    """One unit: `text` as it reads, `joined` to the one before it or not; `label` and `place` on its own.

    `place` counts from 1 in its stream; `repeated` says that others in the stream have the same label. A part of a
    picture has a `cell`, and among the largest of them a `rank` from 1.
    """

    place: int
    repeated: bool
    text: str
    label: str
    joined: bool
    stream: str
    special: bool
    amount: Amount
    intensity: float
    cell: Cell | None = None
    rank: int = 0

    @property
    def name(self) -> str:
        """The label, with the place where others have the same label."""
        return f"{self.label} {self.place}" if self.repeated else self.label


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The tokens of one input in reading order, and their sum (scores have none); of an image, its picture too.

    A `smooth` picture has its colours mixed between the middles of its parts. A picture's colours end at `reach` of the
    largest relevance of the map: at that of its largest part, or of very many parts at that of the largest hundredth,
    as a few would leave the others pale.
    """

    name: str
    tokens: tuple[Token, ...]
    total: Amount | None
    picture: Picture | None = None
    reach: float = 1.0
    measure: Measure = "relevance"
    smooth: bool = False

    @property
    def parts(self) -> tuple[Token, ...]:
        """The tokens that have a place on the picture."""
        return tuple(each for each in self.tokens if each.cell) if self.picture else ()

    @property
    def words(self) -> tuple[Token, ...]:
        """The tokens that have none."""
        return tuple(each for each in self.tokens if not each.cell) if self.picture else self.tokens

    @property
    def beyond(self) -> int:
        """How many parts are larger than the colours show."""
        return sum(abs(each.intensity) > self.reach for each in self.parts)

    def heat(self, token: Token) -> float:
        """The intensity of a part of the picture, -1 to 1, with the end of the colours at `reach`."""
        return max(-1.0, min(1.0, token.intensity / self.reach))

    def largest(self) -> list[Token]:
        """The tokens by absolute relevance, largest first."""
        return sorted(self.tokens, key=lambda each: -abs(each.intensity))

    def chosen(self, count: int) -> tuple[list[Token], list[Token]]:
        """The `count` largest tokens and the others, both in reading order; never a single one left over."""
        kept = {each.place for each in self.largest()[: count if len(self.tokens) > count + 1 else count + 1]}
        return [each for each in self.tokens if each.place in kept], [e for e in self.tokens if e.place not in kept]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything there is to draw about one map; `axis` holds all relevances, `largest` is where the scale ends.

    Shares and scores have no `books`; with `positive` no number is negative, and the scale has one side only. The first
    note on relevance by lrp says which preset was used, and what it implies.
    """

    kind: ClassVar[str] = "map"

    target: str
    value: Amount
    largest: Amount
    method: str
    model: str
    task: str
    streams: tuple[Stream, ...]
    axis: Axis
    digits: Digits
    books: Books | None
    measure: Measure
    positive: bool
    verdict: Verdict
    check: CrossCheck | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    cross_check: tuple[tuple[str, str], ...]
    fingerprint: str

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens of all streams."""
        return tuple(each for stream in self.streams for each in stream.tokens)

    def wording(self, step: Step) -> str:
        """A line of the books in words."""
        if step.kind == "units":
            stream = f"{step.label}: " if len(self.streams) > 1 else ""
            return f"{stream}{step.count} unit{'' if step.count == 1 else 's'}"
        if step.kind in {"for", "against"}:
            return f"{step.count} {step.label}"
        return f"{step.label}, not passed on" if step.kind == "sink" else step.label

    def rest(self, tokens: Sequence[Token]) -> tuple[str, str]:
        """What is said of units that are not listed, and its number: their sum, or of scores the largest size."""
        count = f"{len(tokens):,} others"
        if self.measure != "scores":
            return f"{count}, together", self.digits.sum(token.amount for token in tokens).shown
        largest = max((abs(each.amount.value) for each in tokens if math.isfinite(each.amount.value)), default=0.0)
        return f"{count}, none beyond", self.digits.amount(largest).unsigned.shown

    @property
    def excerpt(self) -> str:
        """The beginning of what was read, to tell one map from another."""
        return " / ".join(_excerpt(stream) for stream in self.streams)

    @property
    def heading(self) -> str:
        """What was explained, in a few words."""
        return self.target

    @property
    def figure(self) -> str:
        """The number that belongs to the heading."""
        return self.value.shown


def scene(found: RelevanceMap, digits: Digits | None = None, worth: Digits | None = None) -> Scene:
    """The scene of a map; `digits` say how its numbers are written where it stands among others, `worth` its value.

    The value of shares and scores is a number of another kind than theirs, with digits of its own.
    """
    amounts = [float(each) for each in found.relevance]
    digits = digits or _digits(found, amounts)
    largest = max((abs(each) for each in amounts if math.isfinite(each)), default=0.0)
    balance = books(found, digits) if found.additive else None
    streams = _streams(found, digits, largest, _totals(found, digits, balance))
    unseen = tuple(f"{stream.name}: {note}" for stream in streams if stream.picture for note in stream.picture.notes)
    return Scene(
        target=visible(str(found.target)),
        value=balance.value if balance else (worth or Digits.of([found.value])).amount(found.value).unsigned,
        largest=digits.amount(largest).unsigned,
        method=visible(found.method),
        model=visible(found.model),
        task=visible(found.task),
        streams=streams,
        axis=Axis.over(amounts),
        digits=digits,
        books=balance,
        measure=measure(found),
        positive=positive(found),
        verdict=verdict(found),
        check=cross_check(found.cross_check),
        notes=tuple(visible(note) for note in (*_preset(found), *found.notes)),
        warnings=(*(visible(warning) for warning in found.warnings), *unseen),
        settings=(*pairs(found.recipe.settings), *pairs({"seed": found.recipe.seed, "dtype": found.recipe.dtype})),
        versions=pairs(found.recipe.versions),
        cross_check=pairs(others(found.cross_check)),
        fingerprint=visible(found.recipe.model_fingerprint) if found.recipe.model_fingerprint else "",
    )


def _preset(found: RelevanceMap) -> tuple[str, ...]:
    """The preset of a map by lrp and what it implies, if its recipe tells."""
    said = implied(found.recipe.settings) if found.method == "lrp" else ""
    return (said,) if said else ()


def _totals(found: RelevanceMap, digits: Digits, balance: Books | None) -> Sequence[Amount | None]:
    """What the units of each stream sum to; scores sum to nothing."""
    if balance:
        return [step.amount for step in balance.units]
    if measure(found) == "scores":
        return [None] * len(found.streams)
    held = [[unit.stream == name for unit in found.units] for name in found.streams]
    return digits.footed([float(found.relevance[each].sum()) for each in held], float(found.relevance.sum()))


def _digits(found: RelevanceMap, amounts: Sequence[float]) -> Digits:
    """Four digits for the largest number; among very many units at least two for the largest hundredth of them."""
    values = [found.value, found.base_value] if found.additive else []
    usual = replace(Digits.of([*values, *amounts]), signed=not positive(found))
    sizes = sorted((abs(each) for each in amounts if each and math.isfinite(each)), reverse=True)
    if len(sizes) <= MANY or usual.decimals is None:
        return usual
    finer = Digits.of([sizes[len(sizes) // 100]]).decimals
    return replace(usual, decimals=max(usual.decimals, finer - 2)) if finer else usual


# ---- tokens --------------------------------------------------------------------------------------------------------


def _streams(
    found: RelevanceMap, digits: Digits, largest: float, totals: Sequence[Amount | None]
) -> tuple[Stream, ...]:
    members: dict[str, list[tuple[Unit, float]]] = {name: [] for name in found.streams}
    for unit, amount in zip(found.units, found.relevance, strict=True):
        members[unit.stream].append((unit, float(amount)))
    made = []
    for (name, held), total in zip(members.items(), totals, strict=True):
        tokens = units_as_tokens(held, digits, largest)
        stream = Stream(name=visible(name), tokens=tuple(tokens), total=total, measure=measure(found))
        if name in found.pictures or any(unit.box for unit, _ in held):
            stream = _pictured(found, name, stream)
        made.append(stream)
    return tuple(made)


def units_as_tokens(held: Sequence[tuple[Unit, float]], digits: Digits, largest: float) -> list[Token]:
    """The units of a stream as tokens, in the order in which they stand."""
    labels = [token(unit.text) for unit, _ in held]
    counts = Counter(labels)
    stream = visible(held[0][0].stream) if held else ""
    made: list[Token] = []
    before: Unit | None = None
    for (unit, amount), label in zip(held, labels, strict=True):
        joined = _joined(unit, before)
        each = Token(
            place=len(made) + 1,
            repeated=counts[label] > 1,
            text=piece(unit.text) if joined else label,
            label=label,
            joined=joined,
            stream=stream,
            special=unit.special,
            amount=digits.amount(amount),
            intensity=amount / largest if largest and math.isfinite(amount) else 0.0,
        )
        made.append(each)
        before = unit
    return made


def _pictured(found: RelevanceMap, name: str, stream: Stream) -> Stream:
    """A stream whose units are parts of a picture: each with its cell, the largest with their rank."""
    picture, cells = placed(seen(found.pictures.get(name)), [unit.box for unit in found.units if unit.stream == name])
    held = [_in_cell(each, cell) for each, cell in zip(stream.tokens, cells, strict=True)]
    inside = sorted((each for each in held if each.cell and each.intensity), key=lambda each: -abs(each.intensity))
    many = len(inside) > MANY
    ranks = {each.place: rank for rank, each in enumerate([] if many else inside[:MARKED], 1)}
    reach = abs(inside[len(inside) // 100 if many else 0].intensity) if inside else 1.0
    ranked = tuple(replace(each, rank=ranks[each.place]) if each.place in ranks else each for each in held)
    return replace(stream, tokens=ranked, picture=picture, reach=reach, smooth=positive(found) and picture.rows > 0)


def _in_cell(each: Token, cell: Cell | None) -> Token:
    if cell is None:
        return each
    named = cell.name or each.label
    return replace(each, cell=cell, label=named, text=named, joined=False, repeated=each.repeated and not cell.name)


def _excerpt(stream: Stream) -> str:
    if stream.picture:
        return f"{stream.name}, {len(stream.parts):,} parts of a picture"
    return beginning("".join(("" if each.joined else " ") + each.text for each in stream.tokens if not each.special))


def beginning(text: str) -> str:
    """The first words of a text."""
    read = text.strip()
    return read if len(read) <= EXCERPT else f"{read[: EXCERPT - 1].rstrip()}…"


def _joined(unit: Unit, before: Unit | None) -> bool:
    """Whether a unit stands right beside the one before it, without a space."""
    if before is None or unit.stream != before.stream or unit.special or before.special:
        return False
    if unit.start is not None and before.end is not None and unit.end != unit.start:
        return unit.start == before.end and not begins(unit.text)
    return continues(unit.text)


# ---- the rest ------------------------------------------------------------------------------------------------------


def pairs(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values as texts, with true and false as a settings file writes them."""
    return tuple((visible(str(key)), visible(_plain(value))) for key, value in data.items())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
