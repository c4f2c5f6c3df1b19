"""Convolutions of any dimension, grouped, dilated, transposed: linear layers whose outputs each see a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from clearhead.relevance.ledger import Account, total
from clearhead.relevance.numerics import fair_shares, stabilised_entries
from clearhead.relevance.rules import layers
from clearhead.relevance.run import Call, Row, Run
from clearhead.tape import dependent


class Convolution(Function):
    r"""$z = w * a + b$ under the epsilon rule, as for a linear layer.

    What an output leaks, $G'_j (b_j + \epsilon\,\mathrm{sign} z_j)$, goes back to the inputs in its window in shares
    of $|a_i|$ when asked. Montavon et al. 2019, "Layer-Wise Relevance Propagation: An Overview".
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, call: Call, weight: Tensor, bias: Tensor | None, epsilon: float, account: Account
    ) -> Tensor:
        """Torch's own result; the window of each output is remembered as the graph of the call without its bias."""
        z: Tensor = call.native()
        ctx.call, ctx.epsilon, ctx.account = call, epsilon, account
        ctx.save_for_backward(weight, bias)
        ctx.a, ctx.z = account.keeper.keep(a), account.keep(z, when=bool(epsilon))
        return z

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The rule, the books, and what is handed back."""
        weight, bias = ctx.saved_tensors
        a, account = ctx.a.value, ctx.account
        leaks = {}
        if ctx.epsilon:
            gradient, leaks["epsilon"] = stabilised_entries(gradient, ctx.z.value, ctx.epsilon)
        if bias is not None:
            leaks["bias"] = gradient * bias.reshape(-1, *[1] * (weight.dim() - 2))
        _, passed = _linear(ctx.call, a, weight, gradient)
        return _settled(ctx.call, account, a, weight, passed, leaks), None, None, None, None, None


@dataclass(frozen=True, slots=True)
class Windows:
    """A convolution as the other rules see it: each output has a window, and `like` the shape of what it reads."""

    call: Call
    like: Tensor
    weight: Tensor
    bias: Tensor | None

    def seen(self, a: Tensor, weight: Tensor) -> Tensor:
        """$w * a$."""
        return _linear(self.call, a, weight, None)[0]

    def sent(self, s: Tensor, weight: Tensor) -> Tensor:
        """What the windows send back."""
        return _linear(self.call, self.like.to(s.dtype), weight, s)[1]

    def settle(self, account: Account, a: Tensor, passed: Tensor, leaks: Mapping[str, Tensor]) -> Tensor:
        """What leaked from an output goes back to its window."""
        return _settled(self.call, account, a, self.weight, passed, leaks)


def _settled(
    call: Call, account: Account, a: Tensor, weight: Tensor, passed: Tensor, leaks: Mapping[str, Tensor]
) -> Tensor:
    """Book what each output leaked; if it is returned, add it to the gradient of the inputs in its window.

    What leaked from a window in which nothing is goes to all that carries relevance.
    """
    if not account.returns or not leaks:
        for cause, leak in leaks.items():
            account.book(cause, leak)
        return passed
    ones = torch.ones_like(weight, dtype=a.dtype)
    sizes, _ = _linear(call, a.abs(), ones, None)
    share, taken = fair_shares(total(leaks), sizes)
    _, spread = _linear(call, a.abs(), ones, share)
    return account.close(a, torch.addcmul(passed, a.sign(), spread), leaks, taken)


def _linear(call: Call, a: Tensor, weight: Tensor, gradient: Tensor | None) -> tuple[Tensor, Tensor]:
    """The call without bias on `a` and `weight`, and the gradient it sends to `a`."""
    options = {name: value for name, value in call.kwargs.items() if name not in ("input", "weight", "bias")}
    with torch.enable_grad():
        leaf = a.detach().requires_grad_()
        z: Tensor = call.function(leaf, weight, None, *call.args[3:], **options)
    if gradient is None:
        return z.detach(), z
    return z.detach(), torch.autograd.grad(z, leaf, gradient)[0]


def convolution(run: Run, call: Call) -> Any:
    """`F.conv1d` to `F.conv_transpose3d`: (a, weight, bias, ...)."""
    a, weight, bias = call.get(0, "input"), call.get(1, "weight"), call.get(2, "bias")
    if dependent(weight) or dependent(bias) or not dependent(a):
        return run.apply(None, call)
    choice = run.choice(call, a)
    if choice.rule in layers.SHARES:
        shaped = None if bias is None else bias.reshape(-1, *[1] * (weight.dim() - 2))
        held = call.changed(Tensor.detach)
        return layers.propagate(run, call, a, Windows(held, a.detach(), weight, shaped), choice)
    epsilon = choice.absorbed
    if not epsilon and bias is None:
        return call.native()
    return Convolution.apply(a, call.changed(Tensor.detach), weight, bias, epsilon, run.account(call))


_NAMES = "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split()
ROWS = {
    name: Row(convolution, "the epsilon rule in each window: G_a = w^T * (G z / (z + eps sign z))", ("bias", "epsilon"))
    for name in _NAMES
}
