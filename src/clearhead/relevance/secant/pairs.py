"""One forward pass of two inputs under the tape: torch computes the first, and beside each tensor lies the second's.

The model runs once, on the input. Each call is made a second time with what the baseline has in the place of its
arguments, so the two meet in every operation, whatever the layout, and only what a rule needs of both is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from clearhead.config import Settings
from clearhead.relevance.checkpointing import Moment, tape_of
from clearhead.relevance.ledger import Ledger, Place
from clearhead.relevance.rules.rounded import whole
from clearhead.relevance.run import OTHER, Call, Lookup, Owed, Row, unruled_at
from clearhead.relevance.secant.numerics import middle
from clearhead.tape import (
    Function,
    Keeper,
    Kept,
    Operation,
    address,
    constants_detached,
    given_back,
    is_tensor,
    mapped,
    picked,
    writes_in_place,
)

Vector = Literal["zero", "mean"]


@dataclass(slots=True)
class Pair(Call):
    """One call of one operation on the input, and the arguments that the baseline has in their places."""

    other_args: tuple[Any, ...] = ()
    other_kwargs: dict[str, Any] | None = None

    def other(self) -> Any:
        """What torch makes of the baseline."""
        return self.function(*self.other_args, **(self.other_kwargs or {}))

    def both(self, position: int, name: str, default: Any = None) -> tuple[Any, Any]:
        """An argument of the input and of the baseline."""
        if len(self.args) > position:
            return self.args[position], self.other_args[position]
        return self.kwargs.get(name, default), (self.other_kwargs or {}).get(name, default)

    def beside(self, function: Function, *args: tuple[Any, Any], **kwargs: Any) -> Pair:
        """Another call: of arguments as pairs, and of options that both have in common."""
        mine, others = tuple(zip(*args, strict=True)) if args else ((), ())
        return Pair(self.operation, function, mine, kwargs, others, kwargs)


class Pairs:
    """Interprets calls by the table of secants, and keeps what the baseline has beside each tensor of the input."""

    def __init__(
        self,
        settings: Settings,
        model: nn.Module | None,
        rows: dict[str, Row],
        *,
        batch: int = 1,
        vector: Vector = "zero",
    ) -> None:
        self.settings, self.rows, self.batch, self.vector = settings, rows, batch, vector
        self.item: int | None = None
        self.ledger = Ledger(batch)
        self.keeper = Keeper()
        self.lookups: list[Lookup] = []
        self.owing: list[Owed] = []
        self.parted: dict[Place, str] = {}
        self.tape = tape_of(self, model)
        self._others: Any = WeakTensorKeyDictionary()
        self._overwritten: dict[int, tuple[Tensor, Tensor]] = {}
        self._calls = 0

    # ---- two values --------------------------------------------------------------------------------------------

    def other(self, x: Tensor) -> Tensor | None:
        """What the baseline has in the place of a tensor; None if the same."""
        found: Tensor | None = self._others.get(x)
        if found is None and self._overwritten:
            constant = self._overwritten.get(address(x))
            if constant is not None and constant[0].dtype == x.dtype:
                return torch.as_strided(constant[1], x.shape, x.stride(), x.storage_offset())
        return found

    def middle(self, x: Tensor) -> Tensor:
        """The mean of what both have."""
        other = self.other(x)
        return x.detach() if other is None else middle(x.detach(), other)

    def change(self, x: Tensor) -> Tensor:
        """The input's value less the baseline's."""
        other = self.other(x)
        return torch.zeros_like(x) if other is None else x.detach() - other

    def pair(self, x: Tensor, other: Tensor) -> Tensor:
        """The input's tensor, with the baseline's beside it."""
        self._others[x] = other
        return x

    def paired(self, result: Any, other: Any, call: Call) -> Any:
        """The results of one call on both, tensor by tensor; where the two must not part, the input's for both."""
        if isinstance(result, Tensor):
            return self._joined(result, other, call)
        if isinstance(result, (list, tuple)):
            for mine, theirs in zip(result, other, strict=False):
                self.paired(mine, theirs, call)
        elif isinstance(result, (int, float, np.ndarray)) and np.any(np.not_equal(result, other)):
            self.part(call, "selection")
        return result

    def _joined(self, result: Tensor, other: Tensor, call: Call) -> Tensor:
        if result.requires_grad and result.shape == other.shape:
            self._others[result] = other
        elif result.shape != other.shape or not torch.equal(result, other):
            if result.shape == other.shape and not result.is_floating_point() and not self._floating(call):
                self._others[result] = other  # ids, and what is made of them
            else:
                self.part(call, "detached" if result.is_floating_point() and self._floating(call) else "selection")
        return result

    def _floating(self, call: Call) -> bool:
        """Is the call about vectors, with or without gradients, and not about ids?"""
        known = picked(
            call.args, lambda x: isinstance(x, Tensor) and x.is_floating_point() and self.other(x) is not None
        )
        return any(True for _ in known)

    def part(self, call: Call, cause: str) -> None:
        """Note that the two would go apart here: the baseline follows the input, which is not what it would do alone.

        What a user asks of the outputs is no part of the model: a target is chosen once, for both.
        """
        if self.item is None:
            self.parted.setdefault(self.place(call), cause)

    # ---- from call to row --------------------------------------------------------------------------------------

    def interpret(self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the tape calls for each operation."""
        given = args
        args, depends = constants_detached(args)
        if kwargs:
            values, also = constants_detached(tuple(kwargs.values()))
            kwargs, depends = dict(zip(kwargs, values, strict=True)), depends or also
        call = self._call(operation, function, args, kwargs)
        if call is None:
            if args and writes_in_place(operation, args, kwargs):
                self.keeper.spare(args[0])
            return given_back(function(*args, **kwargs), args, given)
        row = self.rows.get(operation.name)
        if row is None and operation.composite is not None:
            return self.tape.under(operation.composite, *args, **kwargs)
        writes = writes_in_place(operation, args, kwargs)
        if writes:
            self._will_be_written(call)
            self.keeper.spare(call.args[0])
            self.keeper.spare(call.other_args[0])
        if not depends and not (row is not None and row.always):
            return self.paired(call.native(), call.other(), call)
        if writes and not (row is not None and row.writes):
            return self._in_place(row, call)
        return whole(self.tape, call, self.apply(row, call))

    def apply(self, row: Row | None, call: Pair) -> Any:
        """The result of one call under its row; without a row, torch's own under the leak meter."""
        if row is None and self.settings.strict:
            raise unruled_at(self.place(call))
        return (row or self.rows[OTHER]).apply(self, call)

    def _call(
        self, operation: Operation, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Pair | None:
        """The call on both; None if both have the same arguments."""
        values = (*args, *kwargs.values())
        tensors = list(picked(values, is_tensor))
        others = {id(x): other for x in tensors if (other := self.other(x)) is not None}
        if any(x.requires_grad and id(x) not in others for x in tensors):
            self._unseen([x for x in tensors if x.requires_grad and id(x) not in others], operation, others)
        if not others:
            return None
        call = Pair(operation, function, args, kwargs)
        floats = any(x.requires_grad for x in tensors)
        beside = [x for x in tensors if not x.requires_grad and id(x) in others]
        if floats and operation.name != "embedding" and beside:
            # A mask or an index that is made of ids, or what was computed without gradients, meets what depends.
            self.part(call, "detached" if any(x.is_floating_point() for x in beside) else "selection")
            others = {id(x): others[id(x)] for x in tensors if x.requires_grad}

        def swap(value: Any) -> Any:
            return mapped(value, lambda x: others.get(id(x), x), where=is_tensor)

        call.other_args = tuple(swap(value) for value in args)
        call.other_kwargs = {name: swap(value) for name, value in kwargs.items()}
        return call

    def _unseen(self, tensors: Sequence[Tensor], operation: Operation, others: dict[int, Tensor]) -> None:
        """What came out of code that no tape sees: what the baseline makes of it is unknown, so nothing passes."""
        for x in tensors:
            x.register_hook(torch.zeros_like)
            self.part(Call(operation, operation.out_of_place or torch.clone, (), {}), "unruled")
            others[id(x)] = self._others[x] = x.detach()

    # ---- writing -----------------------------------------------------------------------------------------------

    def _will_be_written(self, call: Pair) -> None:
        """A constant that is overwritten stops being one, and with it all that shares its memory."""
        written = call.args[0] if call.args else None
        if not isinstance(written, Tensor) or call.other_args[0] is not written:
            return
        whole = written.detach().new_empty(0).set_(written.untyped_storage())
        self._overwritten[written.untyped_storage().data_ptr()] = (whole, whole.clone())
        other = self.other(written)
        call.other_args = (other, *call.other_args[1:])

    def _in_place(self, row: Row | None, call: Pair) -> Any:
        """Compute beside, by the row, then write both results where the model expects them."""
        (written, *rest), (other, *others) = call.args, call.other_args
        kwargs, flag = dict(call.kwargs), call.operation.in_place_argument
        if flag is not None and len(call.args) > flag:
            rest[flag - 1] = others[flag - 1] = False
        elif flag is not None:
            kwargs["inplace"] = False
        function = call.operation.out_of_place or call.function
        theirs = {**(call.other_kwargs or {}), **{k: v for k, v in kwargs.items() if k == "inplace"}}
        copies = self.pair(written.clone(), other.clone()), other.clone()
        pure = Pair(call.operation, function, (copies[0], *rest), kwargs, (copies[1], *others), theirs)
        result = self.apply(row, pure)
        after = self.other(result)
        written.copy_(result)
        other.copy_(result.detach() if after is None else after)
        return self.pair(written, other)

    # ---- what rows share ---------------------------------------------------------------------------------------

    def place(self, call: Call) -> Place:
        """Where the call stands; asked only by rows that have something to book."""
        self._calls += 1
        return Place(call.operation.name, self.tape.module(), self._calls, self.item)

    def source(self, value: Tensor, other: Tensor | None = None, indices: Tensor | None = None) -> Tensor:
        """Begin here: the model goes on with a copy of a new leaf, beside which the baseline's value lies."""
        name = self.tape.module() if indices is not None else ""
        leaf = value.detach().clone().requires_grad_()
        other = leaf.detach() if other is None else other.detach().clone()
        self.lookups.append(Lookup(leaf, name, indices, base=other))
        return self.pair(leaf.clone(), other.clone())

    # ---- calls that are made again -----------------------------------------------------------------------------

    def moment(self) -> Moment:
        """Where the run is in its pass."""
        return Moment(self._calls, self.item, tuple(self.lookups), dict(self._overwritten))

    def resume(self, moment: Moment) -> None:
        """Go on from there."""
        self._calls, self.item, self.lookups = moment.calls, moment.item, list(moment.lookups)
        self._overwritten = dict(moment.rest)

    def known(self, x: Tensor) -> Kept | None:
        """What the baseline has in the place of a tensor."""
        other = self.other(x)
        return None if other is None else self.keeper.keep(other)

    def tell(self, copy: Tensor, known: Kept | None, instead: Mapping[int, Tensor]) -> None:
        """The baseline has the same in the place of a copy."""
        if known is not None:
            self.pair(copy, known.value)

    def known_by(self, x: Tensor) -> tuple[Tensor, ...]:
        """Nothing: what the baseline has is no part of the graph."""
        return ()
