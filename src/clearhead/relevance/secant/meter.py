"""The leak meter for two inputs: what an operation loses of a difference, without knowing its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from clearhead.relevance.ledger import Ledger
from clearhead.relevance.meter import Tap
from clearhead.relevance.numerics import dot
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import picked


def metered(run: Pairs, call: Pair, apply: Callable[[Pair], Any], ledger: Ledger) -> Any:
    r"""What `apply` makes of the call, and $\sum (y - y_b)\,m_y - \sum (x - x_b)\,m_x$ in a ledger."""
    place = run.place(call)

    def book(change: Tensor, gradient: Tensor) -> None:
        ledger.book("unruled", place, dot(change, gradient, 1 if place.item is not None else run.batch))

    def entering(x: Tensor) -> Tensor:
        change = run.change(x)
        tap: Tensor = Tap.apply(x, lambda _, gradient: book(-change, gradient))
        other = run.other(x)
        return tap if other is None else run.pair(tap, other)

    mine = call.changed(entering)
    result = apply(Pair(call.operation, call.function, mine.args, mine.kwargs, call.other_args, call.other_kwargs))
    for each in list(picked((result,))):
        _when_known(each, run.change(each), book)
    return result


def _when_known(x: Tensor, change: Tensor, book: Callable[[Tensor, Tensor], None]) -> None:
    x.register_hook(lambda gradient: book(change, gradient))


def unruled(run: Pairs, call: Pair) -> Any:
    """An operation that no row covers: torch's gradient at the input."""
    return metered(run, call, lambda entered: run.paired(entered.native(), entered.other(), entered), run.ledger)
