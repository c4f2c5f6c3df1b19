"""The ledger as steps from nothing to the explained value, whose shown numbers add up to the shown value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

from clearhead.render.texts import Amount, Digits, visible

if TYPE_CHECKING:
    from clearhead.maps import LedgerEntry, RelevanceMap

Kind = Literal["base", "units", "for", "against", "sink", "open"]


@dataclass(frozen=True)
class Axis:
    """A stretch of numbers that holds zero and has a length."""

    low: float
    high: float

    @classmethod
    def over(cls, numbers: Iterable[float]) -> Axis:
        """The shortest axis from zero over all numbers; not finite ones are left out."""
        finite = [0.0, *(number for number in numbers if math.isfinite(number))]
        low, high = min(finite), max(finite)
        return cls(low, high) if high > low else cls(low, low + 1.0)

    def at(self, number: float) -> float:
        """Where a number lies: 0 at `low`, 1 at `high`."""
        where = number / (self.high - self.low) - self.low / (self.high - self.low)
        return min(1.0, max(0.0, where)) if math.isfinite(where) else self.at(0.0)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """What one operation of one module did not pass on."""

    module: str
    operation: str
    amount: Amount


@dataclass(frozen=True, kw_only=True)
class Cause:
    """All leaks of one cause, largest first."""

    name: str
    amount: Amount
    leaks: tuple[Leak, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the books, from the running total before it to the one after; `count` units or leaks make it up.

    A line of units that speak for and against the target has both as its `parts`.
    """

    kind: Kind
    label: str
    amount: Amount
    start: float
    end: float
    count: int = 0
    parts: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Books:
    """value = the sum of the steps; what was `returned` is part of the units already and does not count again."""

    value: Amount
    steps: tuple[Step, ...]
    sinks: tuple[Cause, ...]
    returned: tuple[Cause, ...]
    axis: Axis

    @property
    def units(self) -> tuple[Step, ...]:
        """The lines of the units, one per stream."""
        return tuple(step for step in self.steps if step.kind == "units")


@dataclass(frozen=True)
class _Line:
    """A step before it has its place and its number; `members` are what it is the sum of."""

    kind: Kind
    label: str
    members: Sequence[float]

    @property
    def total(self) -> float:
        return sum(self.members)


def books(found: RelevanceMap, digits: Digits) -> Books:
    """The books of a map, the gap that is left over included as a line of its own."""
    sinks = _causes(entry for entry in found.ledger if not entry.returned)
    returned = _causes(entry for entry in found.ledger if entry.returned)
    lines = [_Line("base", "base value", [found.base_value])] if found.base_value else []
    lines += [_Line("units", visible(name), _relevance(found, name)) for name in found.streams]
    lines += [_Line("sink", visible(cause), [e.relevance for e in entries]) for cause, entries in sinks.items()]
    gap = found.value - sum(line.total for line in lines)
    lines.append(_Line("open", "unaccounted", [gap]))
    amounts = digits.footed([line.total for line in lines], found.value)
    amounts[-1] = digits.remainder(gap, amounts[-1])
    steps = _steps(lines, amounts, digits)
    reached = [found.value, *(each.end for step in steps for each in (step, *step.parts))]
    return Books(
        value=digits.footed([found.value], found.value)[0].unsigned,
        steps=steps,
        sinks=tuple(
            _cause(step.label, entries, step.amount, digits)
            for step, entries in zip((s for s in steps if s.kind == "sink"), sinks.values(), strict=True)
        ),
        returned=tuple(
            _cause(visible(cause), entries, digits.amount(sum(e.relevance for e in entries)), digits)
            for cause, entries in returned.items()
        ),
        axis=Axis.over(reached),
    )


def _relevance(found: RelevanceMap, stream: str) -> list[float]:
    return [float(r) for unit, r in zip(found.units, found.relevance, strict=True) if unit.stream == stream]


def _causes(entries: Iterable[LedgerEntry]) -> dict[str, list[LedgerEntry]]:
    """The entries by cause, the largest cause first, and in each the largest entry first."""
    groups: dict[str, list[LedgerEntry]] = {}
    for entry in sorted(entries, key=lambda e: -abs(e.relevance)):
        groups.setdefault(entry.cause, []).append(entry)
    return dict(sorted(groups.items(), key=lambda item: -abs(sum(e.relevance for e in item[1]))))


def _cause(name: str, entries: Iterable[LedgerEntry], amount: Amount, digits: Digits) -> Cause:
    leaks = (
        Leak(module=visible(e.module), operation=visible(e.operation), amount=digits.remainder(e.relevance))
        for e in entries
    )
    return Cause(name=name, amount=amount, leaks=tuple(leaks))


def _steps(lines: Sequence[_Line], amounts: Sequence[Amount], digits: Digits) -> tuple[Step, ...]:
    totals = [0.0, *accumulate(line.total for line in lines)]
    return tuple(
        Step(
            kind=line.kind,
            label=line.label,
            amount=amount,
            start=start,
            end=end,
            count=len(line.members),
            parts=_parts(line, amount, start, digits),
        )
        for line, amount, start, end in zip(lines, amounts, totals, totals[1:], strict=False)
    )


def _parts(line: _Line, whole: Amount, start: float, digits: Digits) -> tuple[Step, ...]:
    """What spoke for and what against, where a line of units has both."""
    plus, minus = [m for m in line.members if m > 0], [m for m in line.members if m < 0]
    if line.kind != "units" or not plus or not minus:
        return ()
    top = start + sum(plus)
    first, second = digits.footed([sum(plus), sum(minus)], whole.as_shown)
    return (
        Step(kind="for", label="for", amount=first, start=start, end=top, count=len(plus)),
        Step(kind="against", label="against", amount=second, start=top, end=top + sum(minus), count=len(minus)),
    )
