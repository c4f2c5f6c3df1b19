"""From sources to units: whose relevance is it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clearhead.maps import LedgerEntry
from clearhead.question import Grid, Layout, Pass, Span
from clearhead.relevance.engine import Source

PADDING = "padding"  # the name of what a model reads although its mask hides it


@dataclass(frozen=True, slots=True)
class Placed:
    """The relevance of units from `first` on, and of padding round them, which is 0 unless the model reads it."""

    first: int
    rows: Tensor
    padding: float = 0.0

    @classmethod
    def within(cls, rows: Tensor, span: Span) -> Placed:
        """The rows of a source that belong to the units of a span."""
        stop = span.offset + span.last - span.first
        outside = float(rows[: span.offset].sum() + rows[stop:].sum()) if stop - span.offset < len(rows) else 0.0
        return cls(span.first, rows[span.offset : stop], outside)


@dataclass(slots=True)
class Collected:
    """The relevance of each unit of a layout [units], of learned vectors beside them, and of what is neither."""

    units: Tensor
    learned: dict[str, float] = field(default_factory=dict)
    strays: list[LedgerEntry] = field(default_factory=list)

    def beside(self, name: str, amount: float) -> None:
        """Give an amount to a learned vector that is a unit of its own."""
        self.learned[name] = self.learned.get(name, 0.0) + amount


def collected(sources: Sequence[Source], part: Pass, layout: Layout, row: int, batch: int) -> Collected:
    """Sort the relevance of the sources of a pass by the units of one item, the `row`-th of its batch.

    Explained tensors come first. A lookup of a stream's own ids belongs to that stream; positions, types and learned
    vectors that follow belong to the same one, if they have its length, or else to one that has. Learned vectors that
    stand beside the units (CLS, registers, queries) become units of their own.
    """
    found = Collected(torch.zeros(len(layout.units), dtype=torch.float64))
    beside = _standing_beside(sources)
    spans = _Spans(part, layout)
    for n, source in enumerate(sources):
        relevance = _of_item(source, row, batch)
        direct = n < len(part.explained)
        placed = _direct(relevance, layout, part.explained[n]) if direct else spans.place(source, relevance)
        if placed is not None:
            found.units[placed.first : placed.first + len(placed.rows)] += placed.rows.cpu()
            if placed.padding:
                found.beside(PADDING, placed.padding)
        elif layout.grid is not None and relevance is not None and not direct:
            _on_grid(found, layout.grid, source, relevance.flatten(0, -2).sum(1).cpu(), beside)
        else:
            _stray(found, source, relevance)
    return found


def _of_item(source: Source, row: int, batch: int) -> Tensor | None:
    """The relevance of the part of a source [batch, ...] that belongs to one item; None if that cannot be told."""
    if batch == 1:
        return source.relevance
    if not source.value.dim() or source.value.shape[0] != batch:
        return None
    return source.part(slice(row, row + 1)).relevance


def _stray(found: Collected, source: Source, relevance: Tensor | None) -> None:
    """What no unit takes goes to the learned vector it belongs to, by name, and is a leak if it has none.

    What cannot be told apart by item is NaN, unless it is nothing.
    """
    lost = float(source.relevance.sum()) if relevance is None else float(relevance.sum())
    if lost and source.name and relevance is not None:
        found.beside(_short(source), lost)
    elif lost:
        amount = torch.nan if relevance is None else lost
        entry = LedgerEntry(
            cause="constant", module=source.name, operation="embedding", relevance=amount, returned=False
        )
        found.strays.append(entry)


# ---- explained tensors ---------------------------------------------------------------------------------------------


def _direct(relevance: Tensor | None, layout: Layout, name: str) -> Placed | None:
    """An explained tensor: an image [1, channels, height, width] by its grid, anything else along axis 1."""
    if relevance is None:
        return None
    if layout.grid is not None and relevance.dim() == 4:
        pixels = relevance.sum((0, 1))
        rows, columns = layout.grid.rows, layout.grid.columns
        tall, wide = pixels.shape[0] // rows, pixels.shape[1] // columns
        whole = pixels[: rows * tall, : columns * wide]
        return Placed(layout.grid.first, whole.reshape(rows, tall, columns, wide).sum((1, 3)).flatten())
    everything = layout.spans[0] if layout.spans else Span(first=0, last=len(layout.units))
    span = next((each for each in layout.spans if each.ids == name), everything)
    stop = span.offset + span.last - span.first
    if relevance.dim() < 2 or relevance.shape[1] < stop or (relevance.shape[1] > stop and not layout.spans):
        return None
    return Placed.within(relevance.movedim(1, 0).flatten(1).sum(1), span)


# ---- texts ---------------------------------------------------------------------------------------------------------


class _Spans:
    """Which stream a source belongs to; the last stream whose ids were looked up comes first."""

    def __init__(self, part: Pass, layout: Layout) -> None:
        whole = () if layout.grid else (Span(first=0, last=len(layout.units)),)
        self._tensors: Mapping[str, object] = part.tensors
        self._spans = layout.spans or whole
        self._others = () if layout.grid else tuple(span for span in self._spans if self._holds_vectors(span))
        self._current: Span | None = next(iter(self._others), None)
        self._met: set[int] = set()

    def place(self, source: Source, relevance: Tensor | None) -> Placed | None:
        """Where the relevance of a source [1, ..., rows, width] with a row per unit belongs."""
        self._current = self._looked_up(source) or self._current
        if relevance is None or relevance.dim() < 2 or any(size != 1 for size in relevance.shape[:-2]):
            return None
        rows = relevance.flatten(0, -2).sum(1)
        candidates = (*((self._current,) if self._current else ()), *self._others)
        for span in candidates:
            placed = self._within(span, source, rows)
            if placed is not None:
                return placed
        return None

    def _within(self, span: Span, source: Source, rows: Tensor) -> Placed | None:
        """The rows of a source that has the length of a span with its padding."""
        count = span.last - span.first
        length = len(rows) if source.length is None else source.length
        if length != self._length(span):
            return None
        if source.length is None:
            return Placed.within(rows, span)
        return Placed(span.first + source.first, rows) if count == length else None

    def _holds_vectors(self, span: Span) -> bool:
        """Ids [batch, T] and vectors [batch, T, width] have rows that positions and types are added to."""
        held = self._tensors.get(span.ids)
        return not isinstance(held, Tensor) or held.dim() < 4

    def _length(self, span: Span) -> int:
        ids = self._tensors.get(span.ids)
        return ids.shape[1] if isinstance(ids, Tensor) else span.last - span.first

    def _looked_up(self, source: Source) -> Span | None:
        """The stream whose ids these are; of two with the same ids, the one that was not met yet."""
        same = [n for n, span in enumerate(self._spans) if _same(self._tensors.get(span.ids), source.indices)]
        chosen = next((n for n in same if n not in self._met), same[0] if same else None)
        if chosen is None:
            return None
        self._met.add(chosen)
        return self._spans[chosen]


def _same(ids: object, looked: Tensor | None) -> bool:
    if not isinstance(ids, Tensor) or looked is None or ids.shape != looked.shape:
        return False
    return torch.equal(ids, looked.to(ids.device))


# ---- images --------------------------------------------------------------------------------------------------------


Beside = Mapping[int, Mapping[int, str]]


def _standing_beside(sources: Sequence[Source]) -> Beside:
    """The names of learned vectors by the length of the sequence they were joined to, and their place in it."""
    found: dict[int, dict[int, str]] = {}
    for source in sources:
        if source.length is not None:
            rows = source.value.shape[-2]
            names = [_short(source) if rows == 1 else f"{_short(source)} {i + 1}" for i in range(rows)]
            found.setdefault(source.length, {}).update({source.first + i: name for i, name in enumerate(names)})
    return found


def _short(source: Source) -> str:
    return source.name.rpartition(".")[2]


def _on_grid(found: Collected, grid: Grid, source: Source, rows: Tensor, beside: Beside) -> None:
    """A learned vector beside the patches, or one per patch and per vector beside them (position embeddings)."""
    names = beside.get(len(rows) if source.length is None else source.length, {})
    for i, amount in enumerate(rows):
        place = source.first + i
        if place in names:
            found.beside(names[place], float(amount))
    own = rows[[i for i in range(len(rows)) if source.first + i not in names]]
    tall, wide = grid.patches or (grid.rows, grid.columns)
    if len(own) == tall * wide and (tall, wide) == (grid.rows, grid.columns):
        found.units[grid.first : grid.first + len(own)] += own
    elif len(own):
        found.beside(_short(source), float(own.sum()))
