"""One attention of one forward pass: its weights are made when asked for, in blocks of rows, and never kept.

Axes: windows W, heads H, queries Q, keys K, width D; a plain attention has one window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clearhead.sight.places import Place
from clearhead.sight.trail import Step

BLOCK, ROWS = 2**25, 128  # bytes and rows of weights that are made at a time, where rows can be made one by one

Block = tuple[Tensor, Tensor]  # rows [b], their weights [H, b, k]: keys beyond the last column have none


class Holder(Protocol):
    """Whatever gives a tensor when asked."""

    @property
    def value(self) -> Tensor:
        """The tensor."""
        ...


@dataclass(eq=False, kw_only=True)
class Site(ABC):
    """What all attentions have: their place, the values they weigh, and what came out, through which gradients flow.

    `output` is the result of a fused kernel, or the weights that a model computed itself; `edge` what the last block
    of a model made of it, a row for each position.
    """

    place: Place
    held_value: Holder | None = None
    output: Tensor | None = None
    edge: Tensor | None = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """How many windows, heads, queries and keys."""

    @property
    def heads(self) -> int:
        """How many heads."""
        return self.shape[1]

    @property
    def whole(self) -> bool:
        """Does every row add up to 1?"""
        return False

    @property
    def windowed(self) -> bool:
        """Do queries see a window of keys only, cut out of the sequence?"""
        return self.shape[0] > 1

    @property
    def queries(self) -> int:
        """How many positions ask; of windows, those of the whole sequence."""
        return self._positions(self.place.query_index, self.shape[2])

    @property
    def keys(self) -> int:
        """How many positions are looked at."""
        return self._positions(self.place.key_index, self.shape[3])

    def _positions(self, index: Tensor | None, own: int) -> int:
        if not self.windowed:
            return own
        return int(index.max()) if index is not None else self.shape[0] * own

    def blocks(self, wanted: Tensor | None = None, heads: Tensor | None = None) -> Iterator[Block]:
        """The weights of all rows, or of those `wanted`, in blocks; of all heads, or of some.

        A block may be overwritten by the next.
        """
        if not self.windowed:
            yield from self._plain(wanted, heads)
            return
        whole = self.spread(self._windows())
        whole = whole if heads is None else whole[heads]
        rows = torch.arange(whole.shape[1], device=whole.device) if wanted is None else wanted
        yield rows, whole[:, rows]

    def spread(self, table: Tensor) -> Tensor:
        """A table of windows [W, H, Q, K] as one over the sequence [H, queries, keys]."""
        count, _, own, other = table.shape
        asks, seen = (
            self._index(each, size, count)
            for each, size in ((self.place.query_index, own), (self.place.key_index, other))
        )
        whole = table.new_zeros(table.shape[1], self.queries + 1, self.keys + 1)  # place 0 is padding
        for window in range(count):
            whole[:, asks[window][:, None], seen[window][None, :]] = table[window]
        return whole[:, 1:, 1:]

    def _index(self, index: Tensor | None, size: int, count: int) -> Tensor:
        """The positions [W, size] of a window's queries or keys, from 1 on."""
        if index is None:
            return torch.arange(1, count * size + 1).reshape(count, size)
        return laid(index.long().unsqueeze(-1))[:, 0, :, 0]

    def matrix(self, heads: Tensor | None = None) -> Tensor:
        """The weights of the whole sequence [H, queries, keys]."""
        whole = None
        for rows, weights in self.blocks(None, heads):
            if whole is None:
                whole = weights.new_zeros(weights.shape[0], self.queries, self.keys)
            whole[:, rows, : weights.shape[2]] = weights
        if whole is None:
            raise ValueError("An attention has at least one query.")
        return whole

    @abstractmethod
    def _plain(self, wanted: Tensor | None, heads: Tensor | None) -> Iterator[Block]: ...

    @abstractmethod
    def _windows(self) -> Tensor: ...


