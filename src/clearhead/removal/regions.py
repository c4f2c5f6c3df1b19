"""Where the units of one item lie in the tensors of its passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.question import Grid, Layout, Pass, Question

NOBODY = -1  # in a region: an entry that is no unit's


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The tensor `name` of the pass `number`, and the number of the unit of each position [T] or pixel [H, W].

    An entry is `NOBODY` where there is no unit, as in padding. Pixels beyond the last whole part of an image belong to
    the nearest one.
    """

    number: int
    name: str
    units: Tensor

    @property
    def image(self) -> bool:
        """Are the units parts of an image?"""
        return self.units.dim() == 2

    def entries(self, of_units: Tensor) -> Tensor:
        """From truth for each unit [n, units] to truth for each entry [n, T] or [n, H, W]."""
        found = of_units[:, self.units.clamp_min(0)]
        return found & (self.units != NOBODY)

    def within(self, entries: Tensor, like: Tensor) -> Tensor:
        """Truth for each entry in a shape that goes with a tensor [n, T, ...] or [n, channels, H, W]."""
        if self.image:
            return entries[:, None]
        return entries.reshape(*entries.shape, *[1] * (like.dim() - 2))

    def summed(self, values: Tensor, count: int) -> Tensor:
        """From numbers [1, T, ...] or [1, channels, H, W] to their sums for each of `count` units, in float64."""
        double = values.double()[0]
        each = double.sum(0) if self.image else double.reshape(len(double), -1).sum(1)
        own = self.units != NOBODY
        found = torch.zeros(count, dtype=torch.float64, device=values.device)
        return found.index_add(0, self.units[own], each[own])


def regions(question: Question) -> list[Region]:
    """All regions of a question about one item, in the order of its passes."""
    (item,) = question.items
    found, before = [], 0
    for number, (part, layout) in enumerate(zip(question.passes, item.layouts, strict=True)):
        found += list(_of_pass(number, part, layout, before))
        before += len(layout.units)
    return found


def _of_pass(number: int, part: Pass, layout: Layout, before: int) -> Iterator[Region]:
    if layout.grid is not None:
        for name in part.explained:
            x = part.tensors[name]
            if x.dim() == 4:
                yield Region(number, name, before + _pixels(layout.grid, x.shape[2], x.shape[3]).to(x.device))
    for name in dict.fromkeys(span.ids for span in layout.spans):
        x = part.tensors[name]
        units = torch.full(x.shape[1:2], NOBODY)
        for span in layout.spans:
            if span.ids == name:
                count = span.last - span.first
                units[span.offset : span.offset + count] = torch.arange(count) + before + span.first
        yield Region(number, name, units.to(x.device))
    if layout.grid is None and not layout.spans:
        for name in part.explained:
            x = part.tensors[name]
            yield Region(number, name, torch.arange(x.shape[1], device=x.device) + before)


def _pixels(grid: Grid, height: int, width: int) -> Tensor:
    """The number of the part that each pixel belongs to."""
    down, across = (
        (torch.arange(pixels) // max(1, pixels // parts)).clamp_max(parts - 1)
        for pixels, parts in ((height, grid.rows), (width, grid.columns))
    )
    return grid.first + down[:, None] * grid.columns + across[None, :]
