"""The ledger: relevance that operations did not pass on, by cause and place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.maps import LedgerEntry
from clearhead.relevance.numerics import by_item, give_back, strewn
from clearhead.tape import Keeper, Kept


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model something happened: the operation, the path of its module, and which call it was.

    `item` is the item of the batch that the call was about, if it was about one.
    """

    operation: str
    module: str
    call: int
    item: int | None = None


class Ledger:
    """Collects leaks as tensors while the backward pass runs, and reads them once at its end.

    Each amount is kept per item of a batch; one that could not be told apart by item reads as NaN.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self._amounts: dict[tuple[str, Place, bool], list[Tensor]] = {}

    def book(self, cause: str, place: Place, amount: Tensor, *, returned: bool = False) -> None:
        """Write down that `amount` (summed over all its entries) leaked at `place`."""
        amounts = by_item(amount, self.batch) if place.item is None else self._of(place.item, amount)
        self._amounts.setdefault((cause, place, returned), []).append(amounts)

    def entries(self) -> tuple[tuple[LedgerEntry, ...], ...]:
        """For each item one entry per cause, module and operation, in forward order; zeros are left out."""
        amounts = sorted(self._read().items(), key=lambda pair: pair[0][1].call)
        return tuple(_entries([(key, each[item]) for key, each in amounts]) for item in range(self.batch))

    def by_call(self) -> dict[int, float]:
        """What each call lost for good, by the number of the call."""
        sums: dict[int, float] = {}
        for (_, place, returned), amount in self._read().items():
            if not returned:
                sums[place.call] = sums.get(place.call, 0.0) + sum(amount)
        return sums

    def largest(self) -> Place | None:
        """Where most was written down."""
        amounts = {place: abs(sum(amount)) for (_, place, _), amount in self._read().items()}
        return max(amounts, key=lambda place: amounts[place]) if amounts else None

    def clear(self) -> None:
        """Forget all amounts, before another backward pass over the same recording."""
        self._amounts.clear()

    def _of(self, item: int, amount: Tensor) -> Tensor:
        """An amount that is one item's [batch]."""
        whole = by_item(amount, 1)
        return torch.cat([whole if n == item else torch.zeros_like(whole) for n in range(self.batch)])

    def _read(self) -> dict[tuple[str, Place, bool], list[float]]:
        if not self._amounts:
            return {}
        found = [torch.stack(parts).sum(0) for parts in self._amounts.values()]
        summed = torch.stack(found if len(_devices(found)) == 1 else [each.cpu() for each in found]).tolist()
        return dict(zip(self._amounts, summed, strict=True))


def _devices(found: Sequence[Tensor]) -> set[torch.device]:
    return {each.device for each in found}


def _entries(amounts: Sequence[tuple[tuple[str, Place, bool], float]]) -> tuple[LedgerEntry, ...]:
    sums: dict[tuple[str, str, str, bool], float] = {}
    for (cause, place, returned), amount in amounts:
        key = (cause, place.module, place.operation, returned)
        sums[key] = sums.get(key, 0.0) + amount
    return tuple(
        LedgerEntry(cause=cause, module=module, operation=operation, relevance=amount, returned=returned)
        for (cause, module, operation, returned), amount in sums.items()
        if amount
    )


@dataclass(frozen=True, slots=True)
class Account:
    """Where the leaks of one call are written down, whether they are handed back, and who keeps values for that."""

    ledger: Ledger
    place: Place
    returns: bool
    keeper: Keeper

    @property
    def batch(self) -> int:
        """How many items are explained together."""
        return self.ledger.batch

    def book(self, cause: str, amount: Tensor) -> None:
        """Write down an amount that is lost for good."""
        self.ledger.book(cause, self.place, amount)

    def keep(self, tensor: Tensor, *, when: bool = True) -> Kept | None:
        """Keep a value for the way back, if it will be needed."""
        return self.keeper.keep(tensor) if when else None

    def settle(self, a: Tensor | None, gradient: Tensor, leaks: Mapping[str, Tensor], *, strew: bool = False) -> Tensor:
        """Book leaks [..., 1] by cause and, if they are returned, add them in place to `gradient` for `a` [..., d].

        What a row cannot take, because all of it is 0, is lost, or where asked to it is strewn.
        """
        if not self.returns or a is None or not leaks:
            for cause, leak in leaks.items():
                self.book(cause, leak)
            return gradient
        gradient, taken = give_back(a, sum(leaks.values(), torch.zeros_like(next(iter(leaks.values())))), gradient)
        if strew:
            return self.close(a, gradient, leaks, taken)
        for cause, leak in leaks.items():
            self.ledger.book(cause, self.place, leak.masked_fill(~taken, 0), returned=True)
            self.book(cause, leak.masked_fill(taken, 0))
        return gradient

    def close(self, a: Tensor, gradient: Tensor, leaks: Mapping[str, Tensor], taken: Tensor) -> Tensor:
        r"""Book what was `taken` back; what was not is strewn among the entries of `a` of its place on the first axis.

        Each takes a share of $|a_i G_i|$, so that nothing gets relevance that had none; where nothing has, it is lost.
        """
        if a.device.type == "cpu" and bool(taken.all()):  # elsewhere the question would cost more than the answer
            for cause, leak in leaks.items():
                self.ledger.book(cause, self.place, leak, returned=True)
            return gradient
        left = {cause: leak.masked_fill(taken, 0) for cause, leak in leaks.items()}
        gradient, also = strewn(a, gradient, sum(left.values(), torch.zeros_like(next(iter(left.values())))))
        for cause, leak in leaks.items():
            self.ledger.book(cause, self.place, leak.masked_fill(~(taken | also), 0), returned=True)
            self.book(cause, left[cause].masked_fill(also, 0))
        return gradient