@dataclass(eq=False, kw_only=True)
class Fused(Site):
    """Attention in one call: rebuilt from queries, keys and mask."""

    query: Holder
    key: Holder
    mask: Holder | None
    causal: bool
    scale: float | None

    def __post_init__(self) -> None:
        query, key = laid(self.query.value), laid(self.key.value)
        self._shape = (*query.shape[:3], key.shape[2])

    @property
    def whole(self) -> bool:
        """Does every row add up to 1? One that a mask hides everything from does not."""
        return self.mask is None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many windows, heads, queries and keys."""
        return self._shape

    def _plain(self, wanted: Tensor | None, heads: Tensor | None) -> Iterator[Block]:
        query, key = laid(self.query.value)[0], self._keys(laid(self.key.value)[0])
        mask = laid(self.mask.value)[0] if self.mask else None
        rows = torch.arange(query.shape[1], device=query.device) if wanted is None else wanted
        space = key.new_empty(max(BLOCK // key.element_size(), query.shape[0] * key.shape[2]))
        for part in self._parts(rows, query.shape[0], key.shape[2], len(space)):
            weights = self._weights(query[:, part], key, _rows(mask, part), part if self.causal else None, space)
            yield part, weights if heads is None else weights[heads]

    def _parts(self, rows: Tensor, heads: int, keys: int, room: int) -> Iterator[Tensor]:
        """As many rows at a time as there is room for; the first rows of a causal attention see few keys."""
        begin = 0
        while begin < len(rows):
            part = rows[begin : begin + ROWS]
            while len(part) > 1 and heads * len(part) * (int(part.max()) + 1 if self.causal else keys) > room:
                part = part[: (len(part) + 1) // 2]
            yield part
            begin += len(part)

    def _windows(self) -> Tensor:
        query, key = laid(self.query.value), laid(self.key.value)
        mask = laid(self.mask.value) if self.mask else None
        rows = torch.arange(query.shape[2], device=query.device) if self.causal else None
        found = key.new_empty(*query.shape[:3], key.shape[2], dtype=_kind(key))
        for w in range(query.shape[0]):
            own = None if mask is None else mask[w if mask.shape[0] > 1 else 0]
            self._weights(query[w], self._keys(key[w]), own, rows, found[w].view(-1))
        return found

    def _keys(self, key: Tensor) -> Tensor:
        """The keys [G, D, K] in the type that is computed in, laid out for one product after the other."""
        return key.to(_kind(key)).transpose(1, 2).contiguous()

    def _weights(self, query: Tensor, key: Tensor, mask: Tensor | None, causal: Tensor | None, space: Tensor) -> Tensor:
        """softmax(scale q k^T + mask) of rows [H, b, D] over keys [G, D, K], each for H/G heads, written into `space`.

        Fresh memory for every block would cost as much as what is computed.
        """
        limit = key.shape[2] if causal is None else min(key.shape[2], int(causal.max()) + 1)
        groups, (heads, count, width) = key.shape[0], query.shape
        scale = self.scale if self.scale is not None else 1 / math.sqrt(width)
        scores = space[: heads * count * limit].view(heads, count, limit)
        asked = (query.to(key.dtype) * scale).reshape(groups, -1, width)
        torch.bmm(asked, key[..., :limit], out=scores.view(groups, -1, limit))
        if causal is not None:
            first = min(limit, int(causal.min()) + 1)  # before it, nothing is hidden from any of these rows
            later = torch.arange(first, limit, device=scores.device) > causal[:, None]
            scores[..., first:].masked_fill_(later, -math.inf)
        if mask is None:
            return torch.softmax(scores, -1, out=scores)
        mask = mask[..., :limit]
        scores = scores.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else scores.add_(mask.to(scores))
        return scores.copy_(torch._safe_softmax(scores, -1))  # a row that may see nothing is 0, as in fused kernels


@dataclass(eq=False, kw_only=True)
class Written(Site):
    """Attention whose weights the model computed itself: they are computed again, or were small enough to keep."""

    weights: Holder | Step
    table: tuple[int, ...]  # the shape of the weights

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """How many windows, heads, queries and keys."""
        heads, queries, keys = (1, 1, *self.table)[-3:]
        return math.prod(self.table[:-3]), heads, queries, keys

    def _plain(self, wanted: Tensor | None, heads: Tensor | None) -> Iterator[Block]:
        table = self._windows()[0]
        table = table if heads is None else table[heads]
        rows = torch.arange(table.shape[1], device=table.device) if wanted is None else wanted
        yield rows, table if wanted is None else table[:, rows]

    def _windows(self) -> Tensor:
        made = self.weights.value() if isinstance(self.weights, Step) else self.weights.value
        return laid(made.detach() if made.dtype == torch.float64 else made.detach().float())


def _kind(tensor: Tensor) -> torch.dtype:
    """The float type that weights are computed in."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def laid(tensor: Tensor) -> Tensor:
    """A tensor [..., heads, positions, width] as [windows, heads, positions, width]."""
    while tensor.dim() < 4:
        tensor = tensor.unsqueeze(0)
    return tensor.flatten(0, -4)


def _rows(mask: Tensor | None, rows: Tensor) -> Tensor | None:
    """The rows of a mask [H or 1, Q or 1, K]."""
    return mask if mask is None or mask.shape[1] == 1 else mask[:, rows]
