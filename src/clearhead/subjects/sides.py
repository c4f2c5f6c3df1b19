"""The sides of a question: what a baseline can replace in its tensors, stream by stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from clearhead.question import Item, Layout, Pass, Span

Kind = Literal["ids", "image", "vectors"]
PRODUCED = ("decoder", "continuation", "generated")  # streams that a model wrote, or is given to have written


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """The units of one stream in the tensor `name` of one pass, the `number`-th.

    `places` are the positions along axis 1 that can be replaced, for each item (None for an image, which is replaced
    as a whole); `kept` are those among them that stay nevertheless.
    """

    number: int
    part: Pass
    name: str
    stream: str
    kind: Kind
    places: tuple[tuple[int, ...], ...] | None = None
    kept: frozenset[int] = field(default_factory=frozenset)

    @property
    def value(self) -> Tensor:
        """The tensor as the input has it."""
        value: Tensor = self.part.tensors[self.name]
        return value

    @property
    def produced(self) -> bool:
        """Is this a stream that the model wrote?"""
        return self.stream in PRODUCED

    @property
    def where(self) -> Tensor:
        """Which entries of the tensor are replaced."""
        axes = (1,) * (self.value.dim() - 2)
        if self.places is None:
            return torch.ones((1, 1, *axes), dtype=torch.bool, device=self.value.device)
        found = torch.zeros(self.value.shape[:2], dtype=torch.bool)
        for row, places in enumerate(self.places):
            found[row, [place for place in places if place not in self.kept]] = True
        return found.to(self.value.device).reshape(*found.shape, *axes)


def sides(passes: Sequence[Pass], items: Sequence[Item], kept: frozenset[int] = frozenset()) -> list[Side]:
    """All sides of a question, in the order of its units; `kept` are positions of a text that stay as they are."""
    found: list[Side] = []
    for number, part in enumerate(passes):
        layouts = [item.layouts[number] for item in items]
        grid = layouts[0].grid
        if grid is not None:
            found += [
                Side(number=number, part=part, name=name, stream=grid.stream, kind="image") for name in part.explained
            ]
        for n in range(len(layouts[0].spans)):
            found += _along(number, part, n, layouts, kept)
    return found


def _along(number: int, part: Pass, n: int, layouts: Sequence[Layout], kept: frozenset[int]) -> Iterator[Side]:
    """A side for each stream along the n-th span of a pass."""
    span = layouts[0].spans[n]
    value = part.tensors[span.ids]
    kind: Kind = "ids" if not value.is_floating_point() else "image" if value.dim() == 4 else "vectors"
    for stream in dict.fromkeys(unit.stream for unit in layouts[0].units[span.first : span.last]):
        places = tuple(_places(layout, layout.spans[n], stream) for layout in layouts)
        yield Side(number=number, part=part, name=span.ids, stream=stream, kind=kind, places=places, kept=kept)


def _places(layout: Layout, span: Span, stream: str) -> tuple[int, ...]:
    """Where the units of a stream lie that are not special."""
    units = enumerate(layout.units[span.first : span.last], span.offset)
    return tuple(place for place, unit in units if unit.stream == stream and not unit.special)
