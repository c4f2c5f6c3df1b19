"""A map as a drawing needs it: plain data, harmless texts, numbers as they are shown, and books that add up.

Every output draws from the scene alone, so that all of them say the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from clearhead.render.books import Axis, Books, Step, books
from clearhead.render.texts import Amount, Digits, begins, continues, piece, ratio, relative, token, visible

if TYPE_CHECKING:
    from clearhead.maps import RelevanceMap, Unit

THRESHOLD = 1e-4  # what passes where the recipe does not say
RESIDUAL_LIMIT = 1e-5  # above it, the books are open
EXCERPT = 60  # characters of each stream

State = Literal["conserves", "booked", "open"]

_WORDS: dict[State, str] = {
    "conserves": "The books balance",
    "booked": "The books balance only with what leaked",
    "open": "The books do not balance",
}
_REASONS: dict[State, str] = {
    "conserves": "The units add up to the explained value.",
    "booked": "The units alone do not add up to the explained value; with the leaks that were recorded they do.",
    "open": "Part of the explained value is unaccounted for, even with every leak that was recorded.",
}


@dataclass(frozen=True, kw_only=True)
class Token:
    """One unit: `text` as it reads, `joined` to the one before it or not; `label` and `place` on its own.

    `place` counts from 1 in its stream; `repeated` says that others in the stream have the same label.
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

    @property
    def name(self) -> str:
        """The label, with the place where others have the same label."""
        return f"{self.label} {self.place}" if self.repeated else self.label


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The tokens of one input in reading order, and their sum."""

    name: str
    tokens: tuple[Token, ...]
    total: Amount

    def largest(self) -> list[Token]:
        """The tokens by absolute relevance, largest first."""
        return sorted(self.tokens, key=lambda each: -abs(each.intensity))

    def chosen(self, count: int) -> tuple[list[Token], list[Token]]:
        """The `count` largest tokens and the others, both in reading order; never a single one left over."""
        kept = {each.place for each in self.largest()[: count if len(self.tokens) > count + 1 else count + 1]}
        return [each for each in self.tokens if each.place in kept], [e for e in self.tokens if e.place not in kept]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the books balance, in words and in figures."""

    state: State
    words: str
    reason: str
    passes: bool
    threshold: str
    conservation_error: str
    residual: str
    cancellation: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything there is to draw about one map; `axis` holds all relevances, `largest` is where the scale ends."""

    target: str
    value: Amount
    largest: Amount
    method: str
    model: str
    task: str
    streams: tuple[Stream, ...]
    axis: Axis
    digits: Digits
    books: Books
    verdict: Verdict
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

    @property
    def excerpt(self) -> str:
        """The beginning of what was read, to tell one map from another."""
        return " / ".join(_beginning(stream.tokens) for stream in self.streams)


def scene(found: RelevanceMap) -> Scene:
    """The scene of a map."""
    amounts = [float(each) for each in found.relevance]
    digits = Digits.of([found.value, found.base_value, *amounts])
    largest = max((abs(each) for each in amounts if math.isfinite(each)), default=0.0)
    balance = books(found, digits)
    return Scene(
        target=visible(str(found.target)),
        value=balance.value,
        largest=digits.amount(largest).unsigned,
        method=visible(found.method),
        model=visible(found.model),
        task=visible(found.task),
        streams=_streams(found, digits, largest, balance),
        axis=Axis.over(amounts),
        digits=digits,
        books=balance,
        verdict=_verdict(found),
        warnings=tuple(visible(warning) for warning in found.warnings),
        settings=(*_pairs(found.recipe.settings), *_pairs({"seed": found.recipe.seed, "dtype": found.recipe.dtype})),
        versions=_pairs(found.recipe.versions),
        cross_check=_pairs(found.cross_check or {}),
        fingerprint=visible(found.recipe.model_fingerprint) if found.recipe.model_fingerprint else "",
    )


# ---- tokens --------------------------------------------------------------------------------------------------------


def _streams(found: RelevanceMap, digits: Digits, largest: float, balance: Books) -> tuple[Stream, ...]:
    tokens: dict[str, list[Token]] = {name: [] for name in found.streams}
    labels = Counter((unit.stream, token(unit.text)) for unit in found.units)
    before: Unit | None = None
    for unit, amount in zip(found.units, (float(each) for each in found.relevance), strict=True):
        made = _token(unit, before, digits.amount(amount), largest)
        repeated = labels[unit.stream, made.label] > 1
        tokens[unit.stream].append(replace(made, place=len(tokens[unit.stream]) + 1, repeated=repeated))
        before = unit
    return tuple(
        Stream(name=visible(name), tokens=tuple(members), total=step.amount)
        for (name, members), step in zip(tokens.items(), balance.units, strict=True)
    )


def _token(unit: Unit, before: Unit | None, amount: Amount, largest: float) -> Token:
    joined = _joined(unit, before)
    return Token(
        place=0,
        repeated=False,
        text=piece(unit.text) if joined else token(unit.text),
        label=token(unit.text),
        joined=joined,
        stream=visible(unit.stream),
        special=unit.special,
        amount=amount,
        intensity=amount.value / largest if largest and math.isfinite(amount.value) else 0.0,
    )


def _beginning(tokens: tuple[Token, ...]) -> str:
    read = "".join(("" if each.joined else " ") + each.text for each in tokens if not each.special).strip()
    return read if len(read) <= EXCERPT else f"{read[: EXCERPT - 1].rstrip()}…"


def _joined(unit: Unit, before: Unit | None) -> bool:
    """Whether a unit stands right beside the one before it, without a space."""
    if before is None or unit.stream != before.stream or unit.special or before.special:
        return False
    if unit.start is not None and before.end is not None and unit.end != unit.start:
        return unit.start == before.end and not begins(unit.text)
    return continues(unit.text)


# ---- the rest ------------------------------------------------------------------------------------------------------


def _verdict(found: RelevanceMap) -> Verdict:
    asked = found.recipe.settings.get("threshold", THRESHOLD)
    threshold = float(asked) if isinstance(asked, (int, float)) else THRESHOLD
    passes = found.conserves(threshold)
    unaccounted = abs(found.value - found.base_value - float(found.relevance.sum()) - found.sinks)
    balanced = unaccounted <= max(RESIDUAL_LIMIT * abs(found.value), found.rounding_floor)
    state: State = "conserves" if passes else "booked" if balanced else "open"
    return Verdict(
        state=state,
        words=_WORDS[state],
        reason=_REASONS[state],
        passes=passes,
        threshold=f"{threshold:g}",
        conservation_error=relative(found.conservation_error),
        residual=relative(found.residual),
        cancellation=ratio(found.cancellation),
    )


def _pairs(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and values as texts, with true and false as a settings file writes them."""
    return tuple((visible(str(key)), visible(_plain(value))) for key, value in data.items())


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
