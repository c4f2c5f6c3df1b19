"""What a model looks up: noted in order, or with other vectors in its place. An id may be no token's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clearhead.question import NOTHING
from clearhead.tape import Function, Operation, Tape


def blank(found: Tensor, ids: Tensor, weight: Tensor, vector: str) -> Tensor:
    """What was looked up, with zeros or the mean of all vectors in the place of no token."""
    nowhere = ids == NOTHING
    if not bool(nowhere.any()):
        return found
    instead = torch.zeros_like(weight[0]) if vector == "zero" else weight.detach().mean(0)
    return torch.where(nowhere.unsqueeze(-1), instead, found)


@dataclass(frozen=True, slots=True, eq=False)
class Lookup:
    """One lookup: the ids, and the vectors that a model went on with."""

    ids: Tensor
    vectors: Tensor


class Blanks:
    """Interprets calls of one input alone, some of whose ids are no token's: these get the `vector`, zero or mean."""

    def __init__(self, vector: str) -> None:
        self._vector = vector
        self.tape = Tape(self._interpret)

    def _interpret(self, operation: Operation, function: Function, args: Any, kwargs: dict[str, Any]) -> Any:
        if operation.name != "embedding" or len(args) < 2:
            return function(*args, **kwargs)
        return self.looked_up(function, *args, **kwargs)

    def looked_up(self, function: Function, ids: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """The vectors of ids."""
        found = function(ids.clamp_min(0), weight, *rest, **kwargs)
        return blank(found, ids, weight, self._vector)


class Noting(Blanks):
    """The same, and notes all lookups in the order in which they are made."""

    def __init__(self, vector: str = "zero") -> None:
        super().__init__(vector)
        self.lookups: list[Lookup] = []

    def looked_up(self, function: Function, ids: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """The vectors of ids, noted."""
        found = super().looked_up(function, ids, weight, *rest, **kwargs)
        self.lookups.append(Lookup(ids, found))
        return found


class Placing(Blanks):
    """Counts lookups as `Noting` does, and looks up other ids or gives other vectors for some of them.

    `vectors` [n, ...] have a row for each row of the batch; `ids` are those of a batch of one, and hold for all of it.
    """

    def __init__(self, *, vectors: Mapping[int, Tensor] | None = None, ids: Mapping[int, Tensor] | None = None) -> None:
        super().__init__("zero")
        self._vectors, self._ids = vectors or {}, ids or {}
        self._count = 0

    def looked_up(self, function: Function, ids: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        """The vectors that stand in for those of ids, or theirs."""
        number, self._count = self._count, self._count + 1
        if number in self._vectors:
            return laid(self._vectors[number], ids)
        other = self._ids.get(number)
        if other is not None and other.dim() == ids.dim():
            ids = other.expand_as(ids) if other.shape[1:] == ids.shape[1:] and other.shape[0] == 1 else ids
        return super().looked_up(function, ids, weight, *rest, **kwargs)


def laid(vectors: Tensor, ids: Tensor) -> Tensor:
    """Vectors [n, *shape of the ids of one row, width] as a lookup of the ids of n rows gives them.

    The ids of a batch have n times the entries along one axis: the first, or, where positions come first, another.
    """
    count, *shape, width = vectors.shape
    if tuple(ids.shape) == tuple(shape) and count == 1:
        return vectors[0]
    axis = next((a for a, size in enumerate(ids.shape) if size == count * shape[a]), 0)
    if axis == 0:
        return vectors.reshape(*ids.shape, width)
    return vectors.squeeze(1 + axis).movedim(0, axis)
