"""The leak meter for two inputs: what an operation loses of a difference, without knowing its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import Tap
from clearhead.relevance.numerics import dot
from clearhead.relevance.secant.pairs import Pair, Pairs
from clearhead.tape import Keeper


def metered(run: Pairs, call: Pair, apply: Callable[[Pair], Any], cause: str) -> Any:
    r"""What `apply` makes of the call, and $\sum (y - y_b)\,m_y - \sum (x - x_b)\,m_x$ in the ledger under `cause`."""
    account = Account(run.ledger, run.place(call), False, Keeper())

    def tap(x: Tensor, sign: int) -> Tensor:
        other = run.other(x)
        if other is None:
            return x
        change = x.detach() - other
        seen: Tensor = Tap.apply(x, lambda _, gradient: account.book(cause, sign * dot(change, gradient, run.batch)))
        return run.pair(seen, other)

    entered = call.changed(lambda x: tap(x, -1))
    result = apply(
        Pair(call.operation, call.function, entered.args, entered.kwargs, call.other_args, call.other_kwargs)
    )
    if isinstance(result, Tensor):
        return tap(result, 1) if result.requires_grad else result
    if isinstance(result, (list, tuple)):
        for each in result:
            if isinstance(each, Tensor) and each.requires_grad and (other := run.other(each)) is not None:
                _watch(each, each.detach() - other, lambda change, g: account.book(cause, dot(change, g, run.batch)))
    return result


def _watch(x: Tensor, change: Tensor, seen: Callable[[Tensor, Tensor], None]) -> None:
    x.register_hook(lambda gradient: seen(change, gradient))


def unruled(run: Pairs, call: Pair) -> Any:
    """An operation that no row covers: torch's gradient at the input."""
    return metered(run, call, lambda entered: run.paired(entered.native(), entered.other(), entered), "unruled")
