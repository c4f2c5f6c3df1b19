"""A comparison as a drawing needs it: two inputs in slots, a share for each that differs, books of the difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from clearhead.render.books import Axis, Books, Step
from clearhead.render.pictures import Picture, seen
from clearhead.render.scene import Scene, Stream, Token, beginning, scene, units_as_tokens
from clearhead.render.texts import Amount, Digits, ratio, relative, visible
from clearhead.render.verdicts import RESIDUAL_LIMIT, THRESHOLD, WORDS, State, Verdict

if TYPE_CHECKING:
    from clearhead.comparisons import Comparison, Slot
    from clearhead.units import Unit

Kind = Literal["same", "replaced", "removed", "inserted"]

LONG, KEPT = 40, 12  # units that are the same: of so many in a row, so many are left at each end
LONGEST = 4_000  # characters of a text in full
SAID: dict[Kind, str] = {
    "same": "the same in both",
    "replaced": "replaced",
    "removed": "only in A",
    "inserted": "only in B",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One slot: what A and B have there, None where one has nothing, and its share in the difference.

    `joined` says that it stands right beside the slot before it, in each text that has both.
    """

    kind: Kind
    a: Token | None
    b: Token | None
    joined: bool
    amount: Amount
    intensity: float
    place: int
    rank: int = 0

    @property
    def differs(self) -> bool:
        """Whether A and B differ here."""
        return self.kind != "same"

    @property
    def special(self) -> bool:
        """Whether it is no part of a text."""
        return all(each.special for each in (self.a, self.b) if each)

    @property
    def labels(self) -> tuple[str, str]:
        """What A and B have, each on its own; of a part of a picture its name, once."""
        a, b = (each.label if each else "" for each in (self.a, self.b))
        return (a, "") if self.a and self.a.cell else (a, b)

    @property
    def said(self) -> str:
        """What became of it, in words, where the labels alone do not say so."""
        return SAID[self.kind] if self.kind in ("removed", "inserted") else ""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Units in a row that are the same in both and left out."""

    count: int


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Both sides of one stream; of an image, the stream that is drawn over A's picture, and the picture of B.

    `texts` are both in full, where some of them is left out above.
    """

    name: str
    total: Amount | None
    changes: tuple[Change, ...]
    pictured: Stream | None = None
    other: Picture | None = None
    texts: tuple[str, str] = ("", "")

    @property
    def differing(self) -> tuple[Change, ...]:
        """The slots in which A and B differ."""
        return tuple(each for each in self.changes if each.differs)

    @property
    def folded(self) -> bool:
        """Whether anything is left out of the line."""
        return any(isinstance(each, Fold) for each in self.line)

    @property
    def line(self) -> tuple[Change | Fold, ...]:
        """The slots in reading order; long stretches that are the same are left out."""
        found: list[Change | Fold] = []
        for differs, group in groupby(self.changes, key=lambda each: each.differs):
            run = list(group)
            found += run if differs or len(run) <= LONG else _folded(run)
        return tuple(found)


def _folded(run: Sequence[Change]) -> Iterator[Change | Fold]:
    yield from run[:KEPT]
    yield Fold(count=len(run) - 2 * KEPT)
    yield from run[-KEPT:]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Everything there is to draw about a comparison; `scene` is that of the map of its slots."""

    kind: ClassVar[str] = "comparison"
    cross_check: ClassVar[None] = None
    check: ClassVar[None] = None

    scene: Scene
    target: str
    values: tuple[Amount, Amount]
    difference: Amount
    lanes: tuple[Lane, ...]
    books: Books
    axis: Axis
    verdict: Verdict
    layers: tuple[tuple[str, Amount], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    method: ClassVar[str] = "what changed?"

    @property
    def task(self) -> str:
        """What the model does."""
        return self.scene.task

    @property
    def model(self) -> str:
        """The model's name."""
        return self.scene.model

    @property
    def digits(self) -> Digits:
        """How numbers are written."""
        return self.scene.digits

    @property
    def heading(self) -> str:
        """What was compared, in a few words."""
        return self.target

    @property
    def figure(self) -> str:
        """Both values and their difference."""
        return f"{self.values[0].shown} → {self.values[1].shown} (difference {self.difference.shown})"

    @property
    def excerpt(self) -> str:
        """The beginnings of A and of B."""
        return " / ".join(f"{name}: {beginning(self.read(name))}" for name in "AB")

    @property
    def differing(self) -> tuple[Change, ...]:
        """All slots that differ, largest share first."""
        every = [each for lane in self.lanes for each in lane.differing]
        return tuple(sorted(every, key=lambda each: -abs(each.intensity)))

    @property
    def count(self) -> str:
        """How many slots differ, in words."""
        slots = sum(len(lane.changes) for lane in self.lanes)
        return f"{len(self.differing):,} of {slots:,} slots differ"

    def read(self, side: str) -> str:
        """What one side reads, as far as it is text."""
        words: list[str] = []
        for lane in self.lanes:
            if lane.pictured:
                words.append(f"{lane.name}, a picture")
                continue
            tokens = [each.a if side == "A" else each.b for each in lane.changes]
            words += [("" if each.joined else " ") + each.text for each in tokens if each and not each.special]
        return "".join(words).strip()

    def wording(self, step: Step) -> str:
        """A line of the books in words."""
        if step.kind == "base":
            return "the value of B"
        if step.kind == "units":
            return self._shares(step)
        if step.kind in {"for", "against"}:
            return f"{step.count} raise{'s' * (step.count == 1)} A over B" if step.kind == "for" else self._lowers(step)
        if step.label == "alignment":
            return "gaps, which are no unit’s"
        return f"{step.label}, not passed on" if step.kind == "sink" else step.label

    def _shares(self, step: Step) -> str:
        lane = next((lane for lane in self.lanes if lane.name == step.label), None)
        count = len(lane.differing) if lane else step.count
        before = f"{step.label}: " if len(self.lanes) > 1 else ""
        if not count:
            return f"{before}nothing differs"
        return f"{before}{count:,} slot{'' if count == 1 else 's'} that differ{'s' * (count == 1)}"

    @staticmethod
    def _lowers(step: Step) -> str:
        return f"{step.count} lower{'s' * (step.count == 1)} A below B"


