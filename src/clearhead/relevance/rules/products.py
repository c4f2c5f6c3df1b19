"""Sums with constants, products and quotients: what is added keeps its share, what scales gets none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Ledger, Place
from clearhead.relevance.numerics import give_back, row_dot
from clearhead.relevance.rules.linear import bilinear
from clearhead.relevance.rules.pointwise import mark, one_function
from clearhead.relevance.run import Call, Row, Run, dependent


@dataclass(frozen=True, slots=True)
class Books:
    """What the backward pass of one sum needs to know: `y = factor x + constant`."""

    factor: float
    constant: Tensor
    cause: str
    returns: bool
    ledger: Ledger
    place: Place


class Shift(Function):
    r"""$y = kx + c$ with a constant c: $G_x = kG_y$, and $\sum c\,G_y$ leaks; returned to x in its row when asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, books: Books) -> Tensor:
        """Torch's own result, made in here: an input handed out again would count as a view of itself."""
        ctx.save_for_backward(x if books.returns else None)
        ctx.books = books
        return call.native()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The rule, the books, and what is handed back."""
        (x,) = ctx.saved_tensors
        books: Books = ctx.books
        passed = gradient * books.factor if books.factor != 1 else gradient
        rows = gradient if gradient.dim() else gradient.reshape(1)
        leak = row_dot(books.constant.expand_as(rows) if gradient.dim() else books.constant.reshape(1), rows)
        if books.returns:
            takers = x * (gradient != 0)  # entries that nothing reads, such as masked scores, take nothing
            row, value = (passed, takers) if gradient.dim() else (passed.reshape(1), takers.reshape(1))
            row, stranded = give_back(value, leak, row)
            passed = row.reshape(gradient.shape)
            books.ledger.book(books.cause, books.place, stranded)
            leak = leak - stranded
        books.ledger.book(books.cause, books.place, leak, returned=books.returns)
        return passed, None, None


def _shift(run: Run, call: Call, x: Tensor, factor: float, constant: Any) -> Tensor:
    """One dependent term and a constant one."""
    if isinstance(constant, Tensor):
        held, dtype = constant, torch.promote_types(x.dtype, constant.dtype) if constant.dim() else x.dtype
        x = x.to(dtype).expand(torch.broadcast_shapes(x.shape, constant.shape))
    else:
        held = torch.full((), float(constant), dtype=x.dtype, device=x.device)
    books = Books(factor, held, run.cause_of(constant), run.returns, run.ledger, run.place(call))
    return mark(run, call, Shift.apply(x, call.changed(Tensor.detach), books))


def add(run: Run, call: Call) -> Any:
    """`x + alpha * other`."""
    return _sum(run, call, 1.0, call.get(2, "alpha", 1))


def sub(run: Run, call: Call) -> Any:
    """`x - alpha * other`."""
    return _sum(run, call, 1.0, -call.get(2, "alpha", 1))


def rsub(run: Run, call: Call) -> Any:
    """`other - alpha * x`."""
    return _sum(run, call, -call.get(2, "alpha", 1), 1.0)


def _sum(run: Run, call: Call, first: float, second: float) -> Any:
    """`first * x + second * other`: two dependents are torch's own; a constant one is a leak."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if dependent(x) and dependent(other):
        return mark(run, call, call.native())
    if dependent(x):
        return _shift(run, call, x, first, _times(other, second))
    return _shift(run, call, other, second, _times(x, first))


def _times(constant: Any, factor: float) -> Any:
    return constant if factor == 1 else constant * factor


def mul(run: Run, call: Call) -> Any:
    """`x * other`: a constant passes; images of one tensor are one function; two dependents get half each."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if dependent(x) and dependent(other):
        whole = one_function(run, call, [x, other])
        return bilinear(run, call) if whole is None else whole
    return mark(run, call, call.native())


def div(run: Run, call: Call) -> Any:
    """`x / other`: the divisor is a constant."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if not dependent(other):
        return mark(run, call, call.native())
    kwargs = {name: value for name, value in call.kwargs.items() if name not in ("input", "other")}
    return call.function(x, other.detach(), **kwargs)


def detach(run: Run, call: Call) -> Tensor:
    """The model's own `detach`: a constant, remembered with its cause."""
    result: Tensor = call.native()
    run.detached[result] = True
    return result


ROWS = {
    "add": Row(add, "each term its share; a constant term leaks", ("constant", "detached")),
    "sub": Row(sub, "each term its share; a constant term leaks", ("constant", "detached")),
    "rsub": Row(rsub, "each term its share; a constant term leaks", ("constant", "detached")),
    "mul": Row(mul, "constants pass; f(x) g(x): one pointwise function; two dependents: half each"),
    "div": Row(div, "the divisor is a constant"),
    "detach": Row(detach, "a constant, remembered as detached"),
}
