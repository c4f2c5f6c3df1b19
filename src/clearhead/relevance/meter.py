"""The leak meter: what any operation loses, ruled or not, without knowing its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from clearhead.relevance.numerics import dot, row_dot
from clearhead.tape import Kept

if TYPE_CHECKING:
    from clearhead.relevance.run import Call, Run

Seen = Callable[[Tensor, Tensor], "Tensor | None"]


class Tap(Function):
    """A copy of a tensor that shows value and gradient to `seen` on the way back; what that returns goes on instead."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Seen) -> Tensor:
        """A fresh tensor: handing out the input itself would break models that write in place."""
        ctx.save_for_backward(x)
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Show, and pass on."""
        (x,) = ctx.saved_tensors
        instead = ctx.seen(x, gradient)
        return (gradient if instead is None else instead), None


class EntryTap(Function):
    """A tap before an operation: what it shows was the model's own and is `kept`, for the model may overwrite it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Seen, kept: Kept) -> Tensor:
        """The copy that only the operation sees."""
        ctx.seen, ctx.kept = seen, kept
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Show, and pass on."""
        instead = ctx.seen(ctx.kept.take(), gradient)
        return (gradient if instead is None else instead), None, None


class Scale(Function):
    """A copy of a tensor whose gradient is scaled on the way back."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, factor: float) -> Tensor:
        """A fresh tensor of the same value."""
        ctx.factor = factor  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The share of it."""
        return gradient * ctx.factor, None


def owned(result: Tensor) -> Tensor:
    """The same memory in a tensor that is no view, so that a model may overwrite it and its hooks stay with it."""
    return torch.ops.aten._unsafe_view.default(result, result.shape) if result._is_view() else result


def hooked(result: Tensor, seen: Callable[[Tensor], Tensor | None]) -> Tensor:
    """The result, with `seen` on its gradient."""
    result = owned(result)
    if result.requires_grad:
        result.register_hook(seen)
    return result


def arriving(result: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
    """The result, whose gradient is shown to `seen`, flat where a view hides a flat one; the model may overwrite it."""
    base = result._base
    node = (result if base is None else base).grad_fn
    if node is not None:
        node.register_prehook(lambda gradients: seen(gradients[0]))
    return result


def tapped(result: Any, seen: Seen) -> Any:
    """The result with a tap on each of its tensors that carries a gradient."""
    if isinstance(result, Tensor):
        return Tap.apply(result, seen) if result.requires_grad else result
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(tapped(item, seen) for item in result))
    if isinstance(result, tuple) and type(result) is not tuple:  # torch.return_types take one sequence
        return type(result)([tapped(item, seen) for item in result])
    if isinstance(result, (list, tuple)):
        return type(result)([tapped(item, seen) for item in result])
    return result


def metered(run: Run, call: Call, cause: str, *, share: float = 1.0) -> Any:
    r"""Torch's own result, and $\sum y G_y - \sum x G_x$ in the ledger under `cause`.

    With a `share`, each dependent input gets that part of torch's own gradient.
    """
    account = run.account(call)

    def arrives(y: Tensor, gradient: Tensor) -> None:
        account.book(cause, dot(y, gradient, account.batch))

    def leaves(x: Tensor, gradient: Tensor) -> None:
        account.book(cause, -dot(x, gradient, account.batch))

    def enter(x: Tensor) -> Tensor:
        tap: Tensor = EntryTap.apply(x, leaves, run.keeper.keep(x))
        return tap if share == 1 else Scale.apply(tap, share)

    return tapped(call.changed(enter).native(), arrives)


def unruled(run: Run, call: Call) -> Any:
    """An operation that no row covers."""
    return metered(run, call, "unruled")


def metered_rows(run: Run, call: Call, cause: str) -> Tensor:
    """Like `metered` for an operation with one dependent input of its output's shape; returns leaks when asked to.

    A position is a row along the last axis; entries that came out as 0 (masked scores) take nothing.
    """
    if not run.returns:
        return metered(run, call, cause)  # type: ignore[no-any-return]
    account = run.account(call)
    arrived: list[tuple[Tensor, Tensor]] = []

    def arrives(y: Tensor, gradient: Tensor) -> None:
        arrived.append((row_dot(y, gradient), y))

    def leaves(x: Tensor, gradient: Tensor) -> Tensor:
        full, y = arrived.pop()
        takers = torch.where(torch.isfinite(x) & (y != 0), x, 0)
        return account.settle(takers, gradient.clone(), {cause: full - row_dot(x, gradient)})

    return tapped(call.changed(lambda x: EntryTap.apply(x, leaves, run.keeper.keep(x))).native(), arrives)  # type: ignore[no-any-return]
