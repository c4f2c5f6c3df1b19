"""Products with packed weights, which only a kernel can read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import unruled
from clearhead.relevance.numerics import row_dot, stabilised
from clearhead.relevance.rules import layers
from clearhead.relevance.rules.linear import Dense
from clearhead.relevance.rules.rounded import NARROW, rounded, whole
from clearhead.relevance.run import Call, Run, unruled_at
from clearhead.tape import is_tensor, picked


class Packed(Function):
    r"""$z = Wa + b$ for a W that cannot be read, under the epsilon rule, by the kernel's own way back.

    What leaks beside epsilon is measured per position, $\sum_j z_j G'_j - \sum_i a_i G_i$: the bias, and what the
    kernel rounds.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, leaf: Tensor, z: Tensor, epsilon: float, account: Account) -> Tensor:
        """What the kernel made of the leaf, which stands for a."""
        ctx.epsilon, ctx.account, ctx.leaf, ctx.z = epsilon, account, leaf, z
        return z.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The rule, the books, and what is handed back."""
        a, z, leaks = ctx.leaf.detach(), ctx.z.detach(), {}
        if ctx.epsilon:
            gradient, leaks["epsilon"] = stabilised(gradient, z, ctx.epsilon)
        (passed,) = torch.autograd.grad(ctx.z, ctx.leaf, gradient, retain_graph=True)
        leaks["bias"] = row_dot(z, gradient) - row_dot(a, passed)
        return ctx.account.settle(a, passed.clone(), leaks), None, None, None, None


def other(run: Run, call: Call) -> Any:
    """An operation without a row: a product with packed weights by the rule of its layer, any other by its gradient."""
    found = _product(run, call)
    if found is not None:
        return found
    if run.settings.strict:
        raise unruled_at(run.place(call))
    return whole(run.tape, call, unruled(run, call))


def _product(run: Run, call: Call) -> Tensor | None:
    """What a kernel makes of rows [..., i] and packed numbers, rows [..., o]; None for any other call."""
    dependents = list(call.dependents())
    packed = any(each.dtype in NARROW for each in picked((*call.args, *call.kwargs.values()), is_tensor))
    if len(dependents) != 1 or not packed or not dependents[0].dim():
        return None
    (a,) = dependents
    leaf = a.detach().clone().requires_grad_()
    z = call.changed(lambda _: leaf).native()
    if not isinstance(z, Tensor) or z.shape[:-1] != a.shape[:-1] or not z.is_floating_point():
        return None
    if not z.requires_grad:
        raise rounded(run.tape, call)
    choice = run.choice(call, a)
    if choice.rule in layers.SHARES:
        return layers.propagate(run, call, a, _read(call, a), choice)
    return Packed.apply(a, leaf, z, choice.absorbed, run.account(call))  # type: ignore[no-any-return]


def _read(call: Call, a: Tensor) -> Dense:
    """The layer that a kernel is, by what it makes of nothing and of the unit vectors."""
    with torch.no_grad():
        units = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        rows = torch.cat([torch.zeros_like(units[:1]), units]).reshape(*[1] * (a.dim() - 2), -1, a.shape[-1])
        made = call.changed(lambda _: rows).native()
        made = made.reshape(-1, made.shape[-1])
        return Dense((made[1:] - made[0]).T.contiguous(), made[0])
