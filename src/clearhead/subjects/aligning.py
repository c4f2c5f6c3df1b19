"""Two inputs in slots: their tokens aligned, with a gap where one has none, to be compared place by place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise, zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clearhead.comparisons import Kind, Slot, joint
from clearhead.errors import UsageError
from clearhead.question import Baseline, Layout, Pass, Question, Span
from clearhead.subjects.sides import PRODUCED
from clearhead.units import Unit


class Pair(NamedTuple):
    """The places of two units that share a slot; None where one side has none."""

    a: int | None
    b: int | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How texts are aligned: what stands in a gap, pairs that must meet, and whether places count instead of tokens.

    `gap` is the id of a mask, or `NOTHING` for the mean embedding. Of tensors, only `places` are known.
    """

    gap: int
    places: bool = False
    meeting: tuple[tuple[int, int], ...] = ()
    by_position: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """Both inputs in the same slots: the passes of a, those of b as a baseline, and what shares each slot.

    `pairs` are places among all units of a and of b.
    """

    passes: tuple[Pass, ...]
    baseline: Baseline
    layouts: tuple[Layout, ...]
    pairs: tuple[Pair, ...]
    slots: tuple[Slot, ...]

    @property
    def gaps(self) -> int:
        """How many slots one of the two has nothing in."""
        return sum(slot.a is None or slot.b is None for slot in self.slots)

    @property
    def identical(self) -> bool:
        """Are the inputs the same?"""
        return all(slot.kind == "same" for slot in self.slots)


def aligned(mine: Question, theirs: Question, options: Options) -> Aligned:
    """Both inputs of two questions in the same slots. Raises UsageError for what cannot be put beside each other."""
    parts: list[_Part] = []
    for number, (part, other) in enumerate(zip(mine.passes, theirs.passes, strict=True)):
        layouts = mine.items[0].layouts[number], theirs.items[0].layouts[number]
        parts.append(_Part(part, other, layouts, options))
    firsts = [0, 0]
    pairs, slots, units = list[Pair](), list[Slot](), list[tuple[Unit, ...]]()
    ends: dict[str, int | None] = {}
    for both in parts:
        pairs += [_moved(pair, firsts) for pair in both.pairs]
        units.append(tuple(joint(len(slots) + n, each.a, each.b, ends) for n, each in enumerate(both.slots)))
        slots += both.slots
        firsts = [first + len(layout.units) for first, layout in zip(firsts, both.layouts, strict=True)]
    return Aligned(
        passes=tuple(Pass(tensors=part.tensors, explained=part.explained) for part in parts),
        baseline=Baseline(label="the other input", tensors=tuple(part.others for part in parts), vector="mean"),
        layouts=tuple(
            Layout(units=own, spans=part.spans, grid=part.layouts[0].grid)
            for part, own in zip(parts, units, strict=True)
        ),
        pairs=tuple(pairs),
        slots=tuple(slots),
    )


def _moved(pair: Pair, firsts: Sequence[int]) -> Pair:
    a, b = (None if place is None else place + first for place, first in zip(pair, firsts, strict=True))
    return Pair(a, b)


