"""From sources to units: whose relevance is it?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearhead.maps import LedgerEntry
from clearhead.question import Pass, Span
from clearhead.relevance.engine import Source


def collected(sources: Sequence[Source], part: Pass) -> tuple[Tensor, list[LedgerEntry]]:
    """The relevance of each unit of a pass [units], and entries for sources that belong to none.

    Explained tensors come first. A lookup of a stream's own ids belongs to that stream; positions, types and learned
    vectors that follow belong to the same one, if they have its length, or else to one that has.
    """
    summed = torch.zeros(len(part.units), dtype=torch.float64)
    strays = []
    current = part.spans[0] if part.spans else Span(first=0, last=len(part.units))
    for n, source in enumerate(sources):
        if n < len(part.explained):
            placed = _direct(source, part)
        else:
            current = _span_of(source, part) or current
            placed = _row_by_row(source, current, part)
        if placed is None:
            lost = float(source.relevance.sum())
            strays += [_stray(source, lost)] if lost else []
        else:
            first, rows = placed
            summed[first : first + len(rows)] += rows.cpu()
    return summed, strays


def _direct(source: Source, part: Pass) -> tuple[int, Tensor] | None:
    """An explained tensor: an image [1, channels, height, width] by its grid, anything else along axis 1."""
    relevance = source.relevance
    if part.grid is not None and relevance.dim() == 4:
        pixels = relevance.sum((0, 1))
        rows, columns = part.grid.rows, part.grid.columns
        tall, wide = pixels.shape[0] // rows, pixels.shape[1] // columns
        whole = pixels[: rows * tall, : columns * wide]
        return part.grid.first, whole.reshape(rows, tall, columns, wide).sum((1, 3)).flatten()
    if relevance.dim() < 2 or relevance.shape[1] != len(part.units):
        return None
    return 0, relevance.movedim(1, 0).flatten(1).sum(1)


def _span_of(source: Source, part: Pass) -> Span | None:
    """The stream whose ids were looked up."""
    for span in part.spans:
        ids = part.tensors.get(span.ids)
        looked = source.indices
        if looked is not None and ids is not None and ids.shape == looked.shape and torch.equal(ids, looked):
            return span
    return None


def _row_by_row(source: Source, current: Span, part: Pass) -> tuple[int, Tensor] | None:
    """A lookup or learned vector [1, ..., rows, width]: one row for one unit."""
    relevance = source.relevance
    if relevance.dim() < 2 or any(size != 1 for size in relevance.shape[:-2]):
        return None
    rows = relevance.flatten(0, -2).sum(1)
    length = len(rows) if source.length is None else source.length
    for span in (current, *part.spans):
        if span.last - span.first == length:
            return span.first + source.first, rows
    return None


def _stray(source: Source, lost: float) -> LedgerEntry:
    return LedgerEntry(cause="constant", module=source.module, operation="embedding", relevance=lost, returned=False)
