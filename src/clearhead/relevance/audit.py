"""The second look: every operation under the leak meter, to name the one whose books do not balance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.config import Settings
from clearhead.relevance.engine import replay
from clearhead.relevance.ledger import Ledger, Place
from clearhead.relevance.meter import Tap, tapped
from clearhead.relevance.numerics import dot, infinite
from clearhead.relevance.run import AS_IS, Call, Row, Run, Straight, tensors
from clearhead.relevance.table import ROWS
from clearhead.tape import address


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Relevance that an operation lost without writing it down: a mistake in its rule."""

    operation: str
    module: str
    relevance: float


class Audit(Run):
    """A run that meters each call around its row, and notes where values or relevance first stop being finite.

    Slower than a plain run by the copies it makes; used only when a plain run's books do not balance.
    """

    def __init__(self, settings: Settings, model: nn.Module | None, rows: dict[str, Row] = ROWS) -> None:
        super().__init__(settings, model, rows)
        self.measured = Ledger()
        self.first_value: str | None = None
        self.first_relevance: str | None = None
        self._stack: list[Place] = []
        self._parents: dict[int, int | None] = {}
        self._places: dict[int, Place] = {}

    # ---- metering ----------------------------------------------------------------------------------------------

    def interpret(self, operation: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As a plain run does, and a look at what came out."""
        result = super().interpret(operation, function, args, kwargs)
        if self.first_value is None and not self._stack:
            self._look(operation.name, result)
        return result

    def apply(self, row: Row | None, call: Call) -> Any:
        """The row's result with a tap on everything that enters and leaves it."""
        with self._within(call) as place:
            entered = call.changed(self.entering)
            return self._left(super().apply(row, entered), place)

    def unmetered(self, call: Call) -> Any:
        """An operation that leaves the gradient to torch: metered as well, unless it hands out a view."""
        result = call.native()
        shared = {address(x) for x in call.dependents()}
        if call.operation.in_place or any(address(t) in shared for t in tensors(result)):
            return result
        return self.apply(AS_IS, call)

    def entering(self, x: Tensor) -> Tensor:
        """A copy that books what relevance leaves the current call through it, and is the same image."""
        place, image = self._stack[-1], self.image(x)

        def leaves(value: Tensor, gradient: Tensor) -> None:
            self._note(gradient, place)
            self.measured.book("measured", place, -dot(value, gradient))

        copy: Tensor = Tap.apply(x, leaves)
        self.remember(copy, image.root, image.at_zero)
        return copy

    def source(self, value: Tensor, indices: Tensor | None = None, first: int = 0, length: int | None = None) -> Tensor:
        """What a lookup hands out is not lost: it arrived at a source."""
        result = super().source(value, indices, first, length)
        return self.entering(result) if self._stack else result

    def straight(self, a: Tensor) -> Straight | None:
        """What goes past the gradient left the call as well, though the tap before it counts it as x times R."""
        found, place, held = super().straight(a), self._stack[-1], a.detach()
        if found is None:
            return None

        def told(relevance: Tensor) -> None:
            self.measured.book("measured", place, dot(held, relevance) - dot(torch.ones_like(held), relevance))

        return replace(found, told=told)

    def _left(self, result: Any, place: Place) -> Any:
        def arrives(value: Tensor, gradient: Tensor) -> None:
            self._note(gradient, place)
            self.measured.book("measured", place, dot(value, gradient))

        copy = tapped(result, arrives)
        if isinstance(copy, Tensor) and isinstance(result, Tensor) and (known := self.image(result)).root is not result:
            self.remember(copy, known.root, known.at_zero)
        return copy

    # ---- places ------------------------------------------------------------------------------------------------

    @contextmanager
    def _within(self, call: Call) -> Iterator[Place]:
        place = super().place(call)
        self._parents[place.call] = self._stack[-1].call if self._stack else None
        self._places[place.call] = place
        self._stack.append(place)
        try:
            yield place
        finally:
            self._stack.pop()

    def place(self, call: Call) -> Place:
        """What a row books belongs to the call that is being metered."""
        return self._stack[-1] if self._stack else super().place(call)

    def imbalances(self) -> list[Imbalance]:
        """What each call measured less what it and its parts wrote down, largest first."""
        measured, booked = self.measured.by_call(), self.ledger.by_call()
        open_: dict[int, float] = {n: measured.get(n, 0.0) for n in self._places}
        for n, amount in booked.items():
            ancestor: int | None = n
            while ancestor is not None:
                open_[ancestor] = open_.get(ancestor, 0.0) - amount
                ancestor = self._parents.get(ancestor)
        own = dict(open_)
        for n, parent in self._parents.items():
            if parent is not None:
                own[parent] -= open_[n]
        found = [Imbalance(self._places[n].operation, self._places[n].module, v) for n, v in own.items()]
        return sorted(found, key=lambda i: -abs(i.relevance))

    def _note(self, gradient: Tensor, place: Place) -> None:
        if self.first_relevance is None and not bool(torch.isfinite(gradient).all()):
            self.first_relevance = f"`{place.operation}` in module {place.module!r}"

    def _look(self, name: str, result: Any) -> None:
        if infinite(result):
            self.first_value = f"`{name}` in module {self.tape.module()!r}"


def audit(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], settings: Settings, *, model: nn.Module | None = None
) -> list[Imbalance]:
    """Every call whose measured leak differs from what its row wrote down, largest first."""
    run = Audit(settings, model)
    replay(run, function, inputs)
    return run.imbalances()
