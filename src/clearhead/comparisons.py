"""What changed between two inputs: the difference of one prediction, shared over the slots in which they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import OutputError, UsageError
from clearhead.maps import SCHEMA, LedgerEntry, Recipe, RelevanceMap, Target, described, unit_of
from clearhead.units import Unit

Kind = Literal["same", "replaced", "removed", "inserted"]
KINDS: tuple[Kind, ...] = ("same", "replaced", "removed", "inserted")
ALIGNMENT = "alignment"  # the cause of what gaps in the texts do to the values


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place that both inputs have: the unit of each, None where one has none, and what became of it from a to b."""

    kind: Kind
    a: Unit | None
    b: Unit | None

    def __post_init__(self) -> None:
        if self.kind not in KINDS or (self.a is None) != (self.kind == "inserted") or self._wrong_b():
            raise UsageError(
                "A slot has a unit of a unless it is inserted, and one of b unless it is removed; found the kind "
                f"{self.kind!r} with a = {self.a} and b = {self.b}."
            )

    def _wrong_b(self) -> bool:
        return (self.b is None) != (self.kind == "removed")

    def __str__(self) -> str:
        a, b = (unit.text if unit else "(nothing)" for unit in (self.a, self.b))
        return a if a == b or self.kind == "same" else f"{a} → {b}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    r"""What a difference is made of: $f(a) - f(b) = \sum_i R_i$ over slots, plus what the alignment changed.

    `map` holds the share of each slot, with `value` $f(a)$ and `base_value` $f(b)$, all in the unit of the target;
    its units are those of a, and where a has none, those of b. `slots` says which units of a and b meet; one that is
    the same in both has exactly 0. Where units were inserted or removed, the other side reads a mask in their place:
    what that does to the values, $[f(a) - f(a')] - [f(b) - f(b')]$, is no unit's and stands in the ledger as
    `alignment`. `texts` and `pictures` of the map are those of a, `other_texts` and `other_pictures` those of b.

    >>> from clearhead import Target, Unit
    >>> good, bad = Unit(index=0, text="good"), Unit(index=0, text="bad")
    >>> about = dict(method="secant", model="toy", task="text-classification", target=Target(kind="class", label="+"))
    >>> m = RelevanceMap(**about, units=(good,), value=2.0, base_value=-1.0, relevance=[3.0])
    >>> c = Comparison(map=m, slots=(Slot(kind="replaced", a=good, b=bad),))
    >>> c.difference, [(str(slot), share) for slot, share in c.top(1)], c.conservation_error
    (3.0, [('good → bad', 3.0)], 0.0)
    """

    map: RelevanceMap
    slots: tuple[Slot, ...]
    other_texts: Mapping[str, str] = field(default_factory=dict)
    other_pictures: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.map.units):
            raise UsageError(
                f"A comparison has a slot for each unit of its map; found {len(self.slots)} for "
                f"{len(self.map.units)}. Compare again to renew it."
            )

    # ---- what is shared out ------------------------------------------------------------------------------------

    @property
    def value(self) -> float:
        """The explained scalar of a, `f(a)`."""
        return self.map.value

    @property
    def base_value(self) -> float:
        """The same scalar of b, `f(b)`."""
        return self.map.base_value

    @property
    def difference(self) -> float:
        """`f(a) - f(b)`, in the unit of the target."""
        return self.value - self.base_value

    @property
    def relevance(self) -> NDArray[np.float64]:
        """The share of each slot in the difference; exactly 0 where both are the same."""
        return self.map.relevance

    @property
    def differing(self) -> tuple[int, ...]:
        """The numbers of the slots in which a and b differ."""
        return tuple(n for n, slot in enumerate(self.slots) if slot.kind != "same")

    def top(self, k: int = 5) -> list[tuple[Slot, float]]:
        """The `k` differing slots of largest absolute share, largest first."""
        order = sorted(self.differing, key=lambda n: -abs(float(self.relevance[n])))
        return [(self.slots[n], float(self.relevance[n])) for n in order[:k]]

    # ---- the books ---------------------------------------------------------------------------------------------

    @property
    def alignment(self) -> float:
        r"""What gaps in the texts do to the values: $[f(a) - f(a')] - [f(b) - f(b')]$, 0 where there are none."""
        return float(sum(entry.relevance for entry in self.ledger if entry.cause == ALIGNMENT))

    @property
    def conservation_error(self) -> float:
        r"""$|f(b) + \sum_i R_i + \text{alignment} - f(a)| / \max(|f(a)|, |f(b)|)$, dimensionless."""
        return self._relative(self._gap)

    @property
    def residual(self) -> float:
        r"""The same with every leak counted that was recorded: do the books balance at all."""
        leaks = sum(entry.relevance for entry in self.ledger if not entry.returned and entry.cause != ALIGNMENT)
        return self._relative(self._gap + leaks)

    def conserves(self, threshold: float = 1e-4) -> bool:
        r"""True if the gap is at most $\max(\text{threshold} \max(|f(a)|, |f(b)|), \text{rounding floor})$."""
        return bool(abs(self._gap) <= max(threshold * self._scale, self.map.rounding_floor))

    @property
    def layers(self) -> tuple[tuple[str, float], ...]:
        """What leaked, by layer in the order of the forward pass: the path of a module up to its first number."""
        sums: dict[str, float] = {}
        for entry in self.ledger:
            if not entry.returned and entry.cause != ALIGNMENT:
                name = _layer(entry.module or entry.operation)
                sums[name] = sums.get(name, 0.0) + entry.relevance
        return tuple(sums.items())

    @property
    def _gap(self) -> float:
        return self.base_value + float(self.relevance.sum()) + self.alignment - self.value

    @property
    def _scale(self) -> float:
        return max(abs(self.value), abs(self.base_value))

    def _relative(self, amount: float) -> float:
        return abs(amount) / self._scale if self._scale else (0.0 if amount == 0 else float("inf"))

    # ---- what the map says too ---------------------------------------------------------------------------------

    @property
    def target(self) -> Target:
        """The scalar that is compared, in words."""
        return self.map.target

    @property
    def model(self) -> str:
        """The model's name."""
        return self.map.model

    @property
    def method(self) -> str:
        """How the difference was shared out."""
        return self.map.method

    @property
    def task(self) -> str:
        """What the model does."""
        return self.map.task

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """What leaked, and what the alignment changed."""
        return self.map.ledger

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to beware of."""
        return self.map.warnings

    @property
    def notes(self) -> tuple[str, ...]:
        """How the comparison was made where that is a choice."""
        return self.map.notes

    @property
    def recipe(self) -> Recipe:
        """All that is needed to make the comparison again."""
        return self.map.recipe

    # ---- words -------------------------------------------------------------------------------------------------

    def words(self) -> Comparison:
        """The same with the slots of each word summed into one, so that it still adds up; no word of a or b is cut."""
        together = _held_together(self.slots)
        groups = [list(range(first, last)) for first, last in together]
        slots = tuple(self._merged(members) for members in groups)
        ends: dict[str, int | None] = {}
        units = []
        for n, slot in enumerate(slots):
            units.append(joint(n, slot.a, slot.b, ends))
        shares = np.array([self.relevance[members].sum() for members in groups])
        return replace(self, map=replace(self.map, units=tuple(units), relevance=shares), slots=slots)

    def _merged(self, members: Sequence[int]) -> Slot:
        held = [self.slots[n] for n in members]
        if len(held) == 1:
            return held[0]
        a = _joined([slot.a for slot in held if slot.a is not None], self.map.texts)
        b = _joined([slot.b for slot in held if slot.b is not None], self.other_texts)
        same = all(slot.kind == "same" for slot in held)
        return Slot(kind="same" if same else "inserted" if not a else "removed" if not b else "replaced", a=a, b=b)

    # ---- leaving -----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data in the published schema; `from_dict` gives the same back."""
        return {
            "schema": SCHEMA,
            "difference": self.difference,
            "slots": [
                {"kind": slot.kind, "a": _plain(slot.a), "b": _plain(slot.b), "relevance": float(share)}
                for slot, share in zip(self.slots, self.relevance, strict=True)
            ],
            "other_texts": dict(self.other_texts),
            "other_pictures": dict(self.other_pictures),
            "map": self.map.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Comparison:
        """What `to_dict` wrote; raises UsageError for another schema."""
        if not isinstance(data, Mapping) or "slots" not in data:
            raise UsageError("A saved comparison is a JSON object with `slots`. A single map is read by RelevanceMap.")
        if data.get("schema") != SCHEMA:
            raise UsageError(
                f"This version reads schema {SCHEMA}; found {data.get('schema')!r}. Compare again to renew it."
            )
        return cls(
            map=RelevanceMap.from_dict(data["map"]),
            slots=tuple(Slot(kind=each["kind"], a=_read(each["a"]), b=_read(each["b"])) for each in data["slots"]),
            other_texts=dict(data["other_texts"]),
            other_pictures=dict(data["other_pictures"]),
        )

    def save(self, path: str | Path) -> Path:
        """Write `.json` (lossless), `.html`, `.png` or `.svg`; nothing is left half-written."""
        from clearhead import render

        return render.save([self], path)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read what `save` wrote as `.json`; raises OutputError if it cannot be read."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"A saved comparison is a JSON file; {path} cannot be read as one: {error}.") from error
        try:
            return cls.from_dict(data)
        except (KeyError, TypeError) as error:
            raise OutputError(f"{path} is not a saved comparison: {type(error).__name__}: {error}.") from error

    def show(self) -> None:
        """Print both inputs to the terminal, one below the other, with the share below each slot that differs."""
        from clearhead import render

        render.show([self])

    def _repr_html_(self) -> str:
        from clearhead import render

        return render.fragment([self])

    def __repr__(self) -> str:
        top = ", ".join(f"{slot} {share:+.3f}" for slot, share in self.top(3)) or "nothing differs"
        values = f"{self.value:+.4f} → {self.base_value:+.4f} (difference {self.difference:.4f})"
        return (
            f"<Comparison of {self.target}: {values}; {len(self.differing)} of {len(self.slots)} slots differ: {top}>"
        )


def joint(index: int, a: Unit | None, b: Unit | None, ends: dict[str, int | None]) -> Unit:
    """The unit that stands for a slot: that of a, or that of b at the place in a's text where it would stand.

    `ends` holds where the last unit of a ended in each stream, and is kept up to date.
    """
    if a is not None:
        ends[a.stream] = a.end
        return replace(a, index=index)
    if b is None:
        raise UsageError("A slot has a unit of a or of b; found neither.")
    at = ends.get(b.stream, 0)
    return replace(b, index=index, start=at, end=at, word=None)


def _held_together(slots: Sequence[Slot]) -> Iterator[tuple[int, int]]:
    """The stretches of slots, first and last (exclusive), that no word of either side crosses the ends of."""
    reach: dict[object, int] = {}
    for n, slot in enumerate(slots):
        reach.update(dict.fromkeys(_words_of(slot), n))
    first = last = 0
    for n, slot in enumerate(slots):
        if n >= last and n:
            yield first, n
            first = n
        last = max([last, n + 1, *(reach[key] + 1 for key in _words_of(slot))])
    if slots:
        yield first, len(slots)


def _words_of(slot: Slot) -> list[object]:
    sides = (("a", slot.a), ("b", slot.b))
    return [(name, unit.stream, unit.word) for name, unit in sides if unit is not None and unit.word is not None]


def _joined(units: Sequence[Unit], texts: Mapping[str, str]) -> Unit | None:
    """Units of one text that follow one another, as one."""
    if len(units) < 2:
        return units[0] if units else None
    first, last = units[0], units[-1]
    whole = texts.get(first.stream)
    if whole is None or first.start is None or last.end is None:
        return replace(first, text="".join(unit.text for unit in units), end=last.end)
    held = whole[first.start : last.end]
    return replace(first, text=held.strip() or held, end=last.end)


def _layer(path: str) -> str:
    parts = path.split(".")
    number = next((n for n, part in enumerate(parts) if part.isdecimal()), len(parts))
    return ".".join(parts[: number + 1])


def _plain(unit: Unit | None) -> dict[str, Any] | None:
    return described(unit) if unit is not None else None


def _read(data: Mapping[str, Any] | None) -> Unit | None:
    return unit_of(data) if data is not None else None
