r"""A layer as a mixing of positions: $\hat A_i = (w e_i + (1 - w) F_i) / (w + (1 - w) \sum_j F_{ij})$.

F is the table of a layer's attention, its heads fused; w is the share of the residual path. Rows of mixings add up
to 1, and so do rows of their products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead.config import Settings
from clearhead.errors import ModelError, UsageError
from clearhead.sight.capture import Layer, Row, Sight


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How heads are fused into one table, what of it is left out, and the share of the residual path."""

    fusion: str = "mean"
    residual: float = 0.5
    discard: float = 0.0
    heads: tuple[int, ...] | None = None
    sinks: tuple[tuple[Row, int], ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Mixing:
        """What the settings say."""
        return cls(fusion=settings.fusion, residual=settings.residual, discard=settings.discard, heads=settings.heads)

    def without(self, row: Row, position: int) -> Mixing:
        """The same, but nobody looks at one position."""
        return replace(self, sinks=(*self.sinks, (row, position)))

    def looks(self, layer: Layer, wanted: Tensor) -> Iterator[tuple[Tensor, Looks]]:
        """Rows [b] and what they look at: every head as it is where the mean is meant, else one table as one head."""
        if self.fusion == "mean" and not self.discard:
            for rows, weights in layer.site.blocks(wanted, chosen_heads(self.heads, layer)):
                yield rows, Looks(weights, self._columns(layer, weights), whole=layer.site.whole)
            return
        for rows, table in self.tables(layer, wanted):
            yield rows, Looks(table.unsqueeze(0), table.new_zeros(0, dtype=torch.long))

    def tables(self, layer: Layer, wanted: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows [b] and their table [b, k], of all positions or of those wanted; keys beyond k have none."""
        for rows, weights in layer.site.blocks(wanted, chosen_heads(self.heads, layer)):
            table = self._thinned(self._fused(weights))
            yield rows, table.index_fill(-1, self._columns(layer, table), 0)

    def _fused(self, weights: Tensor) -> Tensor:
        if self.fusion == "max":
            return weights.amax(0)
        return weights.amin(0) if self.fusion == "min" else mean(weights)

    def _thinned(self, table: Tensor) -> Tensor:
        """The table without the smallest weights of each row."""
        if not self.discard:
            return table
        seen = (table > 0).sum(-1, keepdim=True)
        smallest = (seen * self.discard).floor() + table.shape[-1] - seen
        return table.masked_fill(table.argsort(-1).argsort(-1) < smallest, 0)

    def _columns(self, layer: Layer, table: Tensor) -> Tensor:
        """The columns of a table that are sinks."""
        found = [place for row, place in self.sinks if row == layer.key and place < table.shape[-1]]
        return torch.tensor(found, dtype=torch.long, device=table.device)

    def kept(self, layer: Layer) -> float:
        """The share of the residual path; a learned query has none."""
        return self.residual if layer.query.name else 0.0


def mean(weights: Tensor) -> Tensor:
    """The mean over heads [H, b, k] as one product, which is many times as fast as a sum over the first axis."""
    count = weights.shape[0]
    return (weights.new_full((count,), 1 / count) @ weights.reshape(count, -1)).reshape(weights.shape[1:])


def chosen_heads(heads: tuple[int, ...] | None, layer: Layer) -> Tensor | None:
    """The numbers of the heads that were chosen. Raises UsageError for one that the layer does not have."""
    if heads is None:
        return None
    count = layer.site.heads
    wrong = next((head for head in heads if not -count <= head < count), None)
    if wrong is not None:
        raise UsageError(
            f"`heads` must be numbers of heads; {layer.site.place.module!r} has {count}, from 0 to {count - 1}, and "
            f"{wrong} was given."
        )
    return torch.tensor([head % count for head in heads])


def pulled(mixing: Mixing, layer: Layer, amounts: Tensor) -> tuple[Tensor, Tensor]:
    """What the positions that ask keep of their amounts [Q], and what they hand to those they look at [K].

    One row of a product of mixings is carried through a layer by this, without a table of the whole layer.
    """
    site, kept = layer.site, mixing.kept(layer)
    stay, given = torch.zeros_like(amounts), amounts.new_zeros(site.keys)
    for rows, looks in mixing.looks(layer, amounts.nonzero().flatten()):
        total = kept + (1 - kept) * looks.mass()
        lone = total == 0  # a row that sees nothing keeps what it has
        share = (amounts[rows] / torch.where(lone, 1, total)).to(amounts.dtype)
        stay[rows] = torch.where(lone, amounts[rows], kept * share)
        moved = looks.carried(share)
        given[: len(moved)] += (1 - kept) * moved
    return stay, given


@dataclass(frozen=True)
class Looks:
    """Some rows of heads [H, b, k], each head counting the same, without the columns of sinks.

    The mean over heads of what they carry is asked for instead of the mean of the heads: a product with a vector reads
    the weights once, and a mean of tables would write as much again.
    """

    heads: Tensor
    sinks: Tensor
    whole: bool = False

    def mass(self) -> Tensor:
        """The sum of each row of the heads' mean [b]: 1 where rows are `whole`, less what sinks would take."""
        ones = self.heads.new_ones(self.heads.shape[1] if self.whole else self.heads.shape[2])
        whole = ones if self.whole else (self.heads @ ones).mean(0)
        return whole - self.heads[..., self.sinks].sum(-1).mean(0) if len(self.sinks) else whole

    def carried(self, share: Tensor) -> Tensor:
        """What the rows hand on [k], given the share of each [b]."""
        found = (share.to(self.heads.dtype) @ self.heads).mean(0)
        return found.index_fill(0, self.sinks, 0).to(share.dtype) if len(self.sinks) else found.to(share.dtype)


def resampled(sight: Sight, row: Row, amounts: Tensor, length: int) -> Tensor:
    """Amounts [T] of a sequence as those of the same sequence at another length, as where patches were merged.

    An amount is given in equal parts to all that the position covers.
    """
    if len(amounts) == length:
        return amounts
    old, new = sight.covered(row, len(amounts)), sight.covered(row, length)
    by_unit: dict[int | str, float] = {}
    for covers, amount in zip(old, amounts.tolist(), strict=True):
        for each in [covers] if isinstance(covers, str) else covers:
            by_unit[each] = by_unit.get(each, 0.0) + amount / (1 if isinstance(covers, str) else len(covers))
    moved = [sum(by_unit.get(each, 0.0) for each in ([c] if isinstance(c, str) else c)) for c in new]
    if abs(sum(moved) - float(amounts.sum())) > 1e-5 * (1 + float(amounts.abs().sum())):
        raise ModelError(
            f"The layers of a sequence must have the same positions, or squares of them; found {len(amounts)} and "
            f"{length}. Choose method='attention' for one layer, or method='lrp'."
        )
    return amounts.new_tensor(moved)
