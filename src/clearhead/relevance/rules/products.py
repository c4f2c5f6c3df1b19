"""Sums with constants, products and quotients: what is added keeps its share, what scales gets none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.graph import computed_from
from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import owned
from clearhead.relevance.numerics import row_dot
from clearhead.relevance.rules.linear import bilinear
from clearhead.relevance.rules.pointwise import mark, one_function
from clearhead.relevance.run import Call, Row, Run
from clearhead.tape import Keeper, Kept, dependent


@dataclass(frozen=True, slots=True)
class Term:
    """The constant in `y = factor x + constant`, and why it is one."""

    factor: float
    constant: Kept
    cause: str


class Shift(Function):
    r"""$y = kx + c$ with a constant c: $G_x = kG_y$, and $\sum c\,G_y$ leaks; returned to x in its row when asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, term: Term, account: Account) -> Tensor:
        """Torch's own result, made in here: an input handed out again would count as a view of itself."""
        ctx.x, ctx.term, ctx.account = account.keep(x, when=account.returns), term, account
        return call.native()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The rule, the books, and what is handed back."""
        term: Term = ctx.term
        rows = gradient if gradient.dim() else gradient.reshape(1)
        held = term.constant.take()
        constant = held if held.dim() else held.reshape(1)
        leaks = {term.cause: row_dot(constant.expand_as(rows), rows)}
        # Entries that nothing reads, such as masked scores, take nothing.
        takers = ctx.x.take().reshape(rows.shape) * (rows != 0) if ctx.x else None
        passed = rows * term.factor  # a fresh tensor: what is handed back is added in place
        return ctx.account.settle(takers, passed, leaks, strew=True).reshape(gradient.shape), None, None, None


def _shift(run: Run, call: Call, x: Tensor, factor: float, constant: Any) -> Tensor:
    """One dependent term and a constant one."""
    if isinstance(constant, Tensor):
        held, dtype = constant, torch.promote_types(x.dtype, constant.dtype) if constant.dim() else x.dtype
        x = x.to(dtype).expand(torch.broadcast_shapes(x.shape, constant.shape))
    else:
        held = torch.full((), float(constant), dtype=x.dtype, device=x.device)
    term = Term(factor, run.keeper.keep(held), run.cause_of(constant))
    return mark(run, call, Shift.apply(x, call.changed(Tensor.detach), term, run.account(call)))


class Residual(Function):
    r"""$y = a + b$ with shares $w(z)\,z$, $w(z) = 1 + \gamma$ where z has the sign of y and else 1.

    With $s = (|y| + |a| + |b|)/2$, the size of what has the sign of y, $h = G\,|y|/(|y| + \gamma s)$ and
    $G_a = w(a)\,h$; G where both terms are 0. Exact, no larger than $(1 + \gamma)G$, and
    $|R_a| + |R_b| \leq (1 + 2/\gamma)|R_y|$. It is the gamma rule of a layer whose two weights are 1; Montavon et
    al. 2019.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, call: Call, factor: float, gamma: float, keeper: Keeper) -> Tensor:
        """Torch's own result; b is `factor` times the second argument."""
        y: Tensor = owned(call.native())
        ctx.kept, ctx.factor, ctx.gamma = [keeper.keep(x) for x in (a, b, y)], factor, gamma
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The shares of both terms."""
        wide = torch.promote_types(gradient.dtype, torch.float32)
        a, b, y = (kept.take().to(wide) for kept in ctx.kept)
        b = b * ctx.factor
        size = y.abs()
        agreeing = (size + a.abs() + b.abs()) / 2
        whole = (size / (size + ctx.gamma * agreeing)).nan_to_num_(nan=1.0) * gradient
        first, second = (torch.where(z * y > 0, whole * (1 + ctx.gamma), whole) for z in (a, b))
        kind = gradient.dtype
        return first.to(kind), second.to(kind) * ctx.factor, None, None, None, None


def _residual(run: Run, call: Call, factor: float) -> Tensor | None:
    """The sum of a residual path under its rule: one term was computed from the other, entry by entry added to it."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if x.shape != other.shape or x.dtype != other.dtype or run.image(x).root is run.image(other).root:
        return None
    if not (computed_from(other, x) or computed_from(x, other)):
        return None
    held = call.changed(Tensor.detach)
    return Residual.apply(x, other, held, factor, run.settings.residual_gamma, run.keeper)  # type: ignore[no-any-return]


def add(run: Run, call: Call) -> Any:
    """`x + alpha * other`; in a residual path by the rule of these."""
    if run.settings.residual_rule == "gamma" and dependent(call.get(0, "input")) and dependent(call.get(1, "other")):
        found = _residual(run, call, call.get(2, "alpha", 1))
        if found is not None:
            return found
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
        args = (run.own(x, other), run.own(other, x))
        return mark(run, call, call.function(*args, *call.args[2:], **_without_terms(call)))
    moving, constant = (x, other) if dependent(x) else (other, x)
    if by_position(run, moving, constant):
        vectors = run.source(constant.unsqueeze(0) if run.batch > 1 and constant.dim() == 2 else constant)
        args = (moving, vectors) if dependent(x) else (vectors, moving)
        return call.function(*args, *call.args[2:], **_without_terms(call))
    if dependent(x):
        return _shift(run, call, x, first, _times(other, second))
    return _shift(run, call, other, second, _times(x, first))


def by_position(run: Run, moving: Tensor, constant: object) -> bool:
    """Is the constant one learned vector per position, such as a position embedding? Then it is a source."""
    if not isinstance(constant, Tensor) or not 2 <= constant.dim() <= moving.dim() <= 3 or moving.dim() < 2:
        return False
    fits = (
        constant.shape[-2:] == moving.shape[-2:]
        and constant.shape[-2] > 1
        and constant.numel() == constant.shape[-2:].numel()
    )
    return (
        fits
        and constant.is_floating_point()
        and run.learned(constant) is not None
        and bool(constant.abs().amax() < 1e4)
    )


def _times(constant: Any, factor: float) -> Any:
    return constant if factor == 1 else constant * factor


def mul(run: Run, call: Call) -> Any:
    """`x * other`: a constant passes; images of one tensor are one function; two dependents get half each."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if dependent(x) and dependent(other):
        whole = one_function(run, call, [x, other])
        return _product(run, call, x, other) if whole is None else whole
    return mark(run, call, call.native())


def _product(run: Run, call: Call, x: Tensor, other: Tensor) -> Tensor:
    """Half to each factor. Torch keeps both, so a layer that reads the product need not keep that too."""
    y: Tensor = bilinear(run, call)
    if run.returns and x.shape == other.shape:
        run.keeper.make(y, torch.mul, run.keeper.keep(x), run.keeper.keep(other))
    return y


def div(run: Run, call: Call) -> Any:
    """`x / other`: the divisor is a constant."""
    x, other = call.get(0, "input"), call.get(1, "other")
    if call.kwargs.get("rounding_mode") is not None:
        return run.apply(None, call)
    if not dependent(other):
        return mark(run, call, call.native())
    return call.function(x, other.detach(), **_without_terms(call))


def _without_terms(call: Call) -> dict[str, Any]:
    return {name: value for name, value in call.kwargs.items() if name not in ("input", "other")}


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
