"""The second look at two inputs: every operation under the meter, to name the one whose books do not balance."""

from __future__ import annotations

from typing import Any

from clearhead.relevance.ledger import Ledger
from clearhead.relevance.numerics import infinite
from clearhead.relevance.run import Row
from clearhead.relevance.secant.meter import metered
from clearhead.relevance.secant.pairs import Pair, Pairs


class Audit(Pairs):
    """Meters each call round its row, and notes where values first stop being finite; slower by the copies it makes."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.measured = Ledger(self.batch)
        self.first_value: str | None = None
        self._within = 0

    def apply(self, row: Row | None, call: Pair) -> Any:
        """The row's result, metered from outside; what a row is made of is its own affair."""
        if self._within or call.operation.in_place:
            return super().apply(row, call)
        self._within += 1
        try:
            result = metered(self, call, lambda entered: super(Audit, self).apply(row, entered), self.measured)
        finally:
            self._within -= 1
        if self.first_value is None and infinite(result):
            self.first_value = f"`{call.operation.name}` in module {self.tape.module()!r}"
        return result

    def worst(self) -> str | None:
        """The call that lost most without writing it down."""
        place = self.measured.largest()
        return f"`{place.operation}` of module {place.module!r}" if place else None
