"""Products with packed weights that only a kernel can read, and what is rounded to whole numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from clearhead.errors import ModelError
from clearhead.relevance.ledger import Account
from clearhead.relevance.meter import unruled
from clearhead.relevance.numerics import row_dot, stabilised
from clearhead.relevance.run import Call, Run
from clearhead.tape import OpaqueError, is_tensor, picked

NARROW = (torch.int8, torch.uint8, torch.int16)  # places and numbers of classes are wider
_PLAIN = (Tensor, nn.Parameter, nn.Buffer)


class RoundedError(OpaqueError, ModelError):
    """No gradient passes: inside a custom function its own backward stands in, elsewhere nothing does."""


def whole(run: Run, call: Call, result: Any) -> Any:
    """The result, unless it is what depends on the input as narrow whole numbers. Raises RoundedError."""
    if any(each.dtype in NARROW for each in picked((result,), is_tensor)):
        raise _rounded(run, call, "No gradient passes where activations are rounded to integers")
    return result


def _rounded(run: Run, call: Call, why: str) -> RoundedError:
    return RoundedError(
        f"{why}; `{call.operation.name}` in module {run.tape.module()!r} is such. Explain the model before it was "
        "quantised, or one whose weights are quantised but whose activations are not."
    )


def dense(weight: Tensor) -> Tensor:
    """The weight as a plain tensor, where a subclass of tensors holds it packed."""
    if type(weight) in _PLAIN:
        return weight
    with torch.no_grad():
        found: Tensor = weight.dequantize()  # type: ignore[no-untyped-call]
    return found.detach()


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
    """An operation without a row: a product with packed weights by the epsilon rule, any other under the leak meter."""
    dependents = list(call.dependents())
    packed = any(each.dtype in NARROW for each in picked((*call.args, *call.kwargs.values()), is_tensor))
    if len(dependents) != 1 or not packed or not dependents[0].dim():
        return whole(run, call, unruled(run, call))
    (a,) = dependents
    leaf = a.detach().clone().requires_grad_()
    z = call.changed(lambda _: leaf).native()
    if not isinstance(z, Tensor) or z.shape[:-1] != a.shape[:-1] or not z.is_floating_point():
        return whole(run, call, unruled(run, call))
    if not z.requires_grad:
        raise _rounded(run, call, "No gradient passes a kernel of packed numbers that has no way back")
    return Packed.apply(a, leaf, z, run.choice(call, a).absorbed, run.account(call))