class _Part:
    """One pass: its tensors for both in the same slots, and what shares each slot."""

    def __init__(self, part: Pass, other: Pass, layouts: tuple[Layout, Layout], options: Options) -> None:
        self.explained, self.layouts, self._options = part.explained, layouts, options
        self.tensors, self.others = dict(part.tensors), dict(other.tensors)
        self.pairs: list[Pair] = []
        self.slots: list[Slot] = []
        self.spans: tuple[Span, ...] = ()
        grids = [layout.grid for layout in layouts]
        _check_shapes(part, other)
        if grids[0] is not None:
            self._picture(grids[0].first, grids[0].rows, grids[0].columns)
        for span, beside in zip(*(layout.spans for layout in layouts), strict=True):
            if options.places:
                self._places(span)
            else:
                self._texts(span, beside)

    # ---- images and tensors: place by place --------------------------------------------------------------------

    def _picture(self, first: int, rows: int, columns: int) -> None:
        """A slot per part of the picture; the same where no pixel differs."""
        apart = torch.stack([(self.tensors[name] != self.others[name]).any(1)[0] for name in self.explained]).any(0)
        tall, wide = apart.shape[0] // rows, apart.shape[1] // columns
        inside = apart[: rows * tall, : columns * wide].reshape(rows, tall, columns, wide)
        self._beside(range(first, first + rows * columns), inside.any(3).any(1).flatten().tolist())

    def _places(self, span: Span) -> None:
        """A slot per place of a tensor; the same where its values are."""
        apart = self.tensors[span.ids][0] != self.others[span.ids][0]
        own = apart.flatten(1).any(1) if apart.dim() > 1 else apart
        self._beside(range(span.first, span.last), own[span.offset :].tolist())
        self.spans += (span,)

    def _beside(self, places: Sequence[int], apart: Sequence[bool]) -> None:
        mine, theirs = (layout.units for layout in self.layouts)
        for place, differs in zip(places, apart, strict=False):
            self.pairs.append(Pair(place, place))
            self.slots.append(Slot(kind="replaced" if differs else "same", a=mine[place], b=theirs[place]))

    # ---- texts: token by token ---------------------------------------------------------------------------------

    def _texts(self, span: Span, beside: Span) -> None:
        """A slot per pair of tokens, and per token that only one has; the tensors are made anew to fit."""
        options = self._options
        mine = _Side(self.layouts[0].units[span.first : span.last], self.tensors[span.ids][0].tolist())
        theirs = _Side(self.layouts[1].units[beside.first : beside.last], self.others[beside.ids][0].tolist())
        found = _pairs(mine, theirs, options, span.first)
        self._fitted(span.ids, found, gap=options.gap)
        for name in ("attention_mask", "token_type_ids"):
            if name in self.tensors and span.ids == "input_ids":
                self._fitted(name, found)
        first = len(self.slots)
        self.pairs += [_moved(pair, (span.first, beside.first)) for pair in found]
        self.slots += [_slot(mine, theirs, pair) for pair in found]
        self.spans += (Span(first=first, last=len(self.slots), ids=span.ids),)

    def _fitted(self, name: str, found: Sequence[Pair], *, gap: int | None = None) -> None:
        """The tensor of both with an entry per slot; where one has none, the gap, or what the other has."""
        mine, theirs = self.tensors[name], self.others[name]
        a = [_entry(mine, pair.a, theirs, pair.b, gap) for pair in found]
        b = [_entry(theirs, pair.b, mine, pair.a, gap) for pair in found]
        self.tensors[name], self.others[name] = mine.new_tensor([a]), theirs.new_tensor([b])


def _entry(own: Tensor, place: int | None, other: Tensor, beside: int | None, gap: int | None) -> int:
    if place is not None:
        return int(own[0, place])
    return int(other[0, beside or 0]) if gap is None else gap


class _Side:
    """The units of one text of one input, and their ids."""

    def __init__(self, units: Sequence[Unit], ids: Sequence[int]) -> None:
        self.units, self.ids = units, ids

    def places(self, stream: str) -> list[int]:
        """Where the units of a stream lie, special ones among them."""
        return [n for n, unit in enumerate(self.units) if unit.stream == stream]

    def special(self, stream: str) -> list[int]:
        """Where its special tokens lie."""
        return [n for n in self.places(stream) if self.units[n].special]


def _slot(mine: _Side, theirs: _Side, pair: Pair) -> Slot:
    a = None if pair.a is None else mine.units[pair.a]
    b = None if pair.b is None else theirs.units[pair.b]
    kind: Kind = "removed" if pair.b is None else "inserted"
    if pair.a is not None and pair.b is not None:
        kind = "same" if mine.ids[pair.a] == theirs.ids[pair.b] else "replaced"
    return Slot(kind=kind, a=a, b=b)


def _pairs(mine: _Side, theirs: _Side, options: Options, first: int) -> list[Pair]:
    """The slots of two texts, stream by stream."""
    found: list[Pair] = []
    for stream in dict.fromkeys(unit.stream for unit in mine.units):
        own, other = mine.places(stream), theirs.places(stream)
        if stream in PRODUCED:
            found += [Pair(m, n) for m, n in zip(own, other, strict=True)]
            continue
        a, b = [mine.ids[n] for n in own], [theirs.ids[n] for n in other]
        asked = [(own.index(m - first), other.index(n - first)) for m, n in options.meeting if m - first in own]
        meeting = _with_special(mine, theirs, stream, asked)
        made = [Pair(*pair) for pair in slots(a, b, meeting, by_position=options.by_position)]
        if not options.by_position:
            _check_shared(stream, mine, theirs, [_back(pair, own, other) for pair in made])
        found += [_back(pair, own, other) for pair in made]
    return found


def _back(pair: Pair, own: Sequence[int], other: Sequence[int]) -> Pair:
    return Pair(None if pair.a is None else own[pair.a], None if pair.b is None else other[pair.b])