def changes(found: Comparison) -> Changes:
    """The scene of a comparison."""
    drawing = scene(found.map)
    digits = drawing.digits
    lanes = tuple(
        _lane(found, name, stream, digits) for name, stream in zip(found.map.streams, drawing.streams, strict=True)
    )
    books = drawing.books
    assert books is not None  # noqa: S101 - a difference is shared out by a method that adds up
    base = next((step.amount for step in books.steps if step.kind == "base"), digits.amount(found.base_value))
    values = digits.amount(found.value), base
    unseen = tuple(f"{lane.name} of B: {note}" for lane in lanes if lane.other for note in lane.other.notes)
    return Changes(
        scene=drawing,
        target=_target(found),
        values=values,
        difference=_between(*values, found.difference, digits),
        lanes=lanes,
        books=books,
        axis=Axis.over([each.amount.value for lane in lanes for each in lane.differing]),
        verdict=_verdict(found),
        layers=tuple((visible(name), digits.remainder(amount)) for name, amount in found.layers),
        notes=drawing.notes,
        warnings=(*drawing.warnings, *unseen),
    )


def _target(found: Comparison) -> str:
    """The target in words; a text by what its number is."""
    said = visible(str(found.target))
    return f"log-probability of “{said}”" if found.target.kind == "sequence" else said


def _between(a: Amount, b: Amount, exact: float, digits: Digits) -> Amount:
    """The difference of two values, so that it is right for the values as they are shown."""
    if digits.decimals is None or not all(isfinite(each.value) for each in (a, b)):
        return digits.amount(exact)
    return Amount(exact, digits.amount(a.as_shown - b.as_shown).shown)


def _lane(found: Comparison, name: str, stream: Stream, digits: Digits) -> Lane:
    slots = [slot for slot, unit in zip(found.slots, found.map.units, strict=True) if unit.stream == name]
    a, b = (_side(slots, side, digits) for side in "ab")
    made: list[Change] = []
    for place, (slot, own) in enumerate(zip(slots, stream.tokens, strict=True), 1):
        mine, theirs = next(a) if slot.a else None, next(b) if slot.b else None
        mine = replace(mine, cell=own.cell, label=own.label, text=own.text) if mine and own.cell else mine
        made.append(_change(slot, place, own, mine, theirs))
    pictured = stream if stream.picture else None
    return Lane(
        name=stream.name,
        total=stream.total,
        changes=tuple(made),
        pictured=pictured,
        other=seen(found.other_pictures.get(name)) if pictured else None,
        texts=(_whole(found.map.texts.get(name, "")), _whole(found.other_texts.get(name, ""))),
    )


def _whole(text: str) -> str:
    return visible(text if len(text) <= LONGEST else f"{text[:LONGEST]}…") if text else ""


def _side(slots: Sequence[Slot], side: str, digits: Digits) -> Iterator[Token]:
    """The units of one side as tokens, in order."""
    units: list[Unit] = [unit for slot in slots if (unit := slot.a if side == "a" else slot.b) is not None]
    return iter(units_as_tokens([(unit, 0.0) for unit in units], digits, 0.0))


def _change(slot: Slot, place: int, own: Token, a: Token | None, b: Token | None) -> Change:
    present = [each for each in (a, b) if each]
    return Change(
        kind=slot.kind,
        a=a,
        b=b,
        joined=all(each.joined for each in present),
        amount=own.amount,
        intensity=own.intensity,
        place=place,
        rank=own.rank,
    )


def _verdict(found: Comparison) -> Verdict:
    """Whether shares, and what gaps changed, add up to the difference."""
    asked = found.recipe.settings.get("threshold", THRESHOLD)
    threshold = float(asked) if isinstance(asked, (int, float)) else THRESHOLD
    passes = found.conserves(threshold)
    state: State = "conserves" if passes else "booked" if found.residual <= RESIDUAL_LIMIT else "open"
    gaps = " and what the gaps changed" if any(slot.a is None or slot.b is None for slot in found.slots) else ""
    reasons: dict[State, str] = {
        "conserves": f"The shares{gaps} add up to the difference.",
        "booked": f"The shares{gaps} do not add up to the difference; with the leaks that were recorded they do.",
        "open": "Part of the difference is unaccounted for, even with every leak that was recorded.",
        "unclaimed": "",
    }
    whole = float(np.abs(found.relevance).sum())
    return Verdict(
        state=state,
        words=WORDS[state],
        reason=reasons[state],
        passes=passes,
        threshold=f"{threshold:g}",
        conservation_error=relative(found.conservation_error),
        residual=relative(found.residual),
        cancellation=ratio(whole / abs(found.difference)) if found.difference else "none",
    )