def _with_special(mine: _Side, theirs: _Side, stream: str, meeting: list[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """The pairs that must meet, and the special tokens too, if both have the same and none crosses another."""
    own, other = mine.places(stream), theirs.places(stream)
    a, b = mine.special(stream), theirs.special(stream)
    if [mine.ids[n] for n in a] != [theirs.ids[n] for n in b]:
        return meeting
    special = [(own.index(m), other.index(n)) for m, n in zip(a, b, strict=True)]
    every = sorted({*meeting, *special})
    crossing = any(first[0] >= second[0] or first[1] >= second[1] for first, second in pairwise(every))
    return meeting if crossing else every


def slots(
    a: Sequence[int], b: Sequence[int], meeting: Sequence[tuple[int, int]] = (), *, by_position: bool = False
) -> Iterator[tuple[int | None, int | None]]:
    """The places of two sequences of ids that share a slot; the same the other way round.

    Equal ids share one where the longest common stretches say so; what is replaced between them pairs up one to one
    as far as it goes, and the rest stands alone. Pairs that are `meeting` share one whatever they are.

    >>> list(slots([5, 7, 9], [5, 8, 8, 9]))
    [(0, 0), (1, 1), (None, 2), (2, 3)]
    """
    first, second = 0, 0
    for m, n in [*meeting, (len(a), len(b))]:
        for i, j in _between(tuple(a[first:m]), tuple(b[second:n]), by_position=by_position):
            yield None if i is None else first + i, None if j is None else second + j
        if m < len(a):
            yield m, n
        first, second = m + 1, n + 1


def _between(a: tuple[int, ...], b: tuple[int, ...], *, by_position: bool) -> Iterator[tuple[int | None, int | None]]:
    if by_position:
        yield from zip_longest(range(len(a)), range(len(b)))
    elif (len(b), b) < (len(a), a):  # the matcher breaks ties by the order of its arguments
        yield from ((i, j) for j, i in _between(b, a, by_position=False))
    else:
        for _, first, last, second, end in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
            yield from zip_longest(range(first, last), range(second, end))


# ---- what cannot be compared ---------------------------------------------------------------------------------------


def _check_shapes(part: Pass, other: Pass) -> None:
    """Raise UsageError for explained tensors that do not lie on each other."""
    for name in part.explained:
        mine, theirs = tuple(part.tensors[name].shape), tuple(other.tensors[name].shape)
        if mine != theirs:
            raise UsageError(
                f"Both inputs have one size as the model sees them; `{name}` is {mine} of the first and {theirs} of "
                "the second. Cut or scale one to the size of the other."
            )


def _check_shared(stream: str, mine: _Side, theirs: _Side, found: Sequence[Pair]) -> None:
    """Raise UsageError for texts that have no token in common, special ones left aside."""
    shared = any(
        pair.a is not None
        and pair.b is not None
        and mine.ids[pair.a] == theirs.ids[pair.b]
        and not mine.units[pair.a].special
        for pair in found
    )
    if not shared:
        raise UsageError(
            f"Two texts are aligned on the tokens that they share; these have none in common ({stream!r}). Pair them "
            "by place with by_position=True (--by-position)."
        )


def check_tensors(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> None:
    """Raise UsageError for mappings of tensors that differ in anything but the entries of the tensor `name`."""
    if set(a) != set(b):
        odd = ", ".join(sorted(map(repr, set(a) ^ set(b))))
        raise UsageError(f"Both inputs have tensors of the same names; only one has {odd}. Give it in both.")
    for each, mine in a.items():
        theirs = b[each]
        if isinstance(mine, Tensor) and isinstance(theirs, Tensor):
            if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
                raise UsageError(
                    f"Tensors are compared place by place; `{each}` is {tuple(mine.shape)} of {mine.dtype} in the "
                    f"first input and {tuple(theirs.shape)} of {theirs.dtype} in the second. Pad or cut one of them."
                )
            same = each == name or torch.equal(mine, theirs.to(mine.device))
        else:
            same = type(mine) is type(theirs) and mine == theirs
        if not same:
            raise UsageError(
                f"Only `{name}` may differ between two inputs of tensors; `{each}` does. Make it the same."
            )


def with_items(question: Question, found: Aligned) -> Question:
    """The question about a, in slots, with b as its baseline."""
    item = replace(question.items[0], layouts=found.layouts)
    return replace(question, passes=found.passes, items=(item,), baselines=(found.baseline,))
